//! Things that are exchanged for links while containers are made of them, again and again. Beside the roots lies a canary.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use lapstrake_runtime::{Exit, Mount, MountSource, RunSpec, RuntimeError, WindowSize};
use lapstrake_testkit::{ALL, Mode, Test};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::fixture::{Fixture, open, read_all, shell};
use crate::hostile::{ROUNDS, canary, is_whole, open_to_all, tmpfs};

pub(crate) const TESTS: &[Test] = &[
    ("cve_2024_21626_directory_exchanged_under_way", ALL, cve_2024_21626_directory_exchanged_under_way),
    ("cve_2026_41579_special_directories_exchanged", ALL, cve_2026_41579_special_directories_exchanged),
    ("cve_2024_23652_stub_exchanged_under_way", ALL, cve_2024_23652_stub_exchanged_under_way),
    ("cve_2026_55686_directory_exchanged_under_way", ALL, cve_2026_55686_directory_exchanged_under_way),
    ("cve_2025_31133_null_exchanged_under_way", ALL, cve_2025_31133_null_exchanged_under_way),
    (
        "cve_2025_52881_alias_of_proc_exchanged_under_way",
        ALL,
        cve_2025_52881_alias_of_proc_exchanged_under_way,
    ),
];

/// Exchanges two names as long as it lives: there is no moment at which either is missing.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Exchange {
    fn of(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !stopped.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                times += 1;
                std::thread::yield_now();
            }
            times
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.thread.take().unwrap().join().unwrap();
        assert!(times > ROUNDS, "it was exchanged {times} times only");
    }
}

/// A volume in which `part`, a directory, and `link`, a link to `target`, are exchanged.
fn volume(fixture: &Fixture, target: &Path) -> (PathBuf, Exchange) {
    let shared = fixture.path("shared");
    fs::create_dir_all(shared.join("part/kernel")).unwrap();
    symlink(target, shared.join("link")).unwrap();
    let exchange = Exchange::of(shared.join("part"), shared.join("link"));
    (shared, exchange)
}

fn at(target: &str) -> Mount {
    let source = MountSource::Fd { index: 0, subpath: String::new() };
    Mount { target: target.to_owned(), source, readonly: false }
}

/// Runs `spec` with the volume as often as a race is run; how often it came to a program and how often it did not.
fn rounds(fixture: &Fixture, shared: &Path, spec: &RunSpec, check: impl Fn(&str)) -> (usize, usize) {
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        match fixture.try_run(spec, vec![open(shared)]) {
            Ok(output) => {
                check(&output.stdout);
                ran += 1;
            }
            Err(RuntimeError::Setup { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    (ran, refused)
}

/// The working directory is now one of the container, now a link to a descriptor that its maker may have.
fn cve_2024_21626_directory_exchanged_under_way(_: Mode) {
    let hosts = open_to_all();
    let fixture = Fixture::new();
    let descriptor = hosts[hosts.len() / 2].as_raw_fd();
    let (shared, exchange) = volume(&fixture, Path::new(&format!("/proc/self/fd/{descriptor}")));
    fs::create_dir(fixture.lower("proc")).unwrap();
    let spec =
        RunSpec { mounts: vec![at("/v")], cwd: "/v/part".to_owned(), ..shell("pwd; ls; ls /proc/self/fd") };
    // Where it is when it is asked for its name is another matter.
    let check =
        |said: &str| assert_eq!(said.replace("/v/link\n", "/v/part\n"), "/v/part\nkernel\n0\n1\n2\n3\n");
    let (ran, refused) = rounds(&fixture, &shared, &spec, check);
    exchange.end();
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
}

/// What the file systems of the kernel are mounted on is now a directory of the root, now a link out of it.
fn cve_2026_41579_special_directories_exchanged(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let names = ["proc", "sys", "dev"];
    for name in names {
        fs::create_dir(fixture.lower(name)).unwrap();
        symlink(format!("/../..{}", canary.display()), fixture.lower(&format!("{name}.evil"))).unwrap();
    }
    let exchanges =
        names.map(|name| Exchange::of(fixture.lower(name), fixture.lower(&format!("{name}.evil"))));
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        // No overlay: what is exchanged below one would not be seen.
        let root = open(&fixture.path("lower"));
        match fixture.start_on(root, &shell("echo ran"), Vec::new()) {
            Ok((running, [stdout, _])) => {
                assert_eq!(read_all(stdout), "ran\n");
                assert_eq!(running.wait().unwrap().exit, Exit::Code(0));
                ran += 1;
            }
            Err(RuntimeError::Setup { path, .. }) if names.contains(&path.trim_start_matches('/')) => {
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    exchanges.into_iter().for_each(Exchange::end);
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
    is_whole(&canary);
}

/// What was made to be mounted over is removed where it was made, whatever has its place by then.
fn cve_2024_23652_stub_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    // There is an empty directory of this name behind the link.
    let (shared, exchange) = volume(&fixture, &canary.join("empty"));
    let spec = RunSpec { mounts: vec![at("/v"), tmpfs("/v/part/deep")], ..shell("echo x > /v/part/deep/x") };
    let (ran, _) = rounds(&fixture, &shared, &spec, |_| ());
    exchange.end();
    assert!(ran > 0);
    is_whole(&canary);
    let is_real = |name: &&str| fs::symlink_metadata(shared.join(name)).unwrap().is_dir();
    let real = ["part", "link"].into_iter().find(is_real).unwrap();
    assert!(!shared.join(real).join("deep").exists(), "the stub is still there");
}

/// The working directory is made, and given away, in the container's root alone.
fn cve_2026_55686_directory_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let (shared, exchange) = volume(&fixture, &canary);
    let spec = RunSpec {
        mounts: vec![at("/v")],
        cwd: "/v/part/made/deep".to_owned(),
        ..shell("echo x > file; pwd; rm -r /v/part/made /v/link/made 2> /dev/null; true")
    };
    let (ran, _) = rounds(&fixture, &shared, &spec, |said| assert!(said.starts_with('/'), "{said}"));
    exchange.end();
    assert!(ran > 0);
    is_whole(&canary);
}

/// What masks files and what the terminal is comes from elsewhere than the container's `/dev` (CVE-2025-52565 too).
fn cve_2025_31133_null_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let shared = fixture.path("shared");
    fs::create_dir_all(shared.join("pts")).unwrap();
    for name in ["null", "console", "pts/0"] {
        fs::write(shared.join(name), "").unwrap();
    }
    let exchanges = ["null", "console", "pts/0"].map(|name| {
        let evil = shared.join(format!("{}.evil", name.replace('/', ".")));
        symlink(canary.join("full"), &evil).unwrap();
        Exchange::of(shared.join(name), evil)
    });
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = pattern();
    let script = "test -z \"$(cat /proc/timer_list)\" && echo hidden; echo x > /proc/timer_list; \
                  (echo x > /proc/sys/kernel/core_pattern) 2> /dev/null || echo refused";
    let spec = RunSpec {
        mounts: vec![at("/dev")],
        terminal: Some(WindowSize { rows: 2, columns: 9 }),
        ..shell(script)
    };
    for _ in 0..ROUNDS {
        let (mut running, _pipes) = fixture.start(&spec, vec![open(&shared)]).unwrap();
        let text = read_all(running.terminal().unwrap());
        assert_eq!(running.wait().unwrap().exit, Exit::Code(0), "{text}");
        assert!(text.contains("hidden") && text.contains("refused"), "{text}");
    }
    exchanges.into_iter().for_each(Exchange::end);
    assert_eq!(pattern(), before);
    is_whole(&canary);
}

/// No mount gets into `/proc` by a link that is there only sometimes.
fn cve_2025_52881_alias_of_proc_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let (shared, exchange) = volume(&fixture, Path::new("/proc/sys"));
    let count = "grep -c '/proc/sys/kernel ' /proc/self/mounts; true";
    let spec = RunSpec { mounts: vec![at("/v"), tmpfs("/v/part/kernel")], ..shell(count) };
    let (ran, refused) = rounds(&fixture, &shared, &spec, |said| assert_eq!(said, "0\n"));
    exchange.end();
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
}
