//! Images that are pushed to where their base is: no byte of the base's layers is carried.

use std::process::Output;

use super::packed::same;
use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, state};
use super::proxy::{Fault, Proxy, Rule};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("pushed_without_base", pushed), ("pushed_without_layers", taken_over)];

/// Above what manifests, configs and the new layers are, and far below the base.
const LITTLE: usize = 100_000;
const BASE: &str = "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n";
const ON_BASE: &str = "FROM BASE\nENV A=b\nCOPY --link Dockerfile /new/\nCOPY --link Dockerfile /more\nCMD [\"ls\", \"/new\", \"/more\"]\n";

/// A registry with a base, behind something that counts.
struct There<'a> {
    mode: &'a Mode,
    proxy: Proxy,
    /// What runs there has nothing at first.
    state: String,
    _server: Registry,
}

impl There<'_> {
    fn new(mode: &Mode) -> Result<There<'_>, String> {
        let server = Registry::start(&mode.place, "registry", "")?;
        let proxy = Proxy::start(&server.address)?;
        let base = format!("{}/large/base:1", proxy.address);
        dockerfile(mode, "large-base", BASE)?;
        dockerfile(mode, "on-large", &ON_BASE.replace("BASE", &base))?;
        expect(&lap(mode, &format!("build -q -t {base} --push large-base"))?, 0, &["sha256:"])?;
        let state = format!("{}/unfetched-{}", mode.place.display(), mode.name);
        Ok(There { mode, proxy, state, _server: server })
    }

    fn run(&self, commands: &str) -> Result<Output, String> {
        script(self.mode, &format!("export LAPSTRAKE_ROOT='{}'; {commands}", self.state))
    }

    /// Builds on the base where nothing is, and pushes.
    fn build(&self, name: &str, keys: &str) -> Result<(), String> {
        must(&format!("rm -rf '{}'", self.state))?;
        let output = format!("type=registry,name={}/{name}{keys}", self.proxy.address);
        let built = self.run(&format!("./lapstrake build --progress plain -o {output} on-large"))?;
        expect(&built, 0, &["COPY --link", "pushing manifest for"])
    }

    fn digest(&self, name: &str) -> Result<String, String> {
        let inspect = "skopeo inspect --tls-verify=false --format '{{.Digest}}'";
        let told = script(self.mode, &format!("{inspect} docker://{}/{name}", self.proxy.address))?;
        Ok(String::from_utf8_lossy(&told.stdout).into_owned())
    }

    fn little(&self) -> Result<(), String> {
        match self.proxy.carried() {
            ..LITTLE => Ok(()),
            carried => Err(format!("{carried} bytes were carried: {:#?}", self.proxy.log())),
        }
    }
}

fn pushed(mode: &Mode) -> Result<(), String> {
    let there = There::new(mode)?;
    for name in ["large/base:2", "other/app:1"] {
        there.proxy.rules(&[]);
        there.build(name, ",store=false")?;
        there.little()?;
        same(&there.run("ls $LAPSTRAKE_ROOT/layers | wc -l")?, "2\n")?;
        let name = format!("{}/{name}", there.proxy.address);
        let read = there.run(&format!("./lapstrake pull -q {name} && ./lapstrake run {name}"))?;
        same(&read, &format!("{name}\n/more\n\n/new:\nDockerfile\n"))?;
    }
    // The same image as with all layers here, and whatever else is needed is fetched.
    let epoch = ",source-date-epoch=7,rewrite-timestamp=true";
    there.build("other/app:2", &format!(",store=false{epoch}"))?;
    there.proxy.rules(&[]);
    there.build("other/app:3", epoch)?;
    if there.proxy.carried() < 3_000_000 {
        return Err(format!("an image that is stored came in {} bytes", there.proxy.carried()));
    }
    let (without, with) = (there.digest("other/app:2")?, there.digest("other/app:3")?);
    if without != with || !with.starts_with("sha256:") {
        return Err(format!("{without:?} is not {with:?}"));
    }
    // A build that fails has asked for nothing in the place that it would have gone to.
    there.proxy.rules(&[]);
    let broken = format!("FROM {}/large/base:1\nCOPY --link nothing /\n", there.proxy.address);
    dockerfile(mode, "on-large-broken", &broken)?;
    let output = format!("type=registry,name={}/fifth/app,store=false", there.proxy.address);
    let failed = there.run(&format!("./lapstrake build -o {output} on-large-broken"))?;
    expect(&failed, 1, &["\"/nothing\": not found"])?;
    if let Some(asked) = there.proxy.log().iter().find(|line| line.contains("/fifth/")) {
        return Err(format!("the registry was asked: {asked}"));
    }
    there.build("other/app:4", ",store=false,compression=zstd,force-compression=true")?;
    must(&format!("rm -rf '{}'", there.state))?;
    nothing_left(mode)
}

fn taken_over(mode: &Mode) -> Result<(), String> {
    let there = There::new(mode)?;
    let address = &there.proxy.address;
    // What was compressed once and removed is taken over.
    there.proxy.rules(&[]);
    expect(&lap(mode, &format!("tag {address}/large/base:1 {address}/fourth/base:1"))?, 0, &[])?;
    must(&format!("find '{}/blobs' -size +1M -delete", state(mode).display()))?;
    expect(&lap(mode, &format!("push {address}/fourth/base:1"))?, 0, &["1: digest: sha256:"])?;
    there.little()?;
    // A registry that takes nothing over is sent what it lacks.
    let answer = |text: &str| Fault::Answer(text.to_owned());
    there.proxy.rules(&[
        Rule { method: "HEAD", path: "/third/", times: 99, fault: answer("404 Not Found") },
        Rule { method: "POST", path: "mount=", times: 99, fault: answer("403 Forbidden") },
    ]);
    there.build("third/app:1", ",store=false")?;
    there.proxy.rules(&[]);
    must(&format!("rm -rf '{}'", there.state))?;
    let third = format!("{address}/third/app:1");
    let read = there.run(&format!("./lapstrake pull -q {third} && ./lapstrake run {third}"))?;
    expect(&read, 0, &["Dockerfile"])?;
    must(&format!("rm -rf '{}'", there.state))?;
    nothing_left(mode)
}
