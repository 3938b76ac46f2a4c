# Attributes of other targets and groups.
target "default" {
  inherits = ["base"]
  context  = target.base.context
  args = {
    name   = target.base.name
    arg    = target.base.args.A
    tag    = target.base.tags[0]
    unset  = target.base.target == null ? "unset" : "set"
    output = jsonencode(group.all.targets)
    later  = target.later.args.X
  }
  tags = concat(target.base.tags, ["${target.base.tags[0]}-own"])
}
target "base" {
  context = "dir"
  args    = { A = "a" }
  tags    = ["base:1"]
}
target "later" { args = { X = "${target.base.args.A}x" } }
group "all" { targets = ["base", "later"] }
