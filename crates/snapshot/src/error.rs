//! What can go wrong with snapshots.

use lapstrake_diag::{Code, Fault, Reported};
use std::io;
use std::path::PathBuf;

use lapstrake_store::StoreError;
use lapstrake_tree::TreeError;

/// Why a snapshot cannot be made, mounted or committed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum SnapshotError {
    /// The kernel has no overlay for us.
    #[error("cannot mount an overlay: {step} was refused")]
    Mount {
        /// Which part of mounting.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No layers can be stacked on the state directory.
    #[error("layers cannot be stacked in the state directory `{}`", path.display())]
    NoStacking {
        /// The state directory.
        path: PathBuf,
        /// What the kernel refuses.
        #[source]
        source: Box<SnapshotError>,
    },
    /// A directory that should be mounted.
    #[error("cannot use `{}` as part of a root", path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More layers than the kernel stacks.
    #[error("a stack of {count} layers: the kernel stacks at most {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Changes to another layer do not make the layer that was to be made.
    #[error("the layer below shows what this one does not have")]
    NotADelta,
    /// A tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The hint for a state directory whose layers no overlay can stack.
pub const OTHER_STATE: &str = "set LAPSTRAKE_ROOT to a directory on ext4, xfs, btrfs or tmpfs: in a container a volume, or /dev/shm for what fits in memory";

impl Reported for SnapshotError {
    fn code(&self) -> Code {
        match self {
            Self::Tree(error) => error.code(),
            Self::Store(error) => error.code(),
            _ => Code::new("snapshot", self.into()),
        }
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            Self::NoStacking { source, .. } => Some(&**source),
            Self::Tree(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoStacking { .. } | Self::Mount { .. } => Fault::Environment,
            _ => self.inner().map_or(Fault::Build, Reported::fault),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoStacking { .. } => Some(OTHER_STATE.to_owned()),
            // By its number alone a refusal says little: of the kernel, of the file system, of whoever confines us.
            Self::Mount { .. } => Some("`lapstrake doctor` says what this machine lacks".to_owned()),
            _ => self.inner().and_then(Reported::hint),
        }
    }
}
