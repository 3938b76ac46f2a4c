//! `run` in the foreground: terminals, keys, sizes, signals, exit statuses.

use super::place::{Mode, dockerfile, expect, script, text};
use super::pty::Pty;

pub(super) const CASES: &[super::Case] = &[
    ("terminal", terminal),
    ("terminal_size", size),
    ("terminal_keys", keys),
    ("terminal_given_back", given_back),
    ("terminal_hangs_up", hangs_up),
    ("terminal_without_stdin", without_stdin),
    ("signals", signals),
    ("interrupt", interrupt),
    ("progress", progress),
    ("progress_wide", wide),
    ("progress_counted", counted),
    ("progress_resized", resized),
    ("control_sequences", control_sequences),
    ("terminated", terminated),
];

fn has(shown: &str, words: &[&str]) -> Result<(), String> {
    match words.iter().find(|word| !shown.contains(**word)) {
        Some(word) => Err(format!("`{word}` is not in: {shown}")),
        None => Ok(()),
    }
}

fn terminal(mode: &Mode) -> Result<(), String> {
    let inside = "busybox tty; busybox stty size; test -t 0 && test -t 1 && test -t 2 && echo three; \
                  echo $TERM; echo x > /dev/tty; exit 7";
    let pty = Pty::start(mode, &format!("./lapstrake run -it busybox sh -c '{inside}'"))?;
    has(&pty.end(7)?, &["/dev/pts/0\r\n33 77\r\nthree\r\nxterm\r\nx\r\n"])?;
    let plain = Pty::start(mode, "./lapstrake run busybox sh -c 'test -t 0 || echo no input'")?;
    has(&plain.end(0)?, &["no input"])
}

fn size(mode: &Mode) -> Result<(), String> {
    let inside = "trap \"busybox stty size; exit 0\" WINCH; echo ready; while read line; do :; done";
    let mut pty = Pty::start(mode, &format!("./lapstrake run -it busybox sh -c '{inside}'"))?;
    pty.until("ready")?;
    pty.resize(44, 99)?;
    pty.until("44 99")?;
    // The shell runs its trap, and leaves, when the line it reads is there.
    pty.keys(b"\n")?;
    pty.end(0).map(drop)
}

/// Ctrl-C, Ctrl-Z and Ctrl-\ mean something to our terminal too, unless it is raw.
fn keys(mode: &Mode) -> Result<(), String> {
    let inside =
        "busybox stty raw -echo; echo ready; busybox dd bs=1 count=3 2>/dev/null | busybox od -An -tx1";
    let mut pty = Pty::start(mode, &format!("./lapstrake run -it busybox sh -c '{inside}'"))?;
    pty.until("ready")?;
    pty.keys(b"\x03\x1a\x1c")?;
    has(&pty.end(0)?, &["03 1a 1c"])?;
    let inside = "trap \"echo caught; exit 3\" INT; echo ready; while true; do sleep 0.1; done";
    let mut pty = Pty::start(mode, &format!("./lapstrake run -it busybox sh -c '{inside}'"))?;
    pty.until("ready")?;
    pty.keys(b"\x03")?;
    has(&pty.end(3)?, &["caught"])
}

fn given_back(mode: &Mode) -> Result<(), String> {
    let runs = [
        ("./lapstrake run -it busybox true", 0),
        ("./lapstrake run -it busybox false", 1),
        ("./lapstrake run -it busybox no-such-command", 127),
        ("./lapstrake run -it busybox busybox stty raw -echo", 0),
    ];
    for (run, status) in runs {
        let commands = format!(
            "stty -a > before; {run}; status=$?; stty -a > after; cmp before after && rm -f before after && exit $status"
        );
        Pty::start(mode, &commands)?.end(status).map_err(|why| format!("{run}: {why}"))?;
    }
    killed(mode)
}

/// Requests to end that go unheard: the third one kills, and the terminal is as it was.
fn killed(mode: &Mode) -> Result<(), String> {
    let commands = "stty -a > before; \
        sh -c 'echo $$ > pid; exec ./lapstrake run -it busybox sh -c \"echo ready; sleep 1000\"'; \
        echo status $?; stty -a > after; cmp before after && rm -f before after pid";
    let mut pty = Pty::start(mode, commands)?;
    pty.until("ready")?;
    script(mode, "while kill -TERM $(cat pid); do sleep 0.05; done")?;
    has(&pty.end(0)?, &["status 137"])
}

/// A terminal that goes away takes the container with it.
fn hangs_up(mode: &Mode) -> Result<(), String> {
    let inside = "trap \"echo hung up > /v/seen; exit 0\" HUP; echo ready; while true; do sleep 0.1; done";
    let commands =
        format!("mkdir -p hang && ./lapstrake run -it -v ./hang:/v busybox sh -c '{inside}'; true");
    let mut pty = Pty::start(mode, &commands)?;
    pty.until("ready")?;
    drop(pty);
    let seen =
        "for i in $(seq 100); do test -s hang/seen && break; sleep 0.1; done; cat hang/seen; rm -rf hang";
    expect(&script(mode, seen)?, 0, &["hung up"])
}

fn without_stdin(mode: &Mode) -> Result<(), String> {
    let refused = script(mode, "echo x | ./lapstrake run -it busybox true")?;
    expect(&refused, 125, &["the input device is not a TTY"])?;
    let ran = script(mode, "echo x | ./lapstrake run -t busybox sh -c 'test -t 0 && echo a terminal'")?;
    expect(&ran, 0, &["a terminal\r\n"])?;
    expect(&script(mode, "echo typed | ./lapstrake run -i busybox cat")?, 0, &["typed"])?;
    let not_passed = script(mode, "echo typed | ./lapstrake run busybox cat")?;
    if text(&not_passed).contains("typed") {
        return Err(format!("input without -i: {}", text(&not_passed)));
    }
    Ok(())
}

fn signals(mode: &Mode) -> Result<(), String> {
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"] {
        let inside = format!(
            "trap \"echo got {signal}; exit 9\" {signal}; echo ready; while true; do sleep 0.1; done"
        );
        // A fifo says when the container is there to be signalled.
        let commands = format!(
            "rm -f said && mkfifo said && (./lapstrake run busybox sh -c '{inside}' > said & pid=$!; exec 3< said; \
             read line <&3; kill -{signal} $pid; cat <&3; wait $pid; code=$?; rm said; exit $code)"
        );
        // A shell starts background commands with INT and QUIT ignored, which a handler undoes.
        expect(&script(mode, &commands)?, 9, &[&format!("got {signal}")])?;
    }
    Ok(())
}

/// Without a terminal of its own a container is not in reach of ours: Ctrl-C comes once, through lapstrake.
fn interrupt(mode: &Mode) -> Result<(), String> {
    let inside = "trap \"echo caught; exit 5\" INT; echo ready; while true; do sleep 0.1; done";
    let mut pty = Pty::start(mode, &format!("exec ./lapstrake run -i busybox sh -c '{inside}'"))?;
    pty.until("ready")?;
    pty.keys(b"\x03")?;
    has(&pty.end(5)?, &["caught"])
}

/// On a terminal, builds show a live picture; it ends with what stays to be read.
fn progress(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "shown", "FROM busybox\nRUN echo told && sleep 0.3\n")?;
    let pty = Pty::start(mode, "./lapstrake build -t shown shown")?;
    let shown = pty.end(0)?;
    has(&shown, &[" => [2/2] RUN echo told", " => => naming to docker.io/library/shown:latest", "FINISHED"])?;
    has(&shown, &["\u{1b}[34m"])?;
    let plain = Pty::start(mode, "NO_COLOR=1 ./lapstrake build shown")?.end(0)?;
    has(&plain, &[" => CACHED [2/2] RUN echo told"])?;
    if plain.contains("\u{1b}[34m") {
        return Err(format!("colours in: {plain}"));
    }
    dockerfile(mode, "stuck", "FROM busybox\nRUN echo begun && sleep 1000\n")?;
    let mut stuck = Pty::start(mode, "exec ./lapstrake build stuck")?;
    stuck.until("=> # begun")?;
    stuck.keys(b"\x03")?;
    has(&stuck.end(130)?, &["CANCELED"])
}

/// Lines end by line feeds, whatever a terminal takes for the width of what is in them.
fn wide(mode: &Mode) -> Result<(), String> {
    let line = "漢字かな ✓ ❤️ 👩‍👩‍👧 é 漢字かな漢字かな漢字かな漢字かな漢字かな漢字かな漢字かな漢字かな";
    let loud = format!("FROM busybox\nRUN for i in 1 2 3 4 5 6; do echo '{line}'; sleep 0.3; done\n");
    dockerfile(mode, "wide", &loud)?;
    let shown = Pty::start(mode, "./lapstrake build --no-cache wide")?.end(0)?;
    has(&shown, &[" => => # 漢字かな", "FINISHED\u{1b}[K"])?;
    // A line that is drawn is taken away by the next frame: else each of them pushes another one up.
    let feeds = shown.matches('\n').count();
    let frames = shown.matches("[+] Building").count();
    let up = |part: &str| part.split_once('A')?.0.parse::<usize>().ok();
    let ups: usize = shown.split("\u{1b}[").filter_map(up).sum();
    let left = feeds.saturating_sub(ups);
    if frames >= 5 && left <= 12 {
        return Ok(());
    }
    Err(format!("{left} lines are left of {frames} frames: {shown:?}"))
}

fn counted(mode: &Mode) -> Result<(), String> {
    let stages: String = (0..9)
        .map(|number| format!("FROM busybox AS s{number}\nRUN sleep 2 # {number}\n"))
        .chain(["FROM busybox\n".to_owned()])
        .chain((0..9).map(|number| format!("COPY --from=s{number} /etc/passwd /{number}\n")))
        .collect();
    dockerfile(mode, "counted", &stages)?;
    let build =
        "while ! stty size | grep -q '^7 '; do sleep 0.05; done; ./lapstrake build --no-cache counted";
    let pty = Pty::start(mode, build)?;
    pty.resize(7, 60)?;
    has(&pty.end(0)?, &[" => … and 6 more running", "FINISHED"])
}

/// What a narrower terminal has broken into more lines is taken away before the next frame.
fn resized(mode: &Mode) -> Result<(), String> {
    let long = "x".repeat(200);
    dockerfile(mode, "resized", &format!("FROM busybox\nRUN echo begun; sleep 3 # {long}\n"))?;
    let mut pty = Pty::start(mode, "./lapstrake build --no-cache resized")?;
    pty.until("=> # begun")?;
    pty.resize(33, 38)?;
    // The headline, the step, which takes two lines now, and what it said.
    pty.until("\r\u{1b}[3A\u{1b}[J")?;
    has(&pty.end(0)?, &["FINISHED"])
}

/// Nothing that a Dockerfile says or does steers the terminal.
fn control_sequences(mode: &Mode) -> Result<(), String> {
    let evil = "\u{1b}]0;evil\u{7}\u{1b}[2J\u{1b}[10;10H";
    let steps = format!(
        "FROM busybox AS a\nLABEL x=\"{evil}\"\n# {evil}\nRUN printf '\\033]0;evil\\007\\033[2Jsaid\\n'; : {evil}; exit 7\n"
    );
    dockerfile(mode, "steers", &steps)?;
    dockerfile(mode, "steers-early", &format!("FROM busybox\nRUN true\n{evil}BAD {evil}\n"))?;
    for (command, status, word) in [
        ("build --progress tty steers", 1, ">>> RUN"),
        ("build --progress plain steers", 1, "said"),
        ("builds logs", 0, "said"),
        ("build steers-early", 1, "BAD"),
        ("graph steers", 0, "RUN"),
        ("builds ls", 0, "steers"),
    ] {
        let shown = Pty::start(mode, &format!("./lapstrake {command}"))?;
        let shown = shown.end(status).map_err(|why| format!("{command}: {why}"))?;
        has(&shown, &[word]).map_err(|why| format!("{command}: {why}"))?;
        let sequences = ["\u{1b}]", "\u{1b}[2J", "\u{1b}[10;10H", "\u{7}"];
        if sequences.iter().any(|sequence| shown.contains(sequence)) {
            return Err(format!("{command} passes a sequence on: {shown:?}"));
        }
    }
    // A file gets what was said, byte for byte.
    let piped = "./lapstrake build --progress plain steers 2>&1 | grep -c \"$(printf '\\033')\\[2Jsaid\"";
    expect(&script(mode, piped)?, 0, &[])
}

/// SIGTERM ends a build as Ctrl-C does, in the same words.
fn terminated(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "endless", "FROM busybox\nRUN echo begun && sleep 1000\n")?;
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let commands = format!(
            "rm -f said && mkfifo said && (./lapstrake build --progress plain --no-cache endless 2> said & pid=$!; \
             exec 3< said; while read line <&3; do echo \"$line\"; case \"$line\" in *' begun') kill -{signal} $pid;; esac; done; \
             wait $pid; code=$?; rm said; exit $code)"
        );
        // A shell starts background commands with INT ignored, which a handler undoes.
        let ended = script(mode, &commands)?;
        expect(&ended, status, &["CANCELED", "ERROR: canceled"]).map_err(|why| format!("{signal}: {why}"))?;
        expect(&super::place::lap(mode, "builds ls")?, 0, &["Canceled"])?;
    }
    super::place::nothing_left(mode)
}
