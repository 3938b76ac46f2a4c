//! File trees: walking, stat index, digests, copying, ignore patterns, the tar codec, confined paths.
//!
//! Does not know in which order layers lie, where a store keeps them, or what a Dockerfile is. After somebody
//! else's code ran in a tree, or an archive was unpacked to it, every path in it is hostile: all disk access is
//! relative to a file descriptor and confined beneath it.

pub mod archive;
pub mod clone_tree;
pub mod context;
pub mod copy;
pub mod decompress;
mod entry;
pub mod error;
pub mod ignore;
pub mod inroot;
pub mod layer_tar;
mod length;
pub mod members;
mod owner;
pub mod path;
pub mod prune_extra;
pub mod removal;
pub mod replica;
pub mod resolve;
pub mod scan;
pub mod select;
pub mod skeleton;
mod tar_read;
pub mod tree;
pub mod unpack;
pub mod users;
mod varint;

pub use entry::{ContentDigest, Entry, Kind, Meta, Xattr};
pub use error::TreeError;
pub use owner::{record_owner, record_owners};
pub use path::{PathError, TreePath};
pub use tree::{Tree, TreeDigest};
