//! A process run in a tree.

use serde::{Deserialize, Serialize};

/// A process run with input 0 as its root. Its output 0 is the changed root. Further outputs, in the order of the mounts, are
/// the trees of binds with [`Bind::keep`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exec {
    /// The command line; never empty.
    pub args: Vec<String>,
    /// `KEY=value` in order; `PATH` is always there.
    pub env: Vec<String>,
    /// The working directory, absolute.
    pub cwd: String,
    /// `user[:group]` as written; empty is root.
    pub user: String,
    /// The host name inside.
    pub hostname: String,
    /// Mounts besides the root and the default ones, in the order written.
    pub mounts: Vec<Mount>,
    /// Secrets that become environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Which network it sees.
    pub network: NetworkMode,
    /// How tightly it is held.
    pub security: SecurityMode,
    /// Lines for `/etc/hosts`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// The size of `/dev/shm` in bytes; 0 is the default (64 MiB).
    pub shm_size: u64,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// How often it is tried again after a failure (`--retry`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry: u32,
    /// How long one try may take, in nanoseconds (`--timeout`); 0 is as long as it wants.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// The exit codes that count as success; empty for 0 alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid_exit_codes: Vec<i32>,
    /// Whether the process may not write to its root, which then is the root's input unchanged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub readonly_root: bool,
    /// `KEY=value` of the proxy variables: seen by the process, never part of a digest, of a key or of history.
    #[serde(skip)]
    pub proxy_env: Vec<String>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// What a process sees of networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The builder's default.
    #[default]
    Default,
    /// The host's; needs the entitlement `network.host`.
    Host,
    /// Only loopback.
    None,
}

/// How tightly a process is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    /// The default sandbox.
    #[default]
    Sandbox,
    /// All capabilities, no seccomp; needs the entitlement `security.insecure`.
    Insecure,
}

/// `--ulimit`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ulimit {
    /// The name without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// The soft limit; -1 is unlimited.
    pub soft: i64,
    /// The hard limit; -1 is unlimited.
    pub hard: i64,
}

/// `--device`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// The CDI name `vendor/class=device`, or `vendor/class`, `vendor/class=*` or a class.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// Something mounted for the time of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// The absolute path in the container.
    pub target: String,
    /// The content of the mount.
    pub kind: MountKind,
}

/// The kinds of `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of an input.
    Bind(Bind),
    /// A directory that outlives builds.
    Cache(CacheMount),
    /// An empty file system in memory.
    Tmpfs {
        /// Its size in bytes; 0 is unlimited.
        size: u64,
    },
    /// A secret as a file.
    Secret(SecretMount),
    /// An SSH agent's socket.
    Ssh(SshMount),
}

/// `type=bind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bind {
    /// The index of the tree in the vertex's inputs.
    pub input: usize,
    /// The path in it, from its root.
    pub source: String,
    /// Whether the process may write.
    pub readonly: bool,
    /// Whether the input, with the changes, is an output of the vertex. Otherwise changes are thrown away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keep: bool,
}

/// `type=cache`. The id, with whoever seeds it, is its identity; neither is part of the step's cache key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheMount {
    /// The id, namespace included.
    pub id: String,
    /// Who may use it at once.
    pub sharing: Sharing,
    /// The index of the tree that seeds it.
    pub from: Option<usize>,
    /// The path in it that is mounted.
    pub source: String,
    /// Whether the process may not write.
    pub readonly: bool,
    /// Permission bits of the fresh directory.
    pub mode: u32,
    /// Owner of the fresh directory.
    pub uid: u32,
    /// Group of the fresh directory.
    pub gid: u32,
}

/// `sharing=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Many at once.
    #[default]
    Shared,
    /// A new one if it is in use.
    Private,
    /// One after the other.
    Locked,
}

/// `type=secret` as a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretMount {
    /// Which secret.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// `type=secret,env=`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretEnv {
    /// Which secret.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// `type=ssh`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SshMount {
    /// Which agent.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}

impl Exec {
    /// The number of outputs.
    pub fn outputs(&self) -> u32 {
        let kept =
            self.mounts.iter().filter(|mount| matches!(&mount.kind, MountKind::Bind(bind) if bind.keep));
        u32::try_from(kept.count()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// This op as cache keys see it: without which cache directory is mounted and how it is shared, because what a
    /// cache holds must not change a result; and without how often and how long it is tried, because only success
    /// counts. The vertex digest keeps all that, so that two steps stay two steps.
    pub fn for_key(&self) -> Exec {
        let mut exec = Exec { retry: 0, timeout: 0, ..self.clone() };
        for mount in &mut exec.mounts {
            if let MountKind::Cache(cache) = &mut mount.kind {
                cache.id = String::new();
                cache.sharing = Sharing::Shared;
            }
        }
        exec
    }
}
