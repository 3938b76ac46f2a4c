//! The one question that lowering asks.

use std::sync::Arc;

use lapstrake_diag::Reported;
use lapstrake_graph::ImageStore;
use lapstrake_oci::{Digest, ImageConfig, Platform, Reference};

/// Which image is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// Its name. In a layout only tag and digest count.
    pub reference: Reference,
    /// Where it is looked for.
    pub store: ImageStore,
    /// For which platform.
    pub platform: Platform,
}

/// What an image is.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedImage {
    /// The digest of its manifest, the one for the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// Whether that is only a guess, because nobody could be asked: then nothing is said of its variables.
    pub guessed: bool,
}

/// Why the question has no answer: whatever error the resolver has.
pub type ResolveFailure = Arc<dyn Reported>;

/// Knows images. The real one asks the store and registries.
pub trait ImageResolver {
    /// Answers for one image. Called once for each request of a lowering.
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure>;
}
