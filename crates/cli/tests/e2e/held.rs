//! What the machine tells (`doctor`), what steps are held to, and a look at them (`build --debug`).

use lapstrake_testkit::skip;

use super::place::{
    Apart, Mode, dockerfile, expect, is_root, lap, must, must_say, nothing_left, run, script, state, text,
};
use super::pty::Pty;

pub(super) const CASES: &[super::Case] = &[
    ("doctor", doctor),
    ("memory_bomb", memory_bomb),
    ("resources", resources),
    ("fork_bomb", fork_bomb),
    ("limits_of_run", limits_of_run),
    ("disk_limits", disk_limits),
    ("output_flood", output_flood),
    ("full_shm", full_shm),
    ("inside_a_container", inside_a_container),
    ("stubborn", stubborn),
    ("no_new_privileges", no_new_privileges),
    ("hermetic", hermetic),
    ("insecure_by_leave", insecure_by_leave),
    ("debug_failed", debug_failed),
    ("debug_before", debug_before),
    ("debug_beside_another_stage", debug_beside_another_stage),
];

fn doctor(mode: &Mode) -> Result<(), String> {
    let words = ["ok       kernel", "ok       sandbox", "ok       overlayfs", "user ids", "limit of memory"];
    expect(&lap(mode, "doctor")?, 0, &words)?;
    let json = script(
        mode,
        "./lapstrake doctor --json | python3 -c 'import json, sys; \
        print(*sorted(f[\"name\"] + \"=\" + f[\"state\"] for f in json.load(sys.stdin)))'",
    )?;
    expect(&json, 0, &["kernel=ok", "sandbox=ok", "user ids=ok", "state directory=ok"])?;
    let nowhere = lap(mode, "doctor --json > /dev/null && LAPSTRAKE_ROOT=/proc/nowhere ./lapstrake doctor")?;
    expect(&nowhere, 3, &["MISSING  state directory", "/proc/nowhere"])?;
    let none = "echo 0 > /proc/sys/user/max_user_namespaces && \
                exec setpriv --ambient-caps=-all --inh-caps=-all ./lapstrake doctor";
    let inside = format!(
        "cd '{}' && export LAPSTRAKE_ROOT='{}' && unshare --user --map-user=1 --map-group=1 --keep-caps sh -c '{none}'",
        mode.place.display(),
        state(mode).display()
    );
    let words = ["MISSING  user ids", "user.max_user_namespaces is 0", "hint: as root: sysctl"];
    expect(&run(&[], mode.user, &inside)?, 3, &words)?;
    nothing_left(mode)
}

/// Whether limits can be set; where they cannot, that the flag is refused with the reason.
fn can_limit(mode: &Mode, flag: &str, context: &str) -> Result<bool, String> {
    let told = text(&lap(mode, "doctor")?);
    if !told.contains("limited  limit of") {
        return Ok(true);
    }
    expect(&lap(mode, &format!("build {flag} {context}"))?, 3, &["cannot limit ", "control group"])?;
    if mode.user.is_none() && is_root() {
        skip("root has no control group here whose limits can be set");
    }
    // An ordinary user has none as a rule: to refuse is what is right.
    Ok(false)
}

/// Groups that we made and left behind.
fn groups() -> Result<String, String> {
    must_say("find /sys/fs/cgroup -maxdepth 5 -type d -name 'lapstrake-*' 2> /dev/null; true")
}

fn memory_bomb(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "eats", "FROM busybox\nRUN busybox dd if=/dev/zero of=/dev/null bs=300M count=1\n")?;
    if !can_limit(mode, "--memory 64m", "eats")? {
        return nothing_left(mode);
    }
    let eaten = lap(mode, "build --memory 64m eats")?;
    expect(&eaten, 1, &["exit code: 137: cannot allocate memory", "limit of 67108864 bytes", "--memory"])?;
    // Killed by somebody else: that is another thing.
    dockerfile(mode, "killed", "FROM busybox\nRUN sh -c 'busybox kill -9 $$'; exit $?\n")?;
    let killed = lap(mode, "build --memory 64m killed")?;
    expect(&killed, 1, &["exit code: 137"])?;
    if text(&killed).contains("cannot allocate") {
        return Err(text(&killed));
    }
    expect(&lap(mode, "build --memory 640m eats")?, 0, &[])?;
    let left = groups()?;
    if left.is_empty() { nothing_left(mode) } else { Err(format!("groups are left: {left}")) }
}

/// Limits by the names that buildx and Docker have for them, as a step sees them.
fn resources(mode: &Mode) -> Result<(), String> {
    for (flags, word) in [
        ("--memory-swap 1g", "it needs --memory"),
        ("-m 2g --memory-swap 1g", "not less than --memory"),
        ("--cpus 1 --cpu-quota 5000", "give one of them"),
        ("--cpuset-cpus 0-", "not a list, as `0-3,5`"),
        ("--cpu-shares 0", "--cpu-shares 0: not a number above 0"),
        ("--resource memory", "invalid resource \"memory\", expected key=value"),
        ("--resource disk=5", "unknown resource \"disk\""),
        ("--provenance=mode=max", "attestations are not supported yet"),
        ("--attest type=sbom", "attestations are not supported yet"),
    ] {
        expect(&lap(mode, &format!("build {flags} builds"))?, 2, &[word])
            .map_err(|why| format!("{flags}: {why}"))?;
    }
    let seen = "FROM busybox\nRUN grep Cpus_allowed_list: /proc/self/status\n";
    dockerfile(mode, "held", seen)?;
    // What only declines what is not there is taken; so is what has no meaning here.
    let declined =
        "--provenance=false --sbom false --attest type=sbom,disabled=true --rm --force-rm=false --compress";
    expect(&lap(mode, &format!("build -q {declined} held"))?, 0, &["sha256:"])?;
    if !can_limit(mode, "--no-cache --cpuset-cpus 0", "held")? {
        return nothing_left(mode);
    }
    for flags in [
        "--cpuset-cpus 0",
        "--resource cpuset-cpus=0 --resource cpu-shares=512 --resource memory=640m --resource memory-swap=-1",
    ] {
        let built = lap(mode, &format!("build --no-cache --progress plain {flags} held"))?;
        expect(&built, 0, &["Cpus_allowed_list:\t0\n"]).map_err(|why| format!("{flags}: {why}"))?;
    }
    let ran = "-c 512 --cpu-period 50000 --cpu-quota 25000 -m 64m --memory-swap 128m --cpuset-cpus 0 --cpuset-mems 0";
    let allowed = lap(mode, &format!("run {ran} busybox grep Cpus_allowed_list: /proc/self/status"))?;
    expect(&allowed, 0, &["Cpus_allowed_list:\t0\n"])?;
    expect(&lap(mode, "run --cpuset-cpus 4000 busybox true")?, 125, &["cannot limit cpuset", "cpuset.cpus"])?;
    let parent = format!("held-parent-{}", std::process::id());
    for flags in [
        format!("--cgroup-parent /{parent}/deep"),
        format!("--cgroup-parent {parent} --cpuset-cpus 0 --pids-limit 50"),
    ] {
        let own = "grep -m1 -E 'pids|^0::' /proc/self/cgroup";
        let within =
            lap(mode, &format!("run --security-opt no-new-privileges {flags} busybox sh -c \"{own}\""))?;
        expect(&within, 0, &[]).map_err(|why| format!("{flags}: {why}"))?;
    }
    let made = must_say(&format!(
        "find /sys/fs/cgroup -depth -type d -path '*{parent}*' -print -exec rmdir {{}} ';'"
    ))?;
    if !made.contains(&format!("{parent}/deep\n")) {
        return Err(format!("no group was made: {made}"));
    }
    expect(
        &lap(mode, "run --cgroup-parent ../x busybox true")?,
        125,
        &["cannot limit memory: ../x is no name of a group"],
    )?;
    parents(mode)?;
    let left = groups()?;
    if left.is_empty() { nothing_left(mode) } else { Err(format!("groups are left: {left}")) }
}

/// Groups in a group that somebody names.
fn parents(mode: &Mode) -> Result<(), String> {
    let parent = format!("held-parent-{}", std::process::id());
    for (flags, dir) in [
        (format!("--cgroup-parent /{parent}/deep"), format!("{parent}/deep")),
        (format!("--cgroup-parent {parent} --cpuset-cpus 0 --pids-limit 50"), parent.clone()),
    ] {
        // What runs says itself that it does, and waits to be looked at.
        let seen = format!(
            "find /sys/fs/cgroup -path '*{dir}/lapstrake-*' -name cgroup.procs -exec cat {{}} ';' | grep -c ."
        );
        let run = format!(
            "mkfifo held-go && {{ ./lapstrake run -i {flags} busybox sh -c 'echo runs; cat' < held-go > held-out & exec 3> held-go; until grep -q runs held-out; do sleep 0.05; done; {seen}; exec 3>&-; wait $!; rm held-go held-out; }}"
        );
        expect(&script(mode, &format!("timeout 60 sh -ec \"{}\"", run.replace('$', "\\$")))?, 0, &[])
            .map_err(|why| format!("{flags}: {why}"))?;
    }
    must_say(&format!("find /sys/fs/cgroup -depth -type d -path '*{parent}*' -exec rmdir {{}} ';'"))?;
    expect(
        &lap(mode, "run --cgroup-parent ../x busybox true")?,
        125,
        &["cannot limit memory", "../x is no name of a group"],
    )
}

fn fork_bomb(mode: &Mode) -> Result<(), String> {
    let bomb = "FROM busybox\nRUN bomb() { bomb | bomb & }; bomb; sleep 1; false\n";
    dockerfile(mode, "bomb", bomb)?;
    if !can_limit(mode, "--pids-limit 40", "bomb")? {
        return nothing_left(mode);
    }
    let bombed = lap(mode, "build --pids-limit 40 bomb")?;
    expect(&bombed, 1, &["too many processes", "limit of 40 processes", "--pids-limit"])?;
    nothing_left(mode)
}

fn limits_of_run(mode: &Mode) -> Result<(), String> {
    for (flag, word) in [
        ("--cpus x", "--cpus x: not a number"),
        ("-m 5q", "not a size"),
        ("--pids-limit 0", "nothing could run"),
    ] {
        expect(&lap(mode, &format!("run {flag} busybox true"))?, 125, &[word])?;
    }
    if !text(&lap(mode, "doctor")?).contains("limited  limit of") {
        let eats = lap(mode, "run -m 64m busybox busybox dd if=/dev/zero of=/dev/null bs=300M count=1")?;
        expect(&eats, 137, &["out of memory: the limit of --memory"])?;
        expect(&lap(mode, "run --cpus 0.5 --pids-limit 9 busybox true")?, 0, &[])?;
    }
    nothing_left(mode)
}

/// A step that talks without end is cut short, not the machine.
fn output_flood(mode: &Mode) -> Result<(), String> {
    let flood = "FROM busybox\nRUN busybox yes | busybox head -c 30000000; echo the end; false\n";
    dockerfile(mode, "flood", flood)?;
    let all = lap(mode, "build --progress plain flood")?;
    expect(&all, 1, &["[output clipped, log limit 2097152 bytes reached: ", "the end"])?;
    let length = all.stderr.len();
    if length > 30_000_000 {
        return Err(format!("{length} bytes of output"));
    }
    nothing_left(mode)
}

fn full_shm(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "shm", "FROM busybox\nRUN busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=9\n")?;
    let full =
        ["No space left on device", "exit code: 1: no space left on /dev/shm", "8388608 bytes", "--shm-size"];
    expect(&lap(mode, "build --shm-size 8m shm")?, 1, &full)?;
    // What fails for another reason says nothing of it, nor does what got by with the room.
    dockerfile(
        mode,
        "shm-left",
        "FROM busybox\nRUN busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=7; false\n",
    )?;
    let other = lap(mode, "build --shm-size 8m shm-left")?;
    expect(&other, 1, &["exit code: 1"])?;
    if text(&other).contains("/dev/shm: ") || text(&other).contains("space left") {
        return Err(text(&other));
    }
    let ran = lap(mode, "run busybox busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=65")?;
    expect(&ran, 1, &["lapstrake: no space left on /dev/shm: the limit of 67108864 bytes"])?;
    expect(&lap(mode, "build --shm-size 10m shm")?, 0, &[])?;
    nothing_left(mode)
}

/// In a container that lets it make namespaces it works; in one that does not, `doctor` says what that is.
fn inside_a_container(mode: &Mode) -> Result<(), String> {
    // One that an ordinary user can make.
    let nested = "export LAPSTRAKE_ROOT=\"$PWD/nested-$(id -u)\" && unshare -Urpmf --mount-proc sh -ec \"\
                  ./lapstrake import bb.tar busybox; ./lapstrake run busybox echo in a container; \
                  printf 'FROM busybox\\nRUN echo built inside\\n' | ./lapstrake build --progress plain -\"";
    expect(&script(mode, nested)?, 0, &["in a container", " built inside\n"])?;
    // Ours, with Docker's filter and capabilities, as its root and as a user of it.
    let host: String = ["/lib", "/lib64", "/usr"].map(|dir| format!(" -v {dir}:{dir}:ro")).concat();
    for user in ["0", "1000"] {
        let inner =
            format!("run -u {user} -v \"$PWD/lapstrake\":/lap:ro{host} -e HOME=/dev/shm busybox /lap doctor");
        let told = lap(mode, &inner)?;
        let words = [
            "MISSING  user ids",
            "is denied by a seccomp filter: this looks like a container",
            "hint: run the",
        ];
        expect(&told, 3, &words).map_err(|why| format!("as {user}: {why}"))?;
    }
    if mode.user.is_none() {
        // A part of /proc is hidden, as engines do it, and a user may not mount another one.
        let masked = Apart::new(mode, &["--mount"], "mount -t tmpfs none /proc/fs")?;
        let doctor = "mkdir -m 777 masked && setpriv --reuid 64001 --regid 64001 --clear-groups \
                      env LAPSTRAKE_ROOT=\"$PWD/masked/state\" ./lapstrake doctor";
        expect(&masked.script(doctor)?, 3, &["MISSING  sandbox", "its /proc has to be unmasked"])?;
    }
    nothing_left(mode)
}

/// A step that hears no signal, has let go of its children and takes its mounts apart ends with the build that is given up.
fn stubborn(mode: &Mode) -> Result<(), String> {
    let step = "FROM busybox\nRUN trap '' TERM INT HUP QUIT; (busybox setsid busybox sleep 4321 > /dev/null 2>&1 &); \
                busybox umount -l /proc; busybox mount -o remount,rw /sys; busybox mount -o remount,ro /; \
                echo deaf; while :; do sleep 0.1; done\n";
    dockerfile(mode, "stubborn", step)?;
    let script = "timeout --signal INT --kill-after 60 3 ./lapstrake build --progress plain stubborn";
    let begun = std::time::Instant::now();
    let ended = super::place::script(mode, &format!("{script}; test $? = 124"))?;
    expect(&ended, 0, &[" deaf\n", "CANCELED"])?;
    if begun.elapsed() > std::time::Duration::from_secs(20) {
        return Err(format!("it took {:?}", begun.elapsed()));
    }
    // What was canceled is remembered with its steps.
    expect(&lap(mode, "builds ls")?, 0, &["stubborn", "Canceled", "/2\n"])?;
    let orphans = must_say("ps -eo args | grep '^[b]usybox sleep 4321'; true")?;
    if orphans.is_empty() { nothing_left(mode) } else { Err(orphans) }
}

fn no_new_privileges(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "privs", "FROM busybox\nRUN grep NoNewPrivs: /proc/self/status\n")?;
    for (flag, word) in [("", "NoNewPrivs:\t0"), ("--security-opt no-new-privileges", "NoNewPrivs:\t1")] {
        let built = lap(mode, &format!("build --no-cache --progress plain {flag} privs"))?;
        expect(&built, 0, &[word])?;
        let ran = lap(mode, &format!("run {flag} busybox grep NoNewPrivs: /proc/self/status"))?;
        expect(&ran, 0, &[word])?;
    }
    expect(&lap(mode, "run --security-opt label=x busybox true")?, 125, &["only no-new-privileges"])
}

/// The shell has what the step had, and what the step did before it failed; the step can be run again in it.
fn debug_failed(mode: &Mode) -> Result<(), String> {
    let steps = "FROM busybox\nENV COLOUR=blue\nWORKDIR /w\nUSER 1000\nRUN --mount=type=tmpfs,target=/t \\\n  \
                 --mount=type=secret,id=s,env=HUSH touch /t/made; echo tried; test -e /t/mended\n";
    dockerfile(mode, "fails", steps)?;
    let build = "env S=hush ./lapstrake build --debug --secret id=s,env=S fails";
    let mut pty = Pty::start(mode, build)?;
    pty.until("`sh /dev/step` runs the step")?;
    pty.keys(b"echo $COLOUR $HUSH $(id -u) $PWD; sh /dev/step; echo said $?\n")?;
    pty.until("blue hush 1000 /w")?;
    pty.until("said 1")?;
    pty.keys(b"touch /t/mended; sh /dev/step; echo said $?\n")?;
    pty.until("said 0")?;
    pty.keys(b"exit\n")?;
    let shown = pty.end(1)?;
    if !shown.contains("did not complete successfully: exit code: 1") {
        return Err(shown);
    }
    expect(&script(mode, "./lapstrake build --debug fails < /dev/null")?, 2, &["needs a terminal"])?;
    nothing_left(mode)
}

/// Before a step: what the shell does there is not in the image.
fn debug_before(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "looked", "FROM busybox\nRUN echo one > /one\nRUN test ! -e /mine && cat /one\n")?;
    let mut pty = Pty::start(mode, "./lapstrake build --debug='test ! -e' looked")?;
    pty.until("before [3/3] RUN test")?;
    pty.keys(b"cat /one; echo x > /mine; exit\n")?;
    pty.end(0)?;
    if !is_root() {
        return Ok(());
    }
    nothing_left(mode)
}

/// Of two stages one fails while the other talks: one shell, which nobody else's lines disturb, and then the build is over,
/// whether the person leaves or the build is ended.
fn debug_beside_another_stage(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox AS a\nRUN sleep 1; false\nFROM busybox AS b\nRUN i=0; while test $i -lt 900; do echo line of b; i=$((i+1)); sleep 0.1; done\n\
                FROM busybox\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n";
    dockerfile(mode, "beside", text)?;
    for (progress, end) in [("plain", "exit"), ("tty", "exit"), ("plain", "kill"), ("tty", "kill")] {
        let build = format!("exec ./lapstrake build --debug --no-cache --progress {progress} beside");
        let commands =
            format!("sh -c 'echo pid $$ is ours; {build}'; echo status $?; stty -a | grep -ow -e '-*icanon'");
        let mut pty = Pty::start(mode, &commands)?;
        pty.until("pid ")?;
        let pid = pty.until(" is ours")?.trim_end_matches(" is ours").trim().to_owned();
        pty.until("`sh /dev/step` runs the step")?;
        pty.keys(b"echo o''ne; sleep 1; echo t''wo\n")?;
        pty.until("one")?;
        let between = pty.until("two")?;
        if between.contains("line of b") {
            return Err(format!("lines of another stage in the shell: {between}"));
        }
        let status = match end {
            "exit" => {
                pty.keys(b"exit\n")?;
                1
            }
            _ => {
                must(&format!("kill -INT {pid}"))?;
                130
            }
        };
        pty.until(&format!("status {status}"))?;
        let shown = pty.end(0)?;
        let shells = shown.matches("this is a shell in its place").count();
        if shells != 1 || !shown.trim_end().ends_with("icanon") || shown.trim_end().ends_with("-icanon") {
            return Err(format!("{progress}, {end}: {shells} shells: {shown}"));
        }
    }
    nothing_left(mode)
}

/// A hermetic build has no network, and means the same images for ever.
fn hermetic(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "sealed", "FROM moving\nRUN ls /sys/class/net; cat /which\n")?;
    // The tests' own user made it; the lock is the builder's to write.
    must(&format!("chmod 777 '{}/sealed'", mode.place.display()))?;
    let moving = |which: &str| -> Result<(), String> {
        let name = format!("moving-{which}");
        dockerfile(mode, &name, &format!("FROM busybox\nRUN echo {which} > /which\n"))?;
        expect(&lap(mode, &format!("build -t moving {name}"))?, 0, &[])
    };
    moving("first")?;
    expect(
        &lap(mode, "build --locked sealed")?,
        1,
        &["`sealed/lapstrake.lock` does not exist", "hint: build once"],
    )?;
    expect(&lap(mode, "build --hermetic --progress plain sealed")?, 0, &[" lo\n", " first\n"])?;
    expect(
        &script(mode, "cat sealed/lapstrake.lock")?,
        0,
        &["docker.io/library/moving:latest linux/", "sha256:"],
    )?;
    moving("second")?;
    let again = lap(mode, "build --hermetic --locked --no-cache --progress plain sealed")?;
    expect(&again, 0, &[" lo\n", " first\n"])?;
    if text(&again).contains("eth") {
        return Err(text(&again));
    }
    expect(&lap(mode, "build --no-cache --progress plain sealed")?, 0, &[" second\n"])?;
    for (line, word) in [
        ("FROM busybox", "does not have docker.io/library/busybox:latest"),
        ("FROM moving\nRUN --network=host true", "a hermetic build has no network"),
        ("FROM moving\nADD https://127.0.0.1:1/x /x", "no checksum"),
        ("FROM moving\nADD https://127.0.0.1:1/x.git#main /x", "no commit"),
    ] {
        dockerfile(mode, "sealed", &format!("{line}\n"))?;
        let refused = lap(mode, "build --hermetic --locked --allow network.host sealed")?;
        expect(&refused, 1, &[word]).map_err(|why| format!("{line}: {why}"))?;
    }
    dockerfile(mode, "sealed", "FROM 127.0.0.1:1/gone\n")?;
    let gone = "printf '{\"version\":1,\"images\":{\"127.0.0.1:1/gone:latest %s\":\"sha256:%064d\"}}' linux/amd64 0 > sealed/lapstrake.lock && ./lapstrake build --hermetic --platform linux/amd64 sealed";
    let pins = "`sealed/lapstrake.lock` pins 127.0.0.1:1/gone:latest to sha256:0000";
    expect(&script(mode, gone)?, 3, &[pins, "cannot reach registry"])?;
    expect(
        &script(
            mode,
            "echo '{\"version\":9,\"images\":{}}' > sealed/lapstrake.lock; ./lapstrake build --locked sealed",
        )?,
        1,
        &["unknown version 9"],
    )?;
    nothing_left(mode)
}

/// Everything that loosens the hold needs leave on the command line.
fn insecure_by_leave(mode: &Mode) -> Result<(), String> {
    let mounts = "busybox mount -t tmpfs none /tmp && grep Seccomp: /proc/self/status";
    dockerfile(mode, "loose", &format!("FROM busybox\nRUN --security=insecure mkdir -p /tmp && {mounts}\n"))?;
    let refused = lap(mode, "build loose")?;
    expect(&refused, 1, &["security.insecure is not allowed", "--allow security.insecure"])?;
    expect(&lap(mode, "build --allow network.host loose")?, 1, &["security.insecure is not allowed"])?;
    expect(&lap(mode, "build --progress plain --allow security.insecure loose")?, 0, &["Seccomp:"])?;
    dockerfile(mode, "tight", &format!("FROM busybox\nRUN mkdir -p /tmp && {mounts}\n"))?;
    expect(&lap(mode, "build --allow security.insecure tight")?, 1, &["mount: permission denied"])?;
    dockerfile(mode, "wide", "FROM busybox\nRUN --network=host true\n")?;
    expect(&lap(mode, "build wide")?, 1, &["network.host is not allowed", "--allow network.host"])?;
    nothing_left(mode)
}

/// Disks are limited where they can be; what is no disk, and what is no rate, is refused by name.
fn disk_limits(mode: &Mode) -> Result<(), String> {
    for (flag, word) in [
        ("--device-write-bps /dev/null:1mb", "/dev/null is not a disk"),
        ("--device-read-bps /dev/none:1mb", "/dev/none: No such file or directory"),
        ("--device-read-iops /dev/null", "not DEVICE:RATE"),
        ("--device-write-iops /dev/null:x", "`x` is not a number"),
        ("--device-write-bps /dev/null:0", "nothing could be read or written"),
    ] {
        expect(&lap(mode, &format!("run {flag} busybox true"))?, 125, &[word])?;
    }
    let disk =
        must_say(&format!("findmnt --noheadings --output SOURCE --target '{}'", mode.place.display()))?;
    let disk = disk.trim();
    if must(&format!("test -b '{disk}'")).is_err() {
        // A file system without a disk of its own has nothing to be limited.
        return nothing_left(mode);
    }
    let flag = format!("--device-write-bps {disk}:2mb");
    dockerfile(
        mode,
        "writes",
        "FROM busybox\nRUN busybox dd if=/dev/zero of=/x bs=512k count=8 oflag=direct && rm /x\n",
    )?;
    if !can_limit(mode, &flag, "writes")? {
        return nothing_left(mode);
    }
    let took = |flag: &str| -> Result<std::time::Duration, String> {
        let begun = std::time::Instant::now();
        expect(&lap(mode, &format!("build --no-cache {flag} writes"))?, 0, &[])?;
        Ok(begun.elapsed())
    };
    let (free, held) = (took("")?, took(&flag)?);
    // Four megabytes at two a second.
    if held < std::time::Duration::from_millis(1500) || held < free {
        return Err(format!("without a limit it took {free:?}, with one {held:?}"));
    }
    let written = script(
        mode,
        "./lapstrake builds inspect --json | python3 -c 'import json, sys; \
         print(max(s[\"used\"][\"written\"] for s in json.load(sys.stdin)[\"StepList\"] if \"used\" in s))'",
    )?;
    let bytes = String::from_utf8_lossy(&written.stdout).trim().parse::<u64>();
    if !bytes.is_ok_and(|bytes| bytes >= 4 << 20) {
        return Err(format!("the record does not know what was written: {}", text(&written)));
    }
    nothing_left(mode)
}
