//! Plans as data: the order that security rests on, and what is refused.

use super::*;

fn spec() -> RunSpec {
    RunSpec::new(vec!["true".to_owned()])
}

fn fd(target: &str, index: usize, subpath: &str) -> Mount {
    let source = MountSource::Fd { index, subpath: subpath.to_owned() };
    Mount { target: target.to_owned(), source, readonly: true }
}

/// One word per operation.
fn outline(ops: &[SetupOp]) -> Vec<String> {
    ops.iter()
        .map(|op| {
            let text = format!("{op:?}");
            let word = text.split([' ', '{']).next().unwrap_or_default().to_owned();
            match op {
                SetupOp::Mount { at, .. }
                | SetupOp::Bind { at, .. }
                | SetupOp::Mask { at }
                | SetupOp::RemountReadonly { at } => format!("{word} {:?} {}", at.base, at.path),
                SetupOp::Device { name, .. } | SetupOp::Symlink { name, .. } => format!("{word} {name}"),
                _ => word,
            }
        })
        .collect()
}

#[test]
fn the_whole_of_a_plain_plan() {
    let ahead = "MountStaging, Hostname, StageFile, StageFile, Mount Kit proc, Mount Kit dev, Mount Dev pts, Mount Dev shm, Mount Dev mqueue, Device null, \
                 Device zero, Device full, Device random, Device urandom, Device tty, Symlink fd, Symlink stdin, \
                 Symlink stdout, Symlink stderr, Symlink ptmx, Symlink core, Mask Proc acpi, Mask Proc asound, \
                 Mask Proc interrupts, Mask Proc kcore, Mask Proc keys, Mask Proc latency_stats, \
                 Mask Proc timer_list, Mask Proc timer_stats, Mask Proc sched_debug, Mask Proc scsi, \
                 RemountReadonly Proc bus, RemountReadonly Proc fs, RemountReadonly Proc irq, RemountReadonly Proc sys, RemountReadonly Proc sysrq-trigger, RemountProcReadonly, \
                 BoundingSet, Filter, Mount Kit sys, Mount Sys fs/cgroup, Mask Sys firmware, Mask Sys devices/virtual/powercap, PivotToStaging";
    let then = "AttachRoot, Install, Install, Install, Bind Root etc/resolv.conf, Bind Root etc/hosts, \
                Session, PivotToRoot, Cwd, Umask, Landlock, Filter, SetUser, Capabilities, Exec";
    let plan = plan(&spec(), 0).unwrap();
    let (first, rest) = plan.ops.split_at(plan.ahead);
    assert_eq!(outline(first).join(", "), ahead);
    assert_eq!(outline(rest).join(", "), then);
}

/// What is made ahead is the same whatever is run, and sees no network that has to be entered first.
#[test]
fn what_is_made_ahead() {
    let ahead = |spec: &RunSpec| {
        let plan = plan(spec, 0).unwrap();
        plan.ops[..plan.ahead].to_vec()
    };
    let other = RunSpec { cwd: "/x".into(), env: vec!["A=b".into()], readonly_root: true, ..spec() };
    assert_eq!(ahead(&other), ahead(&spec()));
    for other in [
        RunSpec { hostname: "me".into(), ..spec() },
        RunSpec { resolv_conf: "nameserver 192.0.2.1\n".into(), ..spec() },
        RunSpec { extra_hosts: vec![("a".into(), "192.0.2.1".into())], ..spec() },
        RunSpec { security: Security::Insecure, ..spec() },
    ] {
        assert_ne!(ahead(&other), ahead(&spec()));
    }
    let ahead = |spec: &RunSpec| outline(&ahead(spec));
    let own = ahead(&RunSpec { network: Network::Isolated, ..spec() });
    assert!(own.iter().all(|op| !op.contains("sys") || op.contains("Proc")), "{own:?}");
    assert_eq!(ahead(&RunSpec { network: Network::None, ..spec() })[0], "Loopback");
}

#[test]
fn insecure_masks_and_filters_nothing() {
    let ops = plan(&RunSpec { security: Security::Insecure, ..spec() }, 0).unwrap().ops;
    assert!(!ops.iter().any(|op| matches!(
        op,
        SetupOp::Mask { .. }
            | SetupOp::RemountReadonly { .. }
            | SetupOp::RemountProcReadonly
            | SetupOp::Filter { .. }
    )));
    assert!(ops.contains(&SetupOp::AttachRoot { attrs: vec![] }));
    assert!(ops.contains(&SetupOp::Capabilities { keep: u64::MAX, ambient: true }));
}

#[test]
fn secure_mounts_have_no_devices() {
    let mounts = vec![
        fd("/a", 0, ""),
        fd("/b", 1, "part"),
        Mount {
            target: "/c".into(),
            source: MountSource::Tmpfs { size: None, mode: 0o755, exec: true },
            readonly: false,
        },
    ];
    for op in plan(&RunSpec { mounts, ..spec() }, 2).unwrap().ops {
        let (SetupOp::Mount { attrs, .. } | SetupOp::Bind { attrs, .. } | SetupOp::AttachRoot { attrs }) =
            &op
        else {
            continue;
        };
        let devpts = matches!(&op, SetupOp::Mount { fs: Fs::Devpts, .. });
        assert_eq!(attrs.contains(&Attr::Nodev), !devpts, "{op:?}");
    }
}

#[test]
fn a_descriptor_is_staged_once_and_only_where_needed() {
    let mounts = vec![fd("/a", 0, "/"), fd("/b", 1, ""), fd("/c", 1, "x"), fd("/d", 2, "y/")];
    let ops = plan(&RunSpec { mounts, ..spec() }, 3).unwrap().ops;
    let staged: Vec<_> = ops
        .iter()
        .filter_map(|op| if let SetupOp::StageSource { index } = op { Some(*index) } else { None })
        .collect();
    assert_eq!(staged, [1, 2]);
    let sources: Vec<_> = ops
        .iter()
        .filter_map(|op| match op {
            SetupOp::Bind { source: source @ (Source::Fd { .. } | Source::Part { .. }), .. } => {
                Some(source.clone())
            }
            _ => None,
        })
        .collect();
    let part = |index, path: &str| Source::Part { index, path: path.to_owned() };
    assert_eq!(sources, [Source::Fd { index: 0 }, part(1, ""), part(1, "x"), part(2, "y")]);
}

#[test]
fn what_cannot_be_is_refused() {
    let on = |mount: Mount| RunSpec { mounts: vec![mount], ..spec() };
    let host = |host: &str, address: &str| RunSpec {
        extra_hosts: vec![(host.to_owned(), address.to_owned())],
        ..spec()
    };
    for (what, spec) in [
        ("no program", RunSpec { args: vec![], ..spec() }),
        ("an empty program", RunSpec { args: vec![String::new()], ..spec() }),
        ("NUL in an argument", RunSpec { args: vec!["a\0b".into()], ..spec() }),
        ("NUL in the environment", RunSpec { env: vec!["A=\0".into()], ..spec() }),
        ("a variable without a name", RunSpec { env: vec!["=x".into()], ..spec() }),
        ("a variable without a value", RunSpec { env: vec!["x".into()], ..spec() }),
        ("a relative directory", RunSpec { cwd: "x".into(), ..spec() }),
        ("a line break in a host name", host("a\n1.2.3.4 b", "1.2.3.4")),
        ("a space in an address", host("a", "1.2.3.4 b")),
        ("no host name", RunSpec { hostname: String::new(), ..spec() }),
        ("a long host name", RunSpec { hostname: "x".repeat(65), ..spec() }),
        ("the root as a target", on(fd("/", 0, ""))),
        ("the root in disguise", on(fd("//./", 0, ""))),
        ("a relative target", on(fd("x", 0, ""))),
        ("a target in /proc", on(fd("//proc/self", 0, ""))),
        ("a target that goes up", on(fd("/a/../proc", 0, ""))),
        ("a source that is not there", on(fd("/a", 1, ""))),
    ] {
        assert!(plan(&spec, 1).is_err(), "{what}");
    }
    assert!(plan(&spec(), 1000).is_err());
    assert!(plan(&on(fd("/process", 0, "")), 1).is_ok());
}

#[test]
fn hosts_has_the_name_and_the_extras() {
    let spec =
        RunSpec { extra_hosts: vec![("db".into(), "192.0.2.9".into())], hostname: "me".into(), ..spec() };
    let text = String::from_utf8(hosts(&spec)).unwrap();
    assert!(text.starts_with("127.0.0.1\tlocalhost me\n::1\t"));
    assert!(text.ends_with("192.0.2.9\tdb\n"));
}

#[test]
fn privilege_goes_in_the_right_order() {
    let ops = plan(&spec(), 0).unwrap().ops;
    let at = |wanted: fn(&SetupOp) -> bool| ops.iter().position(wanted).unwrap();
    let order = [
        at(|op| matches!(op, SetupOp::BoundingSet { .. })),
        at(|op| matches!(op, SetupOp::Filter { filter: Filter::Early })),
        at(|op| matches!(op, SetupOp::PivotToRoot)),
        at(|op| matches!(op, SetupOp::Filter { filter: Filter::Late })),
        at(|op| matches!(op, SetupOp::SetUser { .. })),
        at(|op| matches!(op, SetupOp::Capabilities { .. })),
        at(|op| matches!(op, SetupOp::Exec { .. })),
    ];
    assert!(order.is_sorted());
    assert_eq!(order[6], ops.len() - 1);
    // Where calls are asked about, which set-up makes too, there is one filter, in the late one's place.
    let ops = plan(&RunSpec { single_id: true, ..spec() }, 0).unwrap().ops;
    let filters: Vec<usize> =
        (0..ops.len()).filter(|at| matches!(ops[*at], SetupOp::Filter { .. })).collect();
    let at = |wanted: fn(&SetupOp) -> bool| ops.iter().position(wanted).unwrap();
    assert_eq!(filters, [at(|op| matches!(op, SetupOp::Filter { filter: Filter::OneId }))]);
    assert!(at(|op| matches!(op, SetupOp::PivotToRoot)) < filters[0]);
}
