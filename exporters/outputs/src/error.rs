//! Why an image cannot go where it should.

use lapstrake_diag::{Code, Fault, Reported};
use std::io;

use lapstrake_assemble::AssembleError;
use lapstrake_registry::RegistryError;
use lapstrake_snapshot::SnapshotError;
use lapstrake_store::StoreError;
use lapstrake_tree::TreeError;

/// Why an image cannot go where it should.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
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
    #[error("pushing needs an image name")]
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

impl OutputError {
    /// The code of [`OutputError::NoEngine`].
    pub const NO_ENGINE: Code = Code::new("output", "no-engine");
}

impl Reported for OutputError {
    fn code(&self) -> Code {
        match self {
            Self::Assemble(error) => error.code(),
            Self::Snapshot(error) => error.code(),
            Self::Tree(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Registry(error) => error.code(),
            _ => Code::new("output", self.into()),
        }
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            Self::Assemble(error) => Some(error),
            Self::Snapshot(error) => Some(error),
            Self::Tree(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Registry(error) => Some(error),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoEngine { .. } => Fault::Environment,
            _ => self.inner().map_or(Fault::Build, Reported::fault),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoEngine { .. } => Some(
                "the image is in lapstrake's own store; `lapstrake save` writes an archive for any engine"
                    .to_owned(),
            ),
            _ => self.inner().and_then(Reported::hint),
        }
    }
}
