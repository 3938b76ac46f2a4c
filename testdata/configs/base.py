"""Writes the images `base` and `trigger` as an OCI layout: base.py DIR BUSYBOX. Prints the diff id of their layer.

Their configs have everything set that stages inherit. The layer has the machine's own busybox, so its digest stands as
`sha256:base` in the expectations."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

out, busybox = sys.argv[1:]
os.makedirs(out + "/blobs/sha256", exist_ok=True)


def blob(data):
    name = hashlib.sha256(data).hexdigest()
    with open(f"{out}/blobs/sha256/{name}", "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + name, "size": len(data)}


def layer():
    packed = io.BytesIO()
    tar = tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT)

    def add(name, mode, kind=tarfile.DIRTYPE, data=b"", link=""):
        entry = tarfile.TarInfo(name)
        entry.mode, entry.type, entry.linkname = mode, kind, link
        entry.size, entry.mtime = len(data), 1600000000
        tar.addfile(entry, io.BytesIO(data))

    for name in "bin dev etc proc root sys".split():
        add(name, 0o755)
    add("tmp", 0o1777)
    with open(busybox, "rb") as file:
        add("bin/busybox", 0o755, tarfile.REGTYPE, file.read())
    for name in "sh echo cat mkdir ln chmod chown rm true".split():
        add("bin/" + name, 0o777, tarfile.SYMTYPE, link="busybox")
    users = b"root:x:0:0::/root:/bin/sh\napp:x:100:101::/:/bin/sh\nnobody:x:99:99::/:/bin/sh\n"
    add("etc/passwd", 0o644, tarfile.REGTYPE, users)
    add("etc/group", 0o644, tarfile.REGTYPE, b"root:x:0:\napp:x:101:\n")
    tar.close()
    return packed.getvalue()


BASE = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "Env": ["PATH=/bin:/base", "BASE=from base", "EMPTY="],
    "ExposedPorts": {"81/tcp": {}},
    "Entrypoint": ["/bin/base"],
    "Cmd": ["base", "cmd"],
    "Volumes": {"/base": {}},
    "WorkingDir": "/srv",
    "Labels": {"base": "label", "z": "1"},
    "StopSignal": "SIGHUP",
    "Healthcheck": {"Test": ["CMD", "base"], "Interval": 1000000000},
    "ArgsEscaped": False,
}
TRIGGER = {"Env": ["PATH=/bin"], "OnBuild": ["ENV fired=by-base", "RUN echo $fired > /fired"]}

tar = layer()
diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
files = blob(gzip.compress(tar, mtime=0))
manifests = []
for name, config in [("base", BASE), ("trigger", TRIGGER)]:
    image = {
        "architecture": "amd64",
        "author": "the base's author",
        "config": config,
        "created": "2020-09-13T12:26:40.123456789Z",
        "history": [
            {"created": "2020-09-13T12:26:40.1Z", "created_by": "made by hand", "comment": "a base"},
            {"created": "2020-09-13T12:26:41Z", "created_by": "ENV x", "empty_layer": True, "author": "somebody"},
        ],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **blob(json.dumps(image).encode())},
        "layers": [{"mediaType": kind + "layer.v1.tar+gzip", **files}],
    }
    named = {"annotations": {"org.opencontainers.image.ref.name": name}}
    manifests.append({"mediaType": manifest["mediaType"], **blob(json.dumps(manifest).encode()), **named})
with open(out + "/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "mediaType": kind + "index.v1+json", "manifests": manifests}, file)
with open(out + "/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion":"1.0.0"}')
print(diff_id)
