target "default" {
  matrix = { v = ["1", "2"] }
}
