//! Births and deaths: concurrency, killing, what is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapstrake_runtime::{Exit, RunSpec};
use rustix::process::Signal;

use lapstrake_testkit::{ALL, Mode, Test};

use crate::fixture::{Fixture, read_all, shell};

pub(crate) const TESTS: &[Test] = &[
    ("many_runs_leave_nothing", ALL, many_runs_leave_nothing),
    ("runs_are_concurrent", ALL, runs_are_concurrent),
    ("orphans_die_with_the_program", ALL, orphans_die_with_the_program),
    ("kill_and_drop", ALL, kill_and_drop),
    ("signals", ALL, signals),
    ("death_of_the_caller", ALL, death_of_the_caller),
    ("sleeper", ALL, sleeper),
];

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

/// The number that the next file system without a disk gets, which is the lowest that is free.
fn device(fixture: &Fixture) -> u32 {
    rustix::fs::minor(rustix::fs::fstat(fixture.root()).unwrap().st_dev)
}

fn descriptors(pid: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn children(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "it is not so that {what}");
        std::thread::yield_now();
    }
}

/// What is the same for a while.
fn settled<T: PartialEq>(look: impl Fn() -> T) -> T {
    let mut seen = (look(), Instant::now());
    while seen.1.elapsed() < Duration::from_millis(300) {
        let now = look();
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    seen.0
}

fn many_runs_leave_nothing(_: Mode) {
    let fixture = Fixture::new();
    let keeper = children(&std::process::id().to_string()).pop().unwrap();
    let zygote = children(&keeper).pop().unwrap();
    fixture.run(&shell("true"));
    // Who takes mounts apart, who makes containers, and the next of these, which is made ahead.
    wait_until("there is a blank", || children(&zygote).len() == 3);
    let [undertaker, nursery, _] = <[String; 3]>::try_from(children(&zygote)).unwrap();
    let count = || {
        let held = ["self", &zygote, &undertaker, &nursery].map(descriptors);
        [mounts(), held[0], held[1], held[2], held[3], children(&zygote).len()]
    };
    // The zygote may still be about to note the blank that it has just made.
    let (before, first) = (settled(count), device(&fixture));
    for _ in 0..200 {
        assert_eq!(fixture.run(&shell("exit 3")).finished.exit, Exit::Code(3));
    }
    // The zygote tells of an exit just before it lets go of the last descriptors, also of the run before `before`.
    wait_until("nothing is left", || count().iter().zip(before).all(|(now, before)| *now <= before));
    // Each run has half a dozen file systems of its own.
    wait_until("their file systems are gone", || device(&fixture) < first + 200);
    assert_eq!(fs::read_dir(fixture.path("upper")).unwrap().count(), 1, "only etc, which has been copied up");
}

fn runs_are_concurrent(_: Mode) {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..10 {
                    let spec = RunSpec::new(["/bin/echo".to_owned(), format!("{thread}.{round}")].to_vec());
                    let root = fixture.another_root(&spec.args[1]);
                    let (running, [stdout, _]) = fixture.start_on(root, &spec, Vec::new()).unwrap();
                    assert_eq!(read_all(stdout), format!("{thread}.{round}\n"));
                    assert_eq!(running.wait().unwrap().exit, Exit::Code(0));
                }
            });
        }
    });
}

fn orphans_die_with_the_program(_: Mode) {
    let fixture = Fixture::new();
    // The pipes close as nobody is left to hold them: were one alive, this would not come back.
    let output = fixture.run(&shell("sleep 100000 & sh -c 'sleep 100000 &' ; exit 5"));
    assert_eq!(output.finished.exit, Exit::Code(5));
}

fn kill_and_drop(_: Mode) {
    let fixture = Fixture::new();
    let (running, [stdout, _]) = fixture.start(&shell("sleep 1000"), Vec::new()).unwrap();
    running.kill();
    assert_eq!(running.wait().unwrap().exit, Exit::Signal(9));
    assert_eq!(read_all(stdout), "");
    let (running, [stdout, _]) = fixture.start(&shell("sleep 1000"), Vec::new()).unwrap();
    drop(running);
    assert_eq!(read_all(stdout), "");
    let (running, [stdout, _]) = fixture.start(&shell("sleep 1000"), Vec::new()).unwrap();
    drop(fixture);
    assert_eq!(read_all(stdout), "");
    assert!(running.wait().is_err());
}

fn signals(_: Mode) {
    let fixture = Fixture::new();
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let (running, [stdout, _]) = fixture.start(&shell(script), Vec::new()).unwrap();
    let mut lines = BufReader::new(fs::File::from(stdout)).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    running.signal(Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(running.wait().unwrap().exit, Exit::Code(7));
    // A fresh program has the default actions, whatever Rust's runtime does to SIGPIPE.
    assert_eq!(
        fixture.says("grep SigIgn /proc/self/status; grep SigBlk /proc/self/status"),
        "SigIgn:\t0000000000000000\nSigBlk:\t0000000000000000"
    );
}

/// Not a test by itself: what [`death_of_the_caller`] kills.
fn sleeper(_: Mode) {
    if std::env::var_os("LAPSTRAKE_TEST_SLEEPER").is_none() {
        return;
    }
    let fixture = Fixture::new();
    let spec = shell("echo started; sleep 1000 & sleep 1000");
    let fds = lapstrake_runtime::RunFds {
        root: fixture.root(),
        mounts: Vec::new(),
        stdin: fs::File::open("/dev/null").unwrap().into(),
        stdout: std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().unwrap(),
        stderr: std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().unwrap(),
    };
    let running = fixture.sandbox.run(&spec, fds).unwrap();
    running.wait().unwrap();
}

fn death_of_the_caller(mode: Mode) {
    // Already inside the mode's namespace, the child finds itself root there.
    let name = Mode::Root.name("sleeper");
    let mut child = Command::new("/proc/self/exe")
        .args([&name, "--exact"])
        .env("LAPSTRAKE_TEST_SLEEPER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "started\n", "{mode:?}");
    let keeper = children(&child.id().to_string()).pop().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // Every process of the container holds the pipe: its end is the end of them all.
    line.clear();
    assert_eq!(stdout.read_line(&mut line).unwrap(), 0);
    wait_until("the keeper has gone", || {
        !fs::read_to_string(format!("/proc/{keeper}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
}
