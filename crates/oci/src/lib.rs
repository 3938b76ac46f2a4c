//! The OCI value types: digests, references, platforms, media types, image configs, canonical JSON.
//!
//! Does no IO. Manifests, indexes and descriptors are `oci-spec`'s; the image config is our own because the
//! Docker image spec has fields (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`) that OCI's lacks.

mod config;
mod digest;
mod documents;
pub mod media;
mod platform;
mod reference;
mod time;

pub use config::{ContainerConfig, Empty, GoDuration, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Sha256};
pub use documents::{is_artifact, is_image_config, read_index, read_manifest};
pub use oci_spec::image::{Descriptor, DescriptorBuilder, ImageIndex, ImageManifest, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use time::{now_seconds, rfc3339, seconds_of};
