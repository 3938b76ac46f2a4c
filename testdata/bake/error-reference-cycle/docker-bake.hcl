target "default" { args = { A = target.other.args.B } }
target "other" { args = { B = target.default.args.A } }
