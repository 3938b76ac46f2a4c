//! One build for several platforms: an index of images, files in directories, and the name that they have together.

use std::fs;

use super::conform;
use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("platforms_index", platforms_index),
    ("platforms_files", platforms_files),
    ("platforms_names", names),
    ("platforms_pushed", pushed),
    ("platforms_run", run),
    ("platforms_asked", asked),
];

const THREE: &str = "linux/arm64,linux/amd64,linux/arm/v7";

/// A stage on this machine's platform picks what a stage on the target's gets.
const PICKED: &str = "FROM --platform=$BUILDPLATFORM scratch AS pick\nARG TARGETARCH TARGETVARIANT\n\
    COPY file-$TARGETARCH$TARGETVARIANT /picked\nFROM scratch\nLABEL a=b\nCOPY --from=pick /picked /which\n\
    COPY both /same\n";

/// Makes the context of [`PICKED`].
fn picked(mode: &Mode, name: &str) -> Result<(), String> {
    dockerfile(mode, name, PICKED)?;
    let dir = mode.place.join(name);
    for (file, text) in
        [("file-amd64", "amd64\n"), ("file-arm64", "arm64\n"), ("file-armv7", "armv7\n"), ("both", "both\n")]
    {
        fs::write(dir.join(file), text).map_err(|error| error.to_string())?;
    }
    must(&format!("chmod 644 '{}'/*", dir.display()))
}

fn json(mode: &Mode, name: &str) -> Result<serde_json::Value, String> {
    let bytes = fs::read(mode.place.join(name)).map_err(|error| format!("{name}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))
}

/// Indexes, byte for byte: their digests are those that BuildKit (73ed6825c) gave them.
fn platforms_index(mode: &Mode) -> Result<(), String> {
    picked(mode, "indexed")?;
    let place = mode.place.display();
    let of_one = "--platform linux/arm64 --build-arg BUILDKIT_MULTI_PLATFORM=1";
    let of_all = format!("--platform {THREE}");
    let said = ",annotation.a=1,annotation-index.i=2,annotation-manifest-descriptor.md=4,annotation[linux/arm64].only=5";
    for (flags, keys, digest) in [
        (of_all.as_str(), said, "88d65c79cb0abe9c4701a8b98ee7857b0b4e30562f780b59b5bd47036f7c46a0"),
        (
            of_all.as_str(),
            ",oci-mediatypes=false",
            "7cffe614ff2f696f8a48cfe52af10cb917304123faf90dff249a68bac640b587",
        ),
        (of_one, "", "8deafcb1ae9299e873d14d4e5b289683f731b3fb6aa6f7fdd50c10dcd7c1dd4a"),
    ] {
        must(&format!("rm -rf '{place}/index-layout'"))?;
        let form = "type=oci,tar=false,dest=index-layout,name=app,rewrite-timestamp=true,compression=uncompressed,force-compression=true";
        let told = "--metadata-file index.json --iidfile index.id --build-arg SOURCE_DATE_EPOCH=1700000000";
        let built = lap(mode, &format!("build -q {flags} {told} -o {form}{keys} indexed && cat index.id"))?;
        let digest = format!("sha256:{digest}");
        expect(&built, 0, &[&format!("{digest}\n{digest}")]).map_err(|why| format!("{keys}: {why}"))?;
        conform::layout(&mode.place.join("index-layout")).map_err(|why| format!("{keys}: {why}"))?;
        let (told, listed) = (json(mode, "index.json")?, json(mode, "index-layout/index.json")?);
        let (descriptor, entry) = (&told["containerimage.descriptor"], &listed["manifests"][0]);
        if told["containerimage.digest"] != digest.as_str()
            || told.get("containerimage.config.digest").is_some()
            || descriptor.get("platform").is_some()
            || (&descriptor["digest"], &descriptor["mediaType"]) != (&entry["digest"], &entry["mediaType"])
            || entry["digest"] != digest.as_str()
        {
            return Err(format!("{keys}: {told} {listed}"));
        }
        // skopeo takes only documents of the OCI out of layouts.
        if keys != ",oci-mediatypes=false" {
            let copied = "rm -rf copied-index && skopeo --insecure-policy copy --all oci:index-layout:latest dir:copied-index && ls copied-index && rm -rf copied-index";
            expect(&script(mode, copied)?, 0, &["manifest.json"])?;
        }
    }
    let none = format!("build -q {of_all} -o type=oci,dest=none.tar,annotation[linux/riscv64].k=v indexed");
    expect(&lap(mode, &none)?, 2, &["invalid annotation: no platform linux/riscv64 found in source"])?;
    let alone = lap(mode, "build -q -o type=oci,dest=none.tar,annotation-index.k=v indexed")?;
    expect(&alone, 2, &["index annotations not supported for single platform export"])?;
    nothing_left(mode)
}

/// Files of platforms beside each other, and in each other.
fn platforms_files(mode: &Mode) -> Result<(), String> {
    picked(mode, "filed")?;
    let two = "--platform linux/arm64,linux/amd64";
    let list = |dir: &str| script(mode, &format!("cd {dir} && find . -type f | sort | xargs grep ''"));
    let prepare = "rm -rf split && mkdir -p split/linux_amd64 split/other && touch split/linux_amd64/stale split/other/stale";
    expect(&script(mode, prepare)?, 0, &[])?;
    let stays = lap(mode, &format!("build -q {two} -o split filed"))?;
    expect(&stays, 0, &[])?;
    let all = "./linux_amd64/same:both\n./linux_amd64/which:amd64\n./linux_arm64/same:both\n./linux_arm64/which:arm64\n";
    expect(&list("split")?, 0, &[all])?;
    expect(&script(mode, "ls split/other/stale split/linux_amd64/stale")?, 0, &[])?;
    let gone = lap(
        mode,
        &format!(
            "build -q {two} --build-arg SOURCE_DATE_EPOCH=1700000000 -o type=local,dest=split,mode=delete filed"
        ),
    )?;
    expect(&gone, 0, &[])?;
    expect(&list("split")?, 0, &[all])?;
    expect(
        &script(
            mode,
            "test ! -e split/other && test ! -e split/linux_amd64/stale && test $(stat -c %Y split/linux_arm64/which) = 1700000000",
        )?,
        0,
        &[],
    )?;
    let fresh = format!(
        "rm -rf split && ./lapstrake build -q {two} --build-arg SOURCE_DATE_EPOCH=1700000000 -o split filed && test $(stat -c %Y split/linux_arm64) = 1700000000"
    );
    expect(&script(mode, &fresh)?, 0, &[])?;
    for kind in ["local", "tar"] {
        let doubled = lap(
            mode,
            &format!("build -q {two} -o type={kind},dest=doubled-{kind},platform-split=false filed"),
        )?;
        let why = "cannot overwrite same from linux/arm64 with linux/amd64 when split option is disabled";
        expect(&doubled, 1, &[why])?;
    }
    nothing_through_links(mode, two)?;
    nothing_in_place_of_another(mode, two)?;
    dockerfile(mode, "filed", "FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /d/\n")?;
    let merged = "rm -rf merged && mkdir -p merged/d && touch merged/d/stale merged/stale";
    let keys = "dest=merged,platform-split=false,mode=delete";
    expect(
        &script(mode, &format!("{merged} && ./lapstrake build -q {two} -o type=local,{keys} filed"))?,
        0,
        &[],
    )?;
    let both = list("merged")?;
    if both.stdout != b"./d/file-amd64:amd64\n./d/file-arm64:arm64\n" {
        return Err(text(&both));
    }
    tars(mode, two)?;
    nothing_left(mode)
}

/// Tars of platforms beside each other, and in each other.
fn tars(mode: &Mode, two: &str) -> Result<(), String> {
    let tars = format!(
        "./lapstrake build -q {two} -o type=tar,dest=split.tar filed && tar tf split.tar && ./lapstrake build -q {two} -o type=tar,dest=merged.tar,platform-split=false filed && tar tf merged.tar && tar xOf merged.tar d/file-arm64"
    );
    let listed = "linux_amd64/\nlinux_amd64/d/\nlinux_amd64/d/file-amd64\nlinux_arm64/\nlinux_arm64/d/\nlinux_arm64/d/file-arm64\nd/\nd/file-amd64\nd/file-arm64\narm64\n";
    let found = script(mode, &tars)?;
    expect(&found, 0, &[])?;
    if found.stdout != listed.as_bytes() {
        return Err(text(&found));
    }
    Ok(())
}

/// A link that an earlier export left where a platform's directory goes leads nowhere.
fn nothing_through_links(mode: &Mode, two: &str) -> Result<(), String> {
    let linked = format!(
        "rm -rf split outside && mkdir split outside && echo kept > outside/song && ln -s ../outside split/linux_arm64 && \
         ./lapstrake build -q {two} -o type=local,dest=split,mode=delete filed && cat split/linux_arm64/which outside/*"
    );
    let through = script(mode, &linked)?;
    if !through.status.success() || through.stdout != b"arm64\nkept\n" {
        return Err(format!("a link was followed: {}", text(&through)));
    }
    Ok(())
}

/// A file of one platform and a directory of another are not put into each other.
fn nothing_in_place_of_another(mode: &Mode, two: &str) -> Result<(), String> {
    let mixed = "FROM scratch AS base-amd64\nCOPY both /d/x\nFROM scratch AS base-arm64\nCOPY both /d\nFROM base-$TARGETARCH\n";
    dockerfile(mode, "filed", mixed)?;
    for kind in ["local", "tar"] {
        let doubled = lap(
            mode,
            &format!("build -q {two} -o type={kind},dest=mixed-{kind},platform-split=false filed"),
        )?;
        expect(&doubled, 1, &["cannot overwrite d from linux/arm64 with linux/amd64 when split option"])?;
    }
    Ok(())
}

/// A name that images for several platforms have together: told, given, saved and loaded, built upon, and taken away.
fn names(mode: &Mode) -> Result<(), String> {
    picked(mode, "named-all")?;
    expect(&lap(mode, &format!("build -q --platform {THREE} -t all:1 named-all"))?, 0, &["sha256:"])?;
    let listed =
        |name: &str| lap(mode, &format!("images --format '{{{{.Tag}}}} {{{{.Platform}}}}' {name} | sort"));
    let three = "1 linux/amd64\n1 linux/arm/v7\n1 linux/arm64\n";
    expect(&listed("all")?, 0, &[three])?;
    let inspect = |platform: &str| {
        lap(mode, &format!("inspect {platform} --format '{{{{.Architecture}}}}/{{{{.Variant}}}}' all:1"))
    };
    expect(&inspect("--platform linux/arm/v7")?, 0, &["arm/v7\n"])?;
    expect(&inspect("")?, 0, &["amd64/\n"])?;
    let absent = inspect("--platform linux/riscv64")?;
    expect(&absent, 1, &["image `all:1` is for linux/arm64, linux/amd64, linux/arm/v7, not linux/riscv64"])?;
    // What stands on it stands on the one for its platform.
    dockerfile(mode, "on-all", "FROM all:1\nCOPY Dockerfile /more\n")?;
    let on = "build -q --platform linux/arm64 -o type=tar,dest=on-all.tar on-all && tar xOf on-all.tar which";
    expect(&lap(mode, on)?, 0, &["arm64\n"])?;
    // There and back, into a state directory of its own.
    let state = mode.place.join(format!("platforms-{}", mode.name));
    must(&format!("rm -rf '{}'", state.display()))?;
    let other = format!("LAPSTRAKE_ROOT='{}' ./lapstrake", state.display());
    for flavour in ["", "--oci"] {
        let back = format!(
            "save {flavour} -o all.tar all:1 && {other} load -i all.tar && {other} images --format '{{{{.Tag}}}} {{{{.Platform}}}} {{{{.ID}}}}' all | sort > all-theirs && ./lapstrake images --format '{{{{.Tag}}}} {{{{.Platform}}}} {{{{.ID}}}}' all | sort | diff - all-theirs && {other} rmi -f all:1"
        );
        expect(&lap(mode, &back)?, 0, &["Loaded image: all:1\n", "Untagged: all:1\nDeleted: sha256:"])?;
    }
    let one = format!(
        "save --platform linux/arm64 -o one.tar all:1 && {other} load -i one.tar && {other} images --format '{{{{.Platform}}}}' all"
    );
    expect(&lap(mode, &one)?, 0, &["Loaded image: all:1\nlinux/arm64\n"])?;
    let some = format!(
        "save -o all.tar all:1 && {other} load --platform linux/amd64 -i all.tar && {other} images --format '{{{{.Platform}}}}' all"
    );
    expect(&lap(mode, &some)?, 0, &["Loaded image: all:1\nlinux/amd64\n"])?;
    expect(&lap(mode, "tag all:1 all:2 && ./lapstrake rmi all:1")?, 0, &["Untagged: all:1\n"])?;
    let two = three.replace("1 ", "2 ");
    expect(&listed("all")?, 0, &[&two])?;
    expect(&lap(mode, "rmi --platform linux/amd64 all:2")?, 0, &["Deleted: sha256:"])?;
    expect(&listed("all")?, 0, &["2 linux/arm/v7\n2 linux/arm64\n"])?;
    // An image of one platform takes the name from all of them.
    expect(&lap(mode, "build -q --platform linux/arm64 -t all:2 named-all")?, 0, &[])?;
    let alone = listed("all")?;
    if alone.stdout != b"2 linux/arm64\n" {
        return Err(text(&alone));
    }
    expect(&lap(mode, "rmi all:2")?, 0, &["Untagged: all:2\nDeleted: sha256:"])?;
    nothing_left(mode)
}

/// An index goes to a registry with all that it lists, from a build and from the store.
fn pushed(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/team/platforms-{}", server.address, mode.name);
    picked(mode, "pushed-all")?;
    let built = format!("build --platform {THREE} -t {name}:1 --push --iidfile pushed.id pushed-all");
    expect(&lap(mode, &built)?, 0, &[&format!("pushing manifest for {name}:1@sha256:")])?;
    let raw =
        |tag: &str| script(mode, &format!("skopeo inspect --raw --tls-verify=false docker://{name}:{tag}"));
    let first = raw("1")?;
    expect(&first, 0, &["application/vnd.oci.image.index.v1+json", "\"variant\": \"v7\""])?;
    let told = format!(
        "test sha256:$(skopeo inspect --raw --tls-verify=false docker://{name}:1 | sha256sum | cut -d' ' -f1) = $(cat pushed.id)"
    );
    expect(&script(mode, &told)?, 0, &[])?;
    // From the store it is the same one, under whatever name; one platform alone is its manifest.
    expect(&lap(mode, &format!("tag {name}:1 {name}:2 && ./lapstrake push -q {name}:2"))?, 0, &[])?;
    let second = raw("2")?;
    if first.stdout != second.stdout {
        return Err(format!("another index: {} {}", text(&first), text(&second)));
    }
    expect(
        &lap(mode, &format!("tag {name}:1 {name}:3 && ./lapstrake push --platform linux/arm64 -q {name}:3"))?,
        0,
        &[],
    )?;
    expect(&raw("3")?, 0, &["application/vnd.oci.image.manifest.v1+json"])?;
    let copied = format!(
        "rm -rf copied-all && skopeo --insecure-policy copy --all --src-tls-verify=false docker://{name}:1 dir:copied-all && rm -rf copied-all"
    );
    expect(&script(mode, &copied)?, 0, &["Copying 3 of 3 images in list"])?;
    let state = mode.place.join(format!("pulled-{}", mode.name));
    must(&format!("rm -rf '{}'", state.display()))?;
    let other = format!("LAPSTRAKE_ROOT='{}' ./lapstrake", state.display());
    for (platform, word) in [("linux/arm/v7", "arm v7\n"), ("linux/amd64", "amd64 \n")] {
        let pull = format!(
            "{other} pull -q --platform {platform} {name}:1 && {other} inspect --format '{{{{.Architecture}}}} {{{{.Variant}}}}' {name}:1"
        );
        expect(&script(mode, &pull)?, 0, &[word])?;
    }
    let by_digest = format!(
        "build -q --platform {THREE} -o type=image,name={name},push=true,push-by-digest=true,store=false pushed-all"
    );
    expect(&lap(mode, &by_digest)?, 0, &["sha256:"])?;
    // Bases that stay in the registry do so for each platform.
    dockerfile(mode, "on-pushed", &format!("FROM {name}:1\nCOPY Dockerfile /more\n"))?;
    let on = format!(
        "export LAPSTRAKE_ROOT='{}' && ./lapstrake build -q --platform {THREE} -o type=registry,store=false,name={name}:on on-pushed && skopeo inspect --override-arch arm64 --tls-verify=false docker://{name}:on",
        state.display()
    );
    expect(&script(mode, &on)?, 0, &["\"Architecture\": \"arm64\""])?;
    conform::pushed(&mode.place.join("registry"))?;
    nothing_left(mode)
}

/// Steps run on this machine for other platforms; a step of another platform needs an emulator, and says so.
fn run(mode: &Mode) -> Result<(), String> {
    let cross = "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo made-for-$TARGETARCH > /made\n\
        FROM scratch\nCOPY --from=make /made /\n";
    dockerfile(mode, "crossed", cross)?;
    let two = "--platform linux/amd64,linux/arm64";
    let made =
        lap(mode, &format!("build --progress plain {two} -o crossed-out crossed && cat crossed-out/*/made"))?;
    let step = "[linux/amd64->arm64 make 2/2] RUN echo made-for-arm64 > /made";
    expect(&made, 0, &[step, "[linux/amd64 make 2/2] RUN", "made-for-amd64\nmade-for-arm64\n"])?;
    // What is the same for all of them is done once.
    dockerfile(
        mode,
        "crossed",
        "FROM --platform=$BUILDPLATFORM busybox AS once\nRUN echo once > /once; echo seen-$$\nFROM scratch\nCOPY --from=once /once /\n",
    )?;
    let once =
        lap(mode, &format!("build --progress plain {two} -o crossed-out crossed && cat crossed-out/*/once"))?;
    expect(&once, 0, &["once\nonce\n"])?;
    if text(&once)
        .matches(
            " seen-1
",
        )
        .count()
        != 1
    {
        return Err(format!("not once: {}", text(&once)));
    }
    // A base that is here for one of them only is told of, beside what its registry says.
    dockerfile(mode, "crossed", "FROM busybox\nCOPY Dockerfile /d\n")?;
    let lacking = lap(mode, &format!("build -q {two} crossed"))?;
    expect(
        &lacking,
        3,
        &["library/busybox:latest: it is here for linux/amd64, not for linux/arm64: cannot reach"],
    )?;
    // One platform that fails ends the build, and nothing is exported of the others.
    dockerfile(
        mode,
        "crossed",
        "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN test $TARGETARCH = amd64\nFROM scratch\nCOPY --from=make /bin/true /\n",
    )?;
    let failed = lap(mode, &format!("build --progress plain {two} -t crossed:1 crossed"))?;
    expect(&failed, 1, &["[linux/amd64->arm64 make 2/2] RUN test arm64 = amd64", "exit code: 1"])?;
    expect(&lap(mode, "inspect crossed:1")?, 1, &["no such image: crossed:1"])?;
    nothing_left(mode)
}

/// The ways in which people say which platforms they mean.
fn asked(mode: &Mode) -> Result<(), String> {
    picked(mode, "asked")?;
    let listed = "./lapstrake images --format '{{.Platform}}' asked | sort | tr '\\n' ' '";
    for (how, platforms) in [
        (
            "./lapstrake build -q --platform linux/arm64 --platform linux/amd64,local",
            "linux/amd64 linux/arm64 ",
        ),
        ("DOCKER_DEFAULT_PLATFORM=linux/arm/v7 ./lapstrake build -q", "linux/arm/v7 "),
        ("DOCKER_DEFAULT_PLATFORM=linux/arm/v7 ./lapstrake build -q --platform linux/arm64", "linux/arm64 "),
        ("./lapstrake build -q --platform linux/arm64,linux/arm64", "linux/arm64 "),
    ] {
        let built = script(mode, &format!("{how} -t asked asked && {listed}"))?;
        expect(&built, 0, &[&format!("\n{platforms}")]).map_err(|why| format!("{how}: {why}"))?;
    }
    // What runs is this machine's, unless somebody says another one; its programs need an emulator.
    dockerfile(
        mode,
        "asked",
        "FROM --platform=$BUILDPLATFORM busybox AS b\nFROM scratch\nARG TARGETARCH\nCOPY --from=b / /\nENV FOR=$TARGETARCH\n",
    )?;
    expect(&lap(mode, "build -q --platform linux/arm64,linux/amd64 -t asked asked")?, 0, &[])?;
    for (how, word) in [
        ("./lapstrake run asked", "for amd64\n"),
        ("./lapstrake run --platform linux/arm64 asked", "for arm64\n"),
        ("DOCKER_DEFAULT_PLATFORM=linux/arm64 ./lapstrake run asked", "for arm64\n"),
    ] {
        expect(&script(mode, &format!("{how} sh -c 'echo for $FOR'"))?, 0, &[word])?;
    }
    let absent = lap(mode, "run --platform linux/riscv64 asked true")?;
    expect(&absent, 125, &["image `asked` is for linux/arm64, linux/amd64, not linux/riscv64"])?;
    nothing_left(mode)
}
