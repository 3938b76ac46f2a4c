//! What does not build, and what it leaves behind: nothing.

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] =
    &[("failing", failing), ("bad_input", bad_input), ("killed", killed), ("deaf_reader", deaf_reader)];

fn failing(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "failing", "FROM busybox\nRUN echo last words; exit 7\n")?;
    let failed = lap(mode, "build -t failing failing")?;
    expect(&failed, 1, &["last words", "exit code: 7", "Dockerfile:2", ">>> RUN"])?;
    expect(&lap(mode, "run failing")?, 1, &["no such image"])?;
    nothing_left(mode)
}

fn bad_input(mode: &Mode) -> Result<(), String> {
    let circular = "FROM busybox AS a\nCOPY --from=b /x /\nFROM busybox AS b\nCOPY --from=a /x /\n";
    let cases: [(&str, &str, i32, &[&str]); 5] = [
        ("unknown", "FROM busybox\nRUM true\n", 1, &["RUM", "RUN"]),
        ("missing-file", "FROM busybox\nCOPY nothing /\n", 1, &["/nothing", "not found"]),
        ("unreachable", "FROM localhost:1/bb\nRUN true\n", 3, &["localhost:1"]),
        ("circular", circular, 1, &["circular dependency detected on stage: a"]),
        ("empty", "", 1, &["empty"]),
    ];
    for (name, content, code, words) in cases {
        dockerfile(mode, name, content)?;
        let output = lap(mode, &format!("build {name}"))?;
        expect(&output, code, words).map_err(|why| format!("{name}: {why}"))?;
    }
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
