group "default" { targets = ["app-one", "app-two", "web"] }
target "app-one" {
  args   = { A = 1 }
  tags   = ["one"]
  secret = ["id=s,src=docker-bake.hcl"]
  output = ["type=docker"]
}
target "app-two" {
  inherits = ["app-one"]
  tags     = ["two"]
}
target "web" { platforms = ["linux/amd64"] }
