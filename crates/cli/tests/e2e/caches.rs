//! Caches shared between machines: what one state directory built, another one takes without running a step.

use std::process::Output;

use super::place::{Mode, dockerfile, expect, must, nothing_left_in, script, state, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("cache_local", local), ("cache_registry", registry), ("cache_inline", inline)];

const STAGES: &str = "FROM busybox AS build\nCOPY f /f\nRUN cat /f /f > /twice\nFROM busybox AS other\nRUN echo other > /o\nFROM busybox\nCOPY --from=build /twice /\nCOPY --from=other /o /\nRUN cat /twice /o > /all\n";

/// Two machines: state directories that know nothing of each other.
struct Machines<'a> {
    mode: &'a Mode,
    context: String,
}

impl<'a> Machines<'a> {
    fn new(mode: &'a Mode, name: &str) -> Result<Machines<'a>, String> {
        dockerfile(mode, name, STAGES)?;
        must(&format!("echo {name} > '{0}/f' && chmod a+r '{0}/f'", mode.place.join(name).display()))?;
        Ok(Machines { mode, context: name.to_owned() })
    }

    fn root(&self, machine: &str) -> std::path::PathBuf {
        state(self.mode).with_file_name(format!("{}-{machine}-{}", self.context, self.mode.name))
    }

    /// Commands on a machine; one that is not known is new and has `busybox`.
    fn on(&self, machine: &str, commands: &str) -> Result<Output, String> {
        let root = self.root(machine);
        let import = if root.exists() { "" } else { "./lapstrake import bb.tar busybox > /dev/null && " };
        script(self.mode, &format!("export LAPSTRAKE_ROOT='{}' && {import}{commands}", root.display()))
    }

    fn build(&self, machine: &str, flags: &str) -> Result<Output, String> {
        self.on(machine, &format!("./lapstrake build -t made {flags} {}", self.context))
    }

    /// A new machine builds with what there is, and runs nothing.
    fn takes_all(&self, machine: &str, from: &str, results: &str) -> Result<(), String> {
        let built = self.build(machine, &format!("--cache-from {from}"))?;
        expect(&built, 0, &[results, "taking "])?;
        let seen = self.on(machine, "./lapstrake builds inspect && ./lapstrake run made cat /all")?;
        let name = &self.context;
        expect(&seen, 0, &["Steps:       7, 7 of them cached", &format!("{name}\n{name}\nother\n")])?;
        nothing_left_in(self.mode, &self.root(machine))
    }
}

fn local(mode: &Mode) -> Result<(), String> {
    let machines = Machines::new(mode, "cache-local")?;
    let to = "type=local,dest=shared-cache,mode=max";
    expect(&machines.build("one", &format!("--cache-to {to}"))?, 0, &["exporting cache to", "of 6 results"])?;
    // The other machine builds later, and the layers are as old as they are.
    must("sleep 1.1")?;
    machines.takes_all("two", "type=local,src=shared-cache", "found 6 results")?;
    let times = "./lapstrake history --format '{{.CreatedAt}} {{.CreatedBy}}' --no-trunc made | head -3";
    let (one, two) = (machines.on("one", times)?, machines.on("two", times)?);
    if one.stdout.is_empty() || one.stdout != two.stdout {
        return Err(format!("made at other times: {} and {}", text(&one), text(&two)));
    }
    // What is not there, or damaged, is told, and the build goes on without.
    let without = machines.build(
        "three",
        "--cache-from type=local,src=nosuch --cache-from type=local,src=shared-cache,tag=latest",
    )?;
    expect(&without, 0, &["cannot be used: cannot read", "found 6 results"])?;
    let place = mode.place.join("shared-cache");
    must(&format!("for b in '{}'/blobs/sha256/*; do echo damaged >> $b; done", place.display()))?;
    let damaged = machines.build("four", "--cache-from type=local,src=shared-cache")?;
    expect(&damaged, 0, &["importing cache from", "cannot be used", "RUN cat /twice /o > /all\n#", "DONE"])?;
    expect(
        &machines.build("four", "--cache-to type=s3,bucket=b")?,
        2,
        &["caches of type `s3` are not supported yet"],
    )?;
    nothing_left_in(mode, &machines.root("four"))
}

fn registry(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let machines = Machines::new(mode, "cache-registry")?;
    let name = format!("{}/team/cache", server.address);
    let to = |tag: &str, more: &str| format!("--cache-to type=registry,ref={name}:{tag}{more}");
    expect(
        &machines.build("one", &to("max", ",mode=max,compression=zstd"))?,
        0,
        &["exporting cache to registry"],
    )?;
    expect(&machines.build("one", &to("min", ""))?, 0, &["of 3 results"])?;
    expect(&machines.build("one", &to("index", ",mode=max,image-manifest=false"))?, 0, &["of 6 results"])?;
    machines.takes_all("max", &format!("type=registry,ref={name}:max"), "found 6 results")?;
    machines.takes_all("min", &format!("{name}:min"), "found 3 results")?;
    machines.takes_all("index", &format!("type=registry,ref={name}:index"), "found 6 results")?;
    let raw = format!("skopeo inspect --tls-verify=false --raw docker://{name}:max");
    expect(&script(mode, &raw)?, 0, &["\"application/vnd.buildkit.cacheconfig.v0\""])?;
    expect(
        &machines.build("none", &format!("--cache-from {name}:nosuch"))?,
        0,
        &["cannot be used: ", "not found"],
    )?;
    super::conform::pushed(&mode.place.join("registry"))?;
    drop(server);
    let gone = machines.build("one", &to("max", ""))?;
    expect(&gone, 3, &["cannot reach registry", "hint: `ignore-error=true`"])?;
    expect(&machines.build("one", &to("max", ",ignore-error=true"))?, 0, &["ERROR: cannot reach registry"])
}

fn inline(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let machines = Machines::new(mode, "cache-inline")?;
    let pushed = |name: &str, flags: &str| {
        machines.on("one", &format!("./lapstrake build -t {name} --push {flags} {}", machines.context))
    };
    let image = format!("{}/team/image:1", server.address);
    expect(&pushed(&image, "--cache-to type=inline")?, 0, &["pushing manifest"])?;
    machines.takes_all("two", &image, "found 3 results")?;
    let plain = format!("{}/team/plain:1", server.address);
    expect(&pushed(&plain, "")?, 0, &["pushing manifest"])?;
    let without = machines.build("three", &format!("--cache-from {plain}"))?;
    expect(&without, 0, &["the image carries no cache"])?;
    drop(server);
    nothing_left_in(mode, &machines.root("two"))
}
