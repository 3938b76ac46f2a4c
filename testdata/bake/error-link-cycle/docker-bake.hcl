target "default" { contexts = { x = "target:a" } }
target "a" { contexts = { x = "target:b" } }
target "b" { contexts = { x = "target:a" } }
