//! Images, registries' answers and logins as they are found in the wild.

use std::fs;

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] = &[
    ("found_layouts", layouts),
    ("found_archives", archives),
    ("found_artifacts_alone", artifacts_alone),
    ("found_configs", configs),
];

/// Makes a layout of another one, changed in one respect.
const VARY: &str = r#"
import hashlib, json, os, shutil, sys
source, target, what = sys.argv[1:]
shutil.rmtree(target, ignore_errors=True)
shutil.copytree(source, target)
def blob(digest): return f"{target}/blobs/sha256/{digest.split(':')[1]}"
def load(digest): return json.load(open(blob(digest)))
def put(document, media, **more):
    data = json.dumps(document).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    open(blob(digest), "wb").write(data)
    return dict(mediaType=media, digest=digest, size=len(data), **more)
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
top = json.load(open(f"{target}/index.json"))
entry = top["manifests"][0]
while entry["mediaType"] == INDEX: entry = load(entry["digest"])["manifests"][0]
manifest = load(entry["digest"])
config = load(manifest["config"]["digest"])
kind = manifest["config"]["mediaType"]
if what.startswith("config="): kind = what[7:]
if what == "no-history": del config["history"]
if what == "null-history": config["history"] = None
if what == "short-history": config["history"] = config["history"][:1]
if what == "long-history": config["history"] += [{"created_by": "more"}] * 3
if what == "history-of-nulls": config["history"] = [None]
if what == "no-platform-at-all": del config["os"], config["architecture"]
if what == "null-platform-at-all": config["os"] = config["architecture"] = config["variant"] = None
if what == "nulls":
    config["author"] = config["created"] = None
    config["config"].update(Labels={"a": None}, Volumes={"/v": None}, Env=config["config"].get("Env"), OnBuild=None, Shell=None, User=None, ExposedPorts=None, Healthcheck=None, WorkingDir=None)
    manifest.update(annotations=None, subject=None)
    manifest["layers"][0].update(annotations=None, urls=None)
if what == "null-config": config["config"] = None
manifest["config"] = put(config, kind)
if what == "no-media-types":
    manifest.pop("mediaType", None)
    for layer in manifest["layers"]: layer["platform"] = None
bare = put(manifest, MANIFEST)
of = {"os": config.get("os"), "architecture": config.get("architecture")}
other = put(dict(manifest, config=put(dict(config, architecture="s390x", os="linux"), kind)), MANIFEST)
empty = put({}, "application/vnd.oci.empty.v1+json")
sbom = dict(schemaVersion=2, mediaType=MANIFEST, artifactType="application/spdx+json", config=empty, layers=[empty])
entries = [bare]
if what in ("no-platform", "null-platform"):
    if what == "null-platform": bare, other = dict(bare, platform=None), dict(other, platform=None)
    entries = [put(dict(schemaVersion=2, manifests=[other, bare]), INDEX)]
if what == "half-platform":
    entries = [put(dict(schemaVersion=2, manifests=[dict(bare, platform={"os": "linux", "architecture": None})]), INDEX)]
if what == "nested":
    inner = put(dict(schemaVersion=2, manifests=[dict(other, platform={"os": "linux", "architecture": "s390x"}), dict(bare, platform=of)]), INDEX)
    entries = [put(dict(schemaVersion=2, manifests=[inner], annotations=None), INDEX)]
if what == "artifact": entries = [put(sbom, MANIFEST), bare]
if what == "artifact-with-type": entries = [put(sbom, MANIFEST, artifactType="application/spdx+json"), bare]
if what == "artifact-in-index":
    entries = [put(dict(schemaVersion=2, manifests=[put(sbom, MANIFEST), bare]), INDEX)]
if what == "artifact-alone": entries = [put(sbom, MANIFEST)]
top["manifests"] = entries
json.dump(top, open(f"{target}/index.json", "w"))
if os.path.exists(f"{target}/manifest.json"): os.remove(f"{target}/manifest.json")
"#;

const VARIANTS: &[&str] = &[
    "as-it-is",
    "config=application/octet-stream",
    "config=application/json",
    "config=text/html",
    "config=",
    "no-history",
    "null-history",
    "short-history",
    "long-history",
    "history-of-nulls",
    "no-platform-at-all",
    "null-platform-at-all",
    "nulls",
    "null-config",
    "no-media-types",
    "no-platform",
    "null-platform",
    "half-platform",
    "nested",
    "artifact",
    "artifact-with-type",
    "artifact-in-index",
];

/// A layout with an image of two layers, `lay`, and the program that changes it.
fn prepare(mode: &Mode) -> Result<(), String> {
    fs::write(mode.place.join("vary.py"), VARY).map_err(|error| error.to_string())?;
    dockerfile(mode, "found", "FROM busybox\nRUN echo kept > /kept\nENV A=b\n")?;
    expect(&script(mode, "rm -rf lay && ./lapstrake build -q -o type=oci,tar=false,dest=lay found")?, 0, &[])
}

/// Each is a base, is loaded as a directory and as an archive, and what is built on it has a row of history for each layer.
fn layouts(mode: &Mode) -> Result<(), String> {
    prepare(mode)?;
    dockerfile(mode, "upon", "FROM base\nRUN test $(cat /kept) = kept && echo more > /more\n")?;
    for what in VARIANTS {
        let commands = format!(
            "export LAPSTRAKE_ROOT=\"$LAPSTRAKE_ROOT/../found-{}\" && python3 vary.py lay varied '{what}' && \
             ./lapstrake build -t upon --build-context base=oci-layout://varied upon && \
             ./lapstrake run --rm upon cat /kept /more && ./lapstrake load -q -i varied && \
             tar -C varied -cf varied.tar . && ./lapstrake load -q -i varied.tar && \
             rm -rf out && mkdir out && ./lapstrake save upon | tar -C out -xf - && python3 -c 'import json, glob\n\
m = json.load(open(\"out/manifest.json\"))[0]\n\
c = json.load(open(\"out/\" + m[\"Config\"]))\n\
rows = [row for row in c[\"history\"] if not row.get(\"empty_layer\")]\n\
print(len(rows) == len(c[\"rootfs\"][\"diff_ids\"]) == 3, c[\"os\"], len(c[\"architecture\"]) > 0)' && rm -rf \"$LAPSTRAKE_ROOT\"",
            mode.name
        );
        let done = script(mode, &commands)?;
        expect(&done, 0, &["kept\nmore", "True linux True"]).map_err(|why| format!("{what}: {why}"))?;
    }
    nothing_left(mode)
}

/// What is no image is not taken for one, and told of.
fn artifacts_alone(mode: &Mode) -> Result<(), String> {
    prepare(mode)?;
    let commands = "python3 vary.py lay varied artifact-alone && ./lapstrake load -i varied";
    expect(&script(mode, commands)?, 1, &["has no image"])?;
    expect(&lap(mode, "load -i found")?, 1, &["neither manifest.json nor index.json"])?;
    nothing_left(mode)
}

/// Archives of `docker save` in which one layer stands for the other, by links of every kind.
fn archives(mode: &Mode) -> Result<(), String> {
    let layer = "mkdir -p dk-one && echo x > dk-one/x && tar -C dk-one --owner=0 --group=0 --mtime=@0 -cf layer.tar x && rm -rf dk && \
                 mkdir -p dk/a dk/b dk/c && cp layer.tar dk/a/layer.tar";
    expect(&script(mode, layer)?, 0, &[])?;
    let manifest = r#"python3 -c 'import json, hashlib
d = "sha256:" + hashlib.sha256(open("layer.tar", "rb").read()).hexdigest()
json.dump({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [d, d, d]}, "config": None}, open("dk/c.json", "w"))
json.dump([{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "./c/layer.tar"]}], open("dk/manifest.json", "w"))'"#;
    for (links, flags) in [
        ("ln -s ../a/layer.tar b/layer.tar && ln -s ../b/layer.tar c/layer.tar", ""),
        ("ln -s ../c/layer.tar b/layer.tar && ln -s ../a/layer.tar c/layer.tar", ""),
        ("ln -s /a/layer.tar b/layer.tar && ln -s ./../a/./layer.tar c/layer.tar", ""),
        ("ln a/layer.tar b/layer.tar && ln b/layer.tar c/layer.tar", ""),
        ("ln -s a/layer.tar b/layer.tar && ln a/layer.tar c/layer.tar", "--sort=name"),
    ] {
        let commands = format!(
            "rm -f dk/b/* dk/c/* && {manifest} && (cd dk && {links} && tar {flags} -cf ../dk.tar .) && \
             ./lapstrake load -q -i dk.tar"
        );
        expect(&script(mode, &commands)?, 0, &["sha256:"]).map_err(|why| format!("{links}: {why}"))?;
    }
    // Nothing outside of a directory is read.
    let outside = format!(
        "rm -f dk/b/* dk/c/* && {manifest} && cp layer.tar outside.tar && ln -s $PWD/outside.tar dk/b/layer.tar && cp layer.tar dk/c/layer.tar && ./lapstrake load -i dk"
    );
    expect(&script(mode, &outside)?, 1, &["the archive has no `b/layer.tar`"])?;
    nothing_left(mode)
}

/// A file of logins keeps its owner and mode, and what a dangling link names is written.
fn configs(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd");
    fs::write(&htpasswd, super::push::HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let server = lapstrake_testkit::Registry::start(&mode.place, "registry", &auth)?;
    let login = format!("echo secret | ./lapstrake login -u me --password-stdin {}", server.address);
    for (before, after) in [
        (
            "rm -f cfg/config.json && : > cfg/config.json && chmod 400 cfg/config.json",
            "test $(stat -c %a cfg/config.json) = 400",
        ),
        (
            "echo null > cfg/config.json; chmod 640 cfg/config.json; true",
            "test $(stat -c %a cfg/config.json) = 640",
        ),
        (
            "rm -f cfg/config.json && ln -s sub/real.json cfg/config.json",
            "test -L cfg/config.json -a $(stat -c %a cfg/sub/real.json) = 600",
        ),
        (
            "rm -f cfg/config.json && echo '{\"auths\": null}' > cfg/config.json",
            "grep -q auth cfg/config.json",
        ),
        (
            "test $(id -u) != 0 || chown 1234:1235 cfg/config.json",
            "test $(id -u) != 0 || test $(stat -c %u:%g cfg/config.json) = 1234:1235",
        ),
    ] {
        let commands = format!(
            "export DOCKER_CONFIG=$PWD/cfg && mkdir -p cfg && rm -f cfg/none && {{ test -w cfg/config.json || rm -f cfg/config.json; }} && \
             {before}; {login} && {login} && {after}"
        );
        expect(&script(mode, &commands)?, 0, &["Login Succeeded"])
            .map_err(|why| format!("{before}: {why}"))?;
    }
    expect(&script(mode, "rm -rf cfg")?, 0, &[])?;
    drop(server);
    nothing_left(mode)
}
