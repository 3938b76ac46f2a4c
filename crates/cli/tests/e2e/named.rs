//! Names that are given, and places with names that nobody expects.

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] = &[
    ("named_with_digests", with_digests),
    ("named_caches", caches),
    ("named_state", state),
    ("named_owners", owners),
];

/// Nothing new gets a name with a digest, through whatever door.
fn with_digests(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "pinned-names", "FROM busybox\n")?;
    let pinned = format!("docker.io/library/n@sha256:{}", "0".repeat(64));
    let made = "rm -rf pinned-root && mkdir pinned-root && tar -C pinned-root -cf pinned-root.tar . && \
                ./lapstrake save -o pinned.tar busybox && mkdir -p pinned-archive && tar -C pinned-archive -xf pinned.tar";
    expect(&script(mode, made)?, 0, &[])?;
    for door in [
        "build -t NAME pinned-names",
        "build -t n:1@sha256:0000000000000000000000000000000000000000000000000000000000000000 pinned-names",
        "build -o type=image,name=NAME pinned-names",
        "build -o type=oci,dest=pinned-out.tar,name=NAME pinned-names",
        "build -o type=image,dangling-name-prefix=NAME pinned-names",
        "build --cache-to type=registry,ref=NAME pinned-names",
        "tag busybox NAME",
        "import pinned-root.tar NAME",
        "push NAME",
    ] {
        let output = lap(mode, &door.replace("NAME", &pinned))?;
        expect(&output, 2, &["a name cannot have a digest"]).map_err(|why| format!("{door}: {why}"))?;
    }
    let archive = format!(
        "sed -i 's|docker.io/library/busybox:latest|{pinned}|g; s|\"busybox:latest\"|\"{pinned}\"|g' pinned-archive/manifest.json && \
         tar -C pinned-archive -cf pinned-again.tar . && ./lapstrake load -i pinned-again.tar"
    );
    expect(&script(mode, &archive)?, 1, &["a name cannot have a digest"])?;
    expect(&lap(mode, "images")?, 0, &[])?;
    nothing_left(mode)
}

/// A tag that a layout does not have is said, and none is taken in its place.
fn caches(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "cache-tags", "FROM busybox\nRUN echo cached > /x\n")?;
    let to = "rm -rf cache-by-tag cache-untagged && ./lapstrake build --cache-to type=local,dest=cache-by-tag,tag=mine cache-tags && \
              cp -r cache-by-tag cache-untagged && python3 -c \"import json; p = 'cache-untagged/index.json'; i = json.load(open(p)); \
              [m.pop('annotations') for m in i['manifests']]; json.dump(i, open(p, 'w'))\"";
    expect(&script(mode, to)?, 0, &[])?;
    let from = |keys: &str| {
        lap(mode, &format!("build --progress plain --cache-from type=local,src={keys} cache-tags"))
    };
    expect(&from("cache-by-tag,tag=mine")?, 0, &["found 1 results"])?;
    for keys in ["cache-by-tag,tag=nosuch", "cache-by-tag", "cache-untagged,tag=nosuch"] {
        let output = from(keys)?;
        let words = [
            "cannot be used",
            "has no cache with the tag `",
            if keys.contains("untagged") { "no tags" } else { "it has `mine`" },
        ];
        expect(&output, 0, &words).map_err(|why| format!("{keys}: {why}"))?;
    }
    // The only one, without a tag, is meant by whoever names none.
    expect(&from("cache-untagged")?, 0, &["found 1 results"])?;
    nothing_left(mode)
}

/// A state directory may have any name, of any length.
fn state(mode: &Mode) -> Result<(), String> {
    let text = "FROM base\nRUN --mount=type=cache,target=/c --mount=type=bind,target=/ctx echo x > /x && test -f /ctx/f\n\
                COPY f /f\nADD a.tar /a/\nRUN test -f /f -a -f /x -a -f /a/f\nFROM scratch\nCOPY --link --from=0 /x /x\n\
                COPY --from=0 /bin /bin\nRUN test -f /x\n";
    dockerfile(mode, "odd-states", text)?;
    let made = "mkdir -p ctx-odd-states && cp odd-states/Dockerfile ctx-odd-states && echo x > ctx-odd-states/f && \
                tar -C ctx-odd-states -cf ctx-odd-states/a.tar f && ./lapstrake save -o odd-base.tar busybox";
    expect(&script(mode, made)?, 0, &[])?;
    let long = format!("{}/{}", "n".repeat(150), "m".repeat(150));
    for name in ["back\\slash", "all,of:it=\\:\\,\\\\ \"x\" %s", "a\nline", "octal\\040", &long] {
        let commands = format!(
            "export LAPSTRAKE_ROOT=\"$PWD/odd/\"'{name}' && mkdir -p \"$LAPSTRAKE_ROOT\" && ./lapstrake load -i odd-base.tar && \
             ./lapstrake build --no-cache -t odd --build-context base=docker-image://busybox ctx-odd-states && \
             ./lapstrake run odd /bin/sh -c 'echo inside' && ./lapstrake doctor --state && ./lapstrake prune -af"
        );
        expect(&script(mode, &commands)?, 0, &["inside\n"]).map_err(|why| format!("{name:?}: {why}"))?;
    }
    expect(&script(mode, "rm -rf odd")?, 0, &[])?;
    nothing_left(mode)
}

/// Owners that a user has no ids for are an error with a way to go on, which root and users with one id do not need.
fn owners(mode: &Mode) -> Result<(), String> {
    let text = "FROM scratch AS layer\nCOPY --chown=3000000:3000001 f /f\nFROM scratch AS unpacked\nADD far.tar /d/\n\
                FROM scratch AS made\nCOPY <<E /x/\nx\nE\nFROM scratch AS inline\nCOPY --chown=3000000 <<E /x\nx\nE\n\
                FROM scratch AS dir\nCOPY --chown=3000000 . /d/\n";
    dockerfile(mode, "far-owners", text)?;
    let made = "rm -rf ctx-far && mkdir -p ctx-far && cp far-owners/Dockerfile ctx-far && echo x > ctx-far/f && \
                tar -C ctx-far --owner=:3000000 --group=:3000001 -cf ctx-far/far.tar f";
    expect(&script(mode, made)?, 0, &[])?;
    let one = "export LAPSTRAKE_IDS=one LAPSTRAKE_ROOT=$PWD/far-state";
    for target in ["layer", "unpacked", "inline", "dir"] {
        let build =
            format!("./lapstrake build --no-cache --target {target} -o type=oci,dest=far-owners.tar ctx-far");
        let output = script(mode, &build)?;
        if mode.user == Some(super::place::USER) {
            let words = [
                "belongs to 3000000:",
                "this user has no such id",
                "hint: give this user a range",
                "LAPSTRAKE_IDS=one",
            ];
            expect(&output, 1, &words).map_err(|why| format!("{target}: {why}"))?;
            expect(&script(mode, &format!("{one} && {build}"))?, 0, &[])
                .map_err(|why| format!("{target}: {why}"))?;
        } else {
            expect(&output, 0, &[]).map_err(|why| format!("{target}: {why}"))?;
        }
    }
    if mode.user == Some(super::place::USER) {
        let import = "import ctx-far/far.tar far-owners";
        expect(&lap(mode, import)?, 1, &["belongs to 3000000:3000001", "hint: give this user a range"])?;
        expect(&script(mode, &format!("{one} && ./lapstrake {import}"))?, 0, &["sha256:"])?;
    }
    expect(&script(mode, "LAPSTRAKE_IDS=two ./lapstrake images")?, 2, &["LAPSTRAKE_IDS=two"])?;
    nothing_left(mode)
}
