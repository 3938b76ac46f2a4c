variable "COUNT" { type = strings }
target "default" {}
