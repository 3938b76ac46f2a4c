//! Where an image goes: local store, OCI layout and docker archives, a directory, a tar of the root.
//!
//! Never changes the image.

mod archive;
mod error;
mod image;
mod rootfs;

pub use archive::{Flavour, write_archive};
pub use error::OutputError;
pub use image::{Finished, Layer, assemble, keep};
pub use rootfs::write_rootfs;
