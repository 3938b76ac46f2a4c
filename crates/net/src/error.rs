//! Why there is no network.

use lapstrake_diag::{Code, Reported};
use std::io;

use rustix::io::Errno;

/// Why a container cannot have a network of its own.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum NetError {
    /// Without rights over the machine's network a program is needed, and there is none.
    #[error("a network of its own needs the program `pasta` or `slirp4netns`, and neither is installed")]
    NoHelper,
    /// The program has ended or does not get ready.
    #[error("{program} made no network: {message}")]
    Helper {
        /// Which one.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// All addresses that we would use are in use.
    #[error("there is no free network among 10.209.0.0/16")]
    NoAddress,
    /// The kernel refuses.
    #[error("cannot {action}")]
    Kernel {
        /// The refused action, as a verb and its object.
        action: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl NetError {
    /// What would help, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoHelper => {
                Some("install the package passt or slirp4netns, or use the host's network: --network=host")
            }
            Self::Helper { .. } | Self::NoAddress | Self::Kernel { .. } => None,
        }
    }

    /// Whether another way may work: we have no right to this one.
    pub(crate) fn is_of_rights(&self) -> bool {
        let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        let refused = |error: &io::Error| kinds.contains(&error.kind());
        matches!(self, Self::Kernel { source, .. } if refused(source))
    }
}

/// Says what was being done when the kernel refused.
pub(crate) fn cannot(action: &'static str) -> impl Fn(Errno) -> NetError {
    move |errno| NetError::Kernel { action, source: errno.into() }
}

impl Reported for NetError {
    fn code(&self) -> Code {
        Code::new("net", self.into())
    }
}
