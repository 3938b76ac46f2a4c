//! Roots and programs that mean harm. Beside the root lies a canary that nothing may change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lapstrake_runtime::{Exit, Mount, MountSource, RunSpec, RuntimeError};

use lapstrake_testkit::{ALL, Mode, Test};

use crate::fixture::{Fixture, open, shell};

pub(crate) const TESTS: &[Test] = &[
    ("stub_swapped_for_a_link", ALL, stub_swapped_for_a_link),
    ("stub_in_use_stays", ALL, stub_in_use_stays),
    ("links_in_the_image", ALL, links_in_the_image),
    ("special_directories_as_links", ALL, special_directories_as_links),
    ("null_as_a_link", ALL, null_as_a_link),
    ("targets_in_proc", ALL, targets_in_proc),
    ("source_exchanged_under_way", ALL, source_exchanged_under_way),
    ("own_executable", ALL, own_executable),
];

fn canary(fixture: &Fixture) -> std::path::PathBuf {
    let path = fixture.path("canary");
    fs::create_dir_all(path.join("empty/deep")).unwrap();
    fs::write(path.join("file"), "").unwrap();
    path
}

fn is_whole(canary: &Path) {
    assert!(canary.join("empty/deep").is_dir());
    assert_eq!(fs::read_dir(canary.join("empty/deep")).unwrap().count(), 0);
    assert_eq!(fs::read(canary.join("file")).unwrap(), b"");
    assert_eq!(fs::read_dir(canary).unwrap().count(), 2);
    assert_eq!(fs::read_dir(canary.join("empty")).unwrap().count(), 1);
}

fn tmpfs(target: &str) -> Mount {
    let source = MountSource::Tmpfs { size: None, mode: 0o755 };
    Mount { target: target.to_owned(), source, readonly: false }
}

/// CVE-2024-23652.
fn stub_swapped_for_a_link(_: Mode) {
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

fn links_in_the_image(_: Mode) {
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
    symlink(&canary, source.join("abs")).unwrap();
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
fn special_directories_as_links(_: Mode) {
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
fn null_as_a_link(_: Mode) {
    let fixture = Fixture::new();
    fs::create_dir(fixture.lower("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", fixture.lower("dev/null")).unwrap();
    symlink("/proc/sysrq-trigger", fixture.lower("dev/console")).unwrap();
    assert_eq!(fixture.says("cat /proc/timer_list | wc -c; stat -c %t:%T /dev/null"), "0\n1:3");
}

/// CVE-2025-52881: a mount must not change what is read from /proc.
fn targets_in_proc(_: Mode) {
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
fn source_exchanged_under_way(_: Mode) {
    let fixture = Fixture::new();
    let canary = canary(&fixture);
    fs::write(canary.join("file"), "").unwrap();
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
    for _ in 0..150 {
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
fn own_executable(_: Mode) {
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
