//! Directories deeper than any path, and what cannot be removed: the store opens, prunes and builds all the same.

use lapstrake_testkit::skip;

use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, text};

pub(super) const CASES: &[super::Case] =
    &[("deep_directories", deep), ("deep_contexts", contexts), ("what_cannot_be_removed", stuck)];

/// Commands that nest so many times a hundred directories in `$1`, by moving each hundred below the next.
const NEST: &str = "h=$(busybox printf 'd/%.0s' $(busybox seq 100)); n=0; \
                    while [ $n -lt ROUNDS ]; do busybox mkdir -p y/$h && \
                    { [ $n = 0 ] || busybox mv x y/$h; } && busybox mv y x && n=$((n+1)); done; touch done";

fn nest(hundreds: u32) -> String {
    NEST.replace("ROUNDS", &hundreds.to_string())
}

/// With few open files, in steps, in cache directories and in layers.
fn deep(mode: &Mode) -> Result<(), String> {
    let few = "ulimit -Sn 256 && ulimit -Hn 256 && ";
    let run = |command: &str| script(mode, &format!("{few}./lapstrake {command}"));
    for hundreds in [12, 200] {
        // What a layer may not say is refused when it would become one, and leaves nothing behind.
        dockerfile(mode, "deep", &format!("FROM busybox\nWORKDIR /w\nRUN {}\n", nest(hundreds)))?;
        let built = run("build deep")?;
        if hundreds == 12 {
            expect(&built, 0, &[])?;
        } else {
            expect(&built, 1, &["is too long: its path has 40", "the kernel takes 4095"])?;
        }
        // In a cache directory it is nobody's business.
        let cached = format!(
            "FROM busybox\nRUN --mount=type=cache,target=/w cd /w && rm -rf x y && {}\n",
            nest(hundreds)
        );
        dockerfile(mode, "deep-cache", &cached)?;
        expect(&run("build deep-cache")?, 0, &[])?;
        expect(&run("df")?, 0, &[])?;
        expect(&run("prune -f -a")?, 0, &[])?;
        import(mode)?;
    }
    let path = "a/".repeat(1100);
    let made = format!(
        "import sys, tarfile, io\nt = tarfile.open('deep.tar', 'w')\ni = tarfile.TarInfo('{path}')\n\
                        i.type = tarfile.DIRTYPE\nt.addfile(i)\nt.close()\n"
    );
    let make = format!("python3 -c \"$(cat <<'E'\n{made}E\n)\"");
    expect(&script(mode, &make)?, 0, &[])?;
    expect(&run("import deep.tar deep:1")?, 0, &[])?;
    dockerfile(mode, "deep-base", "FROM deep:1\nCOPY Dockerfile /there\n")?;
    expect(&run("build -t deep:2 deep-base")?, 0, &[])?;
    expect(&run("save -o deep-saved.tar deep:2")?, 0, &[])?;
    expect(&run("build -o type=local,dest=deep-out deep-base")?, 0, &[])?;
    dockerfile(mode, "deep-small", "FROM scratch\nCOPY Dockerfile /w/done\n")?;
    expect(&run("build -o type=local,dest=deep-out,mode=delete deep-small")?, 0, &[])?;
    expect(&script(mode, "test -e deep-out/w/done && ! test -e deep-out/a && rm -rf deep-out")?, 0, &[])?;
    expect(&run("rmi deep:1 deep:2")?, 0, &[])?;
    expect(&run("prune -f -a")?, 0, &[])?;
    expect(&run("load -i deep-saved.tar")?, 0, &["deep:2"])?;
    expect(&run("rmi deep:2")?, 0, &[])?;
    expect(&run("prune -f -a")?, 0, &[])?;
    import(mode)?;
    // Steps keep the limit of files that the user has.
    dockerfile(mode, "deep-files", "FROM busybox\nRUN --network=none echo files: $(ulimit -Sn)\n")?;
    let limited = script(mode, "ulimit -Sn 300 && ./lapstrake build --progress plain --no-cache deep-files")?;
    expect(&limited, 0, &["files: 300\n"])?;
    nothing_left(mode)
}

/// `prune -a` took the base image.
fn import(mode: &Mode) -> Result<(), String> {
    expect(&lap(mode, "import bb.tar busybox")?, 0, &[])
}

/// A deep directory of the context.
fn contexts(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "deep-ctx", "FROM busybox\nCOPY . /c\n")?;
    for (levels, code) in [(1500, 0), (20_000, 1)] {
        let nest = format!(
            "import os\nos.chdir('deep-ctx')\nfor i in range({levels}):\n os.mkdir('d')\n os.chdir('d')\n"
        );
        let owned = script(mode, "mkdir -p deep-ctx && test -w deep-ctx")?;
        if !owned.status.success() {
            must(&format!("chmod 777 '{}'", mode.place.join("deep-ctx").display()))?;
        }
        expect(&script(mode, &format!("python3 -c \"{nest}\""))?, 0, &[])?;
        let built = script(mode, "ulimit -Sn 256 && ulimit -Hn 256 && ./lapstrake build deep-ctx")?;
        let words: &[&str] = if code == 0 { &[] } else { &["too long"] };
        expect(&built, code, words).map_err(|why| format!("{levels} levels: {why}"))?;
        must(&format!("rm -rf '{}'", mode.place.join("deep-ctx/d").display()))?;
    }
    nothing_left(mode)
}

/// A file that the file system does not give away stops no opening and no prune.
fn stuck(mode: &Mode) -> Result<(), String> {
    let state = "stuck-state";
    let run = |command: &str| script(mode, &format!("export LAPSTRAKE_ROOT=\"$PWD/{state}\" && {command}"));
    expect(&run("./lapstrake import bb.tar busybox")?, 0, &[])?;
    let dead = format!(
        "mkdir -p {state}/tmp/dead/a && touch {state}/tmp/dead/lock {state}/tmp/dead/a/f && chattr +i {state}/tmp/dead/a/f"
    );
    let locked = script(mode, &dead)?;
    if !locked.status.success() {
        skip("files of this file system cannot be made immutable");
    }
    let result = (|| {
        for command in ["images", "prune -f", "build -q builds/debian-users", "doctor"] {
            let told = run(&format!("./lapstrake {command}"))?;
            if text(&told).contains("stuck") && command != "doctor" || told.status.code() == Some(101) {
                return Err(text(&told));
            }
        }
        expect(&run("./lapstrake images")?, 0, &["busybox"])?;
        expect(&run("./lapstrake doctor")?, 0, &["limited  leftovers", "stuck-dead"])
    })();
    must(&format!("cd '{}' && chattr -R -i {state}/tmp", mode.place.display()))?;
    result?;
    expect(&run("./lapstrake images && ls -A stuck-state/tmp | wc -l")?, 0, &["\n0\n"])
}
