//! Archives laid out as others lay them out: `docker save` before and since version 25, and BuildKit's exporters. Their
//! layers, and manifests where there are any, leave as they came.

use std::fs;

use super::place::{Mode, expect, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[("archives_of_others", archives)];

/// Writes `NAME.tar`, and prints the digests of its layers and, where it has one, of its manifest.
const DRIVER: &str = r#"
import gzip, hashlib, io, json, sys, tarfile
kind = sys.argv[1]

def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for name, mode, data in entries:
            info = tarfile.TarInfo(name); info.mode, info.mtime = mode, 1700000000.25
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            layer.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()

busybox = open("/bin/busybox", "rb").read()
plain = [
    tar(("bin", 0o755, None), ("bin/busybox", 0o755, busybox), ("d", 0o755, None), ("d/gone", 0o644, b"gone"), ("x", 0o644, b"one\n")),
    tar(("d", 0o755, None), ("d/.wh.gone", 0o644, b""), ("x", 0o600, b"two\n")),
    tar(),
    tar(),
]
sha = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
history = [{"created": "2024-01-02T03:04:05.000000006Z", "created_by": "layer"} for _ in plain]
history.append({"created": "2024-01-02T03:04:05Z", "created_by": "CMD", "empty_layer": True})
config = json.dumps({
    "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05.000000006Z", "history": history,
    "config": {"Cmd": ["/bin/busybox", "cat", "/x"], "Env": ["PATH=/bin"]}, "moby.unknown": {"a": 1},
    "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in plain]},
}).encode()
out = tarfile.open(kind + ".tar", "w")
there = set()

def add(name, data):
    if name not in there:
        there.add(name)
        info = tarfile.TarInfo(name); info.size = len(data)
        out.addfile(info, io.BytesIO(data))

def link(name, target):
    info = tarfile.TarInfo(name); info.type, info.linkname = tarfile.SYMTYPE, target
    out.addfile(info)

def blob(data):
    add("blobs/sha256/" + sha(data)[7:], data)
    return sha(data)

def doc(value):
    return json.dumps(value, indent=2).encode()

oci = "application/vnd.oci.image."
layers, manifest = plain, None
names = ["look/alike:1", "look/alike:2"]

if kind == "save24":
    # A directory for each layer; the one that is there twice is a link.
    ids, seen = [], {}
    for number, layer in enumerate(plain):
        name = hashlib.sha256(b"%d" % number).hexdigest()
        ids.append(name)
        info = tarfile.TarInfo(name); info.type = tarfile.DIRTYPE; out.addfile(info)
        add(name + "/VERSION", b"1.0")
        add(name + "/json", json.dumps({"id": name, "os": "linux"}).encode())
        if layer in seen.values():
            link(name + "/layer.tar", "../" + [id for id, one in seen.items() if one == layer][0] + "/layer.tar")
        else:
            add(name + "/layer.tar", layer)
        seen[name] = layer
    add(sha(config)[7:] + ".json", config)
    add("manifest.json", json.dumps([{"Config": sha(config)[7:] + ".json", "RepoTags": names, "Layers": [id + "/layer.tar" for id in ids]}]).encode())
    add("repositories", json.dumps({"look/alike": {"1": ids[-1], "2": ids[-1]}}).encode())
else:
    packed = {
        "buildkit-zstd": lambda layer: __import__("subprocess").run(["zstd", "-q"], input=layer, stdout=-1, check=True).stdout,
        "save25": lambda layer: layer,
    }.get(kind, lambda layer: gzip.compress(layer, mtime=0))
    suffix = {"buildkit-zstd": "+zstd", "save25": ""}.get(kind, "+gzip")
    layers = [packed(layer) for layer in plain]
    described = [{"mediaType": oci + "layer.v1.tar" + suffix, "digest": blob(layer), "size": len(layer)} for layer in layers]
    config_is = {"mediaType": oci + "config.v1+json", "digest": blob(config), "size": len(config)}
    manifest = doc({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config_is, "layers": described, "annotations": {"who": "knows"}})
    entry = {"mediaType": oci + "manifest.v1+json", "digest": blob(manifest), "size": len(manifest)}
    if kind == "buildkit-index":
        # An index in the index: another platform, and what attests to ours.
        theirs = json.loads(config)
        theirs.update(architecture="s390x", rootfs=dict(theirs["rootfs"], diff_ids=theirs["rootfs"]["diff_ids"][:1]), history=[])
        theirs = doc(theirs)
        other = doc({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "layers": described[:1],
            "config": {"mediaType": oci + "config.v1+json", "digest": blob(theirs), "size": len(theirs)}})
        statement = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
        attests = doc({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config_is, "layers": [
            {"mediaType": "application/vnd.in-toto+json", "digest": blob(statement), "size": len(statement), "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}}]})
        of = lambda data, arch, **more: {"mediaType": oci + "manifest.v1+json", "digest": blob(data), "size": len(data), "platform": {"architecture": arch, "os": "unknown" if arch == "unknown" else "linux"}, **more}
        inner = doc({"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": [
            of(attests, "unknown", annotations={"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": sha(manifest)}),
            of(other, "s390x"), of(manifest, "amd64")]})
        entry = {"mediaType": oci + "index.v1+json", "digest": blob(inner), "size": len(inner)}
    full = [dict(entry, annotations={"io.containerd.image.name": "docker.io/" + name, "org.opencontainers.image.ref.name": name.split(":")[1], "org.opencontainers.image.created": "2024-01-02T03:04:05Z"}) for name in names]
    add("index.json", json.dumps({"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": full}).encode())
    add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if kind in ("save25", "buildkit-docker", "buildkit-zstd"):
        path = lambda digest: "blobs/sha256/" + digest[7:]
        add("manifest.json", json.dumps([{"Config": path(sha(config)), "RepoTags": names, "Layers": [path(sha(layer)) for layer in layers]}]).encode())
    if kind == "save25":
        add("repositories", json.dumps({"look/alike": {"1": sha(plain[-1])[7:], "2": sha(plain[-1])[7:]}}).encode())
out.close()
print(" ".join(sha(layer) for layer in layers), "manifest", sha(manifest) if manifest else "none", sha(config))
"#;

const KINDS: [&str; 6] =
    ["save24", "save25", "buildkit-oci", "buildkit-docker", "buildkit-zstd", "buildkit-index"];

fn archives(mode: &Mode) -> Result<(), String> {
    fs::write(mode.place.join("lookalike.py"), DRIVER).map_err(|error| error.to_string())?;
    let server = Registry::start(&mode.place, "registry", "")?;
    for kind in KINDS {
        one(mode, &server.address, kind).map_err(|why| format!("{kind}: {why}"))?;
    }
    nothing_left(mode)
}

fn one(mode: &Mode, registry: &str, kind: &str) -> Result<(), String> {
    let made = script(mode, &format!("python3 lookalike.py {kind}"))?;
    expect(&made, 0, &["manifest"])?;
    let told = String::from_utf8_lossy(&made.stdout).into_owned();
    let (layers, manifest) = told.trim().split_once(" manifest ").ok_or("the driver says nothing")?;
    let (manifest, config) = manifest.split_once(' ').ok_or("the driver says no config")?;
    let state = |number: u32| format!("{}/lookalike-{number}-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{}' '{}'", state(1), state(2)))?;
    let at = |number: u32, commands: &str| {
        script(mode, &format!("export LAPSTRAKE_ROOT='{}'; {commands}", state(number)))
    };
    let both = "Loaded image: look/alike:1\nLoaded image: look/alike:2\n";
    let mut loaded = at(1, &format!("./lapstrake load -i {kind}.tar"))?;
    if kind == "buildkit-index" {
        // All platforms come, and what attests is none; from here on it is about one of them.
        let all = at(1, "./lapstrake images --format '{{.Tag}} {{.Platform}}' look/alike | sort")?;
        expect(&all, 0, &["1 linux/amd64\n1 linux/s390x\n2 linux/amd64\n2 linux/s390x\n"])?;
        must(&format!("rm -rf '{}'", state(1)))?;
        loaded = at(1, &format!("./lapstrake load --platform linux/amd64 -i {kind}.tar"))?;
    }
    expect(&loaded, 0, &[both])?;
    let seen = "./lapstrake run look/alike:2 && ./lapstrake run look/alike:2 /bin/busybox ls /d";
    if at(1, seen)?.stdout != b"two\n" {
        return Err(format!("other files: {}", text(&at(1, seen)?)));
    }
    let name = format!("{registry}/{kind}:1");
    let through = format!("./lapstrake tag look/alike:1 {name} && ./lapstrake save -o saved.tar {name}");
    expect(&at(1, &through)?, 0, &[])?;
    expect(&at(2, &format!("./lapstrake load -q -i saved.tar && ./lapstrake push -q {name}"))?, 0, &[&name])?;
    let raw = script(mode, &format!("skopeo inspect --raw --tls-verify=false docker://{name}"))?;
    let pushed: serde_json::Value = serde_json::from_slice(&raw.stdout).map_err(|_| text(&raw))?;
    let digest = script(
        mode,
        &format!("skopeo inspect --format '{{{{.Digest}}}}' --tls-verify=false docker://{name}"),
    )?;
    let same_manifest = manifest == "none" || digest.stdout.trim_ascii() == manifest.as_bytes();
    if !are_layers(&pushed, layers, manifest != "none")
        || pushed["config"]["digest"] != config
        || !same_manifest
    {
        return Err(format!("{} was pushed, not {told}", text(&raw)));
    }
    // Who pulls holds each layer against the config.
    must(&format!("rm -rf '{}'", state(2)))?;
    let pulled = at(2, &format!("./lapstrake pull -q {name} && ./lapstrake run {name}"))?;
    if !pulled.status.success() || !pulled.stdout.ends_with(b"two\n") {
        return Err(format!("other files were pushed: {}", text(&pulled)));
    }
    must(&format!("rm -rf '{}' '{}'", state(1), state(2)))
}

/// Whether a pushed manifest has these layers: as they came, or where the archive has no manifest each of them compressed.
fn are_layers(pushed: &serde_json::Value, layers: &str, as_they_came: bool) -> bool {
    let all = pushed["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |layer: &serde_json::Value, key: &str| layer[key].as_str().unwrap_or_default().to_owned();
    if as_they_came {
        return all.iter().map(|layer| text(layer, "digest")).collect::<Vec<_>>().join(" ") == layers;
    }
    let packed = all.iter().all(|layer| {
        text(layer, "mediaType").ends_with(".tar+gzip") && !layers.contains(&text(layer, "digest"))
    });
    packed && all.len() == layers.split(' ').count()
}
