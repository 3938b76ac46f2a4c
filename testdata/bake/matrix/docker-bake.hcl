# A matrix makes a target of each combination.
variable "BASE" { default = "alpine" }
group "default" { targets = ["app", "tool"] }
target "app" {
  name   = "app-${os}-${sanitize(item.version)}"
  matrix = {
    os   = [BASE, "debian"]
    item = [{ version = "1.2", extra = "x" }, { version = "1.3", extra = "y" }]
  }
  dockerfile = "${os}.Dockerfile"
  args = { VERSION = item.version, EXTRA = item.extra }
  tags = ["example/app:${item.version}-${os}"]
}
target "tool" {
  name     = "tool-${v}"
  matrix   = { v = range(1, 4) }
  inherits = ["common"]
  args     = { V = v }
}
target "common" {
  args   = { C = 1 }
  labels = { made = "by bake" }
}
target "user" {
  contexts = { base = "target:tool-2" }
  args     = { FROM = target.tool-1.args.V }
}
