//! What a program finds inside.

use std::fs;

use lapstrake_runtime::{
    Exit, Mount, MountSource, Network, Resource, Rlimit, RunSpec, RuntimeError, Security, User, WindowSize,
};

use lapstrake_testkit::{ALL, MANY, Mode, Test};

use crate::fixture::{Fixture, open, read_all, shell, write_to};

pub(crate) const TESTS: &[Test] = &[
    ("exits", ALL, exits),
    ("exec_errors", ALL, exec_errors),
    ("env_cwd_and_names", ALL, env_cwd_and_names),
    ("users", MANY, users),
    ("kernel_mounts", ALL, kernel_mounts),
    ("masks", ALL, masks),
    ("devices", ALL, devices),
    ("capabilities", ALL, capabilities),
    ("seccomp", ALL, seccomp),
    ("insecure", ALL, insecure),
    ("descriptors", ALL, descriptors),
    ("user_mounts", ALL, user_mounts),
    ("network_none", ALL, network_none),
    ("limits_and_umask", ALL, limits_and_umask),
    ("readonly_root", ALL, readonly_root),
    ("terminal", ALL, terminal),
];

fn exits(_: Mode) {
    let fixture = Fixture::new();
    for (script, exit) in [
        ("true", Exit::Code(0)),
        ("false", Exit::Code(1)),
        ("exit 42", Exit::Code(42)),
        // The first process of a pid namespace cannot kill itself, but a child of it can.
        ("sh -c 'kill -9 $$'; exit $?", Exit::Code(137)),
    ] {
        assert_eq!(fixture.run(&shell(script)).finished.exit, exit, "{script}");
    }
    let output = fixture.run(&shell("echo out; echo err >&2"));
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert!(output.finished.usage.max_rss > 0);
}

fn exec_errors(_: Mode) {
    let fixture = Fixture::new();
    fs::write(fixture.lower("bin/text"), "no program").unwrap();
    fs::write(fixture.lower("bin/wrong"), "\u{7f}ELFnonsense").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fixture.lower("bin/wrong"), mode).unwrap();
    for (program, code) in [
        ("nowhere", 127),
        ("/bin/nowhere", 127),
        ("text", 126),
        ("/bin/text", 126),
        ("wrong", 126),
        ("/etc", 126),
    ] {
        let spec = RunSpec { cwd: "/made".to_owned(), ..RunSpec::new(vec![program.to_owned()]) };
        let error = fixture.try_run(&spec, Vec::new()).unwrap_err();
        assert!(matches!(error, RuntimeError::Exec { .. }), "{program}: {error:?}");
        assert_eq!(error.exit_code(), Some(code), "{program}");
    }
    assert_eq!(fixture.says("true"), "");
}

fn env_cwd_and_names(_: Mode) {
    let fixture = Fixture::new();
    let spec = RunSpec {
        env: vec!["PATH=/nothing:/bin".to_owned(), "A=b c".to_owned(), "EMPTY=".to_owned()],
        args: vec!["env".to_owned()],
        ..shell("")
    };
    assert_eq!(fixture.run(&spec).stdout, "PATH=/nothing:/bin\nA=b c\nEMPTY=\n");
    let spec = RunSpec {
        cwd: "/new/dir".to_owned(),
        hostname: "planks".to_owned(),
        resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
        extra_hosts: vec![("other".to_owned(), "192.0.2.2".to_owned())],
        ..shell(
            "pwd; hostname; cat /etc/resolv.conf; grep -c planks /etc/hosts; grep other /etc/hosts; touch /etc/hosts",
        )
    };
    let output = fixture.run(&spec);
    assert_eq!(output.stdout, "/new/dir\nplanks\nnameserver 192.0.2.1\n1\n192.0.2.2\tother\n", "{output:?}");
    assert_eq!(output.finished.exit, Exit::Code(1), "/etc/hosts is read-only");
    assert!(fixture.upper("new/dir").is_dir());
    assert!(!fixture.upper("etc/hosts").exists());
}

fn users(mode: Mode) {
    let fixture = Fixture::new();
    let user = User { uid: 1000, gid: 1001, groups: vec![7, 1001, 2000] };
    let script = "id -u; id -g; id -G; grep -E 'CapEff|CapPrm|CapInh|CapAmb' /proc/self/status; touch /etc/x 2>&1; \
                  stat -c %u:%g .";
    let spec = RunSpec { user, cwd: "/home/u".to_owned(), ..shell(script) };
    let output = fixture.run(&spec);
    let none = "0000000000000000";
    let expected = format!(
        "1000\n1001\n1001 7 2000\nCapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n\
         touch: /etc/x: Permission denied\n1000:1001\n"
    );
    assert_eq!(output.stdout, expected, "{output:?}");
    if mode == Mode::Subids {
        let beyond = User { uid: 4_000_000_000, gid: 0, groups: Vec::new() };
        let error = fixture.try_run(&RunSpec { user: beyond, ..shell("true") }, Vec::new()).unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Setup { path, .. } if path == "(uid 4000000000)"),
            "{error:?}"
        );
    }
}

fn kernel_mounts(_: Mode) {
    let fixture = Fixture::new();
    let mounts = fixture.says("cat /proc/self/mounts");
    let find = |target: &str| -> (String, Vec<String>) {
        let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(target));
        let mut words = line.unwrap_or_else(|| panic!("{target}: {mounts}")).split(' ').skip(2);
        let kind = words.next().unwrap().to_owned();
        (kind, words.next().unwrap().split(',').map(str::to_owned).collect())
    };
    for (target, kind, wanted) in [
        ("/", "overlay", "rw nodev"),
        ("/proc", "proc", "rw nosuid nodev noexec"),
        ("/dev", "tmpfs", "rw nosuid nodev"),
        ("/dev/pts", "devpts", "rw nosuid noexec mode=620 ptmxmode=666"),
        ("/dev/shm", "tmpfs", "rw nosuid nodev noexec size=65536k"),
        ("/dev/mqueue", "mqueue", "rw nosuid nodev noexec"),
        ("/sys", "sysfs", "ro nosuid nodev noexec"),
        ("/proc/sys", "proc", "ro nosuid nodev noexec"),
        ("/etc/hosts", "tmpfs", "ro nosuid nodev noexec"),
    ] {
        let (found, options) = find(target);
        assert_eq!(found, kind, "{target}");
        for option in wanted.split(' ') {
            assert!(options.iter().any(|one| one == option), "{target}: {option}: {options:?}");
        }
    }
    // Nothing of the zygote's tree is left over.
    assert!(!mounts.lines().any(|line| line.contains(" /stage") || line.contains(" /root ")), "{mounts}");
    assert_eq!(fixture.says("stat -c %a /dev/shm"), "1777");
    // The shell's own pattern, as a pipeline's processes may or may not be born when one of them looks.
    assert_eq!(fixture.says("echo /proc/[0-9]*"), "/proc/1", "only this shell is there");
    assert_eq!(fixture.says("echo $$"), "1");
}

fn masks(_: Mode) {
    let fixture = Fixture::new();
    assert_eq!(fixture.says("cat /proc/keys /proc/timer_list /proc/interrupts | wc -c"), "0");
    assert_eq!(fixture.says("find /proc/acpi /proc/scsi /sys/firmware -mindepth 1 2>/dev/null | wc -l"), "0");
    for file in ["/proc/sys/kernel/hostname", "/proc/bus", "/sys/kernel/notes", "/proc/keys"] {
        let output = fixture.run(&shell(&format!("touch {file}")));
        assert!(output.stderr.contains("Read-only"), "{file}: {output:?}");
    }
}

fn devices(_: Mode) {
    let fixture = Fixture::new();
    let nodes = fixture
        .says("cd /dev; for n in null zero full random urandom tty; do stat -c '%n %F %t:%T' $n; done");
    let expected = "null character special file 1:3\nzero character special file 1:5\nfull character special file 1:7\n\
                    random character special file 1:8\nurandom character special file 1:9\n\
                    tty character special file 5:0";
    assert_eq!(nodes, expected);
    assert_eq!(fixture.says("echo x > /dev/null; dd if=/dev/zero bs=4 count=1 2>/dev/null | wc -c"), "4");
    let links = "cd /dev; for l in fd stdin stdout stderr ptmx core; do readlink $l; done";
    assert_eq!(
        fixture.says(links),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n/proc/kcore"
    );
    assert_eq!(fixture.says("echo hello > /dev/stdout"), "hello");
    // As root mknod works, as it does in a container with CAP_MKNOD, but what it makes leads nowhere.
    let script = "for d in /tmp /dev /dev/shm; do mknod $d/n c 1 3 2>/dev/null && echo x 2>/dev/null > $d/n && echo open; done; true";
    assert_eq!(fixture.says(script), "");
}

fn capabilities(mode: Mode) {
    let fixture = Fixture::new();
    let sets = "grep ^Cap /proc/self/status; grep NoNewPrivs /proc/self/status";
    let expected = |set: &str| {
        format!(
            "CapInh:\t0000000000000000\nCapPrm:\t{set}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0"
        )
    };
    // In the host's network no packets are read raw.
    assert_eq!(fixture.says(sets), expected("00000000a80405fb"));
    let apart = fixture.run(&RunSpec { network: Network::None, ..shell(sets) });
    assert_eq!(apart.stdout.trim_end(), expected("00000000a80425fb"));
    assert_ne!(fixture.run(&shell("mount -t tmpfs none /tmp")).finished.exit, Exit::Code(0));
    assert_ne!(fixture.run(&shell("hostname other")).finished.exit, Exit::Code(0));
    if mode != Mode::Oneid {
        assert_eq!(fixture.says("touch /tmp/f && chown 5:6 /tmp/f && stat -c %u:%g /tmp/f"), "5:6");
    }
}

fn seccomp(_: Mode) {
    let fixture = Fixture::new();
    assert_eq!(fixture.says("grep ^Seccomp: /proc/self/status"), "Seccomp:\t2");
    let insecure = RunSpec { security: Security::Insecure, ..shell("grep ^Seccomp: /proc/self/status") };
    let outside = fs::read_to_string("/proc/self/status").unwrap();
    let mode = outside.lines().find(|line| line.starts_with("Seccomp:")).unwrap();
    assert_eq!(fixture.run(&insecure).stdout.trim_end(), mode);
    // busybox's unshare would need the system call.
    let output = fixture.run(&shell("busybox unshare -U true; echo $?"));
    assert!(output.stderr.contains("not permitted"), "{output:?}");
    assert_eq!(fixture.says("chroot / true; echo $?"), "0");
}

fn insecure(_: Mode) {
    let fixture = Fixture::new();
    let script = "mount -t tmpfs none /tmp && echo mounted; test -r /proc/timer_list && echo unmasked; grep CapEff /proc/self/status";
    let output = fixture.run(&RunSpec { security: Security::Insecure, ..shell(script) });
    assert!(output.stdout.starts_with("mounted\nunmasked\n"), "{output:?}");
    assert!(!output.stdout.contains("00000000a80425fb"));
}

fn descriptors(_: Mode) {
    // Left open on purpose in this process: neither the zygote nor a container may get it.
    let leak = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 40).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let fixture = Fixture::new();
    // 3 is the directory that ls reads.
    assert_eq!(fixture.says("ls /proc/self/fd"), "0\n1\n2\n3");
    let (other, pipes) = fixture.start(&shell("sleep 1000"), Vec::new()).unwrap();
    assert_eq!(fixture.says("ls /proc/self/fd"), "0\n1\n2\n3");
    drop((other, pipes));
    // A path that leads out through a descriptor does not as a working directory (CVE-2024-21626).
    for fd in 3..40 {
        let spec = RunSpec { cwd: format!("/proc/self/fd/{fd}"), ..shell("pwd") };
        if let Ok(output) = fixture.try_run(&spec, Vec::new()) {
            panic!("{output:?}");
        }
    }
}

fn user_mounts(mode: Mode) {
    let fixture = Fixture::new();
    let data = fixture.path("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "content").unwrap();
    fs::write(data.join("sub/inner"), "inner").unwrap();
    let fd = |index: usize, subpath: &str| MountSource::Fd { index, subpath: subpath.to_owned() };
    let mount = |target: &str, source, readonly| Mount { target: target.to_owned(), source, readonly };
    let owner = if mode == Mode::Oneid { 0 } else { 12 };
    let secret = MountSource::Bytes { data: b"hush\0".to_vec(), mode: 0o400, uid: owner, gid: owner };
    let spec = RunSpec {
        mounts: vec![
            mount("/mnt/rw", fd(0, ""), false),
            mount("/mnt/ro", fd(1, "sub"), true),
            mount("/mnt/file", fd(1, "/file"), true),
            mount(
                "/mnt/rw/nested",
                MountSource::Tmpfs { size: Some(1 << 20), mode: 0o700, exec: true },
                false,
            ),
            mount("/run/secrets/s", secret, true),
        ],
        ..shell(
            "cat /mnt/rw/file /mnt/ro/inner /mnt/file; echo; echo w > /mnt/rw/new; echo w 2>/dev/null > /mnt/ro/new || echo ro; \
             echo w 2>/dev/null > /mnt/file || echo ro; stat -c '%a %F' /mnt/rw/nested; touch /mnt/rw/nested/x; \
             stat -c '%a %u:%g %s' /run/secrets/s; echo x 2>/dev/null > /run/secrets/s || echo ro",
        )
    };
    let output = fixture.try_run(&spec, vec![open(&data), open(&data)]).unwrap();
    let expected = format!("contentinnercontent\nro\nro\n700 directory\n400 {owner}:{owner} 5\nro\n");
    assert_eq!(output.stdout, expected, "{output:?}");
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "w\n");
    for gone in ["mnt", "run", "proc", "dev", "sys", "etc/resolv.conf"] {
        assert!(!fixture.upper(gone).exists(), "{gone} is left over");
    }
    assert!(!data.join("nested").exists());
    let missing = RunSpec { mounts: vec![mount("/x", fd(0, "none"), true)], ..shell("true") };
    let error = fixture.try_run(&missing, vec![open(&data)]).unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Setup { path, action: "bind", .. } if path == "none"),
        "{error:?}"
    );
    assert!(!fixture.upper("x").exists());
}

fn network_none(_: Mode) {
    let fixture = Fixture::new();
    let spec = RunSpec {
        network: Network::None,
        ..shell("ls /sys/class/net; cat /sys/class/net/lo/operstate; cat /proc/net/route | wc -l")
    };
    let output = fixture.run(&spec);
    assert_eq!(output.stdout, "lo\nunknown\n1\n", "{output:?}");
}

fn limits_and_umask(_: Mode) {
    let fixture = Fixture::new();
    let limit = |resource, soft, hard| Rlimit { resource, soft: Some(soft), hard: Some(hard) };
    let spec = RunSpec {
        rlimits: vec![limit(Resource::Nofile, 100, 200), limit(Resource::Core, 0, 0)],
        umask: 0o027,
        ..shell("ulimit -n; ulimit -Hn; ulimit -c; umask")
    };
    assert_eq!(fixture.run(&spec).stdout, "100\n200\n0\n0027\n");
    assert_eq!(fixture.says("umask"), "0022");
    assert_eq!(Resource::from_name("nofile"), Some(Resource::Nofile));
}

fn readonly_root(_: Mode) {
    let fixture = Fixture::new();
    let tmp = Mount {
        target: "/scratch".to_owned(),
        source: MountSource::Tmpfs { size: None, mode: 0o1777, exec: true },
        readonly: false,
    };
    let spec = RunSpec {
        readonly_root: true,
        mounts: vec![tmp],
        ..shell(
            "touch /x 2>/dev/null || echo ro; touch /scratch/x && echo rw; echo x > /dev/shm/x && echo rw",
        )
    };
    assert_eq!(fixture.run(&spec).stdout, "ro\nrw\nrw\n");
    assert!(!fixture.upper("scratch").exists());
}

fn terminal(_: Mode) {
    let fixture = Fixture::new();
    let spec = RunSpec {
        terminal: Some(WindowSize { rows: 17, columns: 71 }),
        ..shell(
            "tty; stty size; stat -c '%F' /dev/console; test -t 0 && test -t 1 && test -t 2 && echo yes; read line; echo got $line; echo x > /dev/tty",
        )
    };
    let (mut running, _pipes) = fixture.start(&spec, Vec::new()).unwrap();
    let master = running.terminal().unwrap();
    assert!(running.terminal().is_none());
    write_to(&master, "typed\n");
    let text = read_all(master);
    assert_eq!(running.wait().unwrap().exit, Exit::Code(0));
    let lines: Vec<&str> = text.lines().filter(|line| *line != "typed").collect();
    assert_eq!(lines, ["/dev/pts/0", "17 71", "character special file", "yes", "got typed", "x"]);
}
