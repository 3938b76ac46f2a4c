//! Images that others serve or keep: a real registry, and OCI layouts of ours and of skopeo's.

use std::process::Output;

use super::place::{Mode, dockerfile, expect, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[("registry", registry), ("layouts", layouts)];

/// An image with two layers as `app.tar`, an OCI archive, and the digests of its layers, one a line.
fn archive(mode: &Mode) -> Result<String, String> {
    dockerfile(mode, "app", "FROM busybox\nRUN echo pushed > /x\nENV A=b\nCMD [\"cat\", \"/x\"]\n")?;
    let build = "rm -f app.tar && ./lapstrake build -q -o type=oci,dest=app.tar,name=app:1 app";
    expect(&script(mode, build)?, 0, &["sha256:"])?;
    let layers = script(mode, "skopeo inspect --config oci-archive:app.tar")?;
    expect(&layers, 0, &["diff_ids"])?;
    Ok(digests(&layers))
}

/// All digests on lines of their own, as in `rootfs.diff_ids`.
fn digests(output: &Output) -> String {
    let all = String::from_utf8_lossy(&output.stdout).replace(['[', ']', ','], "\n").replace(": ", ":\n");
    let words = all.lines().map(|line| line.trim().trim_matches('"'));
    words.filter(|word| word.starts_with("sha256:")).map(|word| format!("{word}\n")).collect()
}

/// Runs commands with a state directory that has never seen the image.
fn fresh(mode: &Mode, commands: &str) -> Result<Output, String> {
    script(mode, &format!("export LAPSTRAKE_ROOT=\"$LAPSTRAKE_ROOT/../fresh-{}\" && {commands}", mode.name))
}

/// Builds and runs `Dockerfile` in `from`, which stands on the pushed image; its lower layers must be `layers`.
fn stands_on(mode: &Mode, flags: &str, layers: &str) -> Result<Output, String> {
    let built =
        fresh(mode, &format!("./lapstrake build {flags} -t from from && ./lapstrake run from cat /y"))?;
    expect(&built, 0, &["pushed b\n"])?;
    let inspected = fresh(mode, "./lapstrake inspect from")?;
    if digests(&inspected).contains(layers) {
        Ok(built)
    } else {
        Err(format!("the layers are not {layers}: {}", text(&inspected)))
    }
}

fn registry(mode: &Mode) -> Result<(), String> {
    let layers = archive(mode)?;
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/team/app", server.address);
    let copy = "skopeo --insecure-policy copy --dest-tls-verify=false oci-archive:app.tar";
    for (tag, format) in [("oci", "oci"), ("docker", "v2s2")] {
        let pushed = script(mode, &format!("{copy} --format {format} docker://{name}:{tag}"))?;
        expect(&pushed, 0, &[])?;
        // A state directory of its own for each, so that each is pulled whole.
        must(&format!("rm -rf '{}/fresh-{}'", mode.place.display(), mode.name))?;
        dockerfile(mode, "from", &format!("FROM {name}:{tag}\nRUN echo $(cat /x) $A > /y\n"))?;
        stands_on(mode, "", &layers)?;
        stands_on(mode, "--pull", &layers)?;
        dockerfile(
            mode,
            "from",
            &format!(
                "FROM scratch\nCOPY --from={name}:{tag} /bin /bin\nCOPY --from={name}:{tag} /x /x\nENV A=b\nRUN echo $(cat /x) $A > /y\n"
            ),
        )?;
        stands_on(mode, "", "")?;
    }
    dockerfile(mode, "from", "FROM base\nRUN echo $(cat /x) $A > /y\n")?;
    let context = format!("--build-context base=docker-image://{name}:oci");
    stands_on(mode, &context, &layers)?;
    dockerfile(mode, "none", &format!("FROM {name}:none\n"))?;
    expect(
        &fresh(mode, "./lapstrake build none")?,
        1,
        &[&format!("{name}:none"), "not found", "Dockerfile:1"],
    )?;
    drop(server);
    let cached = stands_on(mode, &context, &layers)?;
    expect(&cached, 0, &["[2/2] RUN echo $(cat /x) b > /y\n#3 CACHED"])?;
    expect(&fresh(mode, "./lapstrake build none")?, 3, &["cannot reach registry", "Dockerfile:1"])?;
    nothing_left(mode)
}

fn layouts(mode: &Mode) -> Result<(), String> {
    let layers = archive(mode)?;
    let prepare = "mkdir ours && tar -C ours -xf app.tar && \
                   skopeo --insecure-policy copy oci-archive:app.tar oci:theirs:v7 && \
                   skopeo --insecure-policy copy oci-archive:app.tar oci:theirs:v8 && \
                   skopeo inspect --format '{{.Digest}}' oci:theirs:v8";
    let prepared = script(mode, prepare)?;
    expect(&prepared, 0, &["sha256:"])?;
    let digest = digests(&prepared).lines().last().unwrap_or_default().to_owned();
    dockerfile(mode, "from", "FROM base\nRUN echo $(cat /x) $A > /y\n")?;
    for layout in ["ours", "ours:1", "theirs:v7", "theirs:v8", &format!("theirs@{digest}")] {
        must(&format!("rm -rf '{}/fresh-{}'", mode.place.display(), mode.name))?;
        stands_on(mode, &format!("--build-context base=oci-layout://{layout}"), &layers)
            .map_err(|why| format!("{layout}: {why}"))?;
    }
    for (layout, words) in [("ours:none", "has no image `none`"), ("theirs:none", "has no image `none`")] {
        let failed =
            fresh(mode, &format!("./lapstrake build --build-context base=oci-layout://{layout} from"))?;
        expect(&failed, 1, &[words, "Dockerfile:1"])?;
    }
    nothing_left(mode)
}
