//! All that a program can tell of where it is, held to a golden file for each way of running it. What differs from
//! machine to machine (numbers of ids outside, which of the masked files there are) is left out or asked as a question.

use std::fs;
use std::path::Path;

use lapstrake_runtime::{Network, RunSpec, Security};
use lapstrake_testkit::{ALL, Mode, Test};
use rustix::thread::UnshareFlags;

use crate::fixture::{Fixture, Output, shell};

pub(crate) const TESTS: &[Test] = &[("probe", ALL, probe), ("probe_insecure", ALL, probe_insecure)];

const PROBE: &str = r#"
echo '# capabilities'; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
echo '# ids'; id; cat /proc/self/uid_map | while read inside outside count; do echo "from $inside: $MANY"; done
echo '# namespaces'; for ns in cgroup ipc mnt net pid user uts; do
  eval outer=\$OUTER_$ns; test "$(readlink /proc/self/ns/$ns)" = "$outer" && echo "$ns outer" || echo "$ns own"; done
echo '# mounts'; grep -vE ' (/proc|/sys)/' /proc/self/mounts | while read from at kind options rest; do
  found=; for one in ro rw nosuid nodev noexec; do case ",$options," in *",$one,"*) found="$found $one";; esac; done
  case $at in /dev/*) kind=${kind#dev}; esac; echo "$at $kind$found"; done | sort
echo '# descriptors'; ls /proc/self/fd | while read fd; do test "$fd" = 3 || echo $fd; done
echo '# devices'; cd /dev; find . -mindepth 1 | while read name; do echo "$name $(stat -c '%F %a %t:%T' $name)" $(readlink $name); done | sort
echo '# masks'; for at in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list \
  /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
  if test -d $at; then size=$(find $at -mindepth 1 2>/dev/null | wc -l); else size=$(cat $at 2>/dev/null | dd bs=1 count=1 2>/dev/null | wc -c); fi
  test $size = 0 && echo "$at hidden" || echo "$at visible"; done
echo '# written to'; for at in /proc/sys/kernel/panic /proc/sysrq-trigger /proc/bus/x /proc/fs/x /proc/irq/x /sys/x; do
  (: >> $at) 2>/dev/null && echo "$at yes" || echo "$at no"; done
echo '# network'; test "$(readlink /proc/self/ns/net)" = "$OUTER_net" || (ls /sys/class/net; busybox ip -4 route)
echo '# the rest'; hostname; pwd; umask; echo $$; sort /etc/hosts | head -n 2; ls /
"#;

/// Of a container that is held by nothing. Which devices and rights there are is the machine's; that they are all there is
/// what is asked.
const LOOSE: &str = r#"
echo '# capabilities'; for set in Inh Prm Eff Bnd Amb; do
  test "$(grep Cap$set: /proc/self/status)" = "Cap$set:	$OUTER_caps" && echo "$set all" || grep Cap$set: /proc/self/status; done
grep -E '^(NoNewPrivs|Seccomp:)' /proc/self/status
echo '# ids'; cat /proc/self/uid_map | while read inside outside count; do echo "from $inside: ids"; done
echo '# namespaces'; for ns in cgroup ipc mnt net pid user uts; do
  eval outer=\$OUTER_$ns; test "$(readlink /proc/self/ns/$ns)" = "$outer" && echo "$ns outer" || echo "$ns own"; done
echo '# mounts'; grep -vE ' /sys/' /proc/self/mounts | while read from at kind options rest; do
  found=; for one in ro rw nosuid nodev noexec; do case ",$options," in *",$one,"*) found="$found $one";; esac; done
  case $at in /dev/*) kind=${kind#dev}; esac; test -n "$(echo "$OUTER_devices" | grep " $at ")" || echo "$at $kind$found"; done | sort
echo '# devices'; cd /dev; for name in $(find . -mindepth 1 | sort); do
  test -n "$(echo "$OUTER_devices" | grep " /dev/${name#./} ")" || echo "$name $(stat -c '%F %a %t:%T' $name)" $(readlink $name); done
for at in $OUTER_devices; do test -e $at || echo "$at is missing"; done
echo '# written to'; for at in $OUTER_written; do (: >> $at) 2>/dev/null && echo "$at yes" || echo "$at no"; done
echo '# taken apart'; mkdir /tmp/m; mount -t tmpfs none /tmp/m && echo mounted; umount /tmp/m && echo unmounted
hostname loose && hostname; chroot / true && echo chroot
"#;

/// Devices that a container without a hold has where the machine has them.
const DEVICES: [&str; 14] = [
    "kmsg",
    "cuse",
    "fuse",
    "kvm",
    "net/tun",
    "net",
    "loop-control",
    "loop0",
    "loop1",
    "loop2",
    "loop3",
    "loop4",
    "loop5",
    "loop6",
];

fn probe_insecure(mode: Mode) {
    lapstrake_sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
    let fixture = Fixture::new();
    let mut spec = RunSpec { security: Security::Insecure, single_id: mode == Mode::Oneid, ..shell(LOOSE) };
    for ns in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let outer = fs::read_link(format!("/proc/self/ns/{ns}")).unwrap().display().to_string();
        spec.env.push(format!("OUTER_{ns}={outer}"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    let devices = DEVICES.map(|name| format!("/dev/{name}"));
    let devices: Vec<String> = devices.into_iter().filter(|path| Path::new(path).exists()).collect();
    spec.env.push(format!("OUTER_caps={caps}"));
    spec.env.push(format!("OUTER_devices= {} ", devices.join(" ")));
    // A user of the machine may write to none of these, wherever he is root.
    let written = "/proc/sys/kernel/panic /proc/sys/kernel/domainname";
    spec.env.push(format!("OUTER_written={written}"));
    holds("insecure", mode, &fixture.run(&spec));
}

fn probe(mode: Mode) {
    // A machine that is connected with nothing, where ordinary users have all rights too: nothing of the real one changes.
    lapstrake_sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
    lapstrake_sys::net::loopback_up().unwrap();
    let fixture = Fixture::new();
    let outer = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    for (name, security, network) in [
        ("sandbox", Security::Sandbox, Network::None),
        ("host-network", Security::Sandbox, Network::Host),
        ("isolated-network", Security::Sandbox, Network::Isolated),
    ] {
        let mut spec = RunSpec { security, network, single_id: mode == Mode::Oneid, ..shell(PROBE) };
        for ns in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            spec.env.push(format!("OUTER_{ns}={}", outer(ns)));
        }
        spec.env.push("MANY=ids".to_owned());
        let output = fixture.run(&spec);
        holds(name, mode, &output);
    }
}

/// Compares what was found with the file for it.
fn holds(name: &str, mode: Mode, output: &Output) {
    let file = format!("{name}-{}", mode.name("x").trim_end_matches("::x"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/inside").join(&file);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &output.stdout).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(output.stderr, "");
    assert!(output.stdout == expected, "{}: a program finds\n{}", path.display(), output.stdout);
}
