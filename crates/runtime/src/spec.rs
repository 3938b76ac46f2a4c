//! What a container is asked to be. Plain data; nothing is checked here (see [`mod@crate::plan`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Descriptors that travel with one request. `SCM_MAX_FD` is 253.
pub(crate) const MAX_FDS: usize = 250;
/// Control groups of one run: a hierarchy for each kind of limit.
pub(crate) const MAX_GROUPS: usize = 4;
/// Network namespaces of one run.
pub(crate) const MAX_NETWORKS: usize = 1;
/// Those of a request before the mounts.
pub(crate) const FIXED_FDS: usize = 6;
/// Where programs are looked for when the environment has no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One program to run in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// The program and its arguments; the program is looked up in `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// `KEY=value`, passed on as they are.
    pub env: Vec<String>,
    /// Absolute path inside the root; made, and given to the user, where it is missing.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Host name inside.
    pub hostname: String,
    /// Mounted in this order, so that a later target may lie inside an earlier one.
    pub mounts: Vec<Mount>,
    /// What it sees of the network.
    pub network: Network,
    /// How tightly it is held.
    pub security: Security,
    /// Limits of the process; those not named stay as they are outside.
    pub rlimits: Vec<Rlimit>,
    /// Limits of all processes together.
    pub limits: Limits,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Host names and addresses appended to `/etc/hosts`.
    pub extra_hosts: Vec<(String, String)>,
    /// A new terminal as standard input, output and error. Its other end is [`crate::Running::terminal`].
    pub terminal: Option<WindowSize>,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether the root cannot be written to (mounts can).
    pub readonly_root: bool,
    /// Whether set-user-id bits and file capabilities mean nothing (`no_new_privs`).
    pub no_new_privs: bool,
    /// The most that programs may have of root's power. An insecure container has all of it.
    pub capabilities: Capabilities,
    /// Whether an init process of ours is the first process: it passes signals on to the program, and takes the exits of
    /// processes whose parents have gone.
    pub init: bool,
    /// Only one id is mapped: calls about owners are answered as if all were, and what was wished is recorded (see
    /// [`crate::OwnedInode`]).
    pub single_id: bool,
}

impl RunSpec {
    /// `args` run by root in `/`, sandboxed, with the host's network, no mounts and an environment of `PATH`.
    pub fn new(args: Vec<String>) -> Self {
        Self {
            args,
            env: vec![format!("PATH={}", DEFAULT_PATH)],
            cwd: "/".to_owned(),
            user: User { uid: 0, gid: 0, groups: Vec::new() },
            hostname: "buildkitsandbox".to_owned(),
            mounts: Vec::new(),
            network: Network::Host,
            security: Security::Sandbox,
            rlimits: Vec::new(),
            limits: Limits::default(),
            shm_size: 64 << 20,
            extra_hosts: Vec::new(),
            terminal: None,
            resolv_conf: Vec::new(),
            umask: 0o022,
            readonly_root: false,
            no_new_privs: false,
            capabilities: Capabilities::DEFAULT,
            init: false,
            single_id: false,
        }
    }
}

/// Numeric ids inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How large a terminal is, in characters. Zero is a terminal that does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Something mounted over a path of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path inside the root; symlinks in it are followed inside the root. What is missing is made, and
    /// removed after the exit where it is still empty.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// Whether it cannot be written to.
    pub readonly: bool,
}

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A directory or file of the caller's.
    Fd {
        /// Index into [`crate::RunFds::mounts`]; several mounts may share one.
        index: usize,
        /// The part to mount, resolved beneath the descriptor with symlinks kept inside; empty for the whole.
        subpath: String,
    },
    /// A device node like one of the caller's, which works even in a sandbox. What is done to its attributes does not
    /// reach the caller's.
    Device {
        /// Index into [`crate::RunFds::mounts`].
        index: usize,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Upper limit in bytes; half of the machine's memory where there is none.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
        /// Whether programs on it can be run.
        exec: bool,
    },
    /// A file on a private file system in memory, as for a secret. Always read-only.
    Bytes {
        /// Its content.
        data: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// What the container sees of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// All that the host sees.
    Host,
    /// A loopback interface.
    None,
    /// A loopback interface, and one of its own with a way out: what the machine reaches can be reached, but for what
    /// listens on the machine's loopback interface. Nobody outside reaches the container.
    Isolated,
}

/// How tightly the container is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// The default capabilities, the default system call filter, masked and read-only paths, no device nodes but the
    /// harmless ones.
    Sandbox,
    /// All capabilities there are, no filter, nothing masked.
    Insecure,
}

macro_rules! capabilities {
    ($($number:literal $name:literal)*) => {
        /// The names without `CAP_`, with the kernel's numbers (`capabilities(7)`).
        const CAPABILITIES: &[(&str, u32)] = &[$(($name, $number)),*];
    };
}

capabilities! {
    0 "CHOWN" 1 "DAC_OVERRIDE" 2 "DAC_READ_SEARCH" 3 "FOWNER" 4 "FSETID" 5 "KILL" 6 "SETGID" 7 "SETUID" 8 "SETPCAP"
    9 "LINUX_IMMUTABLE" 10 "NET_BIND_SERVICE" 11 "NET_BROADCAST" 12 "NET_ADMIN" 13 "NET_RAW" 14 "IPC_LOCK"
    15 "IPC_OWNER" 16 "SYS_MODULE" 17 "SYS_RAWIO" 18 "SYS_CHROOT" 19 "SYS_PTRACE" 20 "SYS_PACCT" 21 "SYS_ADMIN"
    22 "SYS_BOOT" 23 "SYS_NICE" 24 "SYS_RESOURCE" 25 "SYS_TIME" 26 "SYS_TTY_CONFIG" 27 "MKNOD" 28 "LEASE"
    29 "AUDIT_WRITE" 30 "AUDIT_CONTROL" 31 "SETFCAP" 32 "MAC_OVERRIDE" 33 "MAC_ADMIN" 34 "SYSLOG" 35 "WAKE_ALARM"
    36 "BLOCK_SUSPEND" 37 "AUDIT_READ" 38 "PERFMON" 39 "BPF" 40 "CHECKPOINT_RESTORE"
}

/// A set of capabilities: a bit for each of the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub(crate) u64);

impl Capabilities {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All that any kernel has.
    pub const ALL: Self = Self(u64::MAX);
    /// Sockets that see and send whatever goes through a network.
    pub const NET_RAW: Self = Self(1 << 13);
    /// Those that Docker gives: `CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW
    /// SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP`.
    pub const DEFAULT: Self = Self(
        1 << 0
            | 1 << 1
            | 1 << 3
            | 1 << 4
            | 1 << 5
            | 1 << 6
            | 1 << 7
            | 1 << 8
            | 1 << 10
            | 1 << 13
            | 1 << 18
            | 1 << 27
            | 1 << 29
            | 1 << 31,
    );

    /// The one of this name, in any case and with or without `CAP_`; `None` where the kernel has none.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        CAPABILITIES.iter().find(|(own, _)| *own == plain).map(|(_, number)| Self(1 << number))
    }

    /// These and `others`.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These but for `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of `others` are in the set.
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// A limit of a process, as of `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force; `None` for none.
    pub soft: Option<u64>,
    /// What the process may raise it to; `None` for without limit.
    pub hard: Option<u64>,
}

macro_rules! resources {
    ($($name:ident $text:literal $about:literal)*) => {
        /// What an [`Rlimit`] limits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Resource {
            $(#[doc = $about] $name,)*
        }

        impl Resource {
            /// By the name that `--ulimit` gives it.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(crate) fn kernel(self) -> rustix::process::Resource {
                match self {
                    $(Self::$name => rustix::process::Resource::$name,)*
                }
            }
        }
    };
}

resources! {
    As "as" "Address space, bytes."
    Core "core" "Core file, bytes."
    Cpu "cpu" "Processor time, seconds."
    Data "data" "Data segment, bytes."
    Fsize "fsize" "File size, bytes."
    Locks "locks" "File locks."
    Memlock "memlock" "Locked memory, bytes."
    Msgqueue "msgqueue" "POSIX message queues, bytes."
    Nice "nice" "Highest nice value, as 20 - nice."
    Nofile "nofile" "One more than the highest descriptor."
    Nproc "nproc" "Processes of the user."
    Rss "rss" "Resident set; without effect."
    Rtprio "rtprio" "Real-time priority."
    Rttime "rttime" "Real-time processor time, microseconds."
    Sigpending "sigpending" "Queued signals."
    Stack "stack" "Stack, bytes."
}

/// What a container may use at most. Nothing given is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// What may be swapped out beyond `memory`, without which this has no meaning; nothing if it is not said.
    pub swap: Option<Swap>,
    /// Time on processors.
    pub cpu: Option<CpuTime>,
    /// The part of the processors' time among those that want it, as Docker counts it: usually 1024.
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on, as `0-3,5`.
    pub cpus: Option<String>,
    /// The nodes whose memory it may use.
    pub nodes: Option<String>,
    /// Processes and threads at a time.
    pub pids: Option<u64>,
    /// What goes to and from disks.
    pub io: Vec<IoLimit>,
    /// The group that the container's is made in, from the top of the hierarchy if it begins with a slash, else from ours.
    /// It is made if it is not there, and stays.
    pub parent: Option<PathBuf>,
}

/// How much swap there is beyond the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// As much as the machine has.
    Unlimited,
    /// Bytes.
    Bytes(u64),
}

/// Time on processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// Microseconds in each period, on all processors together; nothing is no limit.
    pub quota: Option<u64>,
    /// Microseconds.
    pub period: u64,
}

/// A limit of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimit {
    /// Major and minor number of the block device.
    pub device: (u32, u32),
    /// What is counted.
    pub rate: IoRate,
    /// How many of it a second.
    pub value: u64,
}

/// What an [`IoLimit`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoRate {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Reads.
    Reads,
    /// Writes.
    Writes,
}

impl Limits {
    /// Whether there is any.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
