//! Why something cannot be brought.

use lapstrake_diag::{Code, Fault, Reported};
use std::io;

/// Why something cannot be brought.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RemoteError {
    /// The HTTP client could not be set up.
    #[error("cannot set up HTTPS")]
    Setup {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer.
    #[error("cannot reach `{url}`")]
    Unreachable {
        /// The address, without user and password.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is no file.
    #[error("invalid response status {status} for `{url}`")]
    Status {
        /// The address, without user and password.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An address that is none.
    #[error("`{url}` is not an address")]
    Address {
        /// What was asked for.
        url: String,
    },
    /// The receiver of the bytes failed.
    #[error("cannot store `{url}`")]
    Sink {
        /// The address, without user and password.
        url: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no git.
    #[error("the program `git` cannot be run, and is needed for `{remote}`")]
    NoGit {
        /// The repository.
        remote: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Git failed.
    #[error("git {action} of `{remote}` failed: {said}")]
    Git {
        /// What was tried.
        action: &'static str,
        /// The repository, without user and password.
        remote: String,
        /// What git said.
        said: String,
    },
    /// A branch, tag or commit that is not there.
    #[error("repository does not contain ref {reference}, output: {said:?}")]
    NoReference {
        /// What was looked for.
        reference: String,
        /// What the repository has by a like name.
        said: String,
    },
    /// A reference or a checksum that can be none, or is not the one wanted.
    #[error("{why}")]
    Reference {
        /// What is wrong with it.
        why: String,
    },
    /// A file of ours.
    #[error("cannot {action} for `{remote}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The repository.
        remote: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Reported for RemoteError {
    fn code(&self) -> Code {
        Code::new("remote", self.into())
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoGit { .. } | Self::Setup { .. } | Self::Unreachable { .. } => Fault::Environment,
            _ => Fault::Build,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::NoGit { .. }).then(|| "install git".to_owned())
    }
}
