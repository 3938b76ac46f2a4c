target "web" {
  args = { B = 2 }
  tags = ["web:hcl"]
}
