//! The build cache to where others find it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_assemble::{CacheBlob, CacheStep, Document, cache_config, cache_manifest, inline_cache};
use lapstrake_oci::{DiffId, Digest, ImageConfig, Reference};
use lapstrake_registry::Client;
use lapstrake_snapshot::diff_id;
use lapstrake_store::{LayerId, Store, StoreError};
use lapstrake_sys::outfile::{NewMode, write_output};
use serde::Serialize;

use crate::encode::{Encoding, layer_blob};
use crate::error::OutputError;
use crate::image::{Finished, Layer};
use crate::push::{Blobs, Status};

/// A step whose result others may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStep {
    /// The digest of its key.
    pub key: Digest,
    /// The steps it stands on, by their places in the list.
    pub inputs: Vec<usize>,
    /// Its result, lowest layer first; empty if only others stand on it.
    pub layers: Vec<Layer>,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTo {
    /// A registry, under this name.
    Registry(Reference),
    /// An OCI layout on this machine, under this tag.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The name of the cache there.
        tag: String,
    },
}

/// How a cache is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheForm {
    /// How its layers are.
    pub encoding: Encoding,
    /// As an index of blobs instead of as an image.
    pub as_index: bool,
}

/// All layers of the steps, each once, and the steps by them.
fn gathered(store: &Store, steps: &[SharedStep]) -> Result<(Finished, Vec<CacheStep>), OutputError> {
    let mut places: BTreeMap<&LayerId, usize> = BTreeMap::new();
    let mut layers: Vec<(LayerId, DiffId)> = Vec::new();
    let mut clamps = Vec::new();
    let mut told = Vec::with_capacity(steps.len());
    for step in steps {
        let mut of_step = Vec::with_capacity(step.layers.len());
        for layer in &step.layers {
            let place = *places.entry(&layer.id).or_insert(layers.len());
            if place == layers.len() {
                let known = layer.diff_id.clone();
                let known = known.map_or_else(|| diff_id(store, &layer.id, layer.clamp), Ok)?;
                layers.push((layer.id.clone(), known));
                clamps.push(layer.clamp);
            }
            of_step.push(place);
        }
        told.push(CacheStep { key: step.key.clone(), inputs: step.inputs.clone(), layers: of_step });
    }
    let (config, document) = (ImageConfig::default(), Document::new(Vec::new()));
    let below = Vec::new();
    Ok((Finished { config, document, below, layers, clamps, came: None }, told))
}

/// The blobs of the layers, compressed where that was not done yet.
fn blobs(store: &Store, image: &Finished, encoding: &Encoding) -> Result<Vec<CacheBlob>, OutputError> {
    let mut blobs = Vec::with_capacity(image.layers.len());
    for (number, (id, diff_id)) in image.layers.iter().enumerate() {
        let row = store.layer(id)?;
        let row = row.ok_or_else(|| StoreError::Missing { what: "layer", name: id.to_string() })?;
        let blob = layer_blob(store, image, number, encoding)?;
        blobs.push(CacheBlob {
            digest: blob.digest,
            size: blob.size,
            media_type: blob.media_type,
            diff_id: diff_id.clone(),
            created: row.created,
        });
    }
    Ok(blobs)
}

/// Writes a cache of these steps. Gives the digest of its manifest, and how many results it offers.
///
/// # Errors
/// [`OutputError`]: a layer cannot be read, or the place refuses.
pub async fn export_cache(
    store: &Arc<Store>,
    client: Option<&Client>,
    steps: &[SharedStep],
    to: &CacheTo,
    form: &CacheForm,
    status: Status,
) -> Result<(Digest, usize), OutputError> {
    let (image, told) = gathered(store, steps)?;
    let (at, encoding, image) = (store.clone(), form.encoding.clone(), Arc::new(image));
    let of = image.clone();
    let made = tokio::task::spawn_blocking(move || blobs(&at, &of, &encoding));
    let blobs = made.await.map_err(|_| OutputError::Worker)??;
    let config = cache_config(&blobs, &told);
    let (media_type, manifest) = cache_manifest(&config, &blobs, form.as_index, form.encoding.docker_types);
    let count = told.iter().filter(|step| !step.layers.is_empty()).count();
    match (to, client) {
        (CacheTo::Registry(name), Some(client)) => {
            let push = Blobs { store, client, image: &image, encoding: &form.encoding, status };
            push.cache(name, &config, (media_type, &manifest)).await?;
        }
        (CacheTo::Registry(_), None) => return Err(OutputError::NoName),
        (CacheTo::Local { dir, tag }, _) => {
            write_local(store, dir, &blobs, &[&config, &manifest])?;
            write_index(dir, tag, media_type, &manifest)?;
        }
    }
    Ok((manifest.digest, count))
}

fn write_local(
    store: &Store,
    dir: &Path,
    blobs: &[CacheBlob],
    documents: &[&Document],
) -> Result<(), OutputError> {
    let what = "cache";
    let failed = |source| OutputError::Write { what, source };
    let place = dir.join("blobs/sha256");
    fs::create_dir_all(&place).map_err(failed)?;
    let write = |digest: &Digest, copy: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        let target = place.join(digest.hex());
        if target.exists() {
            return Ok(());
        }
        write_output(&target, NewMode::Masked, copy).map_err(failed)
    };
    for blob in blobs {
        write(&blob.digest, &|to| io::copy(&mut File::open(store.blob_path(&blob.digest))?, to).map(drop))?;
    }
    for document in documents {
        write(&document.digest, &|to| to.write_all(&document.bytes))?;
    }
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    write_output(&dir.join("oci-layout"), NewMode::Masked, |to| to.write_all(layout)).map_err(failed)
}

/// Adds the manifest to the layout's index; what had its tag loses it.
fn write_index(dir: &Path, tag: &str, media_type: &str, manifest: &Document) -> Result<(), OutputError> {
    const NAME: &str = "org.opencontainers.image.ref.name";
    let failed = |source| OutputError::Write { what: "cache", source };
    let path = dir.join("index.json");
    let before = fs::read(&path).ok();
    let before: serde_json::Value =
        before.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut manifests: Vec<serde_json::Value> = before["manifests"].as_array().cloned().unwrap_or_default();
    manifests.retain(|one| one["annotations"][NAME] != tag);
    manifests.push(serde_json::json!({
        "mediaType": media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
        "annotations": {NAME: tag},
    }));
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": lapstrake_oci::media::OCI_INDEX, "manifests": manifests});
    let text = lapstrake_go::to_json_indented(&index);
    write_output(&path, NewMode::Masked, |to| to.write_all(&text)).map_err(failed)
}

/// The image with a cache of those steps in its config whose results are made of its own layers.
///
/// # Errors
/// [`OutputError`] if a layer is not there.
pub fn with_inline_cache(
    store: &Store,
    image: Finished,
    steps: &[SharedStep],
) -> Result<Finished, OutputError> {
    #[derive(Serialize)]
    struct Carrier<'a> {
        #[serde(flatten)]
        config: &'a ImageConfig,
        #[serde(rename = "moby.buildkit.cache.v0")]
        cache: String,
    }
    let place = |layer: &Layer| image.layers.iter().position(|(id, _)| *id == layer.id);
    let mut told = Vec::with_capacity(steps.len());
    for step in steps {
        // Of a step that has other layers only the key counts: others stand on it.
        let layers: Option<Vec<usize>> = step.layers.iter().map(place).collect();
        let (key, inputs) = (step.key.clone(), step.inputs.clone());
        told.push(CacheStep { key, inputs, layers: layers.unwrap_or_default() });
    }
    let mut blobs = Vec::with_capacity(image.layers.len());
    for (id, diff_id) in &image.layers {
        let row = store.layer(id)?;
        let created = row.map_or(0, |row| row.created);
        // Which blobs they are is for the manifest to say.
        let (digest, media_type) = (diff_id.0.clone(), String::new());
        blobs.push(CacheBlob { digest, size: 0, media_type, diff_id: diff_id.clone(), created });
    }
    use base64::Engine as _;
    let cache = base64::engine::general_purpose::STANDARD.encode(inline_cache(&blobs, &told));
    let document = Document::new(lapstrake_go::to_json(&Carrier { config: &image.config, cache }));
    Ok(Finished { document, ..image })
}
