variable "COUNT" { default = 1 }
target "default" {}
