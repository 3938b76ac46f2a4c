//! Further processes of containers that run.

use std::fs;
use std::os::fd::OwnedFd;

use lapstrake_runtime::{
    EntryFds, Exit, Network, RunSpec, Running, RuntimeError, Security, User, WindowSize,
};
use lapstrake_testkit::{ALL, Mode, Test};

use crate::fixture::{Fixture, read_all, shell, write_to};

pub(crate) const TESTS: &[Test] = &[
    ("entry_joins_the_container", ALL, entry_joins_the_container),
    ("entry_is_confined", ALL, entry_is_confined),
    ("entry_has_a_terminal", ALL, entry_has_a_terminal),
    ("entry_ends_with_the_container", ALL, entry_ends_with_the_container),
    ("entry_over_hostile_places", ALL, entry_over_hostile_places),
];

/// Starts a further process, and gives its standard input and output.
fn enter(
    fixture: &Fixture,
    first: &Running,
    spec: &RunSpec,
) -> Result<(Running, OwnedFd, OwnedFd), RuntimeError> {
    let (input, stdin) = std::io::pipe().unwrap();
    let (stdout, output) = std::io::pipe().unwrap();
    let stderr = output.try_clone().unwrap();
    let fds = EntryFds { stdin: input.into(), stdout: output.into(), stderr: stderr.into() };
    let running = fixture.sandbox.enter(first.pidfd(), spec, fds)?;
    Ok((running, stdin.into(), stdout.into()))
}

/// The output of a further process and its end.
fn says(fixture: &Fixture, first: &Running, spec: &RunSpec) -> (String, Exit) {
    let (running, stdin, stdout) = enter(fixture, first, spec).unwrap();
    drop(stdin);
    let text = read_all(stdout).trim_end().to_owned();
    (text, running.wait().unwrap().exit)
}

/// A container whose first process has begun and waits.
fn first(fixture: &Fixture, spec: RunSpec) -> Running {
    let script = "echo made > /tmp/file; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done > \
                  /tmp/links; echo ready; exec sleep 1000";
    let (running, [stdout, _stderr]) =
        fixture.start(&RunSpec { args: shell(script).args, ..spec }, Vec::new()).unwrap();
    let mut line = [0; 6];
    rustix::io::read(&stdout, &mut line).unwrap();
    running
}

fn entry_joins_the_container(mode: Mode) {
    let fixture = Fixture::new();
    let spec = RunSpec { hostname: "joined".to_owned(), network: Network::None, ..shell("") };
    let first = first(&fixture, spec);
    assert_eq!(says(&fixture, &first, &shell("cat /tmp/file; hostname; exit 3")), {
        ("made\njoined".to_owned(), Exit::Code(3))
    });
    let further =
        |script: &str| RunSpec { network: Network::None, single_id: mode == Mode::Oneid, ..shell(script) };
    // One pid namespace: the first process is seen, and its /proc is the same.
    let (text, _) =
        says(&fixture, &first, &shell("tr '\\0' ' ' < /proc/1/cmdline 2>&1 || cat /proc/1/cmdline"));
    assert!(text.contains("sleep"), "{text}");
    // Landlock keeps them from looking at each other's links, so each tells of its own.
    let links = "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let own = says(&fixture, &first, &further(&format!("{links}; ls /sys/class/net"))).0;
    let of_first = fs::read_to_string(fixture.upper("tmp/links")).unwrap();
    assert_eq!(own, format!("{of_first}lo"));
    // Input comes in; user, directory and environment are those asked for.
    let user = User { uid: 1000, gid: 1001, groups: vec![7] };
    let spec = RunSpec { cwd: "/new/dir".to_owned(), user, ..further("cat; id -u; id -g; pwd; echo $A") };
    let spec = RunSpec { env: vec!["A=b".to_owned(), spec.env[0].clone()], ..spec };
    let (running, stdin, stdout) = enter(&fixture, &first, &spec).unwrap();
    write_to(&stdin, "text\n");
    drop(stdin);
    assert_eq!(read_all(stdout), "text\n1000\n1001\n/new/dir\nb\n");
    assert_eq!(running.wait().unwrap().exit, Exit::Code(0));
    // Streams of the machine become the container's, and a process that is left behind holds nobody up.
    let null = || OwnedFd::from(fs::File::options().read(true).write(true).open("/dev/null").unwrap());
    let fds = EntryFds { stdin: null(), stdout: null(), stderr: null() };
    let script = "test -c /dev/stdout && test -c /dev/stdin && { sleep 1000 & exit 5; }";
    let silent = fixture.sandbox.enter(first.pidfd(), &further(script), fds).unwrap();
    assert_eq!(silent.wait().unwrap().exit, Exit::Code(5));
    // What one writes, the other sees.
    says(&fixture, &first, &shell("echo second > /tmp/two"));
    assert_eq!(says(&fixture, &first, &shell("cat /tmp/two")).0, "second");
    let unknown = RunSpec::new(vec!["nosuch".to_owned()]);
    assert_eq!(enter(&fixture, &first, &unknown).unwrap_err().exit_code(), Some(127));
}

/// A further process is held as tightly as the first.
fn entry_is_confined(mode: Mode) {
    let single_id = mode == Mode::Oneid;
    let fixture = Fixture::new();
    let facts =
        "grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status; ls /proc/self/fd; ls /; umask; ls -a /..";
    for security in [Security::Sandbox, Security::Insecure] {
        let spec = RunSpec { security, single_id, ..shell(facts) };
        let alone = fixture.run(&spec).stdout;
        let first = first(&fixture, RunSpec { security, single_id, ..shell("") });
        assert_eq!(says(&fixture, &first, &spec).0, alone.trim_end(), "{security:?}");
    }
    let first = first(&fixture, shell(""));
    let (text, exit) = says(&fixture, &first, &shell("mount -t tmpfs none /tmp"));
    assert!(exit != Exit::Code(0) && !text.is_empty());
    // A tight process in a container whose first process is not held.
    let loose = self::first(&fixture, RunSpec { security: Security::Insecure, ..shell("") });
    assert_ne!(says(&fixture, &loose, &shell("mount -t tmpfs none /tmp")).1, Exit::Code(0));
}

fn entry_has_a_terminal(_: Mode) {
    let fixture = Fixture::new();
    let first = first(&fixture, shell(""));
    for _ in 0..2 {
        let terminal = Some(WindowSize { rows: 30, columns: 100 });
        let spec = RunSpec { terminal, ..shell("tty; stty size; read line; echo got $line; exit 4") };
        let (mut running, _stdin, _stdout) = enter(&fixture, &first, &spec).unwrap();
        let master = running.terminal().unwrap();
        write_to(&master, "typed\n");
        let text = read_all(master);
        assert!(text.contains("/dev/pts/") && text.contains("got typed"), "{text}");
        assert_eq!(running.wait().unwrap().exit, Exit::Code(4));
    }
}

fn entry_ends_with_the_container(_: Mode) {
    let fixture = Fixture::new();
    let first = first(&fixture, shell(""));
    let (further, _stdin, stdout) = enter(&fixture, &first, &shell("echo in; exec sleep 1000")).unwrap();
    let (dropped, _other, gone) = enter(&fixture, &first, &shell("exec sleep 1000")).unwrap();
    // A further process that nobody wants any more ends alone.
    drop(dropped);
    assert_eq!(read_all(gone), "");
    let container = first.pidfd().try_clone_to_owned().unwrap();
    first.kill();
    assert!(matches!(first.wait().unwrap().exit, Exit::Signal(9)));
    assert_eq!(read_all(stdout), "in\n");
    assert!(matches!(further.wait().unwrap().exit, Exit::Signal(9)));
    // A container that has ended has no more processes, and the sandbox goes on.
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let fds = EntryFds { stdin: null(), stdout: null(), stderr: null() };
    use std::os::fd::AsFd as _;
    let late = fixture.sandbox.enter(container.as_fd(), &shell("true"), fds);
    assert!(matches!(late, Err(RuntimeError::Setup { .. })), "{late:?}");
    assert_eq!(fixture.says("echo on; readlink /proc/self/ns/pid | wc -l"), "on\n1");
}

/// The container has put other things where a further process looks.
fn entry_over_hostile_places(_: Mode) {
    let fixture = Fixture::new();
    let canary = fixture.path("canary");
    fs::write(&canary, "kept").unwrap();
    let script = format!(
        "rm -rf /dev/ptmx; ln -s {c} /dev/ptmx; ln -s / /tmp/up; ln -s /proc/1/root /tmp/magic; \
         mv /dev/pts /dev/x; mv /dev /d; echo ready; exec sleep 1000",
        c = canary.display()
    );
    let (first, [stdout, _stderr]) = fixture.start(&shell(&script), Vec::new()).unwrap();
    rustix::io::read(&stdout, &mut [0; 6]).unwrap();
    let terminal = Some(WindowSize::default());
    let spec = RunSpec { terminal, cwd: "/tmp/up/../../..".to_owned(), ..shell("pwd; ls /; cat /tmp/file") };
    let (mut running, _stdin, _stdout) = enter(&fixture, &first, &spec).unwrap();
    let text = read_all(running.terminal().unwrap());
    assert!(text.starts_with('/') && text.contains("bin") && !text.contains("canary"), "{text}");
    running.wait().unwrap();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "kept");
    let magic = RunSpec { cwd: "/tmp/magic/..".to_owned(), ..shell("pwd") };
    assert!(matches!(enter(&fixture, &first, &magic), Err(RuntimeError::Setup { .. })));
}
