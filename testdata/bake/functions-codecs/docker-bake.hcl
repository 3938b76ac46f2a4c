# Encodings and digests.
target "default" {
  args = {
    base64decode = base64decode("aGVsbG8=")
    base64encode = base64encode("hello")
    csvdecode    = jsonencode(csvdecode("a,b\n1,\"2,5\"\n3,4\n"))
    jsondecode   = jsonencode([jsondecode("{\"a\": [1, null, true, \"x\"]}"), jsondecode("2.50")])
    jsonencode   = jsonencode({ a = [1, "<x>&", null, 1.5], b = {} })
    md5          = md5("hello")
    sha1         = sha1("hello")
    sha256       = sha256("hello")
    sha512       = sha512("hello")
    urlencode    = urlencode("a b/ü&=~")
    uuidv4       = strlen(uuidv4())
    uuidv5       = jsonencode([uuidv5("dns", "example.org"), uuidv5("url", "https://example.org")])
  }
}
