# Operators, conditions, loops, indexes and templates.
variable "NAME" { default = "app" }
variable "LIST" { default = ["a", "b", "c"] }
objects = [{ n = "x", v = 1 }, { n = "y", v = 2 }]
nothing = null
target "default" {
  args = {
    arithmetic  = jsonencode([1 + 2 * 3, (1 + 2) * 3, 7 % 4, -2 - 3, 6 / 4, "2" * 3])
    comparisons = jsonencode([1 < 2, "10" > 9, 2 >= 2, 1 == 1, 1 == "1", "a" != "b", [] == [], null == null])
    logic       = jsonencode([true && false, true || false, !false, "true" && true])
    condition   = jsonencode([true ? 1 : 2, "1" ? "a" : "b", false ? null : "x", true ? ["a"] : [], true ? 1 : "x"])
    untaken     = true ? "taken" : LIST[9]
    loop_tuple  = jsonencode([for v in LIST : upper(v) if v != "b"])
    loop_index  = jsonencode([for i, v in LIST : "${i}${v}"])
    loop_object = jsonencode({ for k, v in { a = 1, b = 2 } : v => k })
    loop_group  = jsonencode({ for v in ["ax", "ay", "bz"] : substr(v, 0, 1) => v... })
    splat       = jsonencode([objects[*].n, objects.*.v, nothing[*], NAME[*]])
    indexes     = jsonencode([LIST[0], LIST[length(LIST) - 1], { a = 5 }["a"], objects[1].n, LIST.1])
    objects     = jsonencode({ a = 1, "b c" = 2, (NAME) = 3, "${NAME}-x" = 4, 5 = 6 })
    template    = "${NAME}-${1 + 1}-${true}"
    unwrapped   = jsonencode(["${LIST}", "${1}", "a${1}"])
    escaped     = "$${NAME} %%{if} \u00e9 \"q\" \\ \t|"
    directive   = "%{ if NAME == "app" }yes%{ else }no%{ endif }"
    repeated    = "%{ for v in LIST }<${v}>%{ endfor }"
    trimmed     = "a  ${~ NAME ~}  b %{~ if true ~} c %{~ endif ~} d"
    heredoc     = <<EOT
first ${NAME}
  second
EOT
    flush       = <<-EOT
      one
        two ${NAME}

      three
    EOT
    lines       = <<-EOT
      %{ for v in LIST ~}
      - ${v}
      %{ endfor ~}
    EOT
    number      = 42
    float       = 1.50
    none        = null
    empty       = ""
  }
}
