//! What can go wrong with snapshots.

use std::io;
use std::path::PathBuf;

use lapstrake_store::StoreError;
use lapstrake_tree::TreeError;

/// Why a snapshot cannot be made, mounted or committed.
#[derive(Debug, thiserror::Error)]
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
        /// Which.
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
    NotAPatch,
    /// A tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}
