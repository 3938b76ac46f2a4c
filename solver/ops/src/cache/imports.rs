//! Caches that other machines left somewhere: what they offer, and their layers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_assemble::{BadCache, CACHE_CONFIG, Offer, OfferedLayer, described, read_cache, read_inline};
use lapstrake_engine::{Key, Progress, StepId};
use lapstrake_images::{Untagged, Wanted, tag_of};
use lapstrake_oci::{
    Descriptor, Digest, Platform, Reference, is_image_config, read_index, read_manifest, seconds_of,
};
use lapstrake_registry::{Looked, Search};
use lapstrake_store::{Blob, StackLayer};
use serde::Deserialize;

use crate::error::OpsError;
use crate::source::image::{Images, LayerSource, Unpack, image_config, layout, parse, parse_digest};
use crate::stack::Stack;

/// No cache config is longer, in bytes.
const MAX_CONFIG: u64 = 64 << 20;

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// A manifest in a registry: a cache's, or an image's that carries one.
    Registry(Reference),
    /// An OCI layout on this machine; by the digest of the manifest, else by its tag, else `latest` or the only one without
    /// a tag.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The manifest.
        digest: Option<Digest>,
        /// Its tag there, if one was asked for.
        tag: Option<String>,
    },
}

/// A cache that was read.
#[derive(Debug)]
pub struct ImportedCache {
    /// Where it is, for people.
    name: String,
    place: LayerSource,
    offer: Offer,
}

impl ImportedCache {
    /// How many results it offers.
    pub fn len(&self) -> usize {
        self.offer.len()
    }

    /// Whether it offers none.
    pub fn is_empty(&self) -> bool {
        self.offer.is_empty()
    }
}

/// The digest that a key has in caches.
pub fn shared_key(key: &Key) -> Digest {
    Digest::sha256(key.as_bytes())
}

/// The outputs of one step that caches may have.
const MOST_OUTPUTS: u32 = 256;

/// The digest that the output `number` of a step has in caches, where the step has several outputs. The step's own digest then
/// has no result.
pub fn shared_output_key(step: &Digest, number: u32) -> Digest {
    Digest::sha256(format!("lapstrake output {number} of {step}").as_bytes())
}

/// All caches of a build, and who brings their layers.
pub struct CacheImports {
    images: Arc<Images>,
    list: Vec<ImportedCache>,
    progress: Progress,
}

impl CacheImports {
    /// Of these caches. Pulls are shown on `progress`.
    pub fn new(images: Arc<Images>, list: Vec<ImportedCache>, progress: Progress) -> CacheImports {
        CacheImports { images, list, progress }
    }

    /// The result of `key`, once its layers are here. A cache whose layers are gone does not have it.
    pub(crate) async fn find(&self, key: &Key) -> Option<(Stack, String)> {
        let wanted = shared_key(key);
        for import in &self.list {
            let found = match import.offer.get(&wanted) {
                Some(layers) => self.take(import, &wanted, layers).await,
                None => self.take_outputs(import, &wanted).await,
            };
            if let Some(stack) = found {
                return Some((stack, format!("from cache {}", import.name)));
            }
        }
        None
    }

    /// Layers of a result, once they are here.
    async fn take(&self, import: &ImportedCache, result: &Digest, layers: &[OfferedLayer]) -> Option<Stack> {
        let name = format!("[internal] taking {} layers from cache {}", layers.len(), import.name);
        let step = self.progress.start(StepId(format!("internal:cache:{result}")), &name);
        let fetched = self.images.fetch_cached_layers(&import.place, layers, &step).await;
        step.complete(false, fetched.as_ref().err().map(ToString::to_string));
        Some(Stack { layers: fetched.ok()?, ..Stack::default() })
    }

    /// The result of a step with several outputs. A cache has all outputs with layers, or none.
    async fn take_outputs(&self, import: &ImportedCache, step: &Digest) -> Option<Stack> {
        if import.offer.is_empty() {
            return None;
        }
        let mut outputs: Vec<Stack> = Vec::new();
        for number in 0..MOST_OUTPUTS {
            let key = shared_output_key(step, number);
            let Some(layers) = import.offer.get(&key) else { continue };
            // Outputs without layers are empty.
            outputs.resize_with(usize::try_from(number).ok()?, Stack::default);
            outputs.push(self.take(import, &key, layers).await?);
        }
        let mut outputs = outputs.into_iter();
        let root = outputs.next()?;
        Some(Stack { outputs: outputs.collect(), ..root })
    }
}

fn blob(layer: &OfferedLayer) -> Blob {
    Blob { digest: layer.blob.clone(), size: layer.size, media_type: layer.media_type.clone() }
}

impl Images {
    /// Reads what a cache offers; no layer comes yet.
    ///
    /// # Errors
    /// [`OpsError`]: it is not there, or is none.
    pub async fn import_cache(&self, from: &CacheFrom) -> Result<ImportedCache, OpsError> {
        let (name, source) = match from {
            CacheFrom::Registry(reference) => (reference.familiar(), Source::Registry(self, reference)),
            CacheFrom::Local { dir, .. } => (dir.display().to_string(), Source::Layout(dir)),
        };
        let manifest = match from {
            CacheFrom::Registry(reference) => self.client().await?.manifest(reference).await?.bytes,
            CacheFrom::Local { dir, digest, tag } => {
                layout(dir).blob(&find_in_layout(dir, digest.as_ref(), tag.as_deref())?)?
            }
        };
        let offer = source.offer(&manifest).await?;
        let place = match from {
            CacheFrom::Registry(reference) => {
                LayerSource::Registry(reference.clone(), Digest::sha256(&manifest), Vec::new())
            }
            CacheFrom::Local { dir, .. } => LayerSource::Layout(dir.clone(), Vec::new()),
        };
        Ok(ImportedCache { name, place, offer })
    }

    /// Brings layers into the store, those that are not there already. They were made when the cache says, not now: else an
    /// image of them would be another one on every machine.
    async fn fetch_cached_layers(
        &self,
        place: &LayerSource,
        layers: &[OfferedLayer],
        step: &lapstrake_engine::Step,
    ) -> Result<Vec<StackLayer>, OpsError> {
        let wanted = layers.iter().map(|layer| (layer.diff_id.clone(), blob(layer))).collect();
        let fetched = self.fetch_layers(place, wanted, Unpack::Lazy, step).await?;
        for (layer, offered) in fetched.iter().zip(layers) {
            if let Some(created) = offered.created {
                self.store.set_created(&layer.id, created)?;
            }
        }
        Ok(fetched)
    }
}

/// Where documents come from.
enum Source<'a> {
    Registry(&'a Images, &'a Reference),
    Layout(&'a Path),
}

/// A manifest or an index, as far as matters.
#[derive(Deserialize)]
struct ManifestParts {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What an image's config may carry.
#[derive(Deserialize)]
struct Carrier {
    #[serde(rename = "moby.buildkit.cache.v0")]
    cache: Option<String>,
}

impl Source<'_> {
    async fn offer(&self, manifest: &[u8]) -> Result<Offer, OpsError> {
        let seen: ManifestParts = parse("the cache's manifest", manifest)?;
        let is_cache = |descriptor: &&Descriptor| descriptor.media_type().as_ref() == CACHE_CONFIG;
        if let Some(config) = seen.config.iter().chain(&seen.manifests).find(is_cache) {
            let layers = seen.layers.iter().chain(&seen.manifests);
            let layers: Vec<OfferedLayer> = layers.filter_map(described).collect();
            return Ok(read_cache(&self.blob(config).await?, &layers)?);
        }
        if seen.manifests.is_empty() {
            return self.inline(manifest).await;
        }
        // An image for several platforms.
        let index = read_index(manifest).map_err(OpsError::malformed("the image's index"))?;
        let name = match self {
            Source::Registry(_, reference) => (*reference).clone(),
            Source::Layout(_) => "layout".parse().map_err(|_| OpsError::Worker)?,
        };
        let host = Platform::host();
        let mut search = Search::of(&name, &index, &host)?;
        loop {
            let candidate = search.next_candidate()?;
            let bytes = self.manifest(&candidate.digest).await?;
            match search.look(&candidate, &bytes)? {
                Looked::Image(_) => return self.inline(&bytes).await,
                Looked::Perhaps(manifest) => {
                    if search.fits(&image_config(&self.blob(manifest.config()).await?)?) {
                        return self.inline(&bytes).await;
                    }
                }
                Looked::No => {}
            }
        }
    }

    /// What an image carries for others.
    async fn inline(&self, manifest: &[u8]) -> Result<Offer, OpsError> {
        let manifest = read_manifest(manifest).map_err(OpsError::malformed("the image's manifest"))?;
        if !is_image_config(manifest.config().media_type().as_ref()) {
            return Err(OpsError::Unsupported {
                what: "what stands there is neither a cache nor an image".into(),
            });
        }
        let bytes = self.blob(manifest.config()).await?;
        let carrier: Carrier = parse("the image's config", &bytes)?;
        let config = image_config(&bytes)?;
        let Some(cache) = carrier.cache else {
            let what = "the image carries no cache: build it with `--cache-to type=inline`".to_owned();
            return Err(OpsError::Unsupported { what });
        };
        use base64::Engine as _;
        let records = base64::engine::general_purpose::STANDARD
            .decode(cache)
            .map_err(|error| BadCache::Malformed(error.to_string()))?;
        let mut layers = Vec::new();
        let mut made = config.history.iter().filter(|row| !row.empty_layer);
        for (descriptor, diff_id) in manifest.layers().iter().zip(&config.rootfs.diff_ids) {
            layers.push(OfferedLayer {
                blob: parse_digest(descriptor.digest().as_ref())?,
                size: descriptor.size(),
                media_type: descriptor.media_type().to_string(),
                diff_id: diff_id.clone(),
                created: made.next().and_then(|row| seconds_of(row.created.as_ref()?)),
            });
        }
        Ok(read_inline(&records, &layers)?)
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OpsError> {
        if descriptor.size() > MAX_CONFIG {
            let what = format!("a cache config of {} bytes", descriptor.size());
            return Err(OpsError::Unsupported { what });
        }
        match self {
            Source::Registry(images, reference) => {
                let digest = parse_digest(descriptor.digest().as_ref())?;
                let mut bytes = Vec::new();
                let client = images.client().await?;
                client.blob(reference, &digest, descriptor.size(), &mut bytes).await?;
                Ok(bytes)
            }
            Source::Layout(dir) => Ok(layout(dir).blob(descriptor.digest().as_ref())?),
        }
    }

    async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, OpsError> {
        match self {
            Source::Registry(images, reference) => {
                let client = images.client().await?;
                Ok(client.manifest(&reference.with_digest(digest.clone())).await?.bytes)
            }
            Source::Layout(dir) => Ok(layout(dir).blob(&digest.to_string())?),
        }
    }
}

/// The digest of the manifest that a layout has by this tag. Without one it is `latest`, or the only one if that has no tag.
fn find_in_layout(dir: &Path, digest: Option<&Digest>, tag: Option<&str>) -> Result<String, OpsError> {
    if let Some(digest) = digest {
        return Ok(digest.to_string());
    }
    let layout = layout(dir);
    let index = layout.index()?;
    let wanted = Wanted { digest: None, tag, untagged: Untagged::OnlyEntry };
    if let Some(found) = layout.find(&index, wanted) {
        return Ok(found.digest().to_string());
    }
    let wanted = tag.unwrap_or("latest");
    let tags: Vec<String> =
        index.manifests().iter().filter_map(tag_of).map(|tag| format!("`{tag}`")).collect();
    let tags =
        if tags.is_empty() { "it has no tags".to_owned() } else { format!("it has {}", tags.join(", ")) };
    Err(OpsError::Unsupported {
        what: format!("`{}` has no cache with the tag `{wanted}`: {tags}", dir.display()),
    })
}
