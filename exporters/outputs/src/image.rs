//! A result as an image in the store.

use lapstrake_assemble::{Document, image_config};
use lapstrake_graph::ImageDraft;
use lapstrake_oci::{DiffId, ImageConfig, Reference};
use lapstrake_snapshot::diff_id;
use lapstrake_store::{ImageRow, LayerId, Store, StoreError};
use rayon::prelude::*;

use crate::error::OutputError;

/// A layer of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its files.
    pub id: LayerId,
    /// The tar that it came from, if it came from one that must stay as it is.
    pub diff_id: Option<DiffId>,
}

/// An image whose config is made.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The config.
    pub config: ImageConfig,
    /// Its bytes and digest: the image id.
    pub document: Document,
    /// The layers with the digests of their tars, lowest first.
    pub layers: Vec<(LayerId, DiffId)>,
    /// The latest time of what is in new layers, where times are rewritten.
    pub clamp: Option<i64>,
    /// How many of the layers are the base's.
    pub base: usize,
}

/// Makes the config of `layers`. Digests that nobody knows yet are computed, layers side by side. With `rewrite`, no
/// time in a new layer is later than the draft's epoch.
pub fn assemble(
    store: &Store,
    draft: &ImageDraft,
    layers: &[Layer],
    rewrite: bool,
) -> Result<Finished, OutputError> {
    let base = draft.config.rootfs.diff_ids.len();
    let clamp = draft.epoch.filter(|_| rewrite);
    let found: Vec<(DiffId, i64)> = layers
        .par_iter()
        .enumerate()
        .map(|(number, layer)| {
            let row = store.layer(&layer.id)?;
            let row = row.ok_or_else(|| StoreError::Missing { what: "layer", name: layer.id.to_string() })?;
            let digest = match &layer.diff_id {
                Some(known) => known.clone(),
                None => diff_id(store, &layer.id, clamp.filter(|_| number >= base))?,
            };
            Ok::<_, OutputError>((digest, row.created))
        })
        .collect::<Result<_, _>>()?;
    let told: Vec<lapstrake_assemble::Layer> = found
        .iter()
        .map(|(diff_id, created)| lapstrake_assemble::Layer { diff_id: diff_id.clone(), created: *created })
        .collect();
    let (config, document) = image_config(draft, &told)?;
    let layers = layers.iter().zip(found).map(|(layer, (diff_id, _))| (layer.id.clone(), diff_id)).collect();
    Ok(Finished { config, document, layers, clamp, base })
}

/// Stores the image under these names, durably. `tokens` is how the store's owner finds the layers again.
pub fn keep(store: &Store, image: &Finished, tokens: String, names: &[Reference]) -> Result<(), OutputError> {
    let mut size = 0;
    for (layer, _) in &image.layers {
        size += store.layer(layer)?.map_or(0, |row| row.size);
    }
    let id = store.put_blob(&image.document.bytes)?;
    let row = ImageRow { id, manifest: None, layers: tokens, size, stored: 0 };
    // A cached build changes nothing and waits for no disk.
    if store.put_image(&row, names)? {
        store.sync()?;
    }
    Ok(())
}
