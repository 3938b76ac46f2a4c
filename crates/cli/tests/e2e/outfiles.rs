//! Outputs that the user names: what is no regular file is written through, links are followed, owners and modes stay.

use super::place::{Apart, Mode, dockerfile, expect, lap, must, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("outputs_to_devices", devices),
    ("outputs_to_pipes", pipes),
    ("outputs_to_links", links),
    ("outputs_keep_owners", owners),
    ("outputs_end_by_signals", signals),
    ("no_null_device", no_null_device),
];

/// Every flag that names an output, with `FILE` in its place.
const OUTPUTS: &[&str] = &[
    "save -o FILE busybox",
    "save --oci -o FILE busybox",
    "build -q --iidfile FILE outs",
    "build -q --metadata-file FILE outs",
    "build -q --timeline FILE outs",
    "build -q -o type=tar,dest=FILE outs",
    "build -q -o type=oci,dest=FILE outs",
    "build -q -o type=docker,dest=FILE outs",
    "graph --svg --to FILE outs",
    "builds timeline -o FILE",
];

fn outputs(mode: &Mode) -> Result<&'static [&'static str], String> {
    dockerfile(mode, "outs", "FROM busybox\nCOPY Dockerfile /there\n")?;
    must(&format!("chmod a+rx '{0}' && chmod a+r '{0}'/*", mode.place.join("outs").display()))?;
    // A build has to be known before its timeline can be drawn.
    expect(&lap(mode, "build -q outs")?, 0, &["sha256:"])?;
    Ok(OUTPUTS)
}

/// Device nodes stay device nodes. They are nodes of a file system of the test's own.
fn devices(mode: &Mode) -> Result<(), String> {
    let outputs = outputs(mode)?;
    let nodes = "mkdir -p nodes && mount -t tmpfs -o mode=777 none nodes && mknod -m 666 nodes/null c 1 3 && \
                 mknod -m 666 nodes/full c 1 7 && ln -s null nodes/link";
    let apart = Apart::new(mode, &["--mount"], nodes)?;
    for output in outputs {
        for node in ["null", "link"] {
            let command = output.replace("FILE", &format!("nodes/{node}"));
            expect(&apart.lap(&command)?, 0, &[]).map_err(|why| format!("{command}: {why}"))?;
            let kept =
                apart.script("test -c nodes/null && test -c nodes/full && test -L nodes/link && ls nodes")?;
            expect(&kept, 0, &["full\nlink\nnull\n"]).map_err(|why| format!("{command}: {why}"))?;
        }
        let command = output.replace("FILE", "nodes/full");
        let full = apart.lap(&command)?;
        if full.status.success() || !text(&full).contains("cannot write `nodes/full`") {
            return Err(format!("{command}: {}", text(&full)));
        }
    }
    nothing_left(mode)
}

/// Named pipes, descriptors and a shell's process substitution get the bytes.
fn pipes(mode: &Mode) -> Result<(), String> {
    for output in outputs(mode)? {
        let to = |file: &str| format!("./lapstrake {}", output.replace("FILE", file));
        for commands in [
            format!("rm -f p && mkfifo p && (timeout 20 cat p > got & {} && wait $! && test -p p)", to("p")),
            format!("{{ {}; echo more >&9; }} 9> got && tail -n 1 got | grep -a 'more$'", to("/dev/fd/9")),
            format!("{} > got", to("/dev/stdout")),
            format!("{} | cat > got", to("/dev/stdout")),
            format!("{} 2>&1 > /dev/null | cat > got", to("/proc/self/fd/2")),
            format!("bash -c '{} && wait $!' && sleep 0.1", to(">(cat > got)")),
        ] {
            let all = format!("rm -f got; {commands} && test -s got && test ! -e 9");
            expect(&script(mode, &all)?, 0, &[]).map_err(|why| format!("{commands}: {why}"))?;
        }
    }
    // What the caller did not pass on is none of its business, whatever lapstrake has there itself.
    let closed = script(mode, "exec 8>&-; ./lapstrake save -o /dev/fd/8 busybox")?;
    expect(&closed, 1, &["cannot write `/dev/fd/8`", "descriptor 8 is not open"])?;
    let whole = script(
        mode,
        "./lapstrake save -o /dev/stdout busybox | tar -t > out-list && grep manifest.json out-list",
    )?;
    expect(&whole, 0, &["manifest.json"])?;
    nothing_left(mode)
}

/// A link leads to its target, also to one that is not there yet.
fn links(mode: &Mode) -> Result<(), String> {
    for output in outputs(mode)? {
        let command = output.replace("FILE", "ln/first");
        let made =
            "rm -rf ln && mkdir -p ln/deep && ln -s deep/second ln/first && ln -s ../third ln/deep/second";
        let kept =
            "test -L ln/first && test -L ln/deep/second && test -f ln/third && test -s ln/third && ls -A ln";
        let all = format!("{made} && ./lapstrake {command} && {kept} && ./lapstrake {command} && {kept}");
        expect(&script(mode, &all)?, 0, &["deep\nfirst\nthird\n"])
            .map_err(|why| format!("{command}: {why}"))?;
        let loops = "rm -rf ln && mkdir ln && ln -s first ln/first";
        let looped = script(mode, &format!("{loops} && ./lapstrake {command}"))?;
        expect(&looped, 1, &["cannot write `ln/first`"]).map_err(|why| format!("{command}: {why}"))?;
    }
    nothing_left(mode)
}

/// A file that is there keeps its owner and its mode; one that cannot be replaced is written in place; a failed build
/// leaves no stale id.
fn owners(mode: &Mode) -> Result<(), String> {
    for output in outputs(mode)? {
        let command = output.replace("FILE", "own/f");
        let stat = "stat -c '%a %u %g' own/f";
        let all = format!(
            "umask 022 && rm -rf own && mkdir own && echo old > own/f && chmod 640 own/f && before=$({stat}) && \
             ./lapstrake {command} && test \"$({stat})\" = \"$before\" && test $(ls -A own) = f && \
             rm own/f && ./lapstrake {command} && test \"$(stat -c %a own/f)\" = 644"
        );
        expect(&script(mode, &all)?, 0, &[]).map_err(|why| format!("{command}: {why}"))?;
        // As root the owner is another one; as a user the directory is: the file can be written and not replaced.
        let owner = mode.user.unwrap_or("nobody");
        let place = mode.place.display();
        must(&format!(
            "cd '{place}' && rm -rf own && mkdir own && echo old > own/f && chmod 620 own/f && chown {owner} own/f"
        ))?;
        expect(&lap(mode, &command)?, 0, &[]).map_err(|why| format!("{command}: {why}"))?;
        let kept = format!(
            "cd '{place}' && stat -c '%a %U' own/f | grep -x '620 {owner}' && test $(head -c 3 own/f | od -An -tx1 | tr -d ' ') != 6f6c64 && ls -A own"
        );
        must(&kept).map_err(|why| format!("{command}: {why}"))?;
        must(&format!("rm -rf '{place}/own'"))?;
    }
    dockerfile(mode, "fails-id", "FROM busybox\nRUN false\n")?;
    let failed =
        script(mode, "echo stale > id; ./lapstrake build --iidfile id fails-id; test ! -e id && echo gone")?;
    expect(&failed, 0, &["gone"])?;
    nothing_left(mode)
}

/// Ctrl-C and SIGTERM end an output that waits for a pipe's reader, or for one that does not read.
fn signals(mode: &Mode) -> Result<(), String> {
    let outputs = outputs(mode)?;
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let unread = outputs.iter().map(|output| (output, ""));
        let stuck = outputs
            .iter()
            .filter(|output| output.starts_with("save"))
            .map(|output| (output, "sleep 60 < p > /dev/null 2>&1 & reader=$!;"));
        for (output, reader) in unread.chain(stuck) {
            let command = output.replace("FILE", "p");
            // A shell starts background commands with INT ignored, so the first signals may do nothing.
            let all = format!(
                "rm -f p && mkfifo p && {{ {reader} ./lapstrake {command} & pid=$!; sleep 0.5; \
                 for n in $(seq 100); do kill -{signal} $pid || break; sleep 0.1; done 2> /dev/null; \
                 kill -KILL $pid 2> /dev/null && echo it hangs; wait $pid; code=$?; [ -z \"$reader\" ] || kill $reader; test -p p && exit $code; }}"
            );
            expect(&script(mode, &all)?, status, &["ERROR: canceled"])
                .map_err(|why| format!("{signal} {reader} {command}: {why}"))?;
        }
    }
    nothing_left(mode)
}

/// A machine whose null device is missing, or is a file, is told so.
fn no_null_device(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "needs-null", &format!("FROM busybox\nRUN echo {}\n", mode.name))?;
    for (setup, word) in [
        ("true", "No such file or directory"),
        ("echo text > /dev/null", "it is a regular file"),
        ("mknod -m 666 /dev/null c 1 5", "it is another device"),
    ] {
        let nodes = format!(
            "mkdir -p dev && mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/zero c 1 5 && \
             mknod -m 666 /dev/full c 1 7 && mknod -m 666 /dev/random c 1 8 && mknod -m 666 /dev/urandom c 1 9 && \
             mknod -m 666 /dev/tty c 5 0 && ln -s /proc/self/fd /dev/fd && {setup}"
        );
        let apart = Apart::new(mode, &["--mount"], &nodes)?;
        let fix = "rm -rf /dev/null && mknod -m 666 /dev/null c 1 3";
        expect(&apart.lap("doctor")?, 3, &["MISSING  null device", word, fix])?;
        expect(&apart.lap("build --no-cache needs-null")?, 3, &["/dev/null cannot be used", word, fix])?;
        expect(&apart.lap("run busybox true")?, 125, &["/dev/null cannot be used", word, fix])?;
    }
    nothing_left(mode)
}
