# Functions of the file.
variable "PREFIX" { default = "registry.example" }
function "image" {
  params = [name]
  result = "${PREFIX}/${name}:${version(1)}"
}
function "version" {
  params = [n]
  result = n + 1
}
function "joined" {
  params          = [separator]
  variadic_params = parts
  result          = join(separator, [for p in parts : upper(p)])
}
target "default" {
  tags = [image("app"), joined("-", "a", "b"), joined("x")]
  args = { N = version(version(1)), L = joined("+", ["q", "r"]...) }
}
