//! What does not build, and what it leaves behind: nothing.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] = &[
    ("shapes", shapes),
    ("failing", failing),
    ("bad_input", bad_input),
    ("killed", killed),
    ("deaf_reader", deaf_reader),
    ("mistyped_stage", mistyped_stage),
];

/// A stage that is mistyped is an image to ask for. That it looks like a stage is said while the registry takes its time, and
/// the first image that cannot be had ends the build: nobody waits for the others. No time is measured: the registry here
/// never answers at all.
fn mistyped_stage(mode: &Mode) -> Result<(), String> {
    let silent = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = silent.local_addr().map_err(|error| error.to_string())?;
    let settings = format!("[registry.\"docker.io\"]\nmirrors = [\"{address}\"]\n");
    fs::write(mode.place.join("silent.toml"), settings).map_err(|error| error.to_string())?;
    // Another image fails, and ends the waiting, when the hint is there.
    let late = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let port = late.local_addr().map_err(|error| error.to_string())?.port();
    let lines = format!(
        "FROM busybox AS build\nRUN true\nFROM busybox\nCOPY --from=biuld /a /a\nCOPY --from=localhost:{port}/x /b /b\n"
    );
    dockerfile(mode, "mistyped", &lines)?;
    let build =
        "export LAPSTRAKE_CONFIG=$PWD/silent.toml && exec ./lapstrake build --progress plain mistyped";
    let output = thread::scope(|scope| {
        let building = scope.spawn(|| script(mode, build));
        // Each of its tries is answered by nonsense, after a time in which the hint is due.
        late.set_nonblocking(true).map_err(|error| error.to_string())?;
        while !building.is_finished() {
            thread::sleep(Duration::from_millis(700));
            drop(late.accept());
        }
        building.join().map_err(|_| "the build's thread panicked".to_owned())?
    })?;
    expect(
        &output,
        3,
        &[
            "no stage is called `biuld` (did you mean build?): looking for an image",
            "ERROR: stopped: another image cannot be resolved",
            &format!("failed to solve: failed to resolve source metadata for localhost:{port}/x:latest"),
        ],
    )
}

/// The shapes of errors that users and their tools look for: lines behind `FROM busybox`, and what is said of them.
const SHAPES: &[(&str, &[&str])] = &[
    (
        "RUM x",
        &[
            "ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)",
        ],
    ),
    (
        "ENV a=${b:?none}",
        &["ERROR: failed to solve: failed to process \"${b:?none}\": b: none", "Dockerfile:2:5"],
    ),
    (
        "RUN exit 3",
        &[
            "ERROR: failed to solve: process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3",
        ],
    ),
    (
        "COPY missing /x",
        &[
            "ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref context: \"/missing\": not found",
        ],
    ),
    (
        "COPY --from=localhost:1/busybx /x /x",
        &[
            "failed to solve: failed to resolve source metadata for localhost:1/busybx:latest: cannot reach registry",
        ],
    ),
    (
        "RUN --mount=type=secret,id=s,required true",
        &["ERROR: failed to solve: secret s: not found", "--secret id=s"],
    ),
    ("RUN --mount=type=ssh,required true", &["no SSH key \"default\" forwarded from the client", "--ssh"]),
    (
        "RUN --network=host true",
        &["ERROR: failed to solve: network.host is not allowed", "--allow network.host"],
    ),
    (
        "RUN --security=insecure true",
        &["ERROR: failed to solve: security.insecure is not allowed", "--allow security.insecure"],
    ),
    ("USER nobody-here\nRUN true", &["unable to find user nobody-here: no matching entries in passwd file"]),
    ("COPY d /bin/busybox", &["cannot copy to non-directory: /bin/busybox"]),
    (
        "COPY f /g\nRUN [\"/g\"]",
        &["cannot run /g: it is a text that does not say", "begin it with `#!/bin/sh`"],
    ),
    (
        "COPY elf /elf\nRUN [\"/elf\"]",
        &["cannot run /elf: it is a program for s390x", "binfmt_misc", "Dockerfile:3"],
    ),
    ("RUN []", &["ERROR: failed to solve: arguments are required", "Dockerfile:2:1", "2 | RUN []"]),
];

fn shapes(mode: &Mode) -> Result<(), String> {
    // The last is the head of a program for a processor that nobody who runs these tests has.
    let files = "mkdir -p shapes/d && echo x > shapes/f && echo y > shapes/d/g && \
                 printf '\\177ELF\\002\\002\\001%09d\\000\\002\\000\\026%064d' 0 0 > shapes/elf && chmod 755 shapes/f shapes/elf";
    expect(&script(mode, files)?, 0, &[])?;
    for (line, words) in SHAPES {
        dockerfile(mode, "shapes", &format!("FROM busybox\n{line}\n"))?;
        let failed = lap(mode, "build shapes")?;
        // A registry that nobody answers for is no fault of the Dockerfile.
        let status = if line.contains("localhost") { 3 } else { 1 };
        expect(&failed, status, words).map_err(|why| format!("{line}: {why}"))?;
    }
    // The excerpt, to the byte.
    dockerfile(mode, "shapes", "FROM busybox\n\nRUN exit 3\nCOPY f /f\n")?;
    let excerpt = "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     \n   3 | >>> RUN exit 3\n   4 |     COPY f /f\n   5 |     \n--------------------\n";
    expect(&lap(mode, "build shapes")?, 1, &[excerpt])?;
    let target = lap(mode, "build --target nope shapes")?;
    expect(&target, 1, &["target stage \"nope\" could not be found"])
}

fn failing(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "failing", "FROM busybox\nRUN echo last words; exit 7\n")?;
    let failed = lap(mode, "build -t failing failing")?;
    expect(&failed, 1, &["last words", "exit code: 7", "Dockerfile:2", ">>> RUN"])?;
    expect(&lap(mode, "run --pull never failing")?, 125, &["no such image"])?;
    nothing_left(mode)
}

fn bad_input(mode: &Mode) -> Result<(), String> {
    let circular = "FROM busybox AS a\nCOPY --from=b /x /\nFROM busybox AS b\nCOPY --from=a /x /\n";
    // Both lines that make the circle are shown.
    let circle =
        ["circular dependency detected on stage: a", "2 | COPY --from=b", "4 | COPY --from=a", "needs `a`"];
    let cases: [(&str, &str, i32, &[&str]); 5] = [
        ("unknown", "FROM busybox\nRUM true\n", 1, &["RUM", "RUN"]),
        ("missing-file", "FROM busybox\nCOPY nothing /\n", 1, &["/nothing", "not found"]),
        ("unreachable", "FROM localhost:1/bb\nRUN true\n", 3, &["localhost:1"]),
        ("circular", circular, 1, &circle),
        ("empty", "", 1, &["empty"]),
    ];
    for (name, content, code, words) in cases {
        dockerfile(mode, name, content)?;
        let output = lap(mode, &format!("build {name}"))?;
        expect(&output, code, words).map_err(|why| format!("{name}: {why}"))?;
    }
    let unread = lap(mode, "build -f unknown/none unknown")?;
    expect(&unread, 1, &["failed to read dockerfile: open unknown/none: no such file or directory"])?;
    let twice = script(mode, "./lapstrake build -f - - < /dev/null")?;
    expect(&twice, 2, &["can't use stdin for both build context and dockerfile"])?;
    let unclear = script(mode, "echo FROM busybox | ./lapstrake build -f Dockerfile -")?;
    expect(&unclear, 2, &["ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"])?;
    expect(&lap(mode, "check -t x unknown")?, 2, &["`--tag` has no effect on `check`"])?;
    dockerfile(mode, "ignored", "FROM busybox\nCOPY . /x\n")?;
    for (pattern, told) in [
        ("!", "illegal exclusion pattern: \"!\""),
        ("[", "syntax error in pattern \"[\""),
        ("[b-a]", "syntax error in pattern \"[b-a]\""),
    ] {
        std::fs::write(mode.place.join("ignored/.dockerignore"), pattern)
            .map_err(|error| error.to_string())?;
        let refused = lap(mode, "build ignored")?;
        if refused.status.success() || !super::place::text(&refused).contains(told) {
            return Err(format!("{pattern}: {}", super::place::text(&refused)));
        }
    }
    // Nothing is left that could be compared with it.
    std::fs::write(mode.place.join("ignored/.dockerignore"), "*\n[b-a]")
        .map_err(|error| error.to_string())?;
    expect(&lap(mode, "build ignored")?, 0, &[])?;
    expect(&lap(mode, "build no-such-directory")?, 2, &["not found"])
}

/// Kill -9 in the middle of a step: no process stays, and the next build is right.
fn killed(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "killed", "FROM busybox\nRUN echo begun; sleep 4217; echo x > /x\n")?;
    let kill = "rm -f log; ./lapstrake build --progress plain killed 2> log & pid=$!; \
                for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                grep -q '[0-9] begun' log && break; sleep 0.5; done; \
                kill -9 $pid; sleep 1; pgrep -x -f 'sleep 4217' && exit 9; true";
    expect(&script(mode, kill)?, 0, &[])?;
    dockerfile(mode, "killed", "FROM busybox\nRUN echo x > /x\n")?;
    expect(&lap(mode, "build -t killed killed && ./lapstrake run killed cat /x")?, 0, &["x\n"])?;
    nothing_left(mode)
}

/// Who reads the result may be gone; then the program ends as others do, without a word.
fn deaf_reader(mode: &Mode) -> Result<(), String> {
    let gone =
        "{ sleep 0.3; ./lapstrake inspect busybox 2> said; echo $? > status; } | true; cat status said";
    let output = script(mode, gone)?;
    expect(&output, 0, &[])?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if told == "141\n" { Ok(()) } else { Err(format!("it said {told:?}")) }
}
