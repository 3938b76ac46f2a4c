# How --load changes outputs.
group "default" { targets = ["none", "docker", "local", "image", "registry", "oci"] }
target "none" {}
target "docker" { output = ["type=docker"] }
target "local" { output = ["out"] }
target "image" { output = ["type=image,name=x", "type=tar,dest=t"] }
target "registry" { output = ["type=registry"] }
target "oci" { output = ["type=oci,dest=o.tar"] }
