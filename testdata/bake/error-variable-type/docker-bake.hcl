variable "COUNT" {
  type    = number
  default = "many"
}
target "default" {}
