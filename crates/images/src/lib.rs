//! Sources of images, the mirror of the exporters: one reader of OCI layouts and one of image archives. The crate `registry`
//! reads registries, and `store` reads the state directory.
//!
//! A reader finds documents and the files of layers. The caller decides about their use.

mod archive;
mod error;
mod layout;

pub use archive::{Archive, DockerImage, MOST_FILES};
pub use error::ImagesError;
pub use layout::{Layout, Untagged, Wanted, tag_of};
