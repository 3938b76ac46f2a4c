# Targets as contexts of other targets.
target "base" {
  dockerfile   = "base.Dockerfile"
  entitlements = ["network.host"]
  output       = ["type=docker"]
}
target "middle" { contexts = { base = "target:base" } }
target "default" {
  contexts = {
    middle = "target:middle"
    alpine = "docker-image://alpine:3"
    dir    = "./dir"
  }
}
