# Functions on numbers and booleans.
target "default" {
  args = {
    absolute             = jsonencode([absolute(-3), absolute(2.5)])
    add                  = jsonencode([add(1, 2), add(0.1, 0.2), add("1", 2)])
    and                  = and(true, "true")
    ceil                 = jsonencode([ceil(1.2), ceil(-1.2), ceil(3)])
    divide               = jsonencode([divide(10, 4), divide(9, 3)])
    equal                = jsonencode([equal(1, 1), equal("1", 1), equal([1], [1]), equal(null, null)])
    floor                = jsonencode([floor(1.8), floor(-1.2)])
    greaterthan          = greaterthan(2, 1)
    greaterthanorequalto = greaterthanorequalto(2, 2)
    int                  = jsonencode([int(2.7), int(-2.7), int("5")])
    lessthan             = lessthan(2, 1)
    lessthanorequalto    = lessthanorequalto(1, 1)
    log                  = jsonencode([log(1, 10), log(16, 2)])
    max                  = max(3, 7, 5)
    min                  = min(3, -7, 5)
    modulo               = jsonencode([modulo(7, 3), modulo(-7, 3)])
    multiply             = multiply(1.5, 4)
    negate               = negate(4)
    not                  = not(false)
    notequal             = jsonencode([notequal(1, 2), notequal("a", "a")])
    or                   = or(false, true)
    parseint             = jsonencode([parseint("ff", 16), parseint("-101", 2), parseint("42", 10)])
    pow                  = jsonencode([pow(2, 10), pow(4, 0.5)])
    signum               = jsonencode([signum(-9), signum(0), signum(7)])
    subtract             = subtract(1, 3)
    large                = 12345678901234567890 * 10
    decimal              = jsonencode([1.50, 1e3, 0.1 + 0.2, 10 / 4, 3.10])
  }
}
