target "default" {
  name   = "app-${v}"
  matrix = { v = ["1.0"] }
}
