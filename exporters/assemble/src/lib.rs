//! A build result to config, manifest and index, bit for bit.
//!
//! Writes nothing. The same input always gives the same bytes: times come in as arguments.

mod cache;
mod config;
mod manifest;

pub use cache::{
    BadCache, CACHE_CONFIG, CacheBlob, CacheStep, Offer, OfferedLayer, cache_config, cache_manifest,
    described, inline_cache, read_cache, read_inline,
};
pub use config::{AssembleError, Layer, image_config};
pub use manifest::{
    DockerImage, LayoutImage, ListedLayer, ListedManifest, docker_manifest_json, index, layout_index,
    manifest,
};

/// A JSON document and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: lapstrake_oci::Digest,
}

impl Document {
    /// `bytes` with their digest.
    pub fn new(bytes: Vec<u8>) -> Document {
        Document { digest: lapstrake_oci::Digest::sha256(&bytes), bytes }
    }
}
