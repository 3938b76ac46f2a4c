//! What lapstrake knows of builds that are over, and what it removes: `builds`, `explain`, `graph`, `df`, `prune`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::place::{
    Mode, dockerfile, expect, lap, must, must_say, nothing_left_in, processes, script, start, state, text,
};

pub(super) const CASES: &[super::Case] = &[
    ("explain", explain),
    ("explain_mounts", explain_mounts),
    // Not just "builds": that is all of the folders, too.
    ("builds_remembered", builds),
    ("graph", graph),
    ("prune", prune),
    ("prune_apart", prune_apart),
    ("prune_in_use", prune_in_use),
];

const STAGES: &str = "FROM busybox AS build\nARG MODE=fast\nCOPY src /src\nRUN cat /src/* > /all; echo $MODE\nFROM busybox\nCOPY --from=build /all /all\nRUN cat /all\n";

/// A context with files, in which things change.
fn context(mode: &Mode, name: &str) -> Result<PathBuf, String> {
    dockerfile(mode, name, STAGES)?;
    let src = mode.place.join(name).join("src");
    let files = fs::create_dir_all(&src)
        .and_then(|()| fs::write(src.join("a"), "a\n"))
        .and_then(|()| fs::write(src.join("b"), "b\n"));
    files.map_err(|error| error.to_string())?;
    must(&format!("chmod -R a+rX '{0}' && chmod 644 '{0}'/*", src.display()))?;
    Ok(src)
}

/// Each way for a step to be done again is told as what it is.
fn explain(mode: &Mode) -> Result<(), String> {
    let src = context(mode, "explain")?;
    let build = |more: &str| -> Result<String, String> {
        expect(&lap(mode, &format!("build -q {more} explain"))?, 0, &["sha256:"])?;
        let told = lap(mode, "explain")?;
        expect(&told, 0, &["build "])?;
        Ok(text(&told))
    };
    let says = |told: &str, words: &[&str]| match words.iter().find(|word| !told.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("`{word}` is not in: {told}")),
    };
    says(&build("")?, &["no earlier build of the same", "no earlier build had this step"])?;
    says(&build("")?, &["CACHED   [build 2/3] COPY src /src"])?;
    must(&format!("echo new > '{0}/c' && echo other > '{0}/a' && chmod 600 '{0}/b'", src.display()))?;
    must(&format!("chown --reference '{}' '{}/b'", mode.place.join("builds").display(), src.display()))?;
    let files = ["/src/a: content", "/src/b: mode", "/src/c: new"];
    let told = build("")?;
    says(&told, &files)?;
    says(&told, &["its input changed: [build 2/3] COPY src /src", "/all: content"])?;
    must(&format!("rm '{}/c' && touch '{}/a'", src.display(), src.display()))?;
    says(&build("")?, &["/src/c: removed"])?;
    let told = build("--build-arg MODE=slow")?;
    says(&told, &["the variable MODE was `fast` and is `slow`", "CACHED   [build 2/3] COPY src /src"])?;
    // The files are the same as before, so what stands on them is cached.
    says(&told, &["CACHED   [stage-1 3/3] RUN cat /all"])?;
    dockerfile(mode, "explain", &STAGES.replace("RUN cat /all\n", "RUN cat /all /all\n"))?;
    says(&build("")?, &["the command was `/bin/sh -c cat /all` and is `/bin/sh -c cat /all /all`"])?;
    says(&build("--no-cache")?, &["--no-cache runs it even if it is cached"])?;
    let two = lap(mode, "explain --json ^2 ^3")?;
    expect(&two, 0, &["\"kind\": \"op\"", "\"place\": \"env MODE\""])
}

/// Files that a step saw through a bind mount are in no layer, and are named all the same.
fn explain_mounts(mode: &Mode) -> Result<(), String> {
    let src = context(mode, "mounted")?;
    let build = || -> Result<String, String> {
        expect(&lap(mode, "build -q mounted")?, 0, &["sha256:"])?;
        let told = lap(mode, "explain")?;
        expect(&told, 0, &["build "])?;
        Ok(text(&told))
    };
    let of_step = |told: &str, step: &str, lines: &[&str]| {
        let below = told.lines().skip_while(|line| !line.contains(step)).skip(1);
        let below: Vec<&str> = below.take_while(|line| line.starts_with(' ')).map(str::trim).collect();
        if below == lines { Ok(()) } else { Err(format!("{below:?} is not {lines:?} in: {told}")) }
    };
    let text = "FROM busybox AS made\nCOPY src /made\nFROM busybox\nRUN --mount=target=/m,source=src cat /m/a > /out\n\
        RUN --mount=from=made,target=/m,source=made cat /m/b > /second\n";
    dockerfile(mode, "mounted", text)?;
    build()?;
    must(&format!(
        "echo mounted > '{0}/a' && rm '{0}/b' && mkdir '{0}/d' && echo d > '{0}/d/b'",
        src.display()
    ))?;
    dockerfile(mode, "mounted", &text.replace("cat /m/b", "cat /m/d/b"))?;
    let told = build()?;
    let files = ["a: content", "b: removed", "d: new", "d/b: new"];
    let first = [&["content of /src changed, in [internal] load build context"], &files[..]].concat();
    of_step(&told, "RUN --mount=target=/m,source=src cat", &first)?;
    let changed = [
        "the command was `/bin/sh -c cat /m/b > /second` and is `/bin/sh -c cat /m/d/b > /second`",
        "its input changed: [stage-1 2/3] RUN --mount=target=/m,source=src cat /m/a > /out",
        "content of /made changed, in [made 2/2] COPY src /made",
    ];
    of_step(&told, "RUN --mount=from=made,target=/m,source=made cat", &[&changed[..], &files].concat())
}

fn builds(mode: &Mode) -> Result<(), String> {
    context(mode, "builds-ctx")?;
    // Something that no other test has built, so that a process runs.
    dockerfile(mode, "builds-ctx", &STAGES.replace("MODE=fast", "MODE=builds"))?;
    expect(&lap(mode, "build -q -t remembered builds-ctx")?, 0, &["sha256:"])?;
    dockerfile(mode, "builds-ctx", "FROM busybox\nRUN echo before; exit 3\n")?;
    expect(&lap(mode, "build -t remembered --timeline line.html builds-ctx")?, 1, &["exit code: 3"])?;
    expect(&lap(mode, "builds ls")?, 0, &["BUILD ID", "remembered:latest  Failed", "Completed"])?;
    expect(
        &lap(mode, "builds inspect")?,
        0,
        &["Status:      Failed", "FAILED    [2/2] RUN echo before; exit 3 (CPU ", ", peak memory "],
    )?;
    expect(
        &lap(mode, "builds inspect --json ^1")?,
        0,
        &["\"Status\": \"Completed\"", "\"Image\": \"sha256:", "\"peak_memory\": "],
    )?;
    // The failure as a value, for programs.
    let report = ["\"Report\": {", "\"code\": \"step.exit-code\"", "\"fault\": \"build\"", "\"line\": 2"];
    expect(&lap(mode, "builds inspect --json")?, 0, &report)?;
    let listed = lap(mode, "builds ls")?;
    if let Some(wide) = String::from_utf8_lossy(&listed.stdout).lines().find(|line| line.chars().count() > 80)
    {
        return Err(format!("wider than a terminal: {wide}"));
    }
    let refused = "DOCKER_HOST=unix://$PWD/nobody.sock ./lapstrake build --platform linux/amd64,linux/arm64 --load builds-ctx";
    let refused = script(mode, refused)?;
    expect(&refused, 2, &["does not currently support exporting manifest lists"])?;
    expect(&lap(mode, "builds logs")?, 0, &[" before\n", "ERROR: "])?;
    let page = fs::read_to_string(mode.place.join("line.html")).map_err(|error| error.to_string())?;
    let again = lap(mode, "builds timeline")?;
    expect(&again, 0, &["<!doctype html>", "RUN echo before; exit 3", "class=\"bar failed\""])?;
    if !page.contains("peak memory")
        || !page.contains("class=\"bar failed\"")
        || page.contains("<script")
        || page.contains("http")
    {
        return Err(format!("not a page of its own: {page}"));
    }
    let gone = script(
        mode,
        "./lapstrake builds rm $(./lapstrake builds ls -q | head -n 1) && ./lapstrake builds inspect",
    )?;
    expect(&gone, 0, &["Status:      Completed"])?;
    expect(&lap(mode, "builds logs nosuch")?, 1, &["no such build: nosuch"])
}

fn graph(mode: &Mode) -> Result<(), String> {
    context(mode, "graph-ctx")?;
    // Something that no other test has built.
    dockerfile(mode, "graph-ctx", &STAGES.replace("MODE=fast", "MODE=graph"))?;
    expect(
        &lap(mode, "graph graph-ctx")?,
        0,
        &["to do    RUN cat /src/*", "to do    COPY --from=build /all /all  ← build"],
    )?;
    expect(&lap(mode, "build -q graph-ctx")?, 0, &["sha256:"])?;
    expect(
        &lap(mode, "graph graph-ctx")?,
        0,
        &["cached   RUN cat /src/*", "cached   COPY --from=build /all /all"],
    )?;
    expect(&lap(mode, "graph --dot graph-ctx")?, 0, &["digraph build {", "subgraph cluster_0"])?;
    expect(
        &script(mode, "./lapstrake graph --svg --to graph.svg graph-ctx && head -c 4 graph.svg")?,
        0,
        &["<svg"],
    )?;
    expect(&lap(mode, "graph --target nosuch graph-ctx")?, 1, &["nosuch"])
}

/// Commands with a state directory of its own, in which `busybox` is imported.
fn alone(mode: &Mode, name: &str) -> Result<PathBuf, String> {
    let root = state(mode).with_file_name(format!("{name}-{}", mode.name));
    let import = format!("export LAPSTRAKE_ROOT='{}' && ./lapstrake import bb.tar busybox", root.display());
    expect(&script(mode, &import)?, 0, &["sha256:"])?;
    Ok(root)
}

/// What no image has goes, what an image has stays, and the next build is right.
fn prune(mode: &Mode) -> Result<(), String> {
    let root = alone(mode, "prune")?;
    let src = context(mode, "prune-ctx")?;
    let lap = |args: &str| {
        script(mode, &format!("export LAPSTRAKE_ROOT='{}' && ./lapstrake {args}", root.display()))
    };
    let layers = || must_say(&format!("ls '{}/layers' | wc -l", root.display()));
    expect(&lap("build -q -t kept prune-ctx")?, 0, &["sha256:"])?;
    must(&format!("echo more > '{}/a'", src.display()))?;
    expect(&lap("build -q prune-ctx")?, 0, &["sha256:"])?;
    expect(&lap("df")?, 0, &["Images         3         2", "Build Cache"])?;
    expect(&lap("df --format '{{.Type}}: {{.TotalCount}}'")?, 0, &["Images: 3\nBuild Cache: "])?;
    expect(&lap("system df")?, 0, &["TYPE           TOTAL     ACTIVE    SIZE", "RECLAIMABLE"])?;
    expect(
        &lap("df -v")?,
        0,
        &["REPOSITORY   TAG       IMAGE ID       CREATED", "\nkept         latest    "],
    )?;
    expect(&lap("df -v")?, 0, &["CACHE ID       CACHE TYPE     SIZE", "[build 2/3] COPY src /src"])?;
    expect(&lap("prune")?, 2, &["use `--force`"])?;
    expect(&lap("prune --filter since=1h")?, 2, &["unknown filter"])?;
    // Nothing is older than a day, or larger than a gigabyte.
    expect(&lap("prune --force --filter until=24h")?, 0, &["Total reclaimed space: 0B"])?;
    expect(&lap("prune --force --keep-storage 1g")?, 0, &["Total reclaimed space: 0B"])?;
    let before = layers()?;
    expect(&lap("prune --force")?, 0, &["Deleted Images:\ndeleted: sha256:", "[build 2/3] COPY src /src"])?;
    if layers()? == before {
        return Err(format!("no layer went: {before}"));
    }
    expect(&lap("run kept cat /all")?, 0, &["a\nb\n"])?;
    must(&format!("echo a > '{}/a'", src.display()))?;
    expect(&lap("build -q -t kept prune-ctx")?, 0, &["sha256:"])?;
    expect(&lap("run kept cat /all")?, 0, &["a\nb\n"])?;
    expect(&lap("prune --all --force")?, 0, &["untagged: kept:latest\ndeleted: sha256:"])?;
    no_layers(&root)?;
    expect(&lap("images")?, 0, &["REPOSITORY"])?;
    nothing_left_in(mode, &root)
}

/// Everything was removed.
fn no_layers(root: &Path) -> Result<(), String> {
    let left = must_say(&format!("ls '{}/layers'", root.display()))?;
    if left.is_empty() { Ok(()) } else { Err(format!("layers are left: {left}")) }
}

/// Images alone go with what nothing else has of them, the build cache alone leaves them.
fn prune_apart(mode: &Mode) -> Result<(), String> {
    let root = alone(mode, "prune-apart")?;
    context(mode, "apart-ctx")?;
    let run =
        |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{}' && {commands}", root.display()));
    let layers = || must_say(&format!("ls '{}/layers' | wc -l", root.display()));
    expect(&run("./lapstrake build -q -t apart --label keep=1 apart-ctx")?, 0, &["sha256:"])?;
    // One that no step made: its layers are nobody's when it goes.
    let brought = "mkdir -p more && echo more > more/f && tar -C more -c . | ./lapstrake import - brought";
    expect(&run(brought)?, 0, &["sha256:"])?;
    expect(&run("./lapstrake builder prune -f")?, 0, &["Total reclaimed space: "])?;
    let before = layers()?;
    expect(&run("./lapstrake image prune -f")?, 0, &["Total reclaimed space: 0B"])?;
    expect(&run("./lapstrake image prune -af --filter until=24h")?, 0, &["Total reclaimed space: 0B"])?;
    expect(&run("./lapstrake image prune -af --filter type=blob")?, 2, &["label!=KEY"])?;
    expect(&run("./lapstrake image prune -f --keep-storage 1g")?, 2, &["--only cache"])?;
    expect(&run("./lapstrake image prune")?, 2, &["all dangling images", "use `--force`"])?;
    expect(&run("./lapstrake builder prune -f")?, 0, &["Total reclaimed space: "])?;
    if layers()? != before {
        return Err(format!("images lost layers: {before}"));
    }
    let others = run("./lapstrake image prune -af --filter label!=keep=1")?;
    expect(
        &others,
        0,
        &["Deleted Images:\n", "untagged: brought:latest\ndeleted: sha256:", "\n\nTotal reclaimed space: 5B"],
    )?;
    if layers()? == before {
        return Err(format!("no layer went: {before}"));
    }
    expect(&run("./lapstrake run apart cat /all")?, 0, &["a\nb\n"])?;
    expect(&run("./lapstrake image prune -af --filter label=keep")?, 0, &["untagged: apart:latest"])?;
    expect(&run("./lapstrake builder prune -af")?, 0, &["Total reclaimed space: "])?;
    no_layers(&root)?;
    nothing_left_in(mode, &root)?;
    must(&format!("rm -rf '{}'", root.display()))
}

const WAITS: &str = "FROM busybox\nCOPY src /src\nRUN touch /made\nRUN --mount=type=cache,id=signal,target=/c touch /c/here; while test ! -e /c/go; do sleep 0.05; done; cat /made /src/*; touch /c/seen\n";

/// Everything is pruned while a build stands on it: the build does not notice, and what it used goes afterwards.
fn prune_in_use(mode: &Mode) -> Result<(), String> {
    let root = alone(mode, "in-use")?;
    context(mode, "in-use-ctx")?;
    dockerfile(mode, "in-use-ctx", WAITS)?;
    let mut build =
        start(mode, &root, "log-in-use", "exec ./lapstrake build --progress plain -t busy in-use-ctx")?;
    let signal = |name: &str| format!("{}/mounts/*/data/{name}", root.display());
    let begun = Instant::now();
    while must(&format!("ls {}", signal("here"))).is_err() {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the step does not begin".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let lap = |args: &str| {
        script(mode, &format!("export LAPSTRAKE_ROOT='{}' && ./lapstrake {args}", root.display()))
    };
    expect(&lap("rmi busybox")?, 0, &["Deleted: "])?;
    expect(&lap("prune --force")?, 0, &["RUN touch /made", "may be in use"])?;
    must(&format!("for d in '{}'/mounts/*/data; do touch $d/go; done", root.display()))?;
    let status = build.wait().map_err(|error| error.to_string())?;
    let said = fs::read_to_string(mode.place.join("log-in-use")).map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("the build failed: {said}"));
    }
    // The image has taken back what it needs.
    expect(&lap("prune --force")?, 0, &["Total reclaimed space"])?;
    expect(&lap("run busy cat /src/a")?, 0, &["a\n"])?;
    expect(&lap("rmi busy")?, 0, &["Deleted: "])?;
    expect(&lap("prune --force")?, 0, &["Total reclaimed space"])?;
    no_layers(&root)?;
    match processes(&root)?.as_str() {
        "" => nothing_left_in(mode, &root),
        found => Err(format!("still there: {found}")),
    }
}
