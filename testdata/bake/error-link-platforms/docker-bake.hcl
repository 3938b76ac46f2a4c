target "default" {
  contexts  = { x = "target:a" }
  platforms = ["linux/amd64", "linux/arm64"]
}
target "a" { platforms = ["linux/amd64", "linux/386"] }
