//! Where images come from, the mirror of the exporters: one reader of OCI layouts and one of image archives. Registries are
//! read by `registry`, what is in the state directory by `store`.
//!
//! A reader finds documents and the files of layers. The caller decides about their use.

mod archive;
mod error;
mod layout;

pub use archive::{Archive, DockerImage, MOST_FILES};
pub use error::ImagesError;
pub use layout::{Layout, Untagged, Wanted, tag_of};
