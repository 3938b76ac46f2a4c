//! The namespace sandbox: a run spec becomes set-up operations, a process, an exit.
//!
//! ```text
//!                                                    zygote ── clone3 ──► interpreter: a blank, made ahead
//! RunSpec ── plan (pure) ──► [SetupOp] ── socket ──►   │ ── operations ──► interpreter ──► the user's program
//!                                                      │ ◄── stubs, failure, end of file at exec ──┘
//! Running ◄── started, exited with usage ──────────────┘ ── mounts ──► reaper: takes them apart
//! ```
//! The zygote is this executable started afresh, with one thread and an almost empty view of the machine. It is the
//! first process of a pid namespace, so that nothing it has made outlives it, and it dies with its maker.
//!
//! Does not know images, stages, layers or caches; makes no overlay; has no opinion on where a log goes.
//!
//! Invariants: no path inside a container's root is resolved but beneath a descriptor of that root; a program of the
//! container starts with descriptors 0 to 2 and nothing else of the machine; privilege is given up before the first
//! byte of it runs.
//!
//! Networks of a container's own are lent by [`lapstrake_net`]: the container enters the namespace as its first act.
//!
//! Resource limits are control groups ([`Limits`]), made by the caller and joined by the container as its first act.

mod cgroup;
mod error;
mod ids;
mod launch;
mod mountpoint;
mod network;
mod plan;
mod reaper;
mod resolv;
mod sandbox;
mod seccomp;
mod setup;
mod spec;
mod text;
mod wire;
mod zygote;
mod zygote_root;

pub use cgroup::{LimitEvents, available as limits_available};
pub use error::RuntimeError;
pub use ids::OwnedInode;
pub use lapstrake_net::{Choice, NetError, Way, advice};
pub use network::{ChosenNetwork, NetworkPreference, dropped};
pub use plan::{Attr, Base, Filter, Fs, Place, Plan, SetupOp, Source, SpecError, plan};
pub use resolv::{DnsSettings, resolv_conf};
pub use sandbox::{EntryFds, Exit, Finished, ProcessUsage, RunFds, Running, Sandbox};
pub use spec::{
    Capabilities, CpuTime, IoLimit, IoRate, Limits, Mount, MountSource, Network, Resource, Rlimit, RunSpec,
    Security, Swap, User, WindowSize,
};
pub use zygote::{ByHand, zygote_main_if_asked};
