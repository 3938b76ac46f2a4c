//! Source ops: the trees that a build begins with.

pub(crate) mod fetched;
pub(crate) mod image;
pub(crate) mod progress_writer;
pub(crate) mod remote;
pub(crate) mod rootfs;
pub(crate) mod streaming_blob;
