//! Resolves base images: for real in builds, by a guess in answers that build nothing.

use std::sync::Arc;

use crate::notes::Notes;
use lapstrake_lower::{ImageRequest, ImageResolver, ResolveFailure, ResolvedImage};
use lapstrake_oci::{Digest, ImageConfig};
use lapstrake_ops::{Images, LocatedImage, OpsError};

/// Knows images that were asked for beforehand.
pub(crate) struct Resolver {
    pub known: Vec<(ImageRequest, Result<LocatedImage, Arc<OpsError>>)>,
    /// Whether one of them cannot be had, so that the rest was not looked for.
    pub given_up: bool,
    pub images: Arc<Images>,
    pub handle: tokio::runtime::Handle,
}

impl ImageResolver for Resolver {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let known = match self.known.iter().find(|(asked, _)| asked == request) {
            Some((_, Ok(known))) => known.clone(),
            Some((_, Err(error))) => return Err(error.clone()),
            // The build ends with the error of another one.
            None if self.given_up => return Ok(guess(request)),
            // Only a trigger of a base image brings in one that nobody knew of.
            None => {
                let asked = self.images.resolve(&request.reference, &request.store, &request.platform);
                self.handle.block_on(asked).map_err(|error| Arc::new(error) as ResolveFailure)?
            }
        };
        Ok(ResolvedImage { manifest: known.manifest, config: known.config, guessed: false })
    }
}

/// The time that a registry or server has for its answer when nothing is built.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Resolves images as a build does, and guesses those that cannot be found out: for checks and outlines.
pub(crate) struct Guessing {
    images: Arc<Images>,
    notes: Notes,
    handle: tokio::runtime::Handle,
}

impl Guessing {
    /// Must be called on a runtime.
    pub(crate) fn new(images: Arc<Images>, notes: Notes) -> Guessing {
        Guessing { images, notes, handle: tokio::runtime::Handle::current() }
    }
}

impl ImageResolver for Guessing {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let asked = self.images.resolve(&request.reference, &request.store, &request.platform);
        let known = self.handle.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        if let Ok(Ok(LocatedImage { manifest, config, .. })) = known {
            return Ok(ResolvedImage { manifest, config, guessed: false });
        }
        let name = &request.reference;
        self.notes.add(format!("{name} could not be looked at: variables that come with it are not checked"));
        Ok(guess(request))
    }
}

/// An image of which nothing is known.
fn guess(request: &ImageRequest) -> ResolvedImage {
    let config = ImageConfig {
        architecture: request.platform.architecture.clone(),
        os: request.platform.os.clone(),
        variant: request.platform.variant.clone(),
        ..ImageConfig::default()
    };
    let manifest = Digest::sha256(request.reference.to_string().as_bytes());
    ResolvedImage { manifest, config, guessed: true }
}
