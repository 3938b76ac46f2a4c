//! Registries and networks that misbehave: what was begun is continued, and nothing that is wrong is ever kept.

use std::fs;

use super::place::{Mode, dockerfile, expect, lap, must, must_say, nothing_left_in, script, text};
use super::proxy::{Fault, Proxy, Rule, header};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("trouble_push", push), ("trouble_pull", pull), ("trouble_redirect", redirect)];

/// More than three megabytes that do not compress, so that it goes in parts, and a small layer.
const APP: &str =
    "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\nRUN echo troubled > /x\nCMD [\"cat\", \"/x\"]\n";

fn rule(method: &'static str, path: &'static str, times: usize, fault: Fault) -> Rule {
    Rule { method, path, times, fault }
}

fn busy(after: &str) -> Fault {
    Fault::Answer(format!("429 Too Many Requests\r\nretry-after: {after}"))
}

fn count(log: &[String], method: &str, word: &str) -> usize {
    log.iter().filter(|request| request.starts_with(method) && request.contains(word)).count()
}

/// All blobs in a state directory have the digests that they are named by.
fn all_right(state: &str) -> Result<(), String> {
    let check = format!(
        "cd '{state}/blobs/sha256' && for f in *; do test -e $f || continue; sha256sum $f | grep -q \"^$f \" || echo wrong: $f; done"
    );
    let wrong = must_say(&check)?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn push(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let proxy = Proxy::start(&server.address)?;
    dockerfile(mode, "trouble", APP)?;
    let name = format!("{}/trouble/push-{}", proxy.address, mode.name);
    expect(&lap(mode, &format!("build -q -t {name}:1 trouble"))?, 0, &["sha256:"])?;
    // The line breaks in the middle of a blob; the registry is too busy for everything; it breaks.
    proxy.rules(&[
        rule("PATCH", "/uploads/", 2, Fault::CutUpload(1_500_000)),
        rule("POST", "/uploads/", 1, Fault::Answer("503 Service Unavailable".to_owned())),
        rule("HEAD", "/blobs/", 4, busy("0")),
        rule("POST", "/uploads/", 3, busy("0")),
        rule("PUT", "/uploads/", 1, busy("Wed, 21 Oct 2015 07:28:00 GMT")),
        rule("PUT", "/manifests/", 6, busy("0")),
    ]);
    expect(&lap(mode, &format!("push {name}:1"))?, 0, &["1: digest: sha256:"])?;
    let log = proxy.log();
    if count(&log, "PATCH", "") < 3 || count(&log, "PUT", "/manifests/") != 7 {
        return Err(format!("not tried again as it should be: {log:#?}"));
    }
    let read = format!("skopeo inspect --tls-verify=false docker://{name}:1");
    expect(&script(mode, &read)?, 0, &["sha256:"])?;
    // What never gets better is told.
    proxy.rules(&[rule("PUT", "/manifests/", 99, Fault::Answer("500 Oh No".to_owned()))]);
    expect(&lap(mode, &format!("push {name}:1"))?, 1, &["answered 500"])?;
    // A registry that says that it took something else.
    proxy.rules(&[rule(
        "PUT",
        "/manifests/",
        1,
        Fault::Answer(format!("201 Created\r\ndocker-content-digest: sha256:{}", "0".repeat(64))),
    )]);
    expect(&lap(mode, &format!("push {name}:1"))?, 1, &["is damaged"])
}

/// The digest of what was pushed last.
fn digest_of(mode: &Mode) -> Result<String, String> {
    let file = mode.place.join("trouble.json");
    let digest =
        format!("grep -o 'containerimage.digest.*' '{}' | grep -o 'sha256:[0-9a-f]*'", file.display());
    Ok(must_say(&digest)?.trim().to_owned())
}

fn pull(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let proxy = Proxy::start(&server.address)?;
    dockerfile(mode, "trouble", APP)?;
    let name = format!("{}/trouble/pull-{}", proxy.address, mode.name);
    let built = format!("build -q -t {name}:1 --push --metadata-file trouble.json trouble");
    expect(&lap(mode, &built)?, 0, &["sha256:"])?;
    let state = format!("{}/trouble-{}", mode.place.display(), mode.name);
    let fresh = |commands: &str| {
        must(&format!("rm -rf '{state}'"))?;
        script(mode, &format!("export LAPSTRAKE_ROOT='{state}' && {commands}"))
    };
    let pull = format!("./lapstrake pull {name}:1 && ./lapstrake run {name}:1");
    proxy.rules(&[
        rule("GET", "/blobs/", 3, busy("0")),
        rule("GET", "/blobs/", 4, Fault::Cut(700_000)),
        rule("GET", "/manifests/", 1, Fault::Cut(100)),
        rule("GET", "/blobs/", 1, Fault::Short(5)),
    ]);
    expect(&fresh(&pull)?, 0, &["troubled\n"])?;
    all_right(&state)?;
    let log = proxy.log();
    if !log
        .iter()
        .any(|request| header(request, "range").is_some_and(|range| range.starts_with("bytes=700000-")))
    {
        return Err(format!("nothing was continued: {log:#?}"));
    }
    let pinned = format!("{name}@{}", digest_of(mode)?);
    let index = "application/vnd.oci.image.index.v1+json";
    for (rules, reference, words) in [
        (vec![rule("GET", "/blobs/", 99, Fault::Flip)], format!("{name}:1"), "is damaged"),
        (vec![rule("GET", "/blobs/", 99, Fault::Short(1))], format!("{name}:1"), "is damaged: expected"),
        (vec![rule("GET", "/manifests/", 99, Fault::Flip)], pinned.clone(), "the manifest of"),
        (vec![rule("GET", "/manifests/", 99, Fault::Type(index))], format!("{name}:1"), "it is a manifest"),
        (
            vec![rule("GET", "/manifests/", 99, Fault::Type("text/html"))],
            format!("{name}:1"),
            "`text/html`, not an image",
        ),
    ] {
        proxy.rules(&rules);
        expect(&fresh(&format!("./lapstrake pull {reference}"))?, 1, &[words])
            .map_err(|why| format!("{rules:?}: {why}"))?;
        all_right(&state).map_err(|why| format!("{rules:?}: {why}"))?;
        nothing_left_in(mode, state.as_ref())?;
        let listed = script(mode, &format!("LAPSTRAKE_ROOT='{state}' ./lapstrake images -q"))?;
        if !listed.stdout.is_empty() {
            return Err(format!("{rules:?}: an image was stored: {}", text(&listed)));
        }
    }
    proxy.rules(&[]);
    expect(&fresh(&format!("./lapstrake pull {pinned} && ./lapstrake run {pinned}"))?, 0, &["troubled\n"])?;
    let told = format!("LAPSTRAKE_ROOT='{state}' ./lapstrake inspect -f '{{{{.RepoDigests}}}}' {pinned}");
    expect(&script(mode, &told)?, 0, &[&format!("[{pinned}]")])?;
    must(&format!("rm -rf '{state}'"))
}

/// A registry with a login sends us to another host for its blobs: the login stays.
fn redirect(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd-redirect");
    fs::write(&htpasswd, super::push::HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let open = Registry::start(&mode.place, "open", "")?;
    let server = Registry::start(&mode.place, "shut", &auth)?;
    let (elsewhere, proxy) = (Proxy::start(&open.address)?, Proxy::start(&server.address)?);
    dockerfile(mode, "trouble", APP)?;
    let name = format!("{}/trouble/redirect-{}", proxy.address, mode.name);
    let docker = "export DOCKER_CONFIG=$PWD/docker-redirect && ./lapstrake";
    let login = format!("echo secret | ({docker} login -u me --password-stdin {})", proxy.address);
    expect(&script(mode, &login)?, 0, &["Login Succeeded"])?;
    expect(&script(mode, &format!("{docker} build -q -t {name}:1 --push trouble"))?, 0, &["sha256:"])?;
    proxy.rules(&[rule("GET", "/blobs/", 99, Fault::Redirect(format!("http://{}", elsewhere.address)))]);
    let state = format!("{}/redirect-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    let pulled = script(
        mode,
        &format!("export LAPSTRAKE_ROOT='{state}'; {docker} pull -q {name}:1 && ./lapstrake run {name}:1"),
    )?;
    expect(&pulled, 0, &["troubled\n"])?;
    let (there, here) = (elsewhere.log(), proxy.log());
    if count(&there, "GET", "/blobs/") < 3
        || there.iter().any(|request| header(request, "authorization").is_some())
    {
        return Err(format!("a login went elsewhere, or nobody went there: {there:#?}"));
    }
    if !here.iter().any(|request| header(request, "authorization").is_some()) {
        return Err(format!("nobody was logged in: {here:#?}"));
    }
    // Round and round.
    proxy.rules(&[rule("GET", "/blobs/", 99, Fault::Redirect(format!("http://{}", proxy.address)))]);
    must(&format!("rm -rf '{state}'"))?;
    let failed = script(mode, &format!("export LAPSTRAKE_ROOT='{state}'; {docker} pull -q {name}:1"))?;
    expect(&failed, 1, &["answered 307"])?;
    all_right(&state)?;
    must(&format!("rm -rf '{state}'"))
}
