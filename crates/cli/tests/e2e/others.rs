//! What skopeo and umoci read of all that we write. What they refuse they refuse of others' making too.

use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("read_by_others", read_by_others), ("nondistributable_layers", nondistributable_layers)];

/// What umoci says of layers of zstd, skopeo of Docker's name for them, and both of Docker's manifests in layouts.
const NO_ZSTD: &str = "blob is not correct mediatype: application/vnd.oci.image.layer.v1.tar+zstd";
const NO_DOCKER_ZSTD: &str = "unsupported docker v2s2 media type";
const NO_DOCKER_LAYOUT: [&str; 2] =
    ["no descriptor found for reference", "does not point to ispec.MediaTypeImageManifest"];

/// Out of a registry, through a layout of skopeo's, to files.
fn copied(image: &str) -> String {
    format!(
        "rm -rf others-layout others-files && \
         skopeo --insecure-policy copy -q --src-tls-verify=false docker://{image} oci:others-layout:1 && \
         echo skopeo reads it && {}",
        unpacked("others-layout")
    )
}

fn unpacked(layout: &str) -> String {
    format!(
        "rm -rf others-files && umoci unpack --rootless --image {layout}:1 others-files 2>&1 && cat others-files/rootfs/x"
    )
}

fn read_by_others(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/others/{}", server.address, mode.name);
    dockerfile(mode, "others", "FROM busybox\nRUN echo for others > /x\n")?;
    for compression in ["uncompressed", "gzip", "estargz", "zstd"] {
        for oci in [true, false] {
            let what = format!("{compression}, oci-mediatypes={oci}");
            let image = format!("{name}:{compression}-{oci}");
            let keys = format!("compression={compression},force-compression=true,oci-mediatypes={oci}");
            let output = |kind: &str| lap(mode, &format!("build -q -o {kind},{keys} others"));
            expect(&output(&format!("type=image,push=true,name={image}"))?, 0, &["sha256:"])?;
            expect(&script(mode, "rm -rf others-ours others.tar")?, 0, &[])?;
            expect(&output("type=oci,tar=false,dest=others-ours,name=o:1")?, 0, &[])?;
            expect(&output("type=docker,dest=others.tar,name=o:1")?, 0, &[])?;
            let (status, words) = match (compression, oci) {
                ("zstd", true) => (1, vec!["skopeo reads it\n", NO_ZSTD]),
                ("zstd", false) => (1, vec![NO_DOCKER_ZSTD]),
                _ => (0, vec!["skopeo reads it\n", "for others\n"]),
            };
            let told = |why| format!("{what}: {why}");
            expect(&script(mode, &copied(&image))?, status, &words).map_err(told)?;
            // eStargz is told by annotations, which only manifests of the OCI have.
            let layout = oci || compression == "estargz";
            let skopeo = script(
                mode,
                "rm -rf others-dir && skopeo --insecure-policy copy -q oci:others-ours:1 dir:others-dir",
            )?;
            expect(&skopeo, i32::from(!layout), &NO_DOCKER_LAYOUT[..usize::from(!layout)]).map_err(told)?;
            let (status, word) = match (compression, layout) {
                (_, false) => (1, NO_DOCKER_LAYOUT[1]),
                ("zstd", true) => (1, NO_ZSTD),
                _ => (0, "for others\n"),
            };
            expect(&script(mode, &unpacked("others-ours"))?, status, &[word]).map_err(told)?;
            let archive = "rm -rf others-dir && skopeo --insecure-policy copy -q docker-archive:others.tar:o:1 dir:others-dir";
            expect(&script(mode, archive)?, 0, &[]).map_err(told)?;
        }
    }
    limits(mode, &format!("{name}:gzip-true"))?;
    must(&format!("cd '{}' && rm -rf others others-* others.tar", mode.place.display()))?;
    nothing_left(mode)
}

/// Makes the layers of Docker's manifest in a directory of skopeo's zstd.
const TO_ZSTD: &str = r#"
import gzip, hashlib, json, os, subprocess, sys
os.chdir(sys.argv[1])
manifest = json.load(open("manifest.json"))
for layer in manifest["layers"]:
    plain = gzip.open(layer["digest"].split(":")[1]).read()
    packed = subprocess.run(["zstd", "-qc"], input=plain, stdout=-1, check=True).stdout
    name = hashlib.sha256(packed).hexdigest()
    open(name, "wb").write(packed)
    layer.update(digest="sha256:" + name, size=len(packed), mediaType="application/vnd.docker.image.rootfs.diff.tar.zstd")
json.dump(manifest, open("manifest.json", "w"))
"#;

/// The same of skopeo's own making: its layers of zstd, its Docker image with layers of the zstd program's, its layout with
/// Docker's name for the manifest.
fn limits(mode: &Mode, image: &str) -> Result<(), String> {
    let copy = "rm -rf others-z others-d && skopeo --insecure-policy copy -q --src-tls-verify=false";
    let zstd = format!(
        "{copy} --dest-compress --dest-compress-format zstd docker://{image} dir:others-z && \
                        skopeo --insecure-policy copy -q dir:others-z oci:others-d:1 && echo skopeo reads it && {}",
        unpacked("others-d")
    );
    expect(&script(mode, &zstd)?, 1, &["skopeo reads it\n", NO_ZSTD])?;
    std::fs::write(mode.place.join("others.py"), TO_ZSTD).map_err(|error| error.to_string())?;
    let docker = format!(
        "{copy} --format v2s2 docker://{image} dir:others-z && python3 others.py others-z && rm -f others.py && \
         skopeo --insecure-policy copy -q dir:others-z oci:others-d:1"
    );
    expect(&script(mode, &docker)?, 1, &[NO_DOCKER_ZSTD])?;
    let layout = format!(
        "{copy} docker://{image} oci:others-d:1 && \
                          sed -i 's/vnd.oci.image.manifest.v1+json/vnd.docker.distribution.manifest.v2+json/' others-d/index.json && "
    );
    let skopeo = format!("{layout} skopeo --insecure-policy copy -q oci:others-d:1 dir:others-z");
    expect(&script(mode, &skopeo)?, 1, &[NO_DOCKER_LAYOUT[0]])?;
    expect(&script(mode, &(layout + &unpacked("others-d")))?, 1, &[NO_DOCKER_LAYOUT[1]])
}

/// Makes the layers of the image in a layout such that may not be handed on.
const TO_NONDISTRIBUTABLE: &str = r#"
import hashlib, json, os, sys
os.chdir(sys.argv[1])
index = json.load(open("index.json"))
manifest = json.load(open("blobs/sha256/" + index["manifests"][0]["digest"].split(":")[1]))
for layer in manifest["layers"]:
    layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
text = json.dumps(manifest).encode()
name = hashlib.sha256(text).hexdigest()
open("blobs/sha256/" + name, "wb").write(text)
index["manifests"][0].update(digest="sha256:" + name, size=len(text))
json.dump(index, open("index.json", "w"))
"#;

/// A base's layers that may not be handed on are handed on as any other unless `prefer-nondist-layers` keeps their type.
fn nondistributable_layers(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "kept-back", "FROM base\nCOPY Dockerfile /d\n")?;
    std::fs::write(mode.place.join("kept.py"), TO_NONDISTRIBUTABLE).map_err(|error| error.to_string())?;
    let base = "rm -rf kept-base && ./lapstrake build -q -o type=oci,tar=false,dest=kept-base,name=b:1 kept-base-of && \
                python3 kept.py kept-base";
    dockerfile(mode, "kept-base-of", "FROM scratch\nCOPY Dockerfile /base\n")?;
    expect(&script(mode, base)?, 0, &[])?;
    for (keys, kept) in [("", 0), (",prefer-nondist-layers=false", 0), (",prefer-nondist-layers=true", 1)] {
        let build = format!(
            "rm -rf kept-out kept-state && export LAPSTRAKE_ROOT=$PWD/kept-state && ./lapstrake build -q --build-context base=oci-layout://kept-base:1 \
             -o type=oci,tar=false,dest=kept-out{keys} kept-back && cat kept-out/blobs/sha256/* | tr -d '\\0' | \
             grep -ao 'layer[.a-z]*v1.tar+gzip' | sort | uniq -c | sed 's/^ *//'"
        );
        let told = if kept == 0 {
            "2 layer.v1.tar+gzip\n"
        } else {
            "1 layer.nondistributable.v1.tar+gzip\n1 layer.v1.tar+gzip\n"
        };
        expect(&script(mode, &build)?, 0, &[told]).map_err(|why| format!("{keys}: {why}"))?;
    }
    must(&format!("cd '{}' && rm -rf kept-* kept.py", mode.place.display()))?;
    nothing_left(mode)
}
