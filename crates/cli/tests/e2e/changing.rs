//! Contexts that change while they are read: each file is taken as it is at one moment, and the key is that of what was
//! copied.

use super::place::{self, Mode, expect, is_cached, lap, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("changing_log", changing_log),
    ("changing_files", changing_files),
    ("changing_keys", changing_keys),
    ("changing_named_source", changing_named_source),
    ("changing_archives", changing_archives),
    ("changing_all_the_time", changing_all_the_time),
    ("changing_beside_a_mount", changing_beside_a_mount),
];

/// A context that belongs to whoever builds.
fn dockerfile(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    expect(&script(mode, &format!("mkdir -p {name}"))?, 0, &[])?;
    place::dockerfile(mode, name, text)
}

/// The output of the build goes to a file in its own context.
fn changing_log(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "teed", "FROM busybox\nCOPY . /s\nRUN test -f /s/build.log\n")?;
    for round in 0..16 {
        let teed = script(
            mode,
            "cd teed && { ../lapstrake build . 2>&1; echo status $?; } | tee build.log | grep -q 'status 0'",
        )?;
        expect(&teed, 0, &[]).map_err(|error| format!("round {round}: {error}"))?;
    }
    nothing_left(mode)
}

/// What happens to the files while an earlier step runs, and what `RUN` then finds in the copy.
const CHANGES: &[(&str, &str)] = &[
    ("echo more >> d/f", "grep -q one /s/d/f && grep -q more /s/d/f"),
    ("echo two > new && mv new d/f", "test $(cat /s/d/f) = two"),
    (": > d/f", "test ! -s /s/d/f -a -f /s/d/f"),
    ("rm d/f", "test ! -e /s/d/f -a -d /s/d"),
    ("rm -r d", "test ! -e /s/d/f"),
    ("rm d/f && mkdir d/f", "test ! -f /s/d/f"),
    ("rm d/f && ln -s /etc/passwd d/f", "test ! -e /s/d/f"),
    ("rm d/f && mkfifo d/f", "test ! -e /s/d/f"),
    ("chmod 750 d/f && echo x >> d/f", "test $(busybox stat -c %a /s/d/f) = 750"),
    ("echo x >> d/f && ln d/f d/g", "grep -q x /s/d/f"),
];

/// The ways to get at files of a context.
const WAYS: &[(&str, &str)] = &[
    ("COPY . /s", ""),
    ("COPY d/ /s/d/", ""),
    ("COPY d* /s/d/", ""),
    ("ADD . /s", ""),
    ("COPY --from=other . /s", "--build-context other=."),
];

fn build_while(mode: &Mode, dir: &str, flags: &str, change: &str) -> Result<std::process::Output, String> {
    // The change comes while the first step sleeps: all keys are known by then, and nothing is copied.
    let commands = format!(
        "cd {dir} && rm -f ../{dir}.go && {{ (i=0; while ! test -e ../{dir}.go && test $i -lt 400; do i=$((i+1)); sleep 0.05; \
         done; {change}) & }} && \
         ../lapstrake build --progress plain {flags} . 2>&1 | while read -r line; do echo \"$line\"; \
         case \"$line\" in *now) touch ../{dir}.go;; esac; done | tee ../{dir}.log; touch ../{dir}.go; wait; \
         ! grep -q '^ERROR' ../{dir}.log"
    );
    script(mode, &commands)
}

fn fresh(mode: &Mode, dir: &str, step: &str, check: &str, round: usize) -> Result<(), String> {
    let text = format!("FROM busybox\nRUN echo {round} now && sleep 0.8\n{step}\nRUN {check}\n");
    dockerfile(mode, dir, &text)?;
    let files = format!("cd {dir} && rm -rf d new && mkdir d && echo one > d/f && chmod 644 d/f");
    expect(&script(mode, &files)?, 0, &[])
}

fn changing_files(mode: &Mode) -> Result<(), String> {
    let all = CHANGES.iter().map(|change| (&WAYS[0], change));
    let others = WAYS[1..].iter().flat_map(|way| [CHANGES[0], CHANGES[3]].map(|change| (way, change)));
    let cases: Vec<_> = all.map(|(way, change)| (way, *change)).chain(others).collect();
    for (round, ((step, flags), (change, check))) in cases.into_iter().enumerate() {
        let copy = format!("{step}\nRUN test -d /s/d");
        fresh(mode, "changing", &copy, check, round)?;
        let built = build_while(mode, "changing", flags, change)?;
        expect(&built, 0, &[]).map_err(|error| format!("{step}: {change}: {error}"))?;
    }
    let mounted =
        "RUN --mount=type=bind,target=/s echo now && sleep 0.1\nRUN --mount=type=bind,target=/s test -d /s/d";
    fresh(mode, "changing", mounted, "true", 99)?;
    expect(&build_while(mode, "changing", "", "echo more >> d/f")?, 0, &[])?;
    nothing_left(mode)
}

/// The content that was asked for is not the content that was copied: nobody may find the one by the other.
fn changing_keys(mode: &Mode) -> Result<(), String> {
    for (round, step) in ["COPY . /s", "ADD . /s", "COPY d/f /s/d/"].into_iter().enumerate() {
        let after = "busybox cat /s/d/f > /seen";
        fresh(mode, "keys", step, after, 200 + round)?;
        expect(&build_while(mode, "keys", "-t keys", "echo two > d/f")?, 0, &[])?;
        let show = "./lapstrake run keys cat /seen";
        expect(&script(mode, show)?, 0, &["two"])?;
        // As it was when the keys were made.
        expect(&script(mode, "echo one > keys/d/f")?, 0, &[])?;
        let again = lap(mode, "build -t keys --progress plain keys")?;
        expect(&again, 0, &[])?;
        expect(&script(mode, show)?, 0, &["one"]).map_err(|error| format!("{step}: {error}"))?;
        // As it was when it was copied.
        expect(&script(mode, "echo two > keys/d/f")?, 0, &[])?;
        let last = lap(mode, "build -t keys --progress plain keys")?;
        expect(&last, 0, &[])?;
        if !is_cached(&last, &format!("RUN {after}")) {
            return Err(format!("{step}: what was copied is not found: {}", text(&last)));
        }
        expect(&script(mode, show)?, 0, &["two"])?;
    }
    nothing_left(mode)
}

/// A source with a name has to be there.
fn changing_named_source(mode: &Mode) -> Result<(), String> {
    fresh(mode, "named-live", "COPY d/f /named/", "true", 300)?;
    let gone = build_while(mode, "named-live", "", "rm d/f")?;
    expect(&gone, 1, &["\"/d/f\": not found"])?;
    fresh(mode, "named-live", "COPY d/f /named/", "test $(cat /named/f) = two", 301)?;
    expect(&build_while(mode, "named-live", "", "echo two > d/f")?, 0, &[])?;
    nothing_left(mode)
}

fn changing_archives(mode: &Mode) -> Result<(), String> {
    let changes = [
        // Another archive, an archive in place of a file, a file in place of an archive.
        (
            "tar -cf d/f -C .. bb.tar",
            "mkdir x && echo two > x/two && tar -cf d/f -C x two",
            "test $(cat /s/two) = two",
        ),
        ("true", "mkdir x && echo two > x/two && tar -cf d/f -C x two", "test $(cat /s/two) = two"),
        ("tar -cf d/f -C .. bb.tar", "echo two > d/f", "test $(cat /s/f) = two"),
    ];
    for (round, (before, change, check)) in changes.into_iter().enumerate() {
        fresh(mode, "changing-archives", "ADD d/f /s/", check, 400 + round)?;
        expect(&script(mode, &format!("cd changing-archives && rm -rf x && {before}"))?, 0, &[])?;
        let built = build_while(mode, "changing-archives", "", change)?;
        expect(&built, 0, &[]).map_err(|error| format!("{before}, {change}: {error}"))?;
    }
    nothing_left(mode)
}

/// Somebody appends and replaces without a pause. The key is that of the copied files: a build of the same files at rest
/// has the same content.
fn changing_all_the_time(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nCOPY --link . /s\nRUN cd /s && busybox sha256sum d/* > /sums\n";
    dockerfile(mode, "restless", text)?;
    let writer = "i=0; while ! test -e ../stop; do i=$((i+1)); echo $i >> d/log; echo $i > new$$ && mv new$$ d/file; \
                  : > d/gone$((i%7)); rm -f d/gone$(((i+3)%7)); done";
    let commands = format!(
        "cd restless && rm -rf d ../stop && mkdir d && head -c 9000000 /dev/zero > d/log && \
         {{ ({writer}) & }}; for round in 1 2 3 4 5 6; do ../lapstrake build -t restless . 2> ../restless.log || \
         {{ cat ../restless.log; touch ../stop; exit 1; }}; done; touch ../stop; wait"
    );
    expect(&script(mode, &commands)?, 0, &[])?;
    let still = "cd restless && ../lapstrake build -t restless . 2> /dev/null && ../lapstrake run restless cat /sums > ../sums && \
                 sha256sum d/* | diff - ../sums";
    expect(&script(mode, still)?, 0, &[])?;
    nothing_left(mode)
}

/// A mount takes what it selects: what lies beside that may be unreadable.
fn changing_beside_a_mount(mode: &Mode) -> Result<(), String> {
    let run = "RUN --mount=type=bind,source=in,target=/s test $(cat /s/f) = one -a $(busybox stat -c %a /s) = 751\n\
               RUN --mount=type=bind,source=link/f,target=/f test $(cat /f) = one\n\
               RUN --mount=type=bind,source=in,target=/s,rw echo x > /s/new\n";
    dockerfile(mode, "beside-live", &format!("FROM busybox\n{run}"))?;
    let commands = "cd beside-live && mkdir -p in && echo one > in/f && chmod 751 in && ln -sfn in link && echo x > out && chmod 0 out";
    expect(&script(mode, commands)?, 0, &[])?;
    expect(&lap(mode, "build beside-live")?, 0, &[])?;
    expect(&script(mode, "test ! -e beside-live/in/new")?, 0, &[])?;
    nothing_left(mode)
}
