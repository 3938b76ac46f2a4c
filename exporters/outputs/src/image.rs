//! A result as an image in the store.

use std::collections::BTreeMap;

use lapstrake_assemble::{Document, image_config};
use lapstrake_graph::ImageDraft;
use lapstrake_oci::{DiffId, ImageConfig, media, read_manifest};
use lapstrake_snapshot::diff_id;
use lapstrake_store::{Blob, LayerId, Store};
use rayon::prelude::*;

use crate::convert::to_estargz;
use crate::error::OutputError;

/// A layer of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its files.
    pub id: LayerId,
    /// The tar that it came from, if it came from one that must stay as it is.
    pub diff_id: Option<DiffId>,
    /// The second that no time in that tar is behind, where it was rewritten.
    pub clamp: Option<i64>,
}

/// A layer of a base that is not here: it stays in the repositories that the image is pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its tar, by what the base's config says.
    pub diff_id: DiffId,
    /// What the base's manifest lists.
    pub blob: Blob,
    /// What the base's manifest says of it.
    pub annotations: BTreeMap<String, String>,
}

/// An image whose config is made.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The config.
    pub config: ImageConfig,
    /// Its bytes and digest: the image id.
    pub document: Document,
    /// Layers that are not here, below those that are.
    pub below: Vec<Elsewhere>,
    /// The layers with the digests of their tars, lowest first.
    pub layers: Vec<(LayerId, DiffId)>,
    /// For each layer that is here the second that no time in its tar is behind, where times were rewritten.
    pub clamps: Vec<Option<i64>>,
    /// How it was written down where it came from, if it was not built here.
    pub came: Option<Manifest>,
}

/// How an image is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type of the document.
    pub media_type: String,
    /// The document.
    pub document: Document,
}

impl Manifest {
    /// What a registry or an archive had.
    pub fn of(bytes: Vec<u8>) -> Manifest {
        let told = read_manifest(&bytes).ok();
        let told = told.and_then(|told| told.media_type().as_ref().map(ToString::to_string));
        let media_type = told.unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
        Manifest { media_type, document: Document::new(bytes) }
    }
}

impl Finished {
    /// The second that no time in layer `number` is behind. Layers of the base keep their times.
    pub fn rewritten(&self, number: usize) -> Option<i64> {
        self.clamps.get(number).copied().flatten()
    }
}

/// What an image's tars are to be, where that changes their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tars {
    /// The latest time of a file in a new layer, in seconds since 1970.
    pub rewrite: Option<i64>,
    /// New layers are made eStargz, which has a table among the files.
    pub estargz: Option<Estargz>,
}

/// How layers are made eStargz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estargz {
    /// How hard pieces are compressed.
    pub level: Option<u32>,
    /// The base's layers too.
    pub all: bool,
}

/// Makes the config of `layers` on those `below`. Digests that nobody knows yet are computed, layers side by side.
pub fn assemble(
    store: &Store,
    draft: &ImageDraft,
    (below, layers): (&[Elsewhere], &[Layer]),
    tars: Tars,
) -> Result<Finished, OutputError> {
    let base = draft.config.rootfs.diff_ids.len().saturating_sub(below.len());
    let clamp = tars.rewrite;
    let rows = store.layers(layers.iter().map(|layer| &layer.id))?;
    // Most are known, always in a cached build: threads are for those that have to be read.
    let known: Vec<Option<DiffId>> = layers
        .iter()
        .zip(&rows)
        .enumerate()
        .map(|(number, (layer, row))| {
            layer.diff_id.clone().or_else(|| row.diff_id.clone().filter(|_| clamp.is_none() || number < base))
        })
        .collect();
    let clamps: Vec<Option<i64>> = layers
        .iter()
        .enumerate()
        .map(|(number, layer)| layer.clamp.or_else(|| clamp.filter(|_| number >= base)))
        .collect();
    let mut found: Vec<DiffId> = if let Some(known) = known.iter().cloned().collect() {
        known
    } else {
        known
            .into_par_iter()
            .enumerate()
            .map(|(number, known)| {
                known.map_or_else(|| diff_id(store, &layers[number].id, clamps[number]), Ok)
            })
            .collect::<Result<_, _>>()?
    };
    if let Some(Estargz { level, all }) = tars.estargz {
        for (number, digest) in found.iter_mut().enumerate().filter(|(number, _)| all || *number >= base) {
            *digest = to_estargz(store, (&layers[number].id, digest), clamps[number], level)?;
        }
    }
    // A base's layers have their times in its history.
    let below = below.to_vec();
    let told: Vec<lapstrake_assemble::Layer> = below
        .iter()
        .map(|layer| (&layer.diff_id, 0))
        .chain(found.iter().zip(rows.iter().map(|row| row.created)))
        .map(|(diff_id, created)| lapstrake_assemble::Layer { diff_id: diff_id.clone(), created })
        .collect();
    let (config, document) = image_config(draft, &told)?;
    let layers = layers.iter().zip(found).map(|(layer, diff_id)| (layer.id.clone(), diff_id)).collect();
    Ok(Finished { config, document, below, layers, clamps, came: None })
}
