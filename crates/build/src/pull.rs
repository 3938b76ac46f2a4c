//! Images brought from registries, outside of a build.

use std::sync::Arc;

use lapstrake_diag::Outcome;
use lapstrake_engine::Step;
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::{Images, LocatedImage, Unpack, Worker};
use lapstrake_registry::Registries;

use crate::source::Machine;

/// Pulls the image for a platform that a name means in its registry. Layers are unpacked when somebody needs them. `step` shows
/// the progress.
///
/// # Errors
/// The registry has no such image or cannot be reached, or the state directory cannot be written.
pub async fn pull_image(
    machine: &Machine,
    registries: Registries,
    (reference, platform): (&Reference, &Platform),
    step: &Step,
) -> Outcome<LocatedImage> {
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let images = Images::new(worker, true, registries);
    let known = images.resolve_in_registry(reference, platform).await?;
    images.fetch(&known.manifest, &reference.to_string(), Unpack::Lazy, step).await?;
    Ok(known)
}
