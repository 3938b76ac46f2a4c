//! Where results go, with all keys: layouts, archives, directories, registries, a running Docker, and what is told of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Output;

use super::conform;
use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("exporters_layout", layout),
    ("exporters_names", names),
    ("exporters_more_names", more_names),
    ("exporters_files", files),
    ("exporters_docker", docker),
    ("exporters_estargz", estargz),
    ("round_trip", round_trip),
];

/// Something of every instruction that says something of the image.
const FULL: &str = "FROM busybox\nLABEL a.b=<c> d=e\nENV A=b C=\"d e\"\nEXPOSE 80 53/udp\nVOLUME /v\nUSER app\n\
    WORKDIR /w\nRUN echo x > x\nCOPY Dockerfile /d\nSTOPSIGNAL SIGUSR1\nHEALTHCHECK --interval=5s CMD true\n\
    ONBUILD RUN true\nSHELL [\"/bin/sh\", \"-c\"]\nENTRYPOINT [\"cat\"]\nCMD [\"/d\"]\n";

fn json(mode: &Mode, name: &str) -> Result<serde_json::Value, String> {
    let bytes = fs::read(mode.place.join(name)).map_err(|error| format!("{name}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))
}

/// Layers of which the times were rewritten say so, those of the base do not.
fn rewritten(mode: &Mode) -> Result<(), String> {
    let keys = "rewrite-timestamp=true,source-date-epoch=1000000000";
    expect(&lap(mode, "build -q -t full-base full")?, 0, &["sha256:"])?;
    dockerfile(mode, "on-base", "FROM full-base\nCOPY Dockerfile /of-its-own\n")?;
    let form = format!("type=oci,tar=false,dest=layout-on-base,name=on-base,{keys}");
    expect(&lap(mode, &format!("build -q -o {form} on-base"))?, 0, &["sha256:"])?;
    let index = json(mode, "layout-on-base/index.json")?;
    let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default().replace(':', "/");
    let manifest = json(mode, &format!("layout-on-base/blobs/{digest}"))?;
    let told = |layer: &serde_json::Value| {
        layer["annotations"]["buildkit/rewritten-timestamp"].as_str().map(str::to_owned)
    };
    let told: Vec<Option<String>> = manifest["layers"].as_array().into_iter().flatten().map(told).collect();
    // The base's trigger makes a layer of its own.
    match told.as_slice() {
        [base @ .., Some(trigger), Some(own)]
            if own == "1000000000"
                && trigger == own
                && base.iter().all(Option::is_none)
                && !base.is_empty() =>
        {
            Ok(())
        }
        _ => Err(format!("which layers were rewritten: {manifest}")),
    }
}

/// All forms of manifests, indexes and configs, checked by the spec's rules and read by others.
fn layout(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "full", &format!("{FULL}MAINTAINER somebody\n"))?;
    let place = mode.place.display();
    for (number, keys) in [
        "",
        ",compression=zstd,force-compression=true,compression-level=19",
        ",compression=uncompressed,force-compression=true",
        ",oci-mediatypes=false",
        ",compression=estargz",
        ",compression=estargz,force-compression=true",
        ",annotation.k=v,annotation-manifest[linux/amd64].k2=v2,annotation-manifest-descriptor.k3=v3",
        ",rewrite-timestamp=true,source-date-epoch=1000000000",
    ]
    .iter()
    .enumerate()
    {
        let dir = format!("layout-{number}");
        must(&format!("rm -rf '{place}/{dir}'"))?;
        let name = format!("full:{number}");
        let built = lap(mode, &format!("build -q -o type=oci,tar=false,dest={dir},name={name}{keys} full"))?;
        expect(&built, 0, &["sha256:"]).map_err(|why| format!("{keys}: {why}"))?;
        conform::layout(&mode.place.join(&dir)).map_err(|why| format!("{keys}: {why}"))?;
        // skopeo takes only manifests of the OCI out of layouts.
        if keys.contains("mediatypes=false") {
            continue;
        }
        let read = format!(
            "skopeo inspect oci:{dir}:{number} && skopeo --insecure-policy copy oci:{dir}:{number} dir:copied-{number}"
        );
        expect(&script(mode, &read)?, 0, &["\"Architecture\""]).map_err(|why| format!("{keys}: {why}"))?;
        must(&format!("rm -rf '{place}/copied-{number}'"))?;
    }
    let index = json(mode, "layout-6/index.json")?;
    let annotations = &index["manifests"][0]["annotations"];
    let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default().replace(':', "/");
    let manifest = json(mode, &format!("layout-6/blobs/{digest}"))?;
    if annotations["k3"] != "v3" || manifest["annotations"] != serde_json::json!({"k": "v", "k2": "v2"}) {
        return Err(format!("annotations are elsewhere: {index} {manifest}"));
    }
    rewritten(mode)?;
    // Another image in the same layout, and docker's archive, which has a layout in it.
    expect(
        &lap(mode, "build -q -o type=oci,tar=false,dest=layout-0,name=more:1 --build-arg X=1 full")?,
        0,
        &[],
    )?;
    conform::layout(&mode.place.join("layout-0"))?;
    let both = json(mode, "layout-0/index.json")?["manifests"].as_array().map_or(0, Vec::len);
    let archive = "rm -rf docker-layout && mkdir docker-layout && ./lapstrake build -q -o type=docker,dest=full.tar,name=full:9 full && tar -C docker-layout -xf full.tar";
    expect(&script(mode, archive)?, 0, &["sha256:"])?;
    conform::layout(&mode.place.join("docker-layout"))?;
    let one = lap(mode, "build -q -o type=oci,tar=false,dest=none,annotation[linux/arm64].k=v full")?;
    expect(&one, 2, &["invalid annotation: no platform linux/arm64 found in source"])?;
    if both == 2 { nothing_left(mode) } else { Err(format!("{both} images in a layout of two")) }
}

fn build_named(mode: &Mode, output: &str) -> Result<Output, String> {
    let flags = "-q --metadata-file named.json --iidfile named.id";
    lap(mode, &format!("build {flags} -o '{output}' named && cat named.id"))
}

/// Names of all kinds, and what is told of them in the metadata file.
fn names(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let at = format!("{}/exporters/{}", server.address, mode.name);
    dockerfile(mode, "named", "FROM busybox\nRUN echo named > /x\n")?;
    let build = |output: &str| build_named(mode, output);
    let two =
        build(&format!("type=image,\"name={at}:1,{at}:2\",push=true,annotation-manifest-descriptor.k=v"))?;
    expect(&two, 0, &["sha256:"])?;
    let told = json(mode, "named.json")?;
    let id = String::from_utf8_lossy(&two.stdout).lines().next().unwrap_or_default().to_owned();
    let keys: Vec<&str> =
        told.as_object().map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default();
    let expected = [
        "buildx.build.ref",
        "containerimage.config.digest",
        "containerimage.descriptor",
        "containerimage.digest",
        "image.name",
    ];
    let descriptor = &told["containerimage.descriptor"];
    let digest = told["containerimage.digest"].as_str().unwrap_or_default().to_owned();
    let right = keys == expected
        && told["containerimage.config.digest"] == id.as_str()
        && told["image.name"] == format!("{at}:1,{at}:2")
        && told["buildx.build.ref"].as_str().is_some_and(|text| text.len() == "default/default/".len() + 25)
        && descriptor["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        && descriptor["digest"] == digest.as_str()
        && descriptor["annotations"] == serde_json::json!({"k": "v"})
        && descriptor["platform"] == serde_json::json!({"architecture": "amd64", "os": "linux"});
    let iid = fs::read_to_string(mode.place.join("named.id")).unwrap_or_default();
    if !right || iid != id {
        return Err(format!("not as buildx writes it: {told} {iid}"));
    }
    for tag in ["1", "2"] {
        let there = script(
            mode,
            &format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{at}:{tag}"),
        )?;
        expect(&there, 0, &[&digest])?;
    }
    expect(
        &lap(mode, &format!("inspect -f '{{{{.RepoDigests}}}}' {at}@{digest}"))?,
        0,
        &[&format!("[{at}@{digest}]")],
    )?;
    nothing_left(mode)
}

/// Names without a tag, without a place in the store, and several outputs at once.
fn more_names(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let at = format!("{}/exporters/more-{}", server.address, mode.name);
    dockerfile(mode, "named", "FROM busybox\nRUN echo named > /x\n")?;
    let build = |output: &str| build_named(mode, output);
    // Only in a registry, only by its digest, in the words of Docker.
    let apart = format!(
        "type=image,name={at}-apart,push=true,push-by-digest=true,store=false,registry.insecure=true,oci-mediatypes=false"
    );
    expect(&build(&apart)?, 0, &["sha256:"])?;
    let digest = json(mode, "named.json")?["containerimage.digest"].as_str().unwrap_or_default().to_owned();
    let raw = script(mode, &format!("skopeo inspect --raw --tls-verify=false docker://{at}-apart@{digest}"))?;
    expect(&raw, 0, &["application/vnd.docker.distribution.manifest.v2+json"])?;
    expect(&script(mode, &format!("skopeo inspect --tls-verify=false docker://{at}-apart:latest"))?, 1, &[])?;
    expect(&lap(mode, &format!("inspect {at}-apart"))?, 1, &["no such image"])?;
    let canonical = "type=image,name=canonical:1,name-canonical=true,dangling-name-prefix=dangling";
    let built = build(canonical)?;
    expect(&built, 0, &["sha256:"])?;
    let id = String::from_utf8_lossy(&built.stdout).lines().next().unwrap_or_default().to_owned();
    let digest = json(mode, "named.json")?["containerimage.digest"].as_str().unwrap_or_default().to_owned();
    for name in ["canonical", "dangling"] {
        expect(&lap(mode, &format!("inspect -f '{{{{.Id}}}}' {name}@{digest}"))?, 0, &[&id])?;
    }
    if json(mode, "named.json")?["image.name"]
        != format!("docker.io/library/canonical:1,docker.io/library/dangling@{digest}")
    {
        return Err("the dangling name is not told".to_owned());
    }
    // Several outputs of one build, and only the cache.
    let several = "build -q -t several:1 -o type=image -o type=oci,dest=several.tar -o several-out -o type=cacheonly named";
    expect(
        &lap(mode, &format!("{several} && cat several-out/x && skopeo inspect oci-archive:several.tar"))?,
        0,
        &["named\n", "sha256:"],
    )?;
    // Nothing leaves, so it may stand on the machine's own files.
    let on_host = "printf 'FROM host\\nRUN echo built on the host\\n' | ./lapstrake build --build-context host=rootfs:/// -f -";
    expect(&script(mode, &format!("{on_host} -o type=cacheonly named"))?, 0, &["built on the host"])?;
    expect(&script(mode, &format!("{on_host} named"))?, 1, &["which cannot be part of an image"])?;
    expect(
        &lap(mode, "build -t never:1 -o type=cacheonly named && ./lapstrake inspect never:1")?,
        1,
        &["no such image"],
    )?;
    expect(&lap(mode, "build --iidfile x -o out named")?, 2, &["incompatible with image ID file"])?;
    nothing_left(mode)
}

fn files(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "files", "FROM scratch\nCOPY Dockerfile /a/b\nCOPY Dockerfile /c\n")?;
    let dirty = "rm -rf kept && mkdir -p kept/old/deep kept/a/x kept/c && echo o > kept/old/deep/f && echo o > kept/a/y && ln -s /etc kept/link && ";
    let copy = script(
        mode,
        &format!(
            "{dirty} ./lapstrake build -q -o type=local,dest=kept,mode=delete files; find kept | sort; ls -d /etc/passwd"
        ),
    )?;
    expect(&copy, 0, &["kept\nkept/a\nkept/a/b\nkept/c\n/etc/passwd\n"])?;
    let beside = "echo o > kept/more && ./lapstrake build -q -o kept files && cat kept/more";
    expect(&script(mode, beside)?, 0, &["o\n"])?;
    let split = "rm -rf split && ./lapstrake build -q -o type=local,dest=split,platform-split=true files && find split | sort";
    expect(
        &script(mode, split)?,
        0,
        &["split\nsplit/linux_amd64\nsplit/linux_amd64/a\nsplit/linux_amd64/a/b\n"],
    )?;
    let tar = "./lapstrake build -q -o type=tar,dest=-,platform-split=true files | tar -tf -";
    expect(&script(mode, tar)?, 0, &["linux_amd64/\nlinux_amd64/a/\nlinux_amd64/a/b\nlinux_amd64/c\n"])?;
    // With an epoch that is the time of everything, older or not.
    let dated = "rm -rf dated && ./lapstrake build -q --build-arg SOURCE_DATE_EPOCH=4000000000 files";
    let times =
        format!("{dated} -o dated && echo \"<$(find dated -mindepth 1 -printf '%T@\\n' | sort -u)>\"");
    expect(&script(mode, &times)?, 0, &["<4000000000.0000000000>"])?;
    let listed = "TZ=UTC tar --full-time -tvf dated.tar | awk '{print $4, $5}' | sort -u";
    let times = format!("{dated} -o - > dated.tar && echo \"<$({listed})>\"");
    expect(&script(mode, &times)?, 0, &["<2096-10-02 07:06:40>"])?;
    nothing_left(mode)
}

/// Into a Docker that is running: here a server that knows one request.
fn docker(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "to-docker", "FROM busybox\nRUN echo docked > /x\nCMD [\"cat\", \"/x\"]\n")?;
    let socket = mode.place.join("docker.sock");
    let got = mode.place.join("docked.tar");
    must(&format!("rm -f '{}' '{}'", socket.display(), got.display()))?;
    let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).map_err(|error| error.to_string())?;
    let engine = std::thread::spawn(move || -> std::io::Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let head = super::proxy::head(&mut reader)?;
        let mut archive = Vec::new();
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
            reader.by_ref().take(size).read_to_end(&mut archive)?;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
        fs::write(&got, archive)?;
        fs::set_permissions(&got, fs::Permissions::from_mode(0o644))?;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"stream\":\"Loaded image: docked:1\\n\"}\r\n",
        )?;
        Ok(head)
    });
    let host = format!("export DOCKER_HOST=unix://{}; ", socket.display());
    let loaded = script(
        mode,
        &format!("{host} ./lapstrake build -q -t docked:1 --load --metadata-file docked.json to-docker"),
    )?;
    expect(&loaded, 0, &["sha256:"])?;
    let head = engine.join().map_err(|_| "the engine failed")?.map_err(|error| error.to_string())?;
    if !head.starts_with("POST /images/load") {
        return Err(format!("asked {head}"));
    }
    let fresh = format!("export LAPSTRAKE_ROOT='{}/docked-{}'; ", mode.place.display(), mode.name);
    let read = "skopeo inspect docker-archive:docked.tar && ./lapstrake load -i docked.tar && ./lapstrake run docked:1";
    expect(&script(mode, &(fresh.clone() + read))?, 0, &["Loaded image: docked:1", "docked\n"])?;
    must(&format!("rm -rf '{}/docked-{}'", mode.place.display(), mode.name))?;
    if json(mode, "docked.json")?["image.name"] != "docker.io/library/docked:1" {
        return Err("the metadata does not tell of it".to_owned());
    }
    zstd_for_docker(mode, &fresh)?;
    // Nobody listens any more.
    let refused = script(mode, &format!("{host} ./lapstrake build -q -t docked:1 --load to-docker"))?;
    expect(&refused, 3, &["no Docker or containerd is running at", "lapstrake's own store"])?;
    let tcp = script(mode, "DOCKER_HOST=tcp://127.0.0.1:1 ./lapstrake build -q --load to-docker")?;
    expect(&tcp, 2, &["only `unix://` sockets"])?;
    nothing_left(mode)
}

/// BuildKit's name for what Docker's schema has no name for: written, and read.
fn zstd_for_docker(mode: &Mode, fresh: &str) -> Result<(), String> {
    let zstd = "type=docker,dest=docked-z.tar,name=docked:z,compression=zstd,oci-mediatypes=false";
    let written = format!(
        "./lapstrake build -q -o {zstd} to-docker && tar -xOf docked-z.tar --wildcards 'blobs/sha256/*' | tr -d '\\0' | grep -ao 'vnd.docker.image.rootfs.diff.tar.zstd' | sort -u"
    );
    expect(&script(mode, &written)?, 0, &["vnd.docker.image.rootfs.diff.tar.zstd\n"])?;
    let read = "./lapstrake load -i docked-z.tar && ./lapstrake run docked:z";
    expect(&script(mode, &(fresh.to_owned() + read))?, 0, &["Loaded image: docked:z", "docked\n"])?;
    must(&format!("rm -rf '{}/docked-{}'", mode.place.display(), mode.name))
}

/// The manifest that a registry has.
fn raw(mode: &Mode, name: &str) -> Result<Output, String> {
    script(mode, &format!("skopeo inspect --raw --tls-verify=false docker://{name}"))
}

/// Pulled, saved, loaded elsewhere and pushed from there, an image has the same bytes: its layers and its manifest.
fn round_trip(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let at = format!("{}/round/{}", server.address, mode.name);
    dockerfile(mode, "round", "FROM busybox\nRUN head -c 300000 /dev/urandom > /r\nRUN echo round > /x\n")?;
    let copy = |from: &str, to: &str, more: &str| {
        script(
            mode,
            &format!(
                "skopeo --insecure-policy copy --src-tls-verify=false --dest-tls-verify=false {more} {from} {to}"
            ),
        )
    };
    let build = "rm -f round.tar && ./lapstrake build -q -o type=docker,dest=round.tar,name=round:1 round";
    expect(&script(mode, build)?, 0, &[])?;
    for (tag, how) in [
        ("gzip", "--dest-compress-format gzip"),
        ("zstd", "--dest-compress-format zstd --format oci"),
        ("docker", "--format v2s2"),
        ("ours", ""),
    ] {
        let (first, second) = (format!("{at}:{tag}"), format!("{at}-again:{tag}"));
        let made = if tag == "ours" {
            let keys = "type=registry,annotation.k=v,annotation.l=w";
            lap(mode, &format!("build -q -o {keys},name={first} round"))?
        } else {
            copy("docker-archive:round.tar:round:1", &format!("docker://{first}"), how)?
        };
        expect(&made, 0, &[])?;
        let fresh = |number: u32, commands: &str| {
            let state = format!("{}/round-{number}-{}", mode.place.display(), mode.name);
            must(&format!("rm -rf '{state}'"))?;
            let done = script(mode, &format!("export LAPSTRAKE_ROOT='{state}' && {commands}"))?;
            must(&format!("rm -rf '{state}'"))?;
            expect(&done, 0, &[]).map_err(|why| format!("{tag}: {why}"))
        };
        fresh(
            1,
            &format!(
                "./lapstrake pull -q {first} && rm -f again.tar && ./lapstrake save -o again.tar {first}"
            ),
        )?;
        fresh(
            2,
            &format!(
                "./lapstrake load -q -i again.tar && ./lapstrake tag {first} {second} && ./lapstrake push -q {second}"
            ),
        )?;
        let (before, after) = (raw(mode, &first)?, raw(mode, &second)?);
        if before.stdout != after.stdout || !text(&before).contains("\"layers\"") {
            return Err(format!("{tag}: the manifest is not the same: {} {}", text(&before), text(&after)));
        }
    }
    conform::pushed(&mode.place.join("registry"))?;
    nothing_left(mode)
}

const EXTENSIONS: [&str; 2] =
    ["containerd.io/snapshot/stargz/toc.digest", "io.containers.estargz.uncompressed-size"];

/// Which layers of a manifest say that they are eStargz.
fn told(manifest: &serde_json::Value) -> Vec<bool> {
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    layers.iter().map(|layer| EXTENSIONS.iter().all(|key| layer["annotations"][key].is_string())).collect()
}

/// Layers with a table of contents: others take them for gzip, they are always the same, and they stay what they are.
fn estargz(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/estargz/{}", server.address, mode.name);
    dockerfile(
        mode,
        "estargz",
        "FROM busybox\nRUN head -c 5000000 /bin/busybox > /big; echo stargz > /x\nCMD [\"cat\", \"/x\"]\n",
    )?;
    let build = |tag: &str, more: &str| {
        let keys = format!("type=image,name={name}:{tag},push=true,compression=estargz{more}");
        expect(&lap(mode, &format!("build -q -o {keys} estargz"))?, 0, &["sha256:"])
    };
    let manifest = |tag: &str| -> Result<serde_json::Value, String> {
        let raw = raw(mode, &format!("{name}:{tag}"))?;
        serde_json::from_slice(&raw.stdout).map_err(|_| text(&raw))
    };
    build("new", "")?;
    build("all", ",force-compression=true")?;
    let (new, all) = (manifest("new")?, manifest("all")?);
    if told(&new) != [false, true] || told(&all) != [true, true] || new["layers"][1] != all["layers"][1] {
        return Err(format!("the layers are not what was asked for: {new} {all}"));
    }
    let copy = format!(
        "rm -rf estargz-copy && skopeo --insecure-policy copy --src-tls-verify=false docker://{name}:all oci:estargz-copy:1 && umoci unpack --rootless --image estargz-copy:1 estargz-umoci && cat estargz-umoci/rootfs/x && rm -rf estargz-umoci"
    );
    expect(&script(mode, &copy)?, 0, &["stargz\n"])?;
    conform::layout(&mode.place.join("estargz-copy"))?;
    // Elsewhere it is run, built on, saved, loaded and pushed as it is.
    let state = format!("{}/estargz-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    let elsewhere = |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{state}'; {commands}"));
    let pull = format!(
        "./lapstrake pull -q {name}:all && ./lapstrake run {name}:all && ./lapstrake run {name}:all ls /"
    );
    let ran = elsewhere(&pull)?;
    expect(&ran, 0, &["stargz\n"])?;
    if text(&ran).contains("stargz.index") {
        return Err(format!("the table is among the files: {}", text(&ran)));
    }
    dockerfile(mode, "estargz-on", &format!("FROM {name}:all\nRUN cat /x > /y\n"))?;
    let on = format!(
        "./lapstrake build -q -o type=image,name={name}:on,push=true,compression=estargz,force-compression=true estargz-on && ./lapstrake tag {name}:all {name}:again && ./lapstrake push -q {name}:again"
    );
    expect(&elsewhere(&on)?, 0, &["sha256:"])?;
    let (on, again) = (manifest("on")?, manifest("again")?);
    let same = (0..2).all(|number| on["layers"][number] == all["layers"][number]);
    if !same || told(&on) != [true; 3] || again["layers"] != all["layers"] {
        return Err(format!("layers changed on their way: {all} {on} {again}"));
    }
    let refused = lap(mode, "build -q --cache-to type=local,dest=x,compression=estargz estargz")?;
    expect(&refused, 2, &["`compression=estargz` is for images"])?;
    must(&format!("rm -rf '{state}'"))?;
    nothing_left(mode)
}
