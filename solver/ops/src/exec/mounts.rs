//! What is mounted for one process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use lapstrake_runtime::{Mount, MountSource};
use lapstrake_snapshot::Active;
use lapstrake_snapshot::ViewCopy;
use lapstrake_store::CacheDir;

use crate::exec::agent::AgentSocket;
use crate::stack::SharedStack;

/// What must stay until the process has ended.
pub(crate) enum MountResource {
    Cache(#[expect(dead_code, reason = "held for its lock")] CacheDir),
    Copy(#[expect(dead_code, reason = "held for its files")] ViewCopy),
    /// A tree whose writes are thrown away.
    Scratch {
        active: Active,
        /// The place in the container.
        target: String,
        /// The tree below the writes; `None` for a copy of a local context.
        base: Option<SharedStack>,
    },
    Agent(#[expect(dead_code, reason = "held for its connections")] AgentSocket),
}

/// A tree that becomes an output with the writes of the process.
pub(crate) struct KeptMount {
    /// The tree with the writes.
    pub(crate) active: Active,
    /// The place in the container.
    pub(crate) target: String,
    /// The stack below the writes.
    pub(crate) base: SharedStack,
}

/// Everything mounted for one process.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) resources: Vec<MountResource>,
    /// Cache directories that are mounted already, by their identities.
    pub(crate) caches: BTreeMap<String, PathBuf>,
    /// Trees that become outputs with the writes of the process.
    pub(crate) kept: Vec<KeptMount>,
    pub(crate) env: Vec<String>,
}

impl Mounts {
    /// A descriptor of ours, or a part of it.
    pub(crate) fn add(&mut self, target: &str, fd: OwnedFd, subpath: &str, readonly: bool) {
        let source = MountSource::Fd { index: self.fds.len(), subpath: subpath.to_owned() };
        self.fds.push(fd);
        self.mounts.push(Mount { target: target.to_owned(), source, readonly });
    }
}
