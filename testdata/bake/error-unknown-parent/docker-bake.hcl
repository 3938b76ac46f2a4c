target "default" { inherits = ["base"] }
