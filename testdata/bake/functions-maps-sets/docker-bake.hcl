# Functions on maps and sets.
variable "AB" {
  type    = set(string)
  default = ["b", "a"]
}
variable "BC" {
  type    = set(string)
  default = ["b", "c"]
}
variable "M" {
  type    = map(number)
  default = { a = 1, b = 2 }
}
target "default" {
  args = {
    keys                   = jsonencode(keys({ b = 1, a = 2 }))
    lookup                 = jsonencode([lookup(M, "a", 9), lookup({ a = 1 }, "b", 9)])
    merge                  = jsonencode([merge({ a = 1, b = 2 }, { b = "x" }, { c = [1] }), merge(M, M)])
    values                 = jsonencode([values({ b = 1, a = "x" }), values(M)])
    zipmap                 = jsonencode(zipmap(["a", "b"], [1, "x"]))
    hasindex               = jsonencode([hasindex(M, "a"), hasindex(M, "z")])
    index                  = index(M, "b")
    sethaselement          = jsonencode([sethaselement(AB, "a"), sethaselement(AB, "z")])
    setintersection        = jsonencode(setintersection(AB, BC))
    setproduct             = jsonencode([setproduct(["a", "b"], ["x", "y"]), setproduct(AB, BC)])
    setsubtract            = jsonencode(setsubtract(AB, BC))
    setsymmetricdifference = jsonencode(setsymmetricdifference(AB, BC))
    setunion               = jsonencode(setunion(AB, BC))
    convert                = jsonencode([convert(["1", 2], list(number)), convert("true", bool)])
    try                    = jsonencode([try({}.a, "none"), try("first", "second")])
    can                    = jsonencode([can({}.a), can("x")])
  }
}
