# Groups of groups, and patterns on the command line.
group "all" { targets = ["web", "tools", "web"] }
group "tools" {
  description = "Small things"
  targets     = ["tool-a", "tool-b"]
}
target "web" {}
target "tool-a" { dockerfile-inline = "FROM scratch\nENV A=$${B}" }
target "tool-b" { call = "check" }
target "unused" {}
