target "default" { output = ["dest=x,foo=bar"] }
