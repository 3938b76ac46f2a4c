target "default" {
  tags = ["app:${TGA}"]
}
