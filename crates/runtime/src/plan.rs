//! From a [`RunSpec`] to the operations that make the container, in order. Pure: needs no privilege, touches nothing.
//!
//! The order is the design: the file systems of the kernel first, then the caller's mounts, then the move into the
//! root, then everything that gives privilege up, last the program. An operation names its place as a path beneath
//! the root or beneath one of the mounts made here, never as a path of the host.
//!
//! What needs nothing of the caller's comes first of all and is done ahead ([`Plan::ahead`]): the file systems of the
//! kernel are put together in the kit, and moved from there into the root once there is one.

use serde::{Deserialize, Serialize};

use crate::spec::{
    Capabilities, FIXED_FDS, MAX_FDS, MAX_GROUPS, MAX_NETWORKS, Mount, MountSource, Network, Resource,
    Rlimit, RunSpec, Security, User, WindowSize,
};

/// One step of making a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetupOp {
    /// Joins a control group.
    Join {
        /// By which descriptor of the caller's.
        index: usize,
    },
    /// Moves into a network namespace.
    Network {
        /// By which descriptor of the caller's.
        index: usize,
    },
    /// Moves into the namespaces and the root of a container that runs.
    Enter {
        /// By which descriptor of the caller's.
        index: usize,
        /// Whether the network is one of the container's own. Nobody may enter the machine's from a user namespace, and
        /// nobody has to.
        network: bool,
    },
    /// Brings `lo` up.
    Loopback,
    /// Sets the host name.
    Hostname {
        /// To this.
        name: String,
    },
    /// Attaches the root.
    AttachRoot {
        /// With these attributes.
        attrs: Vec<Attr>,
    },
    /// Moves a mount of the kit, with all that is in it, to the same name in the root, where no symlink is followed.
    Install {
        /// `proc`, `dev` or `sys`.
        name: String,
    },
    /// Makes the private file system that staged files and the kit are on.
    MountStaging,
    /// Moves onto the stage, and lets go of everything else.
    PivotToStaging,
    /// Writes a file to the stage.
    StageFile {
        /// Its name there.
        slot: usize,
        /// Its content.
        #[serde(with = "crate::text")]
        data: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Its owner; `None` where no other than root can be set.
        owner: Option<(u32, u32)>,
    },
    /// Attaches a descriptor of the caller's to the stage, so that parts of it can be mounted.
    StageSource {
        /// The number of the descriptor, counted from 0.
        index: usize,
    },
    /// Mounts a file system of the kernel's.
    Mount {
        /// The file system.
        fs: Fs,
        /// The place in the root.
        at: Place,
        /// With these attributes.
        attrs: Vec<Attr>,
    },
    /// Puts a device node into `/dev`: one of the container's own where it can be made, else the host's, read-only.
    Device {
        /// Its name.
        name: String,
        /// Major and minor number; `None`: those of the host's node of this name, which may be missing.
        number: Option<(u32, u32)>,
    },
    /// The same anywhere, like a node of the caller's.
    Node {
        /// Which descriptor of the caller's is like it.
        index: usize,
        /// The node's place in the container.
        at: Place,
    },
    /// Makes a symlink in `/dev`.
    Symlink {
        /// Its name.
        name: String,
        /// The link's target.
        target: String,
    },
    /// Binds a directory or file.
    Bind {
        /// The directory or file that is bound.
        source: Source,
        /// The place in the root.
        at: Place,
        /// With these attributes.
        attrs: Vec<Attr>,
    },
    /// Hides a file behind an empty device or a directory behind an empty file system, where it exists.
    Mask {
        /// The place in the root.
        at: Place,
    },
    /// Makes a part of a file system read-only, where it exists.
    RemountReadonly {
        /// The place in the root.
        at: Place,
    },
    /// Makes the files of `/proc` that are about the machine read-only, where the container's root owns them: their
    /// permissions and owners are the same for the whole machine.
    RemountProcReadonly,
    /// Makes the root read-only, but not what is mounted in it.
    RemountRootReadonly,
    /// Leads a new session with the descriptors 0 to 2 it is to have.
    Session {
        /// A new terminal as these.
        terminal: Option<WindowSize>,
        /// Who owns that; `None` where no other than root can be set.
        uid: Option<u32>,
    },
    /// Moves into the root, which from then on covers the stage.
    PivotToRoot,
    /// Sets a limit.
    Rlimit {
        /// The limit, with its value.
        limit: Rlimit,
    },
    /// Goes to the working directory, which is made where it is missing.
    Cwd {
        /// Absolute.
        path: String,
        /// Who owns what is made.
        uid: u32,
        /// The group of what is made.
        gid: u32,
        /// Whether whose it is is recorded, as it cannot be set.
        record: bool,
    },
    /// Sets the file mode creation mask.
    Umask {
        /// To this.
        mask: u32,
    },
    /// Drops all other capabilities from the bounding set.
    BoundingSet {
        /// Bits by number.
        keep: u64,
    },
    /// Puts a second fence around the root, where the kernel has Landlock.
    Landlock,
    /// Loads a system call filter.
    Filter {
        /// The filter.
        filter: Filter,
    },
    /// Rules out gaining privileges by executing.
    NoNewPrivs,
    /// Becomes the user.
    SetUser {
        /// The user and the groups.
        user: User,
    },
    /// Drops all other capabilities.
    Capabilities {
        /// Bits by number.
        keep: u64,
        /// Whether a user other than root keeps them over the exec.
        ambient: bool,
    },
    /// Becomes the program.
    Exec {
        /// The program and its arguments.
        args: Vec<String>,
        /// `KEY=value`.
        env: Vec<String>,
        /// Whether it is a child of an init process of ours.
        init: bool,
    },
}

impl SetupOp {
    /// For messages: "cannot …".
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join the control group",
            Self::Network { .. } => "enter the network of",
            Self::Enter { .. } => "enter",
            Self::Loopback => "bring up the loopback interface",
            Self::Hostname { .. } => "set the host name",
            Self::AttachRoot { .. } => "attach the root",
            Self::MountStaging | Self::PivotToStaging | Self::StageFile { .. } | Self::StageSource { .. } => {
                "stage the mounts"
            }
            Self::Mount { .. } | Self::Install { .. } => "mount",
            Self::Device { .. } | Self::Node { .. } => "make the device",
            Self::Symlink { .. } => "make the symlink",
            Self::Bind { .. } => "bind",
            Self::Mask { .. } => "mask",
            Self::RemountReadonly { .. } | Self::RemountProcReadonly | Self::RemountRootReadonly => {
                "make read-only"
            }
            Self::Session { .. } => "start the session",
            Self::PivotToRoot => "move into the root",
            Self::Rlimit { .. } => "set the limit",
            Self::Cwd { .. } => "go to the working directory",
            Self::Umask { .. } => "set the umask",
            Self::BoundingSet { .. } | Self::Capabilities { .. } => "drop capabilities",
            Self::Landlock => "put a fence around the root",
            Self::Filter { .. } => "load the system call filter",
            Self::NoNewPrivs => "rule out new privileges",
            Self::SetUser { .. } => "become the user",
            Self::Exec { .. } => "run",
        }
    }
}

/// A system call filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// The default, but for the calls that set-up needs.
    Early,
    /// No more than those: on top of the other one it makes the default.
    Late,
    /// The default, with calls about owners answered by a supervisor.
    OneId,
    /// Nothing but those answers.
    OneIdInsecure,
}

/// A file system of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fs {
    /// `proc` of the container's pid namespace.
    Proc,
    /// `sysfs`; that of the host where the kernel allows no other.
    Sys,
    /// `cgroup2` where the host has nothing but that; else nothing.
    Cgroup,
    /// Memory.
    Tmpfs {
        /// Upper limit in bytes.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
    },
    /// Terminals of the container's own.
    Devpts,
    /// POSIX message queues.
    Mqueue,
}

/// A path beneath something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Beneath what.
    pub base: Base,
    /// Relative, without a leading slash.
    pub path: String,
}

/// What a [`Place`] lies beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The root, whose content is hostile: symlinks are followed inside it, what is missing is made.
    Root,
    /// Where the file systems of the kernel are put together.
    Kit,
    /// The mount made for `/proc`.
    Proc,
    /// The mount made for `/sys`.
    Sys,
    /// The mount made for `/dev`.
    Dev,
}

/// What a [`SetupOp::Bind`] binds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// One of the caller's descriptors.
    Fd {
        /// The number of the descriptor, counted from 0.
        index: usize,
    },
    /// A part of a staged one.
    Part {
        /// Of which.
        index: usize,
        /// Resolved with symlinks kept inside.
        path: String,
    },
    /// A staged file.
    File {
        /// The number of the staged file, counted from 0.
        slot: usize,
    },
}

/// A mount attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attr {
    /// No writing.
    Readonly,
    /// Set-user-id bits mean nothing.
    Nosuid,
    /// Device nodes cannot be opened.
    Nodev,
    /// Nothing can be executed.
    Noexec,
}

/// A spec that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is no program.
    #[error("there is nothing to run")]
    NoProgram,
    /// A string has a NUL byte in it.
    #[error("{what} has a NUL byte in it: {value:?}")]
    Nul {
        /// The name of the setting.
        what: &'static str,
        /// The text as it was given.
        value: String,
    },
    /// A path that has to be absolute is not.
    #[error("{what} is not an absolute path: {value:?}")]
    Relative {
        /// The name of the setting.
        what: &'static str,
        /// The text as it was given.
        value: String,
    },
    /// Nothing may be mounted there.
    #[error("cannot mount over {target:?}")]
    Target {
        /// The mount point.
        target: String,
    },
    /// A mount names a descriptor that is not there.
    #[error("the mount on {target:?} has no source: there is no descriptor {index}")]
    Source {
        /// Where it is mounted.
        target: String,
        /// What it names.
        index: usize,
    },
    /// More mounts than descriptors can be passed.
    #[error("{count} mounts are more than {max}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// An environment entry has no name.
    #[error("not an environment variable: {value:?}")]
    Env {
        /// The text as it was given.
        value: String,
    },
    /// A host name the kernel refuses, or a name or an address that would break `/etc/hosts`.
    #[error("not a host name or address: {value:?}")]
    Host {
        /// The text as it was given.
        value: String,
    },
}

/// The operations that carry a [`RunSpec`] out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All of them, in order.
    pub ops: Vec<SetupOp>,
    /// How many of them, from the first, are the same for every container of this kind and need nothing of the caller's.
    pub ahead: usize,
}

/// The operations that carry `spec` out, for a run with `sources` mount descriptors.
///
/// # Errors
/// [`SpecError`] where the spec contradicts itself; what only the machine can tell comes later.
pub fn plan(spec: &RunSpec, sources: usize) -> Result<Plan, SpecError> {
    check(spec, sources)?;
    let secure = spec.security == Security::Sandbox;
    let mut ops = Vec::with_capacity(64);
    if spec.network == Network::None {
        ops.push(SetupOp::Loopback);
    }
    ops.push(SetupOp::MountStaging);
    let names = names(spec);
    // Long ones would not go into a message.
    let short = names.iter().map(length).sum::<usize>() < 16 << 10;
    if short {
        ops.extend_from_slice(&names);
    }
    kit(&mut ops, spec.shm_size, secure);
    confine(&mut ops, spec);
    // sysfs shows the network of whoever mounts it: a lent one has to be entered first.
    let own_network = spec.network == Network::Isolated;
    let ahead = ops.len();
    system(&mut ops, secure);
    let ahead = if own_network { ahead } else { ops.len() };
    if !short {
        ops.extend(names);
    }
    let root = if secure { vec![Attr::Nodev] } else { Vec::new() };
    ops.push(SetupOp::AttachRoot { attrs: root });
    ops.extend(["proc", "dev", "sys"].map(|name| SetupOp::Install { name: name.to_owned() }));
    for (slot, path) in NAME_FILES.into_iter().enumerate() {
        ops.push(bind_file(slot, place(Base::Root, path)));
    }
    for (slot, mount) in spec.mounts.iter().enumerate() {
        user_mount(&mut ops, spec, mount, slot + FIRST_SLOT);
    }
    let uid = (!spec.single_id).then_some(spec.user.uid);
    ops.push(SetupOp::Session { terminal: spec.terminal, uid });
    if spec.readonly_root {
        ops.push(SetupOp::RemountRootReadonly);
    }
    ops.push(SetupOp::PivotToRoot);
    process(&mut ops, spec);
    Ok(Plan { ops, ahead })
}

/// The operations that make `spec` one more process of a container that runs. Its mounts and its names are those of the
/// container; its network has to be.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_entry(spec: &RunSpec) -> Result<Vec<SetupOp>, SpecError> {
    check(spec, 0)?;
    let uid = (!spec.single_id).then_some(spec.user.uid);
    let mut ops = vec![
        SetupOp::Enter { index: 0, network: spec.network != Network::Host },
        SetupOp::Session { terminal: spec.terminal, uid },
    ];
    confine(&mut ops, spec);
    process(&mut ops, spec);
    Ok(ops)
}

/// The staged files that every container has, by slot.
const NAME_FILES: [&str; 2] = ["etc/resolv.conf", "etc/hosts"];
/// The first slot of the others.
const FIRST_SLOT: usize = NAME_FILES.len();

/// `/proc` and `/dev`.
fn kit(ops: &mut Vec<SetupOp>, shm_size: u64, secure: bool) {
    use Attr::{Nodev, Noexec, Nosuid};
    let mut mount = |fs, base, path: &str, attrs: &[Attr]| {
        ops.push(SetupOp::Mount { fs, at: place(base, path), attrs: attrs.to_vec() });
    };
    // Device nodes work through their own mounts; the file system that holds them need not let new ones work.
    let dev: &[Attr] = if secure { &[Nosuid, Nodev] } else { &[Nosuid] };
    mount(Fs::Proc, Base::Kit, "proc", &[Nosuid, Nodev, Noexec]);
    mount(Fs::Tmpfs { size: Some(64 << 20), mode: 0o755 }, Base::Kit, "dev", dev);
    mount(Fs::Devpts, Base::Dev, "pts", &[Nosuid, Noexec]);
    mount(Fs::Tmpfs { size: Some(shm_size), mode: 0o1777 }, Base::Dev, "shm", &[Nosuid, Nodev, Noexec]);
    mount(Fs::Mqueue, Base::Dev, "mqueue", &[Nosuid, Nodev, Noexec]);
    devices(ops, secure);
    if secure {
        masks(ops, Base::Proc, &MASKED_PROC, &FROZEN_PROC);
        ops.push(SetupOp::RemountProcReadonly);
    }
}

/// What is given up as soon as nothing needs it: the bounding set concerns programs alone, and the filter lets pass what
/// set-up still does. Compiling it is what takes longest of all, so it is done ahead.
fn confine(ops: &mut Vec<SetupOp>, spec: &RunSpec) {
    let secure = spec.security == Security::Sandbox;
    ops.push(SetupOp::BoundingSet { keep: kept(spec) });
    if secure && !spec.single_id {
        ops.push(SetupOp::Filter { filter: Filter::Early });
    }
}

/// The capabilities that a program may have. Raw sockets see and send what others do in the same network, so in the host's
/// there are none.
fn kept(spec: &RunSpec) -> u64 {
    match (spec.security, spec.network) {
        (Security::Insecure, _) => Capabilities::ALL.0,
        (Security::Sandbox, Network::Host) => spec.capabilities.without(Capabilities::NET_RAW).0,
        (Security::Sandbox, Network::None | Network::Isolated) => spec.capabilities.0,
    }
}

/// `/sys`, the last thing that needs what the zygote sees.
fn system(ops: &mut Vec<SetupOp>, secure: bool) {
    use Attr::{Nodev, Noexec, Nosuid, Readonly};
    let frozen: &[Attr] = if secure { &[Readonly, Nosuid, Nodev, Noexec] } else { &[Nosuid, Nodev, Noexec] };
    for (fs, base, path) in [(Fs::Sys, Base::Kit, "sys"), (Fs::Cgroup, Base::Sys, "fs/cgroup")] {
        ops.push(SetupOp::Mount { fs, at: place(base, path), attrs: frozen.to_vec() });
    }
    if secure {
        masks(ops, Base::Sys, &["firmware", "devices/virtual/powercap"], &[]);
    }
    ops.push(SetupOp::PivotToStaging);
}

/// The devices that every container has, with their numbers.
pub(crate) const PLAIN: [(&str, (u32, u32)); 6] = [
    ("null", (1, 3)),
    ("zero", (1, 5)),
    ("full", (1, 7)),
    ("random", (1, 8)),
    ("urandom", (1, 9)),
    ("tty", (5, 0)),
];

fn devices(ops: &mut Vec<SetupOp>, secure: bool) {
    const MORE: [&str; 13] = [
        "kmsg",
        "cuse",
        "fuse",
        "kvm",
        "net/tun",
        "loop-control",
        "loop0",
        "loop1",
        "loop2",
        "loop3",
        "loop4",
        "loop5",
        "loop6",
    ];
    const LINKS: [(&str, &str); 6] = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ];
    let plain = PLAIN.map(|(name, number)| SetupOp::Device { name: name.to_owned(), number: Some(number) });
    ops.extend(plain);
    if !secure {
        ops.extend(MORE.map(|name| SetupOp::Device { name: name.to_owned(), number: None }));
    }
    ops.extend(
        LINKS.map(|(name, target)| SetupOp::Symlink { name: name.to_owned(), target: target.to_owned() }),
    );
}

pub(crate) const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];

pub(crate) const FROZEN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

fn masks(ops: &mut Vec<SetupOp>, base: Base, masked: &[&str], frozen: &[&str]) {
    ops.extend(masked.iter().map(|path| SetupOp::Mask { at: place(base, path) }));
    ops.extend(frozen.iter().map(|path| SetupOp::RemountReadonly { at: place(base, path) }));
}

/// The container's own name, and how it finds others. It is the same for all steps of a build, as a rule.
fn names(spec: &RunSpec) -> [SetupOp; 3] {
    let file = |slot, data| SetupOp::StageFile { slot, data, mode: 0o644, owner: Some((0, 0)) };
    let name = SetupOp::Hostname { name: spec.hostname.clone() };
    [name, file(0, spec.resolv_conf.clone()), file(1, hosts(spec))]
}

/// How much data an operation carries.
fn length(op: &SetupOp) -> usize {
    if let SetupOp::StageFile { data, .. } = op { data.len() } else { 0 }
}

fn bind_file(slot: usize, at: Place) -> SetupOp {
    let attrs = vec![Attr::Readonly, Attr::Nosuid, Attr::Nodev, Attr::Noexec];
    SetupOp::Bind { source: Source::File { slot }, at, attrs }
}

fn hosts(spec: &RunSpec) -> Vec<u8> {
    let name = &spec.hostname;
    let mut text = format!(
        "127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    for (host, address) in &spec.extra_hosts {
        text.push_str(&format!("{address}\t{host}\n"));
    }
    text.into_bytes()
}

fn user_mount(ops: &mut Vec<SetupOp>, spec: &RunSpec, mount: &Mount, slot: usize) {
    let at = place(Base::Root, mount.target.trim_start_matches('/'));
    let mut attrs = Vec::new();
    if mount.readonly {
        attrs.push(Attr::Readonly);
    }
    if spec.security == Security::Sandbox {
        attrs.push(Attr::Nodev);
    }
    match &mount.source {
        MountSource::Tmpfs { size, mode, exec } => {
            attrs.push(Attr::Nosuid);
            attrs.extend((!exec).then_some(Attr::Noexec));
            ops.push(SetupOp::Mount { fs: Fs::Tmpfs { size: *size, mode: *mode }, at, attrs });
        }
        MountSource::Bytes { data, mode, uid, gid } => {
            let owner = (!spec.single_id).then_some((*uid, *gid));
            ops.push(SetupOp::StageFile { slot, data: data.clone(), mode: *mode, owner });
            ops.push(bind_file(slot, at));
        }
        MountSource::Device { index } => {
            ops.push(SetupOp::Node { index: *index, at });
        }
        MountSource::Fd { index, subpath } => {
            let path = subpath.trim_matches('/');
            let shared = sharers(spec, *index) > 1;
            if path.is_empty() && !shared {
                ops.push(SetupOp::Bind { source: Source::Fd { index: *index }, at, attrs });
                return;
            }
            let staged = SetupOp::StageSource { index: *index };
            if !ops.contains(&staged) {
                ops.push(staged);
            }
            let source = Source::Part { index: *index, path: path.to_owned() };
            ops.push(SetupOp::Bind { source, at, attrs });
        }
    }
}

/// How many mounts use the same descriptor: a detached mount can be attached once only.
fn sharers(spec: &RunSpec, wanted: usize) -> usize {
    let uses = |mount: &&Mount| matches!(mount.source, MountSource::Fd { index, .. } if index == wanted);
    spec.mounts.iter().filter(uses).count()
}

/// What happens inside the root. The filter comes before the capabilities go, as loading it takes one of them; it forbids
/// nothing that comes later.
fn process(ops: &mut Vec<SetupOp>, spec: &RunSpec) {
    let secure = spec.security == Security::Sandbox;
    let User { uid, gid, .. } = spec.user;
    ops.extend(spec.rlimits.iter().map(|limit| SetupOp::Rlimit { limit: limit.clone() }));
    ops.push(SetupOp::Cwd { path: spec.cwd.clone(), uid, gid, record: spec.single_id });
    ops.push(SetupOp::Umask { mask: spec.umask & 0o777 });
    if secure {
        ops.push(SetupOp::Landlock);
    }
    let filter = match (secure, spec.single_id) {
        (true, false) => Some(Filter::Late),
        (true, true) => Some(Filter::OneId),
        (false, true) => Some(Filter::OneIdInsecure),
        (false, false) => None,
    };
    ops.extend(filter.map(|filter| SetupOp::Filter { filter }));
    ops.push(SetupOp::SetUser { user: spec.user.clone() });
    ops.push(SetupOp::Capabilities { keep: kept(spec), ambient: !secure });
    if spec.no_new_privs {
        ops.push(SetupOp::NoNewPrivs);
    }
    ops.push(SetupOp::Exec { args: spec.args.clone(), env: spec.env.clone(), init: spec.init });
}

fn place(base: Base, path: &str) -> Place {
    Place { base, path: path.to_owned() }
}

fn check(spec: &RunSpec, sources: usize) -> Result<(), SpecError> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoProgram);
    }
    let strings = [("an argument", &spec.args), ("an environment variable", &spec.env)];
    for (what, value) in strings.into_iter().flat_map(|(what, all)| all.iter().map(move |one| (what, one))) {
        no_nul(what, value)?;
    }
    if let Some(value) = spec.env.iter().find(|entry| !entry.contains('=') || entry.starts_with('=')) {
        return Err(SpecError::Env { value: value.clone() });
    }
    absolute("the working directory", &spec.cwd)?;
    let hosts = spec.extra_hosts.iter().flat_map(|(host, address)| [host, address]);
    for value in hosts.chain([&spec.hostname]) {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if value.is_empty() || value.len() > 255 || value.contains(bad) {
            return Err(SpecError::Host { value: value.clone() });
        }
    }
    // The kernel's limit for what `sethostname` takes.
    if spec.hostname.len() > 64 {
        return Err(SpecError::Host { value: spec.hostname.clone() });
    }
    let max = MAX_FDS - FIXED_FDS - MAX_GROUPS - MAX_NETWORKS;
    if sources > max {
        return Err(SpecError::TooMany { count: sources, max });
    }
    spec.mounts.iter().try_for_each(|mount| check_mount(mount, sources))
}

fn check_mount(mount: &Mount, sources: usize) -> Result<(), SpecError> {
    let target = &mount.target;
    absolute("the mount target", target)?;
    let mut parts = target.split('/').filter(|part| !part.is_empty() && *part != ".");
    let first = parts.next();
    // `..` could lead back to the root or into /proc behind the text's back.
    if matches!(first, None | Some("proc")) || target.split('/').any(|part| part == "..") {
        return Err(SpecError::Target { target: target.clone() });
    }
    match &mount.source {
        MountSource::Fd { index, .. } | MountSource::Device { index } if *index >= sources => {
            Err(SpecError::Source { target: target.clone(), index: *index })
        }
        MountSource::Fd { subpath, .. } => no_nul("the mount source", subpath),
        MountSource::Device { .. } | MountSource::Tmpfs { .. } | MountSource::Bytes { .. } => Ok(()),
    }
}

fn no_nul(what: &'static str, value: &str) -> Result<(), SpecError> {
    if value.contains('\0') { Err(SpecError::Nul { what, value: value.to_owned() }) } else { Ok(()) }
}

fn absolute(what: &'static str, value: &str) -> Result<(), SpecError> {
    no_nul(what, value)?;
    if value.starts_with('/') { Ok(()) } else { Err(SpecError::Relative { what, value: value.to_owned() }) }
}

/// For messages: the limit's name as `--ulimit` has it.
pub(crate) fn limit_name(resource: Resource) -> String {
    format!("{resource:?}").to_lowercase()
}

#[cfg(test)]
mod tests;
