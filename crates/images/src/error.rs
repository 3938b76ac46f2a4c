//! Why a layout or an archive cannot be read.

use std::io;
use std::path::PathBuf;

use lapstrake_diag::{Code, Fault, Reported};
use lapstrake_oci::DigestError;
use lapstrake_registry::RegistryError;
use lapstrake_tree::TreeError;

/// Why a layout or an archive cannot be read.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ImagesError {
    /// A file or a directory cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// An archive cannot be unpacked to the disk.
    #[error("cannot unpack the archive")]
    Unpack {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// An archive cannot be read.
    #[error("cannot read the archive")]
    Archive {
        /// The cause.
        #[source]
        source: TreeError,
    },
    /// A document is none.
    #[error("{what} cannot be read")]
    Malformed {
        /// The document.
        what: String,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not there.
    #[error("the archive has no `{name}`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A blob has other bytes than its digest says.
    #[error("the archive is damaged: `{name}` has other bytes than its name says")]
    Damaged {
        /// The blob's file.
        name: String,
        /// The digest by which it was asked for.
        expected: String,
        /// The digest of its bytes.
        found: String,
    },
    /// A digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A document is longer than documents are.
    #[error("`{name}` in the archive has more than {longest} bytes: not a description of an image")]
    Long {
        /// Its name.
        name: String,
        /// The most that is read, in bytes.
        longest: u64,
    },
    /// A directory has more files than an image.
    #[error("`{}` has more than {most} files: not an image", path.display())]
    ManyFiles {
        /// The directory.
        path: PathBuf,
        /// The most that an image has.
        most: u64,
    },
    /// An index has no image for a platform.
    #[error(transparent)]
    Choice(#[from] RegistryError),
}

impl Reported for ImagesError {
    fn code(&self) -> Code {
        match self {
            ImagesError::Choice(error) => error.code(),
            _ => Code::new("images", self.into()),
        }
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            ImagesError::Choice(error) => Some(error),
            ImagesError::Archive { source } => Some(source),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        self.inner().map_or(Fault::Build, Reported::fault)
    }
}

impl ImagesError {
    pub(crate) fn malformed(what: &str) -> impl FnOnce(serde_json::Error) -> ImagesError {
        let what = what.to_owned();
        move |source| ImagesError::Malformed { what, source }
    }
}
