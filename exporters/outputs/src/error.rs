//! Why an image cannot go where it should.

use std::io;

use lapstrake_assemble::AssembleError;
use lapstrake_registry::RegistryError;
use lapstrake_snapshot::SnapshotError;
use lapstrake_store::StoreError;
use lapstrake_tree::TreeError;

/// Why an image cannot go where it should.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The config cannot be made.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// A layer cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is nowhere to push to.
    #[error("there is no name to push the image to")]
    NoName,
    /// A layer that stays elsewhere would have to be compressed anew.
    #[error("a layer of the base is not here")]
    NotHere,
    /// Nobody listens at an engine's socket.
    #[error("no Docker or containerd is running at `{}`", socket.display())]
    NoEngine {
        /// The socket.
        socket: std::path::PathBuf,
        /// Why nobody could be reached.
        #[source]
        source: io::Error,
    },
    /// An engine refused.
    #[error("the engine does not take the image: {why}")]
    Engine {
        /// What it says.
        why: String,
    },
    /// Two platforms that are put into one directory have the same file.
    #[error("cannot overwrite {} from {first} with {second} when split option is disabled", path.display())]
    Overwrite {
        /// The file.
        path: std::path::PathBuf,
        /// Whose it is already.
        first: String,
        /// Who has it too.
        second: String,
    },
    /// A worker thread is gone.
    #[error("a worker thread ended early")]
    Worker,
    /// Writing failed.
    #[error("cannot write the {what}")]
    Write {
        /// What was being written.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
