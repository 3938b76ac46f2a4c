variable "TAG" { default = "1" }
variable "KEPT" { default = "kept" }
group "default" { targets = ["a", "b"] }
target "a" {
  args = { TAG = TAG, KEPT = KEPT, OWN = 1 }
  tags = ["a:${TAG}"]
}
target "b" { tags = ["b"] }
