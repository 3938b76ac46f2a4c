# Lists are added up or replaced, by the attribute.
target "base" {
  context         = "base"
  dockerfile      = "base.Dockerfile"
  args            = { A = 1, B = 2, N = null }
  labels          = { a = "base" }
  tags            = ["base"]
  platforms       = ["linux/amd64", "linux/amd64"]
  cache-from      = ["base-cache", "type=local,src=dir"]
  cache-to        = ["type=inline"]
  output          = ["type=docker"]
  secret          = ["id=s,env=BASE"]
  ssh             = ["default"]
  annotations     = ["a=base"]
  no-cache-filter = ["one"]
  ulimits         = ["nofile=1:2"]
  entitlements    = ["network.host"]
  extra-hosts     = { one = "127.0.0.1" }
  attest          = ["type=sbom,disabled=true"]
  contexts        = { src = "./src", gone = "./gone" }
  resources       = { memory = "1g" }
  shm-size        = "64m"
  network         = "none"
  pull            = true
  no-cache        = false
  target          = "stage"
  description     = "the base"
}
target "other" {
  args       = { B = "other" }
  tags       = ["other"]
  cache-from = [{ type = "registry", ref = "other-cache" }]
  secret     = [{ id = "s", src = "docker-bake.hcl" }, "id=t,src=docker-bake.hcl"]
  contexts   = { gone = "" }
  annotations = ["a=base", "b=other"]
}
target "default" {
  inherits   = ["base", "other"]
  args       = { C = 3, A = null }
  labels     = { b = "own" }
  platforms  = []
  cache-from = ["base-cache"]
  output     = [{ type = "local", dest = "out" }, "type=tar,dest=x.tar"]
  ssh        = [{ id = "key", paths = [] }]
  ulimits    = ["core=0"]
  attest     = [{ type = "provenance", mode = "max" }]
  entitlements = ["security.insecure"]
  resources  = { cpu-shares = 512, memory-swap = "2g" }
  network    = "host"
}
