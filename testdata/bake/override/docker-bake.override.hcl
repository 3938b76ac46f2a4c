TAG = "2"
group "default" { targets = ["a"] }
target "a" {
  args = { OWN = 2, MORE = 3 }
  tags = ["replaced:${TAG}"]
}
