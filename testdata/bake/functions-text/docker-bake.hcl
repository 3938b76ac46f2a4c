# Functions on texts.
target "default" {
  args = {
    basename      = jsonencode([basename("/a/b.txt"), basename("a/"), basename(""), basename("/")])
    chomp         = jsonencode([chomp("a\n"), chomp("a\r\n\n"), chomp("a")])
    dirname       = jsonencode([dirname("/a/b.txt"), dirname("b"), dirname("/a/"), dirname("")])
    indent        = indent(2, "a\nb\n\nc")
    join          = jsonencode([join("-", ["a", "b"], ["c"]), join(",", [])])
    lower         = lower("ÄB")
    regex         = jsonencode([regex("[a-z]+", "12ab34cd"), regex("([a-z])([0-9])", "x1"), regex("(?P<l>[a-z])(?P<d>[0-9])", "x1")])
    regex_replace = jsonencode([regex_replace("hello", "l+", "L"), regex_replace("v1.2", "v([0-9]+)\\.([0-9]+)", "$${2}-$1")])
    regexall      = jsonencode([regexall("[a-z]", "1a2b"), regexall("([a-z])([0-9])", "a1b2"), regexall("x", "y")])
    replace       = replace("a.b.c", ".", "-")
    reverse       = reverse("abc")
    sanitize      = sanitize("v1.2/β x_y-z")
    split         = jsonencode([split(",", "a,b,,c"), split(",", ""), split("", "ab")])
    strlen        = strlen("né")
    substr        = jsonencode([substr("hello", 1, 3), substr("hello", -3, 2), substr("hello", 1, -1), substr("hello", 3, 99), substr("hello", 9, 1)])
    title         = title("hello wORLD of_bake it's")
    trim          = trim("?!hello?!", "!?")
    trimprefix    = jsonencode([trimprefix("v1.2", "v"), trimprefix("1.2", "v")])
    trimspace     = trimspace(" \t a b \n")
    trimsuffix    = trimsuffix("app.git", ".git")
    upper         = upper("äb")
  }
}
