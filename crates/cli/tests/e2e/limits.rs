//! What the machine does not give: room on the disk, user namespaces, files that may be read, a network.

use std::process::Output;

use lapstrake_testkit::skip;

use super::place::{Apart, Mode, dockerfile, expect, is_root, lap, must, nothing_left, run, state, text};

pub(super) const CASES: &[super::Case] = &[
    ("disk_full", disk_full),
    ("disk_full_anywhere", disk_full_anywhere),
    ("disk_full_prune", disk_full_prune),
    ("no_namespaces", no_namespaces),
    ("unreadable", unreadable),
    ("bad_json", bad_json),
    ("missing_stage", missing_stage),
];

/// A small disk, at `small` in the place, with a state directory and an image on it.
fn small_disk<'a>(mode: &'a Mode, size: &str) -> Result<Apart<'a>, String> {
    let mount = format!("mkdir -p small && mount -t tmpfs -o size={size},mode=777 small small");
    let apart = Apart::new(mode, &["--mount", "--net"], &mount)?;
    expect(&on(&apart, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    Ok(apart)
}

/// Runs commands with a state directory on the small disk.
fn on(apart: &Apart<'_>, commands: &str) -> Result<Output, String> {
    apart.script(&format!("export LAPSTRAKE_ROOT=$PWD/small/state && {commands}"))
}

/// What every message about a full disk says.
const FULL: [&str; 3] = ["the disk of the state directory `", "small/state` is full", "LAPSTRAKE_ROOT"];

/// The disk fills up while a step writes; when there is room again, all is well.
fn disk_full(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can make a small disk");
    }
    let disk = small_disk(mode, "8m")?;
    dockerfile(mode, "fills", "FROM busybox\nRUN dd if=/dev/zero of=/big bs=65536 count=400\n")?;
    dockerfile(mode, "copies", "FROM busybox\nCOPY big /big\n")?;
    must(&format!("head -c 9000000 /dev/zero > '{}/copies/big'", mode.place.display()))?;
    dockerfile(mode, "fits", "FROM busybox\nRUN echo fits > /x\n")?;
    let ran = on(&disk, "./lapstrake build fills")?;
    expect(&ran, 3, &["dd: ", "No space left on device", "exit code: 1", "Dockerfile:2"])?;
    expect(&ran, 3, &FULL)?;
    let copied = on(&disk, "./lapstrake build copies")?;
    expect(&copied, 3, &[" /big: No space left", "Dockerfile:2"])?;
    expect(&copied, 3, &FULL)?;
    let left = on(&disk, "find small/state/tmp small/state/locks -mindepth 1")?;
    if !left.stdout.is_empty() {
        return Err(format!("something was left behind: {}", text(&left)));
    }
    expect(&on(&disk, "./lapstrake build -t fits fits && ./lapstrake run fits cat /x")?, 0, &["fits\n"])?;
    let archive = "mkdir -p small/out && ./lapstrake build -o type=oci,dest=small/out/image.tar \
                   --build-context big=copies fits-none";
    dockerfile(mode, "fits-none", "FROM busybox AS a\nRUN dd if=/dev/urandom of=/b bs=65536 count=50\n")?;
    expect(&on(&disk, archive)?, 3, &["image.tar", "No space left on device"])?;
    expect(&on(&disk, "ls -A small/out | wc -l")?, 0, &["\n0\n"])
}

/// At however many free pages a build stops for want of room, it says so and leaves nothing; with enough it works.
fn disk_full_anywhere(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can make a small disk");
    }
    let disk = small_disk(mode, "8m")?;
    dockerfile(mode, "little", "FROM busybox\nARG N\nRUN echo $N > /x\n")?;
    let mut failed = 0;
    for pages in 0..40 {
        // An own marker for each build: a shell variable would do, but files of the build must be new as well.
        let fill = "rm -f small/room; cat /dev/zero > small/fill 2> /dev/null; \
                    truncate -s -$((PAGES * 4096)) small/fill;";
        let build = format!(
            "PAGES={pages}; {fill} ./lapstrake build -t little:{pages} --build-arg N={pages} little; \
             code=$?; find small/state/tmp small/state/locks -mindepth 1 | sed 's/^/LEFT /'; rm small/fill; exit $code"
        );
        let output = on(&disk, &build)?;
        if text(&output).contains("LEFT ") {
            return Err(format!("at {pages} pages: {}", text(&output)));
        }
        if output.status.success() {
            break;
        }
        failed += 1;
        expect(&output, 3, &["small/state", "LAPSTRAKE_ROOT"])
            .map_err(|why| format!("at {pages} pages: {why}"))?;
        let again = format!(
            "./lapstrake build -t little:{pages} --build-arg N={pages} little && ./lapstrake run little:{pages} cat /x"
        );
        expect(&on(&disk, &again)?, 0, &[&format!("{pages}\n")])?;
    }
    if (2..40).contains(&failed) { Ok(()) } else { Err(format!("{failed} builds had too little room")) }
}

/// Not a byte is free on the disk, and nobody but lapstrake can give one back: `rmi` and `prune` do.
fn disk_full_prune(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can make a small disk");
    }
    let disk = small_disk(mode, "24m")?;
    dockerfile(mode, "big", "FROM busybox\nRUN dd if=/dev/urandom of=/b bs=65536 count=120\n")?;
    dockerfile(mode, "small-step", "FROM busybox\nRUN echo fits > /x\n")?;
    expect(&on(&disk, "./lapstrake build -t big big && ./lapstrake build -t kept small-step")?, 0, &[])?;
    let fill = "cat /dev/zero > small/fill 2> /dev/null; df --output=avail small | tail -1";
    expect(&on(&disk, fill)?, 0, &["0\n"])?;
    dockerfile(mode, "other-step", "FROM busybox\nRUN head -c 300000 /dev/urandom > /y\n")?;
    expect(&on(&disk, "./lapstrake build other-step")?, 3, &FULL)?;
    expect(&on(&disk, "./lapstrake rmi big")?, 0, &["Untagged: "])?;
    expect(&on(&disk, "./lapstrake prune --force")?, 0, &["Total reclaimed space: "])?;
    expect(&on(&disk, "./lapstrake doctor --state")?, 0, &[])?;
    expect(
        &on(&disk, "./lapstrake build -t other other-step && ./lapstrake run other ls /y")?,
        0,
        &["/y\n"],
    )?;
    expect(&on(&disk, "./lapstrake run kept cat /x && ls small/state/ballast")?, 0, &["fits\n", "ballast"])
}

/// A user namespace in which no others can be made: the message says what is missing and how to get it.
fn no_namespaces(mode: &Mode) -> Result<(), String> {
    let none = "echo 0 > /proc/sys/user/max_user_namespaces && \
                exec setpriv --ambient-caps=-all --inh-caps=-all ./lapstrake";
    for (verb, status) in [("build bad", 3), ("run busybox true", 125), ("images", 3)] {
        dockerfile(mode, "bad", "FROM busybox\nRUN true\n")?;
        let inside = format!(
            "cd '{}' && export LAPSTRAKE_ROOT='{}' && unshare --user --map-user=1 --map-group=1 --keep-caps sh -c '{none} {verb}'",
            mode.place.display(),
            state(mode).display()
        );
        let output = run(&[], mode.user, &inside)?;
        let words = ["user namespaces are switched off", "user.max_user_namespaces", "hint: as root: sysctl"];
        expect(&output, status, &words).map_err(|why| format!("{verb}: {why}"))?;
    }
    nothing_left(mode)
}

/// Somebody else's file that may not be read is an error where it is needed, and none elsewhere. (The user's own files
/// can always be read: the user is root of the namespace.)
fn unreadable(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can make somebody else's file");
    }
    let at = format!("cd '{}/unreadable'", mode.place.display());
    dockerfile(mode, "unreadable", "FROM busybox\nCOPY . /all/\n")?;
    must(&format!("{at} && echo x > open && echo x > closed && chmod 000 closed"))?;
    let words = ["closed", "Permission denied", "Dockerfile:2", ">>> COPY"];
    expect(&lap(mode, "build unreadable")?, 1, &words)?;
    dockerfile(mode, "unreadable", "FROM busybox\nCOPY open /open\n")?;
    expect(&lap(mode, "build unreadable")?, 0, &[])?;
    dockerfile(mode, "unreadable", "FROM busybox\nCOPY . /all/\n")?;
    must(&format!("{at} && echo closed > .dockerignore"))?;
    let ignored = "build -t unreadable unreadable && ./lapstrake run unreadable ls /all";
    expect(&lap(mode, ignored)?, 0, &["open"])?;
    must(&format!("{at} && rm .dockerignore closed && mkdir closed && chmod 000 closed"))?;
    expect(&lap(mode, "build unreadable")?, 1, &words)?;
    nothing_left(mode)
}

/// What is no valid JSON is a shell's command, as in Docker; whoever meant JSON is told so.
fn bad_json(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "json", "FROM busybox\nCMD [\"echo\" \"b\"]\n")?;
    let built = lap(mode, "build -t json json && ./lapstrake inspect json")?;
    expect(&built, 0, &["\"/bin/sh\",\n", "\"-c\",\n", r#""[\"echo\" \"b\"]""#])?;
    let hint = "not valid JSON";
    let cases: [(&str, &[&str]); 4] = [
        ("RUN [\"echo\", \"b\"", &["exit code: 127", hint, "Dockerfile:2"]),
        ("COPY [\"a\" \"/b\"]", &[hint, "Dockerfile:2"]),
        ("CMD [1, 2]", &["arrays must be comprised of strings only", "Dockerfile:2"]),
        ("SHELL /bin/sh", &["JSON form", "Dockerfile:2"]),
    ];
    for (line, words) in cases {
        dockerfile(mode, "json", &format!("FROM busybox\n{line}\n"))?;
        expect(&lap(mode, "build json")?, 1, words).map_err(|why| format!("{line}: {why}"))?;
    }
    nothing_left(mode)
}

/// A stage that is not there is looked for as an image; where there is a similar name, that is said.
fn missing_stage(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "missing", "FROM busybox AS base\nFROM busybox\nCOPY --from=7 /x /\n")?;
    expect(&lap(mode, "build missing")?, 1, &["invalid stage index 7", "Dockerfile:3"])?;
    dockerfile(mode, "missing", "FROM busybox AS base\nFROM busybox\n")?;
    expect(&lap(mode, "build --target bsae missing")?, 1, &["\"bsae\" could not be found", "base"])?;
    if is_root() {
        let apart = Apart::new(mode, &["--mount", "--net"], "true")?;
        for line in ["FROM bsae", "COPY --from=bsae /x /"] {
            dockerfile(mode, "missing", &format!("FROM busybox AS base\nFROM busybox\n{line}\n"))?;
            let words =
                ["docker.io/library/bsae", "did you mean base?", "cannot reach registry", "Dockerfile:3"];
            expect(&apart.lap("build missing")?, 3, &words).map_err(|why| format!("{line}: {why}"))?;
        }
    }
    nothing_left(mode)
}
