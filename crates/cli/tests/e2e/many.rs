//! Builds at once, in several places, and builds that are killed: always the same right image, and nothing else.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use super::place::{
    Mode, dockerfile, expect, must, must_say, nothing_left, nothing_left_in, processes, script, start, state,
    stop, text,
};

pub(super) const CASES: &[super::Case] = &[("together", together), ("elsewhere", elsewhere), ("soak", soak)];

const TOGETHER: &str = r#"FROM busybox AS one
COPY src /src
RUN --mount=type=cache,id=together,target=/c echo one >> /c/log; sleep 0.2; cat /src/f > /one
FROM busybox
RUN --mount=type=cache,id=together,target=/c echo two >> /c/log; sleep 0.2; echo two > /two
COPY --from=one /one /
RUN --mount=type=cache,id=together,target=/c echo three >> /c/log; cat /one /two > /all
"#;

/// A context like the others, in a directory and of a time of its own.
fn context(mode: &Mode, name: &str, source: &str, time: u64) -> Result<(), String> {
    dockerfile(mode, name, source)?;
    let dir = mode.place.join(name).join("src");
    let made = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("f"), "same\n"));
    made.map_err(|error| error.to_string())?;
    must(&format!("touch -d @{time} '{0}/f' '{0}'", dir.display()))
}

/// Eight processes in eight directories, at once: each step runs once, and all get the same image.
fn together(mode: &Mode) -> Result<(), String> {
    let mut builds: Vec<(String, Child)> = Vec::new();
    for number in 1..=8 {
        let name = format!("together-{number}");
        context(mode, &name, TOGETHER, 1_000_000_000 + number)?;
        let build = format!(
            "export SOURCE_DATE_EPOCH=1600000000 LAPSTRAKE_NETWORK=host && exec ./lapstrake build -q {name}"
        );
        let log = format!("log-{name}");
        builds.push((log.clone(), start(mode, &state(mode), &log, &build)?));
    }
    let mut ids = Vec::new();
    for (log, mut build) in builds {
        let status = build.wait().map_err(|error| error.to_string())?;
        let said = fs::read_to_string(mode.place.join(log)).map_err(|error| error.to_string())?;
        if !status.success() || !said.starts_with("sha256:") {
            return Err(format!("{status}: {said}"));
        }
        ids.push(said);
    }
    if ids.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("different images: {ids:?}"));
    }
    let mut ran: Vec<String> = must_say(&format!("cat '{}'/mounts/*/data/log", state(mode).display()))?
        .lines()
        .map(str::to_owned)
        .collect();
    ran.retain(|line| ["one", "two", "three"].contains(&line.as_str()));
    ran.sort();
    if ran != ["one", "three", "two"] {
        return Err(format!("steps that ran: {ran:?}"));
    }
    context(mode, "together-9", TOGETHER, 9)?;
    let again = "SOURCE_DATE_EPOCH=1600000000 ./lapstrake build -t together together-9 && \
                 ./lapstrake run together cat /all";
    let again = script(mode, again)?;
    expect(&again, 0, &["same\ntwo\n"])?;
    let shown = text(&again);
    let done = shown.lines().filter(|line| line.contains("DONE")).count();
    // What the context is, what the base is, and the export: those are looked at each time.
    if shown.matches(" CACHED\n").count() != 6 || done != 3 {
        return Err(format!("not all is cached: {shown}"));
    }
    nothing_left(mode)
}

/// Two state directories that know nothing of each other: the same image, when its times are rewritten.
fn elsewhere(mode: &Mode) -> Result<(), String> {
    let mut ids = Vec::new();
    for (number, time) in [(1, 1_700_000_001), (2, 1_700_000_002)] {
        let name = format!("elsewhere-{number}");
        context(
            mode,
            &name,
            "FROM busybox\nWORKDIR /w\nCOPY src .\nRUN cat f > g && mkdir d\nENV A=b\n",
            time,
        )?;
        let build = format!(
            "export LAPSTRAKE_ROOT=\"$PWD/state-{name}-{mode}\" SOURCE_DATE_EPOCH=1600000000 && \
             ./lapstrake import bb.tar busybox > /dev/null && \
             ./lapstrake build -q -o type=image,rewrite-timestamp=true {name}",
            mode = mode.name
        );
        let built = script(mode, &build)?;
        expect(&built, 0, &["sha256:"])?;
        ids.push(String::from_utf8_lossy(&built.stdout).into_owned());
        // The second is made in another second.
        std::thread::sleep(Duration::from_millis(if number == 1 { 1100 } else { 0 }));
    }
    if ids[0] == ids[1] { Ok(()) } else { Err(format!("different images: {ids:?}")) }
}

const SOAK: &str = r#"FROM busybox AS a
ARG N
COPY src /src
RUN echo a$N > /a
FROM busybox AS b
ARG N
RUN --mount=type=cache,id=soak,target=/c echo $N >> /c/log; echo b$N > /b
FROM busybox
WORKDIR /w
COPY --from=a /a /src/f ./
COPY --from=b /b .
RUN cat a b f > all
CMD ["cat", "/w/all"]
"#;

/// Kill -9 at any point, then build again: the right result, and the state grows as if nobody had been killed.
/// `LAPSTRAKE_SOAK_ROUNDS` says how often (30).
fn soak(mode: &Mode) -> Result<(), String> {
    let rounds = std::env::var("LAPSTRAKE_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let state = mode.place.join(format!("soak-{}", mode.name));
    context(mode, "soak", SOAK, 1_000_000_000)?;
    let prepare = format!("LAPSTRAKE_ROOT='{}' ./lapstrake import bb.tar busybox", state.display());
    expect(&script(mode, &prepare)?, 0, &[])?;
    // The first build also fills what all builds share; the second tells how much a build adds, and how long it takes.
    whole(mode, &state, 0)?;
    let (before, begun) = (files(&state)?, Instant::now());
    whole(mode, &state, 1)?;
    let (first, took) = (files(&state)?, begun.elapsed());
    let mut random = 4217;
    for round in 2..rounds + 2 {
        killed(mode, &state, round, took.mul_f64(next(&mut random)))
            .map_err(|why| format!("round {round}: {why}"))?;
    }
    let (last, growth) = (files(&state)?, first - before);
    if last != first + growth * rounds {
        let all =
            must_say(&format!("cd '{}' && ls layers tmp locks contexts blobs/* mounts", state.display()))?;
        return Err(format!("{first} files, {growth} for each of {rounds} builds, but now {last}: {all}"));
    }
    Ok(())
}

/// Between 0 and 1, the same numbers each time.
fn next(random: &mut u64) -> f64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    f64::from((*random >> 33) as u32) / f64::from(u32::MAX >> 1)
}

fn build(mode: &Mode, state: &Path, round: usize) -> Result<Child, String> {
    let source = mode.place.join("soak/src/f");
    fs::write(source, format!("f{round}\n")).map_err(|error| error.to_string())?;
    start(mode, state, "log-soak", &format!("exec ./lapstrake build -t soak --build-arg N={round} soak"))
}

/// A build that nobody disturbs, and what came of it.
fn whole(mode: &Mode, state: &Path, round: usize) -> Result<(), String> {
    let status = build(mode, state, round)?.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        let said = fs::read_to_string(mode.place.join("log-soak")).unwrap_or_default();
        return Err(format!("{status}: {said}"));
    }
    let run = format!("LAPSTRAKE_ROOT='{}' ./lapstrake run soak", state.display());
    expect(&script(mode, &run)?, 0, &[&format!("\na{round}\nb{round}\nf{round}\n")])?;
    nothing_left_in(mode, state)
}

/// A build that is killed after `time`, and the one after.
fn killed(mode: &Mode, state: &Path, round: usize, time: Duration) -> Result<(), String> {
    let mut child = build(mode, state, round)?;
    std::thread::sleep(time);
    stop(&mut child);
    let begun = Instant::now();
    while !processes(state)?.is_empty() {
        if begun.elapsed() > Duration::from_secs(5) {
            return Err(format!("killed, and still there: {}", processes(state)?));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    whole(mode, state, round)
}

/// How many files there are, without the database's, and without the notes of layers that are changes to others: after a
/// kill a layer may be whole instead, with the same files.
fn files(state: &Path) -> Result<usize, String> {
    let found =
        must_say(&format!("find '{}' -not -name 'state.db*' -not -name base | wc -l", state.display()))?;
    found.trim().parse().map_err(|_| found)
}
