variable "L" { default = ["a"] }
target "default" { tags = [L[3]] }
