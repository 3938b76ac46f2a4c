//! What a container does to owners, permissions and times of inodes that are the machine's: nothing of it stays.
//!
//! The device nodes are those of a private `/dev`, never the machine's own.

use lapstrake_testkit::skip;

use super::place::{Apart, Mode, dockerfile, expect, is_root, must, must_say, nothing_left, text};

pub(super) const CASES: &[super::Case] = &[("host_inodes", host_inodes), ("streams_of_run", streams_of_run)];

/// A `/dev` with the nodes that containers have, one of its own for CDI, an agent's socket.
const SETUP: &str = r#"
mkdir -p devs && mount -t tmpfs -o mode=755 none devs
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 mine:1:5 kmsg:1:11 loop0:b; do
  name=${node%%:*}; rest=${node#*:}
  case $rest in b) mknod -m 666 devs/$name b 7 0;; *) mknod -m 666 devs/$name c ${rest%:*} ${rest#*:};; esac
done
mkdir devs/shm devs/pts cdi.mine && ln -s /proc/self/fd devs/fd && mount --move devs /dev
printf 'cdiVersion: 0.6.0\nkind: test.lap/dev\ndevices:\n- name: mine\n  containerEdits:\n    deviceNodes: [{path: /dev/mine}]\n' > cdi.mine/mine.yaml
chmod a+rX cdi.mine cdi.mine/mine.yaml
"#;

/// All that has to stay as it is.
const LOOK: &str = "stat -c '%n %a %u:%g %Y' /dev/* agent";

const NAMES: &str = "null zero full random urandom tty stdin mine kmsg loop0";

/// What a step tries on all of them, without minding what is refused.
fn attack(sock: &str) -> String {
    let nodes: String = NAMES.split(' ').map(|name| format!("/dev/{name} ")).collect();
    format!(
        "for f in {sock} {nodes} /proc/self/fd/0; do \
         test -e $f || continue; busybox chmod 600 $f; busybox chown 7:7 $f; busybox touch -d @9000 $f; \
         busybox setfattr -n user.x -v y $f; done 2> /tmp/refused"
    )
}

/// That devices still do what they are for.
const WORKS: &str = "echo x > /dev/null && test -z \"$(cat /dev/null)\" && test $(busybox head -c 3 /dev/zero | busybox wc -c) = 3 && \
                     ! echo x 2> /dev/null > /dev/full && test $(busybox head -c 3 /dev/urandom | busybox wc -c) = 3 && \
                     test -z \"$(cat /dev/stdin)\" && echo it works";

fn host_inodes(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can make devices");
    }
    check(mode)
}

/// In a machine with a `/dev` of its own.
pub(super) fn check(mode: &Mode) -> Result<(), String> {
    must(&format!(
        "cd '{}' && printf '%s' '{}' > devices.sh",
        mode.place.display(),
        SETUP.replace('\'', "'\\''")
    ))?;
    let machine = Apart::new(mode, &["--mount"], "sh -e devices.sh >&2")?;
    let socket = "rm -f agent && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"agent\")' && chmod 600 agent";
    expect(&machine.script(socket)?, 0, &[])?;
    let look = || machine.script(LOOK).map(|listed| text(&listed));
    let before = look()?;
    let attack = attack("$SSH_AUTH_SOCK");
    let mounts = "--mount=type=ssh --device=test.lap/dev=mine";
    let insecure = "--allow security.insecure";
    for (flags, security) in
        [("", ""), ("--security-opt no-new-privileges", ""), (insecure, "--security=insecure")]
    {
        let step = format!(
            "FROM busybox\nRUN mkdir -p /tmp\nRUN {mounts} {security} {attack}; true\nRUN {mounts} {WORKS}\n"
        );
        dockerfile(mode, "inodes", &step)?;
        let build = format!(
            "build --no-cache --progress plain --ssh default=agent --cdi-spec-dir cdi.mine --allow device {flags} inodes"
        );
        expect(&machine.lap(&build)?, 0, &[" it works\n"]).map_err(|why| format!("{flags}: {why}"))?;
        let after = look()?;
        if after != before {
            return Err(format!("{flags}: it was {before} and is {after}"));
        }
    }
    // Its standard streams are devices, too.
    let ran = machine.script(&format!(
        "./lapstrake run busybox sh -c 'mkdir -p /tmp; {}; busybox chmod 604 /dev/stdout /dev/stderr; true' > /dev/null 2> /dev/zero; echo $?",
        attack.replace("$SSH_AUTH_SOCK", "/dev/stdout")
    ))?;
    expect(&ran, 0, &["\n0\n"])?;
    let after = look()?;
    if after != before {
        return Err(format!("run: it was {before} and is {after}"));
    }
    machine_files(mode, &machine)?;
    nothing_left(mode)
}

/// Files of `/proc` that are about the machine: their permissions are the same in all mounts of it.
fn machine_files(mode: &Mode, machine: &Apart<'_>) -> Result<(), String> {
    const FILE: &str = "/proc/misc";
    let look = || must_say(&format!("unshare --pid --fork --mount-proc stat -c %a {FILE}"));
    let before = look()?;
    dockerfile(mode, "machine", &format!("FROM busybox\nRUN busybox chmod 664 {FILE} || true\n"))?;
    let built = machine.lap("build --no-cache machine");
    let after = look();
    must(&format!("chmod {} {FILE}", before.trim()))?;
    expect(&built?, 0, &[])?;
    let after = after?;
    if before == after { Ok(()) } else { Err(format!("{FILE} was {before} and is {after}")) }
}

/// Files, named pipes and terminals that `run` reads and writes stay as they are; what is written comes in order, to the end.
fn streams_of_run(mode: &Mode) -> Result<(), String> {
    let inside = "for f in /dev/stdin /dev/stdout; do busybox chmod 604 $f; busybox touch -d @9000 $f; \
                  busybox chown 7:7 $f; done 2> /refused; cat; for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done";
    let setup = "export LAPSTRAKE_NETWORK=host; rm -rf streams && mkdir streams && cd streams; rm -f in out both fifo; echo given > in; : > out; : > both; chmod 640 in out both; touch -d @5000 in; mkfifo -m 640 fifo";
    let run = format!("../lapstrake run -i busybox sh -c '{inside}'");
    let script = format!(
        "{setup}; {run} < in > out 2> err && {run} < in > both 2>&1 && (cat fifo > piped & {run} < in > fifo 2> err; wait) && \
         stat -c '%n %a %u' in out both fifo && stat -c '%n %Y' in && cat out && echo --- && cat both && echo --- && cat piped && id -u"
    );
    let done = super::place::script(mode, &script)?;
    let own = super::place::script(mode, "id -u")?;
    let own = String::from_utf8_lossy(&own.stdout).trim().to_owned();
    let names = ["in", "out", "both", "fifo"].map(|name| format!("{name} 640 {own}\n")).concat();
    let lines = |pattern: &[&str]| {
        (1..6).flat_map(|i| pattern.iter().map(move |word| format!("{word} {i}\n"))).collect::<String>()
    };
    let out = format!("given\n{}", lines(&["out"]));
    let both = format!("given\n{}", lines(&["out", "err"]));
    expect(&done, 0, &[&format!("{names}in 5000\n{out}---\n{both}---\n{out}")])?;
    // A megabyte goes through, a reader that goes ends it, and nobody waits for input that does not end.
    let more = "export LAPSTRAKE_NETWORK=host; cd streams; ../lapstrake run busybox busybox head -c 1000000 /dev/zero > out; stat -c %s out; \
                timeout 20 ../lapstrake run busybox busybox yes | head -n 1; \
                sleep 30 > fifo & timeout 20 ../lapstrake run -i busybox echo done < fifo; echo $?; kill $!";
    expect(&super::place::script(mode, more)?, 0, &["1000000\ny\ndone\n0\n"])?;
    nothing_left(mode)
}
