//! Files of the web and commits of git repositories, brought here.
//!
//! Knows neither the store nor the graph: bytes go to a sink, a commit's files to a directory. Nothing that a server
//! sends is run, and nothing of this machine's or the user's git configuration counts.

mod error;
mod git;
mod http;
mod moved;

pub use error::RemoteError;
pub use git::{Checkout, Git, GitAccess, GitObjects, NamedCommit};
pub use http::{Answer, Download, Known, Web};
pub use moved::{Moved, moved};
