# Variables with types, and their overrides.
variable "PLAIN" { default = "plain" }
variable "NUMBER" { default = 1 }
variable "FLAG" { default = false }
variable "NONE" {}
variable "NOTHING" { default = null }
variable "TYPED" {
  type    = string
  default = 5
}
variable "TYPED_NONE" { type = string }
variable "LIST" {
  type    = list(string)
  default = ["a"]
}
variable "NUMBERS" {
  type    = list(number)
  default = [1]
}
variable "SET" {
  type    = set(string)
  default = ["a"]
}
variable "MAP" {
  type    = map(number)
  default = { a = 1 }
}
variable "TUPLE" {
  type    = tuple([string, number])
  default = ["a", 1]
}
variable "OBJECT" {
  type        = object({ name = string, size = number })
  default     = { name = "x", size = 1 }
  description = "A thing"
}
variable "ANY" {
  type    = any
  default = ["a", 1]
}
variable "DERIVED" { default = "${PLAIN}-${NUMBER}" }
local = "${DERIVED}!"
target "default" {
  args = {
    PLAIN      = PLAIN
    NUMBER     = NUMBER + 1
    FLAG       = FLAG ? "on" : "off"
    NONE       = "[${NONE}]"
    NOTHING    = NOTHING
    TYPED      = "${TYPED}!"
    TYPED_NONE = TYPED_NONE
    LIST       = jsonencode(LIST)
    NUMBERS    = jsonencode(NUMBERS)
    SET        = jsonencode(SET)
    MAP        = jsonencode(MAP)
    TUPLE      = jsonencode(TUPLE)
    OBJECT     = jsonencode(OBJECT)
    ANY        = jsonencode(ANY)
    local      = local
    context    = BAKE_CMD_CONTEXT
    undeclared = try(UNDECLARED, "none")
  }
}
