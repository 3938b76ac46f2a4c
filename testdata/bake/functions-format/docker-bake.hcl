# The verbs of format.
target "default" {
  args = {
    format = jsonencode([
      format("%s-%d", "a", 5),
      format("%v %v %v %v", 1.5, "x", true, null),
      format("%#v %v", { a = 1 }, [1, "x"]),
      format("%5s|%-5s|%05d|%+d|% d", "a", "b", 42, 3, 4),
      format("%.2f|%8.3f|%f", 3.14159, 2.5, 1),
      format("%x %X %o %b", 255, 255, 8, 5),
      format("%q %t", "a\"b", true),
      format("100%%"),
      format("%[2]s %[1]s", "a", "b"),
      format("%s", 1.50),
      format("%e %g", 12345.678, 0.5),
      format("%.3s", "abcdef"),
    ])
    formatlist = jsonencode([formatlist("%s-%d", ["a", "b"], [1, 2]), formatlist("%s:%s", "x", ["a", "b"]), formatlist("c")])
  }
}
