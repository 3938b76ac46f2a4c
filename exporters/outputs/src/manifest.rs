//! The manifest that an image leaves with.

use lapstrake_assemble::{ListedLayer, manifest};
use lapstrake_oci::{Descriptor, Digest, read_manifest};
use lapstrake_store::{Blob, Store};
use rayon::prelude::*;

use crate::encode::{Encoding, layer_blob, listed};
use crate::error::OutputError;
use crate::image::{Finished, Manifest};

/// An image with the form that it leaves in: its manifest and the blobs of its layers, which are in the store.
pub(crate) struct Written {
    pub(crate) manifest: Manifest,
    pub(crate) blobs: Vec<Blob>,
}

/// Compresses what is not compressed yet, side by side, and keeps it, so that the next time costs nothing.
pub(crate) fn written(store: &Store, image: &Finished, encoding: &Encoding) -> Result<Written, OutputError> {
    let blobs: Vec<Blob> = image
        .layers
        .par_iter()
        .enumerate()
        .map(|(number, _)| layer_blob(store, image, number, encoding))
        .collect::<Result<_, _>>()?;
    let layers = blobs
        .iter()
        .enumerate()
        .map(|(number, blob)| listed(store, (blob, &image.layers[number].1), image.rewritten(number)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Written { manifest: manifest_of(image, &layers, encoding), blobs })
}

/// The manifest of these blobs: the one that the image came with if that names them and nothing else is asked for, with
/// all that it says, and else one of ours.
pub(crate) fn manifest_of(image: &Finished, layers: &[ListedLayer], encoding: &Encoding) -> Manifest {
    let came = image.came.as_ref().filter(|_| *encoding == Encoding::default());
    if let Some(came) = came.filter(|came| names(&came.document.bytes, image, layers)) {
        return came.clone();
    }
    let config = (&image.document.digest, image.document.bytes.len() as u64);
    let document = manifest(config, layers, &encoding.annotations, encoding.docker_types);
    Manifest { media_type: encoding.manifest_type().to_owned(), document }
}

/// Whether a manifest is of this config and these blobs.
fn names(manifest: &[u8], image: &Finished, layers: &[ListedLayer]) -> bool {
    let Ok(manifest) = read_manifest(manifest) else { return false };
    let is = |told: &Descriptor, digest: &Digest| told.digest().to_string() == digest.to_string();
    is(manifest.config(), &image.document.digest)
        && manifest.layers().len() == layers.len()
        && manifest.layers().iter().zip(layers).all(|(told, layer)| is(told, &layer.digest))
}
