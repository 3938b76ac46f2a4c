variable "X" { default = null }
target "default" { tags = ["app:${X}"] }
