# Functions on addresses, and versions.
target "default" {
  args = {
    cidrhost    = jsonencode([cidrhost("10.1.2.240/28", 1), cidrhost("10.1.0.0/16", -2), cidrhost("fd00::/64", 255)])
    cidrnetmask = cidrnetmask("172.16.0.0/12")
    cidrsubnet  = jsonencode([cidrsubnet("10.0.0.0/8", 8, 2), cidrsubnet("fd00::/48", 16, 162)])
    cidrsubnets = jsonencode(cidrsubnets("10.1.0.0/16", 4, 4, 8, 4))
    semvercmp   = jsonencode([
      semvercmp("1.2.3", ">=1.2.0"),
      semvercmp("v1.2.3", "^1.1"),
      semvercmp("2.0.0", "~1.2"),
      semvercmp("1.2.9", "~1.2.3"),
      semvercmp("1.5", "1.2 - 1.6"),
      semvercmp("1.2.3", "1.2.x"),
      semvercmp("1.3.0", "1.2.x || >= 3"),
      semvercmp("1.2.3-beta", ">=1.2.0"),
      semvercmp("1.2.3-beta.2", ">1.2.3-beta.1"),
      semvercmp("0.3.1", "^0.2.3"),
      semvercmp("0.0.3", "^0.0.3"),
      semvercmp("1.0.0", "!=1.0"),
      semvercmp("4.1.0", ">4"),
      semvercmp("3.9.9", "<4, >3.1"),
    ])
  }
}
