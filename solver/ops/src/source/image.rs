//! Images: what they are, and their layers in the store.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use lapstrake_engine::{Key, KeyHasher, Step};
use lapstrake_graph::ImageStore;
use lapstrake_http::Proxies;
use lapstrake_images::{Layout, Untagged, Wanted};
use lapstrake_oci::{Descriptor, DiffId, Digest, ImageConfig, Platform, Reference, read_manifest};
use lapstrake_registry::{Client, Registries, is_index};
use lapstrake_snapshot::{Imported, import_layer, import_lazy, resolve_stack};
use lapstrake_store::{Blob, ImageRow, StackLayer, Store};
use tokio::sync::OnceCell;

use crate::error::OpsError;
use crate::source::progress_writer::ProgressWriter;
use crate::source::streaming_blob::{BlobWriter, streaming_blob};
use crate::stack::Stack;
use crate::worker::Worker;

/// No document of a layout is longer, in bytes: caches have long ones.
const MAX_DOCUMENT: u64 = 64 << 20;

/// When the files of layers that come are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// While they come: a step is going to need them.
    Eager,
    /// When somebody needs them.
    Lazy,
}

/// Where an image's layers can be had.
#[derive(Clone, Debug)]
pub(crate) enum LayerSource {
    /// They are here.
    Store(Vec<StackLayer>),
    /// In the registry of this reference, where it has this digest.
    Registry(Reference, Digest, Vec<Descriptor>),
    /// In this OCI layout.
    Layout(PathBuf, Vec<Descriptor>),
}

/// What a registry has of an image.
#[derive(Clone, Debug)]
pub struct RemoteLayers {
    /// Its name there.
    pub name: Reference,
    /// Its layers, lowest first, with what its config says of them.
    pub layers: Vec<(DiffId, Descriptor)>,
}

/// A resolved image.
#[derive(Clone, Debug)]
pub struct LocatedImage {
    /// The digest of its manifest; of its config, for images that were built here and have none.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
    place: LayerSource,
}

impl LocatedImage {
    /// The digest that the registry has it by: of the index, where there is one.
    pub fn digest(&self) -> &Digest {
        match &self.place {
            LayerSource::Registry(_, digest, _) => digest,
            _ => &self.manifest,
        }
    }

    /// What its content is known by: its layers.
    pub(crate) fn key(&self) -> Key {
        let layers = &self.config.rootfs.diff_ids;
        let hash = |hasher: KeyHasher, layer: &DiffId| hasher.part("layer", layer.to_string().as_bytes());
        layers.iter().fold(KeyHasher::new("lapstrake image 1"), hash).finish()
    }
}

/// Looks for the reference that stands for an image; the error says why the image may not be used.
type FindRuled = dyn Fn(Reference, Platform) -> BoxFuture<'static, Result<Reference, String>> + Send + Sync;

/// The caller's rules for images.
#[derive(Clone)]
pub struct ImageRules(Arc<FindRuled>);

impl ImageRules {
    /// Rules that `find` knows.
    pub fn new(
        find: impl Fn(Reference, Platform) -> BoxFuture<'static, Result<Reference, String>>
        + Send
        + Sync
        + 'static,
    ) -> ImageRules {
        ImageRules(Arc::new(find))
    }
}

/// The images of a job: knows them and fetches them, with the job's logins.
pub struct Images {
    pub(crate) store: Arc<Store>,
    client: OnceCell<Client>,
    known: Mutex<HashMap<Digest, LocatedImage>>,
    worker: Arc<Worker>,
    pull: bool,
    registries: Registries,
    rules: Option<ImageRules>,
}

impl Images {
    /// Images of `worker`'s store and of `registries`. With `pull`, registries are asked even for what is in the store.
    pub fn new(worker: Arc<Worker>, pull: bool, registries: Registries) -> Images {
        let (client, known, store) = (OnceCell::new(), Mutex::default(), worker.store().clone());
        Images { store, client, known, worker, pull, registries, rules: None }
    }

    /// Each image is looked up as `rules` say.
    #[must_use]
    pub fn with_rules(self, rules: Option<ImageRules>) -> Images {
        Images { rules, ..self }
    }

    /// The reference that the rules put in the place of `reference`.
    async fn ruled(&self, reference: &Reference, platform: &Platform) -> Result<Reference, OpsError> {
        let Some(ImageRules(rules)) = &self.rules else { return Ok(reference.clone()) };
        rules(reference.clone(), platform.clone()).await.map_err(OpsError::Rules)
    }

    /// The proxies to go by.
    pub(crate) fn proxies(&self) -> &Proxies {
        &self.registries.proxies
    }

    /// Who talks to registries; made when it is first needed.
    pub async fn client(&self) -> Result<&Client, OpsError> {
        let registries = || self.registries.clone();
        Ok(self.client.get_or_try_init(|| async { Client::new(registries()) }).await?)
    }

    /// A client that takes registries without TLS, or with certificates that nobody vouches for.
    ///
    /// # Errors
    /// [`OpsError::Registry`] if the settings cannot be read.
    pub fn insecure_client(&self) -> Result<Client, OpsError> {
        Ok(Client::new(Registries { insecure: true, ..self.registries.clone() })?)
    }

    /// Whether only one user id is mapped.
    pub fn single_id(&self) -> bool {
        self.worker.single_id()
    }

    fn remember(&self, known: LocatedImage) -> LocatedImage {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(known.manifest.clone(), known.clone());
        known
    }

    pub(crate) fn resolved(&self, manifest: &Digest, reference: &str) -> Result<LocatedImage, OpsError> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(manifest).cloned().ok_or_else(|| OpsError::Unresolved { reference: reference.to_owned() })
    }

    /// Finds out which image `reference` is.
    pub async fn resolve(
        &self,
        reference: &Reference,
        place: &ImageStore,
        platform: &Platform,
    ) -> Result<LocatedImage, OpsError> {
        if let ImageStore::Layout { path } = place {
            return self
                .resolve_in_layout(Path::new(path), reference, platform)
                .map(|known| self.remember(known));
        }
        let reference = &self.ruled(reference, platform).await?;
        if !self.pull
            && let Some(known) = self.resolve_in_store(reference, platform)?
        {
            return Ok(self.remember(known));
        }
        // Such a name is in no registry: the targets of a bake file have them.
        if reference.registry().ends_with(".invalid")
            && let Some(known) = self.resolve_in_store(reference, platform)?
        {
            return Ok(self.remember(known));
        }
        let error = match self.resolve_in_registry(reference, platform).await {
            Ok(known) => return Ok(known),
            Err(error) => error,
        };
        // With --pull a registry is asked first; an image that is only here is still there.
        if let Some(known) = self.resolve_in_store(reference, platform)? {
            return Ok(self.remember(known));
        }
        Err(match (error, self.other_platform(reference, platform)?) {
            (OpsError::Registry(source), Some(here)) => {
                OpsError::OtherPlatform { platforms: Box::new((here, platform.to_string())), source }
            }
            (error, _) => error,
        })
    }

    /// What the image is for that has this name here, if it is for anything else.
    fn other_platform(&self, reference: &Reference, platform: &Platform) -> Result<Option<String>, OpsError> {
        let mut here = Vec::new();
        for id in self.store.variants(reference)? {
            let config = image_config(&self.store.read_blob(&id)?)?;
            here.push(config.platform());
        }
        // One that fits is here without its layers.
        let other = !here.is_empty() && !here.iter().any(|here| platform.accepts(here));
        Ok(other.then(|| here.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    }

    /// Finds out which image `reference` is in its registry, whatever is here.
    ///
    /// # Errors
    /// [`OpsError::Registry`] if the registry does not say.
    pub async fn resolve_in_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<LocatedImage, OpsError> {
        let resolved = self.client().await?.resolve(reference, platform).await?;
        self.store.put_blob(&resolved.config_bytes)?;
        self.store.put_blob(&resolved.manifest.bytes)?;
        let known = LocatedImage {
            manifest: resolved.manifest.digest,
            config: resolved.config,
            place: LayerSource::Registry(reference.clone(), resolved.digest, resolved.layers),
        };
        // A build whose steps are all cached fetches nothing; its base must be known the next time all the same.
        if let Some(layers) = self.stored_layers(&known)? {
            self.store_image(&known, &layers)?;
        }
        Ok(self.remember(known))
    }

    /// All layers of an image, if they are in the store.
    fn stored_layers(&self, known: &LocatedImage) -> Result<Option<Vec<StackLayer>>, OpsError> {
        let mut layers = Vec::new();
        for diff_id in &known.config.rootfs.diff_ids {
            let Some(id) = self.store.layer_of_diff(diff_id)? else { return Ok(None) };
            layers.push(StackLayer { id, diff_id: Some(diff_id.clone()), clamp: None });
        }
        Ok(Some(layers))
    }

    fn resolve_in_store(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<LocatedImage>, OpsError> {
        let rows = match reference.digest() {
            Some(digest) => match self.store.by_digest(&reference.pinned(digest.clone()))? {
                Some(id) => vec![self.store.image(&id)?],
                None => {
                    let row = match self.store.image_by_manifest(digest)? {
                        Some(row) => Some(row),
                        None => self.store.image(digest)?,
                    };
                    match row {
                        Some(row) if self.is_of_repository(&row.id, reference)? => vec![Some(row)],
                        _ => Vec::new(),
                    }
                }
            },
            None => {
                let ids = self.store.variants(reference)?;
                ids.iter().map(|id| self.store.image(id)).collect::<Result<Vec<_>, _>>()?
            }
        };
        for row in rows.into_iter().flatten() {
            let config = image_config(&self.store.read_blob(&row.id)?)?;
            let layers = row.layers;
            let here = || layers.iter().all(|layer| self.store.has_layer(&layer.id));
            if platform.accepts(&config.platform()) && here() {
                let (manifest, place) = (row.manifest.unwrap_or(row.id), LayerSource::Store(layers));
                return Ok(Some(LocatedImage { manifest, config, place }));
            }
        }
        Ok(None)
    }

    /// Whether an image has a name in the repository of `reference`, or no name at all. An image of another repository is for its
    /// registry to give, which may ask for a login.
    fn is_of_repository(&self, image: &Digest, reference: &Reference) -> Result<bool, OpsError> {
        let names = [self.store.tags()?, self.store.digests()?].concat();
        let mut own = names.iter().filter(|row| row.image == *image).peekable();
        let is_same = |name: &Reference| {
            (name.registry(), name.repository()) == (reference.registry(), reference.repository())
        };
        Ok(own.peek().is_none() || own.any(|row| is_same(&row.reference)))
    }

    fn resolve_in_layout(
        &self,
        dir: &Path,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<LocatedImage, OpsError> {
        let layout = layout(dir);
        let index = layout.index()?;
        let wanted =
            Wanted { digest: reference.digest(), tag: reference.tag(), untagged: Untagged::OnlyImage };
        let found = layout.find(&index, wanted).ok_or_else(|| OpsError::Unsupported {
            what: match (reference.digest(), reference.tag()) {
                (Some(digest), _) => format!("`{}` has no image `{digest}`", dir.display()),
                (None, tag) => format!("`{}` has no image `{}`", dir.display(), tag.unwrap_or("latest")),
            },
        })?;
        let digest = found.digest().to_string();
        let bytes = layout.blob(&digest)?;
        let (digest, manifest) = match is_index(&bytes) {
            true => layout.image_for(&bytes, reference, platform)?,
            false => (digest, read_manifest(&bytes).map_err(OpsError::malformed("the image's manifest"))?),
        };
        let config_bytes = layout.blob(manifest.config().digest().as_ref())?;
        self.store.put_blob(&config_bytes)?;
        Ok(LocatedImage {
            manifest: parse_digest(&digest)?,
            config: image_config(&config_bytes)?,
            place: LayerSource::Layout(dir.to_owned(), manifest.layers().clone()),
        })
    }

    /// The config of a resolved image, byte for byte as its maker has written it.
    ///
    /// # Errors
    /// The store has lost a document of the image.
    pub fn config_bytes(&self, known: &LocatedImage) -> Result<Vec<u8>, OpsError> {
        let config = match &known.place {
            LayerSource::Layout(dir, _) => {
                let manifest = layout(dir).blob(&known.manifest.to_string())?;
                read_manifest(&manifest).map(|manifest| manifest.config().digest().to_string())
            }
            LayerSource::Store(_) | LayerSource::Registry(..) => {
                let document = self.store.read_blob(&known.manifest)?;
                let Ok(manifest) = read_manifest(&document) else {
                    // An image that was built here has no manifest.
                    return Ok(document);
                };
                Ok(manifest.config().digest().to_string())
            }
        };
        let config = config.map_err(OpsError::malformed("the image's manifest"))?;
        Ok(self.store.read_blob(&parse_digest(&config)?)?)
    }

    /// Brings all layers of a resolved image into the store.
    pub async fn fetch(
        &self,
        manifest: &Digest,
        reference: &str,
        unpack: Unpack,
        step: &Step,
    ) -> Result<Stack, OpsError> {
        let known = self.resolved(manifest, reference)?;
        let descriptors = match &known.place {
            LayerSource::Store(layers) => return Ok(Stack { layers: layers.clone(), ..Stack::default() }),
            LayerSource::Registry(_, _, descriptors) | LayerSource::Layout(_, descriptors) => descriptors,
        };
        let diff_ids = &known.config.rootfs.diff_ids;
        if diff_ids.len() != descriptors.len() {
            let what =
                format!("image `{reference}` has {} layers and names {}", descriptors.len(), diff_ids.len());
            return Err(OpsError::Unsupported { what });
        }
        let mut wanted = Vec::new();
        for (diff_id, descriptor) in diff_ids.iter().zip(descriptors) {
            let digest = parse_digest(descriptor.digest().as_ref())?;
            let media_type = descriptor.media_type().to_string();
            wanted.push((diff_id.clone(), Blob { digest, size: descriptor.size(), media_type }));
        }
        let layers = self.fetch_layers(&known.place, wanted, unpack, step).await?;
        self.store_image(&known, &layers)?;
        Ok(Stack { layers, ..Stack::default() })
    }

    /// Brings layers into the store, those that are not there already, lowest first.
    pub(crate) async fn fetch_layers(
        &self,
        place: &LayerSource,
        wanted: Vec<(DiffId, Blob)>,
        unpack: Unpack,
        step: &Step,
    ) -> Result<Vec<StackLayer>, OpsError> {
        let work = wanted.iter().map(|(diff_id, blob)| async {
            // First leave and then the lock: who has a lock is at work and waits for nobody.
            let leave = self.worker.downloads.acquire().await.map_err(|_| OpsError::Worker)?;
            let lock_name = format!("pull-{}", diff_id.0.hex());
            let store = self.store.clone();
            let lock = tokio::task::spawn_blocking(move || store.lock(&lock_name)).await;
            let lock = lock.map_err(|_| OpsError::Worker)??;
            let layer = self.ensure_layer(place, (diff_id, blob), unpack, step).await;
            drop((lock, leave));
            layer
        });
        self.settle(futures_util::future::try_join_all(work).await?).await
    }

    /// A resolved image where a registry has it and not all of its layers are here.
    pub fn remote_layers(
        &self,
        manifest: &Digest,
        reference: &str,
    ) -> Result<Option<RemoteLayers>, OpsError> {
        let known = self.resolved(manifest, reference)?;
        let LayerSource::Registry(name, _, descriptors) = &known.place else { return Ok(None) };
        let diff_ids = &known.config.rootfs.diff_ids;
        if diff_ids.len() != descriptors.len() || self.stored_layers(&known)?.is_some() {
            return Ok(None);
        }
        let layers = diff_ids.iter().cloned().zip(descriptors.iter().cloned());
        Ok(Some(RemoteLayers { name: name.clone(), layers: layers.collect() }))
    }

    /// The layers as they have to be on each other.
    async fn settle(&self, layers: Vec<StackLayer>) -> Result<Vec<StackLayer>, OpsError> {
        let (store, single_id) = (self.store.clone(), self.worker.single_id());
        let settled = tokio::task::spawn_blocking(move || resolve_stack(&store, layers, single_id)).await;
        Ok(settled.map_err(|_| OpsError::Worker)??)
    }

    /// What a build pulled can be used again by its name without asking anybody.
    fn store_image(&self, known: &LocatedImage, layers: &[StackLayer]) -> Result<(), OpsError> {
        let LayerSource::Registry(reference, digest, _) = &known.place else { return Ok(()) };
        let config = lapstrake_oci::Digest::sha256(&[]);
        let manifest = read_manifest(&self.store.read_blob(&known.manifest)?);
        let manifest = manifest.map_err(OpsError::malformed("the image's manifest"))?;
        let id = parse_digest(manifest.config().digest().as_ref()).unwrap_or(config);
        let row = ImageRow {
            id: id.clone(),
            manifest: Some(known.manifest.clone()),
            layers: layers.to_vec(),
            size: total_size(&self.store, layers)?,
            stored: 0,
        };
        let names: &[Reference] =
            if reference.digest().is_none() { std::slice::from_ref(reference) } else { &[] };
        self.store.put_image(&row, names)?;
        self.store.set_digest(&reference.pinned(digest.clone()), &id)?;
        Ok(())
    }

    async fn ensure_layer(
        &self,
        place: &LayerSource,
        (diff_id, blob): (&DiffId, &Blob),
        unpack: Unpack,
        step: &Step,
    ) -> Result<StackLayer, OpsError> {
        if let Some(id) = self.store.layer_of_diff(diff_id)? {
            return Ok(StackLayer { id, diff_id: Some(diff_id.clone()), clamp: None });
        }
        let imported = match place {
            LayerSource::Registry(reference, ..) if !self.store.has_blob(&blob.digest) => {
                self.pull_layer(reference, blob, unpack, step).await?
            }
            place => {
                if let LayerSource::Layout(dir, _) = place
                    && !self.store.has_blob(&blob.digest)
                {
                    let path = layout(dir).blob_path(&blob.digest.to_string())?;
                    let file = fs::File::open(&path).map_err(OpsError::io("open", &path))?;
                    self.store.copy_blob(file, Some(&blob.digest))?;
                }
                self.import_blob(self.store.open_blob(&blob.digest)?, blob, unpack, step).await?
            }
        };
        if imported.diff_id != *diff_id {
            return Err(lapstrake_store::StoreError::WrongDigest {
                expected: diff_id.to_string(),
                found: imported.diff_id.to_string(),
            }
            .into());
        }
        // Only now: what a config says of a blob may be a lie.
        self.store.link_layer_blob(diff_id, "original", blob)?;
        Ok(StackLayer { id: imported.layer, diff_id: Some(diff_id.clone()), clamp: None })
    }

    /// A layer checked, and unpacked if that is wanted, while it comes.
    async fn pull_layer(
        &self,
        reference: &Reference,
        blob: &Blob,
        unpack: Unpack,
        step: &Step,
    ) -> Result<Imported, OpsError> {
        let writer = self.store.unhashed_blob_writer()?;
        let (told, arriving) = streaming_blob(writer.reader()?);
        let mut writer = ProgressWriter::new(BlobWriter::new(writer, told), step, &blob.digest, blob.size);
        let mut importing = std::pin::pin!(self.import_blob(arriving, blob, unpack, step));
        let client = self.client().await?;
        let mut early = None;
        let downloaded = tokio::select! {
            // It does not end before the last byte is there and checked, unless there is something wrong with it.
            done = &mut importing => { early = Some(done); Ok(()) }
            downloaded = client.blob(reference, &blob.digest, blob.size, &mut writer) => downloaded,
        };
        if let Some(done) = early {
            return Err(done.err().unwrap_or(OpsError::Worker));
        }
        // Without an end the reader hears that it was cut off, when the writer is dropped.
        downloaded?;
        let mut writer = writer.done();
        writer.end().map_err(OpsError::io("write", self.store.root()))?;
        writer.into_inner().finish_as(&blob.digest)?;
        let (registry, repository) = (reference.registry(), reference.repository());
        self.store.set_blob_repository(&blob.digest, registry, repository)?;
        importing.await
    }

    async fn import_blob(
        &self,
        input: impl io::Read + Send + 'static,
        blob: &Blob,
        unpack: Unpack,
        step: &Step,
    ) -> Result<Imported, OpsError> {
        let (store, single_id) = (self.store.clone(), self.worker.single_id());
        let doing = if unpack == Unpack::Eager { "extracting" } else { "verifying" };
        let doing = format!("{doing} sha256:{}", blob.digest.short());
        step.status(&doing, 0, 0, false);
        let imported = tokio::task::spawn_blocking(move || match unpack {
            Unpack::Eager => import_layer(&store, input, single_id),
            Unpack::Lazy => import_lazy(&store, input),
        });
        let imported = imported.await.map_err(|_| OpsError::Worker)??;
        step.status(&doing, 0, 0, true);
        Ok(imported)
    }
}

pub(crate) fn image_config(bytes: &[u8]) -> Result<ImageConfig, OpsError> {
    ImageConfig::read(bytes).map_err(OpsError::malformed("the image's config"))
}

/// The bytes of all files of these layers.
pub(crate) fn total_size(store: &Store, layers: &[StackLayer]) -> Result<u64, OpsError> {
    let mut size = 0;
    for layer in layers {
        size += store.layer(&layer.id)?.map_or(0, |row| row.size);
    }
    Ok(size)
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, OpsError> {
    serde_json::from_slice(bytes).map_err(OpsError::malformed(what))
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, OpsError> {
    text.parse().map_err(|e: lapstrake_oci::DigestError| OpsError::Unsupported { what: e.to_string() })
}

/// The layout in a directory.
pub(crate) fn layout(dir: &Path) -> Layout {
    Layout::in_directory(dir, MAX_DOCUMENT)
}
