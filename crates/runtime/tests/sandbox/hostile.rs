//! Roots and programs that mean harm. Beside the root lies a canary that nothing may change.

use std::fs;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use lapstrake_runtime::{Exit, Mount, MountSource, RunSpec, RuntimeError, Security, WindowSize};

use lapstrake_testkit::{ALL, Mode, Test};

use crate::fixture::{Fixture, open, read_all, shell};

/// How often a race is run.
pub(crate) const ROUNDS: usize = 1000;

pub(crate) const TESTS: &[Test] = &[
    ("cve_2024_23652_stub_swapped_for_a_link", ALL, cve_2024_23652_stub_swapped_for_a_link),
    ("stub_in_use_stays", ALL, stub_in_use_stays),
    ("cve_2024_1753_links_in_the_image", ALL, cve_2024_1753_links_in_the_image),
    ("cve_2026_41579_special_directories_as_links", ALL, cve_2026_41579_special_directories_as_links),
    ("cve_2025_31133_null_as_a_link", ALL, cve_2025_31133_null_as_a_link),
    ("cve_2025_52881_targets_in_proc", ALL, cve_2025_52881_targets_in_proc),
    ("cve_2024_23651_source_exchanged_under_way", ALL, cve_2024_23651_source_exchanged_under_way),
    ("cve_2019_5736_own_executable", ALL, cve_2019_5736_own_executable),
    ("cve_2021_30465_target_exchanged_under_way", ALL, cve_2021_30465_target_exchanged_under_way),
    ("cve_2025_52565_console_as_a_link", ALL, cve_2025_52565_console_as_a_link),
    ("cve_2024_21626_directory_through_a_descriptor", ALL, cve_2024_21626_directory_through_a_descriptor),
    ("mounts_taken_apart", ALL, mounts_taken_apart),
    ("ways_through_the_supervisor", ALL, ways_through_the_supervisor),
];

/// What lies beside a root, and how it looked at first.
pub(crate) struct Canary {
    path: PathBuf,
    before: Vec<String>,
}

impl Deref for Canary {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

pub(crate) fn canary(fixture: &Fixture) -> Canary {
    let path = fixture.path("canary");
    fs::create_dir_all(path.join("empty/deep")).unwrap();
    fs::write(path.join("file"), "").unwrap();
    fs::write(path.join("full"), "sing").unwrap();
    let mut before = Vec::new();
    listing(&path, &mut before);
    Canary { path, before }
}

/// Everything below a directory with all that can be told of it, but for when it was last looked at.
fn listing(dir: &Path, to: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.push(dir.to_owned());
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let (owner, times) = ((meta.uid(), meta.gid()), (meta.mtime_nsec(), meta.ctime_nsec()));
        to.push(format!(
            "{} {} {:o} {owner:?} {times:?} {content:?}",
            path.display(),
            meta.ino(),
            meta.mode()
        ));
        if meta.is_dir() && path != dir {
            listing(&path, to);
        }
    }
}

pub(crate) fn is_whole(canary: &Canary) {
    let mut now = Vec::new();
    listing(&canary.path, &mut now);
    assert_eq!(now, canary.before);
}

pub(crate) fn tmpfs(target: &str) -> Mount {
    let source = MountSource::Tmpfs { size: None, mode: 0o755, exec: true };
    Mount { target: target.to_owned(), source, readonly: false }
}

/// CVE-2024-23652.
fn cve_2024_23652_stub_swapped_for_a_link(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let script = format!("mv /x /moved; ln -s {}/empty /x; readlink /x", canary.display());
    let spec = RunSpec { mounts: vec![tmpfs("/x/deep")], ..shell(&script) };
    let output = fixture.run(&spec);
    assert_eq!(output.finished.exit, Exit::Code(0), "{output:?}");
    is_whole(&canary);
    assert!(fs::symlink_metadata(fixture.upper("x")).unwrap().is_symlink());
    assert!(!fixture.upper("moved/deep").exists(), "the stub is gone from where it has been moved to");
}

fn stub_in_use_stays(_: Mode) {
    let fixture = Fixture::new();
    let spec = RunSpec { mounts: vec![tmpfs("/x/y")], ..shell("touch /x/mine") };
    fixture.run(&spec);
    assert!(fixture.upper("x/mine").exists());
    assert!(!fixture.upper("x/y").exists());
}

fn cve_2024_1753_links_in_the_image(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let up = format!("../../../../../../../..{}", canary.display());
    for (name, text) in [("abs", canary.to_str().unwrap()), ("up", &up), ("proc", "/proc/1/root")] {
        symlink(text, fixture.lower(&format!("etc/{name}"))).unwrap();
    }
    let hosts = canary.join("file");
    symlink(&hosts, fixture.lower("etc/hosts")).unwrap();
    symlink(&up, fixture.lower("app")).unwrap();
    let spec = RunSpec {
        cwd: "/app/dir".to_owned(),
        mounts: vec![tmpfs("/etc/abs/new"), tmpfs("/etc/up/new2")],
        ..shell("touch /etc/abs/new/t /etc/up/new2/t && pwd")
    };
    let output = fixture.run(&spec);
    assert_eq!(output.stdout, format!("{}/dir\n", canary.display()), "{output:?}");
    is_whole(&canary);
    let source = fixture.path("source");
    fs::create_dir(&source).unwrap();
    symlink(&canary.path, source.join("abs")).unwrap();
    symlink("../canary", source.join("up")).unwrap();
    for subpath in ["abs", "up", "../canary", "abs/../../canary"] {
        let fd = MountSource::Fd { index: 0, subpath: subpath.to_owned() };
        let mount = Mount { target: "/m".to_owned(), source: fd, readonly: false };
        let spec = RunSpec { mounts: vec![mount], ..shell("true") };
        let error = fixture.try_run(&spec, vec![open(&source)]).unwrap_err();
        assert!(matches!(error, RuntimeError::Setup { .. }), "{subpath}: {error:?}");
    }
    is_whole(&canary);
}

/// CVE-2026-41579 and its kin.
fn cve_2026_41579_special_directories_as_links(_: Mode) {
    for name in ["proc", "sys", "dev"] {
        let fixture = Fixture::new();
        let canary = canary(&fixture);
        symlink(format!("/../..{}", canary.display()), fixture.lower(name)).unwrap();
        let error = fixture.try_run(&shell("true"), Vec::new()).unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Setup { path, .. } if *path == format!("/{name}")),
            "{error:?}"
        );
        is_whole(&canary);
    }
}

/// CVE-2025-31133.
fn cve_2025_31133_null_as_a_link(_: Mode) {
    let fixture = Fixture::new();
    fs::create_dir(fixture.lower("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", fixture.lower("dev/null")).unwrap();
    symlink("/proc/sysrq-trigger", fixture.lower("dev/console")).unwrap();
    assert_eq!(fixture.says("cat /proc/timer_list | wc -c; stat -c %t:%T /dev/null"), "0\n1:3");
}

/// CVE-2025-52881: a mount must not change what is read from /proc.
fn cve_2025_52881_targets_in_proc(_: Mode) {
    let fixture = Fixture::new();
    symlink("/proc/sys", fixture.lower("alias")).unwrap();
    for target in ["/proc", "/proc/self/attr", "/./proc/x", "//proc", "/a/../proc", "/"] {
        let spec = RunSpec { mounts: vec![tmpfs(target)], ..shell("true") };
        let error = fixture.try_run(&spec, Vec::new()).unwrap_err();
        assert!(matches!(error, RuntimeError::Spec(_)), "{target}: {error:?}");
    }
    let spec = RunSpec { mounts: vec![tmpfs("/alias/kernel")], ..shell("true") };
    let error = fixture.try_run(&spec, Vec::new()).unwrap_err();
    assert!(matches!(error, RuntimeError::Setup { .. }), "{error:?}");
}

/// CVE-2024-23651: one container swaps a part of a shared directory for a link while others mount that part.
fn cve_2024_23651_source_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    fs::create_dir_all(fixture.path("shared/part")).unwrap();
    fs::write(fixture.path("shared/part/mine"), "").unwrap();
    let fd = |subpath: &str| MountSource::Fd { index: 0, subpath: subpath.to_owned() };
    let mount =
        |target: &str, subpath| Mount { target: target.to_owned(), source: fd(subpath), readonly: false };
    let swapper = format!(
        "cd /s; while :; do mv part real; ln -s {} part; rm part; mv real part; done 2>/dev/null",
        canary.display()
    );
    let spec = RunSpec { mounts: vec![mount("/s", "")], ..shell(&swapper) };
    let (swapper, _pipes) = fixture.start(&spec, vec![open(&fixture.path("shared"))]).unwrap();
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let spec = RunSpec { mounts: vec![mount("/m", "part")], ..shell("ls /m") };
        match fixture.try_run(&spec, vec![open(&fixture.path("shared"))]) {
            Ok(output) => {
                assert_eq!(output.stdout, "mine\n");
                seen += 1;
            }
            Err(RuntimeError::Setup { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(seen > 0);
    drop(swapper);
    is_whole(&canary);
}

/// CVE-2019-5736: nothing inside leads to the executable that containers are made from.
fn cve_2019_5736_own_executable(_: Mode) {
    let fixture = Fixture::new();
    fs::write(fixture.lower("bin/evil"), "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fixture.lower("bin/evil"), mode).unwrap();
    let before = fs::metadata(std::env::current_exe().unwrap()).unwrap().modified().unwrap();
    let script =
        "for p in /proc/[0-9]*/exe; do readlink $p; done | grep -v /bin/busybox; echo x > /proc/1/exe; true";
    assert_eq!(fixture.run(&shell(script)).stdout, "");
    let spec = RunSpec::new(vec!["evil".to_owned()]);
    // The interpreter is the zygote's own file, in a process that is about to have none of its rights.
    drop(fixture.try_run(&spec, Vec::new()));
    assert_eq!(fs::metadata(std::env::current_exe().unwrap()).unwrap().modified().unwrap(), before);
}

/// One container swaps a directory of a shared volume for a link while others mount something in it.
fn cve_2021_30465_target_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    fs::create_dir_all(fixture.path("shared/part")).unwrap();
    let volume = || Mount {
        target: "/v".to_owned(),
        source: MountSource::Fd { index: 0, subpath: String::new() },
        readonly: false,
    };
    let swapper = format!(
        "cd /v; while :; do mv part real; ln -s {} part; rm part; mv real part; done 2>/dev/null",
        canary.display()
    );
    let spec = RunSpec { mounts: vec![volume()], ..shell(&swapper) };
    let (swapper, _pipes) = fixture.start(&spec, vec![open(&fixture.path("shared"))]).unwrap();
    let mut seen = 0;
    for _ in 0..ROUNDS {
        // What is missing is made: were it made through the link, the canary would show it.
        let mounts = vec![volume(), tmpfs("/v/part/deep")];
        let spec = RunSpec { mounts, ..shell("echo x > /v/part/deep/x") };
        match fixture.try_run(&spec, vec![open(&fixture.path("shared"))]) {
            Ok(_) => seen += 1,
            Err(RuntimeError::Setup { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(seen > 0);
    drop(swapper);
    is_whole(&canary);
}

fn cve_2025_52565_console_as_a_link(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    fs::create_dir_all(fixture.lower("dev/pts")).unwrap();
    for name in ["console", "pts/0", "pts/ptmx", "ptmx", "tty"] {
        symlink(canary.join("full"), fixture.lower(&format!("dev/{name}"))).unwrap();
    }
    let spec = RunSpec {
        terminal: Some(WindowSize { rows: 2, columns: 9 }),
        ..shell("stat -c %F /dev/console /dev/pts/0 /dev/tty; echo x > /dev/console; cat /proc/timer_list")
    };
    let (mut running, _pipes) = fixture.start(&spec, Vec::new()).unwrap();
    let text = read_all(running.terminal().unwrap());
    assert_eq!(running.wait().unwrap().exit, Exit::Code(0), "{text}");
    assert_eq!(text.matches("character special file").count(), 3, "{text}");
    is_whole(&canary);
}

/// Directories of the host that are open in this process, and not close-on-exec: whatever is started from here on has them.
pub(crate) fn open_to_all() -> Vec<OwnedFd> {
    let all: Vec<OwnedFd> = (0..40).map(|_| open(Path::new("/etc"))).collect();
    all.iter().for_each(|host| rustix::io::fcntl_setfd(host, rustix::io::FdFlags::empty()).unwrap());
    all
}

fn cve_2024_21626_directory_through_a_descriptor(_: Mode) {
    let _hosts = open_to_all();
    let fixture = Fixture::new();
    // `ls` has the directory that it lists.
    assert_eq!(fixture.says("ls /proc/self/fd"), "0\n1\n2\n3");
    for fd in 0..64 {
        for tail in ["", "/..", "/../../../etc"] {
            let spec = RunSpec { cwd: format!("/proc/self/fd/{fd}{tail}"), ..shell("pwd; ls /proc/self/fd") };
            if let Ok(output) = fixture.try_run(&spec, Vec::new()) {
                // Only a place of the container's own root may come out.
                assert!(
                    output.stdout.starts_with('/') && !output.stdout.contains("(unreachable)"),
                    "{output:?}"
                );
                assert!(!output.stdout.starts_with("/etc\n"), "{fd}{tail}: {output:?}");
            }
        }
    }
}

/// What a container may not take apart, and what one without limits takes apart for itself alone.
fn mounts_taken_apart(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let script = "umount /proc; umount -l /dev; mount -o remount,rw /sys; mount -o remount,rw /proc/sys; \
                  mount -t tmpfs none /tmp; echo 1 > /proc/sys/kernel/panic; echo b > /proc/sysrq-trigger; true";
    let output = fixture.run(&shell(script));
    assert_eq!(output.stderr.lines().count(), 7, "each of them is refused: {output:?}");
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let script = "umount -l /dev; mount -o remount,ro /; mount -t tmpfs none /etc; umount -l /proc; true";
    let spec = RunSpec { security: Security::Insecure, ..shell(script) };
    assert_eq!(fixture.run(&spec).finished.exit, Exit::Code(0));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(fixture.says("ls /dev/null"), "/dev/null");
    is_whole(&canary);
}

/// Where one id is mapped, paths are also looked up by a process that is not in the container.
fn ways_through_the_supervisor(mode: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    let mark = format!("lapstrake-escape-{}", std::process::id());
    let outside = Path::new("/dev/shm").join(&mark);
    fs::write(&outside, "").unwrap();
    fs::set_permissions(fixture.lower("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let script = format!(
        "cd /tmp; ln -s /proc/self/../1/root up; for way in /proc/self/../1/root /proc/thread-self/../../1/root \
         /dev/fd/../../1/root /proc/self/task/../../1/root /proc/self/cwd/../proc/self/../1/root \
         /proc/self/root/../../.. up; do for dir in $way/dev/shm $way{0} $way/stage $way/root; do \
         echo x > $dir/{mark}; mkdir $dir/{mark}; ln -s x $dir/{mark}; chown 5:6 $dir/file $dir/{mark}; chown 5:6 $dir/{mark}; mknod $dir/{mark} p; \
         cat $dir/full; done; done 2> /dev/null; true",
        canary.display()
    );
    let spec = RunSpec { single_id: mode == Mode::Oneid, ..shell(&script) };
    let output = fixture.run(&spec);
    let touched = rustix::fs::getxattr(&outside, "user.lapstrake.owner", &mut [0_u8; 64][..]);
    assert_eq!(fs::read(&outside).unwrap(), b"");
    fs::remove_file(&outside).unwrap();
    assert!(touched.is_err(), "a file outside was given away");
    assert_eq!((output.stdout.as_str(), output.finished.exit), ("", Exit::Code(0)), "{output:?}");
    is_whole(&canary);
}
