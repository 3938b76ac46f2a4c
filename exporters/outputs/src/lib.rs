//! Where an image goes: local store, registry, OCI layout and docker archives, a directory, a tar of the root.
//!
//! Never changes the image.

mod archive;
mod bundle;
mod cache;
mod containerd;
mod convert;
mod encode;
mod engine;
mod error;
mod estargz;
mod grpc;
mod gzip;
mod image;
mod manifest;
mod push;
mod rootfs;
mod toc;

pub use archive::{Flavour, Saved, write_archive, write_layout};
pub use bundle::{Bundle, IndexNotes, Variant, keep};
pub use cache::{CacheForm, CacheTo, SharedStep, export_cache, with_inline_cache};
pub use containerd::Containerd;
pub use encode::{Encoding, LayerForm};
pub use engine::{load, takes_indexes};
pub use error::OutputError;
pub use image::{Elsewhere, Estargz, Finished, Layer, Manifest, Tars, assemble};
pub use push::{Push, Status};
pub use rootfs::{Part, Shape, write_files, write_rootfs};
