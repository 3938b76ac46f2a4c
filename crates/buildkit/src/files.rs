//! Files on the wire: fsutil's protocol in both directions.
//!
//! The sender walks a tree in order and names each entry by its number. The receiver asks for the content of files by these
//! numbers. Both ends say that they are done.

mod entry;
mod mirror;
mod receive;
mod send;

pub(crate) use receive::{Wanted, receive};
pub(crate) use send::send;

use mirror::Mirror;

/// The facts about an entry called `path` in the form of the wire. Its link leads to `link`.
pub(crate) fn wire_stat(
    path: String,
    stat: &rustix::fs::Stat,
    link: String,
) -> lapstrake_proto::fsutil::types::Stat {
    entry::Entry::stat(path, stat, link)
}

/// A tree could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The other end reports an error, or the connection broke.
    #[error("{}", .0.message())]
    Remote(#[from] tonic::Status),
    /// The other end breaks the protocol.
    #[error("the client sends {0}")]
    Protocol(String),
    /// A file cannot be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// The path in the tree.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The store cannot keep the tree.
    #[error(transparent)]
    Store(#[from] lapstrake_store::StoreError),
}

impl TransferError {
    /// An error of the system about `path`.
    pub(crate) fn io(path: &str, source: impl Into<std::io::Error>) -> TransferError {
        TransferError::Io { path: path.to_owned(), source: source.into() }
    }
}
