//! Layers of images whose files nobody needs: they stay in the blobs that they came in.

use std::process::Output;

use super::conform;
use super::place::{Mode, dockerfile, expect, must, nothing_left, script, text};
use super::remote::web;
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("packed_layers", packed), ("packed_below_copy", copied), ("packed_copied_from", copied_from)];

const BASE: &str = "FROM busybox\nRUN echo base > /base && mkdir -m 750 -p /real/dir && ln -s real /way && echo x:x:7:7::/: >> /etc/passwd && echo f > /real/f && mkdir /twice && echo t > /twice/a && ln /twice/a /twice/b\n";
const CONFIG_ONLY: &str = "FROM BASE\nENV A=b\nCMD [\"cat\", \"/base\"]\n";
const LINKED: &str = "FROM BASE\nCOPY --link Dockerfile /new/\nCMD [\"ls\", \"/new\"]\n";
const COPIED: &str = "FROM BASE\nWORKDIR /way/dir\nCOPY --chown=x Dockerfile .\nADD Dockerfile <<base /\nover\nbase\nADD pack.tar.gz /way\n";
const RUN: &str = "FROM BASE\nCOPY --chown=x Dockerfile /way/\nRUN stat -c %u /real/Dockerfile\n";

/// What is copied of the base: a file over links, what another layer replaced, a directory, all names of one file, and an archive.
const COPIED_FROM: &str = "FROM scratch\nCOPY --from=BASE /bin/cat /x\nCOPY --from=BASE /way/f /real /d/\nCOPY --from=BASE /etc/passwd /way/f\nCOPY --from=BASE /twice /t/\nFROM BASE AS added\nADD --chown=3 URL/pack.tar.gz /way/\nADD --unpack=true URL/pack.tar.gz /way\nFROM scratch\nCOPY --from=0 / /\nCOPY --from=added /real/dir/new /added/\n";

/// A state directory that has nothing of an image that a registry has.
struct Away<'a> {
    mode: &'a Mode,
    /// The image's repository.
    name: String,
    state: String,
}

impl Away<'_> {
    fn new(mode: &Mode) -> Result<(Registry, Away<'_>), String> {
        let server = Registry::start(&mode.place, "registry", "")?;
        let name = format!("{}/packed", server.address);
        for (context, text) in [
            ("packed-base", BASE),
            ("packed-config", CONFIG_ONLY),
            ("packed-linked", LINKED),
            ("packed-copied", COPIED),
            ("packed-run", RUN),
        ] {
            dockerfile(mode, context, &text.replace("BASE", &format!("{name}:base")))?;
        }
        // Into a directory that is there by way of a link, and beside it.
        let archives = "rm -rf t && mkdir -p t/dir t/more && echo new > t/dir/new && echo x > t/more/x && chmod 700 t/dir && tar -C t -czf packed-copied/pack.tar.gz --owner=5 --group=6 dir more && rm -rf t";
        must(&format!("cd '{}' && {archives} && chmod a+r packed-copied/*", mode.place.display()))?;
        let base = script(mode, &format!("./lapstrake build -q -t {name}:base --push packed-base"))?;
        expect(&base, 0, &["sha256:"])?;
        let state = format!("{}/packed-{}", mode.place.display(), mode.name);
        must(&format!("rm -rf '{state}'"))?;
        Ok((server, Away { mode, name, state }))
    }

    fn run(&self, commands: &str) -> Result<Output, String> {
        script(self.mode, &format!("export LAPSTRAKE_ROOT='{}'; {commands}", self.state))
    }

    /// How many layers there are, and how many of them have their files.
    fn layers(&self, all: u32, unpacked: u32) -> Result<(), String> {
        let count =
            "ls $LAPSTRAKE_ROOT/layers | wc -l; ls -d $LAPSTRAKE_ROOT/layers/*/fs 2>/dev/null | wc -l";
        same(&self.run(count)?, &format!("{all}\n{unpacked}\n"))
    }
}

/// What is put on packed layers lands where it would on their files, and is the same layer.
fn copied(mode: &Mode) -> Result<(), String> {
    let (_server, away) = Away::new(mode)?;
    let name = &away.name;
    let copied = |tag: &str| {
        let build =
            "SOURCE_DATE_EPOCH=7 ./lapstrake build -q --no-cache -o type=image,rewrite-timestamp=true";
        expect(&away.run(&format!("{build},name={name}:{tag} packed-copied"))?, 0, &["sha256:"])?;
        away.run(&format!("./lapstrake inspect --format '{{{{json .RootFS.Layers}}}}' {name}:{tag}"))
    };
    let on_packed = copied("packed")?;
    away.layers(6, 4)?;
    // Also where nobody knew what was going to be built.
    must(&format!("rm -rf '{}'", away.state))?;
    expect(&away.run(&format!("./lapstrake pull -q {name}:base"))?, 0, &[name])?;
    same(&copied("packed")?, &String::from_utf8_lossy(&on_packed.stdout))?;
    away.layers(6, 4)?;
    expect(&away.run(&format!("./lapstrake run {name}:base true"))?, 0, &[])?;
    same(&copied("unpacked")?, &String::from_utf8_lossy(&on_packed.stdout))?;
    let seen = "stat -c '%u %a' /real/dir/Dockerfile /real/dir /real/more/x; cat /base /real/dir/new";
    same(
        &away.run(&format!("./lapstrake run {name}:packed sh -c \"{seen}\""))?,
        "7 644\n5 700\n5 644\nover\nnew\n",
    )?;
    nothing_left(mode)
}

fn packed(mode: &Mode) -> Result<(), String> {
    let (server, away) = Away::new(mode)?;
    let name = &away.name;
    let run = |commands: &str| away.run(commands);
    let layers = |all: u32, unpacked: u32| away.layers(all, unpacked);
    expect(&run(&format!("./lapstrake pull -q {name}:base"))?, 0, &[name])?;
    layers(2, 0)?;
    // What is told of it is what would be told if it were unpacked.
    let sizes = |command: &str| {
        let ours = run(&format!("./lapstrake {command} {name}:base"))?;
        let unpacked = script(mode, &format!("./lapstrake {command} {name}:base"))?;
        same(&ours, &String::from_utf8_lossy(&unpacked.stdout))
    };
    sizes("history --format '{{.CreatedBy}} {{.Size}}'")?;
    sizes("images --format '{{.Size}}'")?;
    for (tag, context) in [("config", "packed-config"), ("linked", "packed-linked")] {
        let build = format!("./lapstrake build -q -t {name}:{tag} --push {context}");
        expect(&run(&build)?, 0, &["sha256:"])?;
    }
    // The one that is new.
    layers(3, 1)?;
    let forced = "-o type=oci,dest=packed.tar,compression=zstd,force-compression=true";
    expect(&run(&format!("./lapstrake build {forced} packed-config"))?, 0, &[])?;
    expect(&run(&format!("./lapstrake save {name}:linked | ./lapstrake load -q"))?, 0, &["sha256:"])?;
    layers(3, 1)?;
    let unpacked =
        format!("./lapstrake build -q -o type=image,name={name}:unpacked,unpack=true packed-config");
    expect(&run(&unpacked)?, 0, &["sha256:"])?;
    layers(3, 3)?;
    // The same again where there is nothing yet: what comes during the build stays packed too.
    must(&format!("rm -rf '{}'", away.state))?;
    expect(&run(&format!("./lapstrake build -q -t {name}:linked --push packed-linked"))?, 0, &["sha256:"])?;
    layers(3, 1)?;
    expect(&run("./lapstrake load -i packed.tar && ./lapstrake doctor --state")?, 0, &["3 are whole"])?;
    drop(server);
    // Now somebody needs them: no registry is asked.
    same(&run(&format!("./lapstrake run {name}:linked"))?, "Dockerfile\n")?;
    layers(3, 3)?;
    expect(&run("./lapstrake build --progress plain packed-run")?, 0, &[" 7\n"])?;
    conform::pushed(&mode.place.join("registry"))?;
    gone(mode)?;
    nothing_left(mode)
}

/// Who copies some files of an image has no more of it unpacked; the result is what it would be of its files.
fn copied_from(mode: &Mode) -> Result<(), String> {
    let (_server, away) = Away::new(mode)?;
    expect(&script(mode, "mkdir -p web && cp packed-copied/pack.tar.gz web/")?, 0, &[])?;
    let web = web(mode)?;
    let text = COPIED_FROM.replace("BASE", &format!("{}:base", away.name));
    let url = format!("http://127.0.0.1:{}", web.port);
    dockerfile(mode, "packed-from", &text.replace("URL", &url))?;
    let name = &away.name;
    let build = || {
        let output = format!("-o type=image,rewrite-timestamp=true,name={name}:from");
        let built = format!("SOURCE_DATE_EPOCH=7 ./lapstrake build -q --no-cache {output} packed-from");
        expect(&away.run(&built)?, 0, &["sha256:"])?;
        away.run(&format!("./lapstrake inspect --format '{{{{json .RootFS.Layers}}}}' {name}:from"))
    };
    let of_packed = String::from_utf8_lossy(&build()?.stdout).into_owned();
    let packed = "for layer in $LAPSTRAKE_ROOT/layers/*; do [ -e $layer/fs ] || [ -e $layer/patch ] || echo packed; done";
    same(&away.run(packed)?, "packed\npacked\n")?;
    // And when somebody has needed the files.
    expect(&away.run(&format!("./lapstrake run {name}:base cat /base"))?, 0, &["base\n"])?;
    same(&away.run(packed)?, "")?;
    same(&build()?, &of_packed)?;
    let list = "./lapstrake build -q -o type=tar,dest=from.tar packed-from && tar -tvf from.tar | awk '{print $2, $6, $7, $8, $9}'";
    let lines = ["5/6 added/new", "0/0 d/f", "0/0 d/dir/", "0/0 x", "0/0 t/b link to t/a"];
    expect(&away.run(list)?, 0, &lines)?;
    expect(&away.run("tar -xOf from.tar way/f t/a")?, 0, &["x:x:7:7", "t\n"])?;
    nothing_left(mode)
}

/// A packed layer is as good as its blob.
fn gone(mode: &Mode) -> Result<(), String> {
    let state = format!("{}/packed-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    let run = |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{state}'; {commands}"));
    expect(&run("./lapstrake load -i packed.tar")?, 0, &["Loaded image ID"])?;
    let id = run("./lapstrake images -q")?;
    let id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
    expect(&run("./lapstrake prune -f && ./lapstrake load -i packed.tar")?, 0, &["Loaded image ID"])?;
    let damage = "big=$(ls -S $LAPSTRAKE_ROOT/blobs/sha256/* | head -n1); printf x | dd of=$big bs=1 seek=1000 conv=notrunc 2>/dev/null";
    let broken = run(&format!("{damage}; ./lapstrake run {id} cat /base"))?;
    if broken.status.success() {
        return Err(format!("a damaged layer was run: {}", text(&broken)));
    }
    expect(&run("./lapstrake doctor --state --repair")?, 0, &["dropped, with image"])?;
    expect(&run(&format!("./lapstrake run {id} cat /base"))?, 125, &["no such image"])?;
    expect(&run("./lapstrake load -q -i packed.tar")?, 0, &["sha256:"])?;
    same(&run(&format!("./lapstrake run {id} cat /base"))?, "base\n")
}

pub(super) fn same(output: &Output, expected: &str) -> Result<(), String> {
    if output.stdout == expected.as_bytes() {
        return Ok(());
    }
    Err(format!("not {expected:?}: {}", text(output)))
}
