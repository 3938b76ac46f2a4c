//! Owners and ids: the same answers where all ids are mapped and where only one is.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use lapstrake_runtime::{Exit, RunSpec, Security, User};
use lapstrake_testkit::{ALL, Mode, Test};

use crate::fixture::{Fixture, Output, shell};

pub(crate) const TESTS: &[Test] = &[
    ("owners_of_files", ALL, owners_of_files),
    ("ids_of_processes", ALL, ids_of_processes),
    ("what_a_user_makes", ALL, what_a_user_makes),
    ("devices_that_cannot_be", &[Mode::Root, Mode::Oneid], devices_that_cannot_be),
    ("owners_without_a_filter", ALL, owners_without_a_filter),
    ("owners_of_links_are_told", &[Mode::Oneid], owners_of_links_are_told),
];

fn run(mode: Mode, fixture: &Fixture, spec: RunSpec) -> Output {
    fixture.run(&RunSpec { single_id: mode == Mode::Oneid, ..spec })
}

fn says(mode: Mode, script: &str, expected: &str) {
    let fixture = Fixture::new();
    let output = run(mode, &fixture, shell(script));
    assert_eq!(output.finished.exit, Exit::Code(0), "{script}: {output:?}");
    assert_eq!(output.stdout.trim_end(), expected, "{script}: {output:?}");
}

fn owners_of_files(mode: Mode) {
    says(mode, "touch /f && chown 5:6 /f && stat -c %u:%g /f && chown 7 /f && stat -c %u:%g /f", "5:6\n7:6");
    says(mode, "mkdir -p /d/e && chown -R 5:6 /d && cd d && mv e g && stat -c %u:%g g . ..", "5:6\n5:6\n0:0");
    says(mode, "touch /f && chown 5:6 /f && ln /f /g && mv /g /h && stat -c %u:%g /h", "5:6");
    says(mode, "ln -s nowhere /l && chown -h 5:6 /l && mv /l /m && stat -c %u:%g /m", "5:6");
    says(mode, "mkfifo /p && chown 5:6 /p && stat -c '%u:%g %F' /p", "5:6 fifo");
    says(mode, "touch /f && chmod 6755 /f && chown 5:6 /f && stat -c %a /f", "755");
    says(mode, "touch /f && chown 5 /f && chown 0:0 /f && stat -c %u:%g /f", "0:0");
    says(mode, "touch /f; chown 5:6 /f < /f; exec 3> /f; chown 8:9 /proc/self/fd/3; stat -c %u:%g /f", "8:9");
    says(mode, "touch /f && chown 5:6 /f && cp -a /f /g && stat -c %u:%g /g", "5:6");
    says(
        mode,
        "mkdir /d && cd /d && touch a && chown 5:6 a && tar cf /t . && mkdir /e && tar xf /t -C /e && stat -c %u:%g /e/a",
        "5:6",
    );
    says(
        mode,
        "chown 5 /missing 2>&1 || chown 5 /etc/passwd/x 2>&1; true",
        "chown: /missing: No such file or directory\nchown: /etc/passwd/x: Not a directory",
    );
    says(
        mode,
        "mkdir -p /r/bin && cp /bin/busybox /r/bin/ && touch /r/f && chroot /r /bin/busybox chown 5:6 /f && stat -c %u:%g /r/f",
        "5:6",
    );
}

fn ids_of_processes(mode: Mode) {
    let users = "echo 'u:x:1000:1001::/:/bin/sh' >> /etc/passwd && echo 'u:x:1001:' > /etc/group && echo 'more:x:7:u' >> /etc/group && ";
    let script = format!(
        "{users} su u -c 'id -u; id -g; id -G; sh -c \"id -u\" & wait; touch /tmp/x && stat -c %u:%g /tmp/x'; id -u"
    );
    says(mode, &format!("chmod 1777 /tmp; {script}"), "1000\n1001\n1001 7\n1000\n1000:1001\n0");
    // No way back.
    says(
        mode,
        &format!(
            "{users} su u -c 'chown 5 /etc/passwd 2>&1 | grep -o not.permitted; chroot --help >/dev/null 2>&1; busybox setpriv --reuid 0 true || busybox su -c true root 2>&1 | grep -o \"must be suid\"'; true"
        ),
        "not permitted\nmust be suid",
    );
    let fixture = Fixture::new();
    let user = User { uid: 1000, gid: 1001, groups: vec![7, 1001, 2000] };
    let spec = RunSpec { user, cwd: "/home/u".to_owned(), ..shell("id -u; id -g; id -G; stat -c %u:%g .") };
    let output = run(mode, &fixture, spec);
    assert_eq!(output.stdout, "1000\n1001\n1001 7 2000\n1000:1001\n", "{output:?}");
}

fn what_a_user_makes(mode: Mode) {
    let user = User { uid: 1000, gid: 1001, groups: Vec::new() };
    let script = "cd /tmp && umask 027 && echo x > f && mkdir d && ln -s f l && mkfifo p && echo y >> f && \
                  stat -c '%n %a %u:%g %F' f d l p && cat f && mkdir d 2>&1; echo z > f; cat f";
    let fixture = Fixture::new();
    let tmp = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(fixture.lower("tmp"), tmp).unwrap();
    let output = run(mode, &fixture, RunSpec { user, ..shell(script) });
    let expected = "f 640 1000:1001 regular file\nd 750 1000:1001 directory\nl 777 1000:1001 symbolic link\n\
                    p 640 1000:1001 fifo\nx\ny\nmkdir: can't create directory 'd': File exists\nz\n";
    assert_eq!(output.stdout, expected, "{output:?}");
    // The group of a directory with the set-group-id bit.
    says(
        mode,
        "mkdir /d && chown 0:50 /d && chmod 2777 /d && echo 'u:x:7:8::/:/bin/sh' >> /etc/passwd && su u -c 'touch /d/f && stat -c %u:%g /d/f'",
        "7:50",
    );
}

/// `mknod` works where root's does, and what it makes leads nowhere.
fn devices_that_cannot_be(mode: Mode) {
    let script = "mknod /n c 1 3 && mknod /m b 7 8 && stat -c '%F %t:%T' /n /m && chown 5:6 /n && chmod 640 /n && stat -c '%a %u:%g' /n";
    says(mode, script, "character special file 1:3\nblock special file 7:8\n640 5:6");
    says(
        mode,
        "mknod /n c 1 3; echo secret > /n; cat /dev/null; mknod /n c 1 3 2>&1 || true",
        "mknod: /n: File exists",
    );
}

fn owners_without_a_filter(mode: Mode) {
    let fixture = Fixture::new();
    let spec =
        RunSpec { security: Security::Insecure, ..shell("touch /f && chown 5:6 /f && stat -c %u:%g /f") };
    assert_eq!(run(mode, &fixture, spec).stdout, "5:6\n");
}

fn owners_of_links_are_told(mode: Mode) {
    let fixture = Fixture::new();
    let script = "ln -s x /l; chown -h 5:6 /l; touch /f; chown 7:8 /f";
    let output = run(mode, &fixture, shell(script));
    let owned = output.finished.owned;
    let inode = fs::symlink_metadata(fixture.upper("l")).unwrap().ino();
    assert_eq!(owned.len(), 1, "{owned:?}");
    assert_eq!((owned[0].ino, owned[0].uid, owned[0].gid), (inode, 5, 6));
}
