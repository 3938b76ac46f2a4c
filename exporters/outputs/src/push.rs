//! To a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use lapstrake_assemble::Document;
use lapstrake_oci::{Digest, Reference};
use lapstrake_registry::{self as registry, Client, Pushed};
use lapstrake_store::{Blob, Store};
use tokio::sync::Semaphore;

use crate::bundle::{Bundle, Variant};
use crate::encode::{Encoding, known_blob, layer_blob, listed, listed_elsewhere};
use crate::error::OutputError;
use crate::image::{Finished, Manifest};
use crate::manifest::manifest_of;

/// How many blobs are on their way at once.
const UPLOADS: usize = 4;
/// How many layers are compressed at once: each of them takes all cores.
const COMPRESSIONS: usize = 2;

/// Hears of a part of the work: its name, how many bytes are done, how many there are, and whether that is all.
pub type Status = Arc<dyn Fn(&str, u64, u64, bool) + Send + Sync>;

/// Something to be pushed.
pub struct Push<'a> {
    /// Where its layers are.
    pub store: &'a Arc<Store>,
    /// Who talks to the registry.
    pub client: &'a Client,
    /// The image.
    pub bundle: &'a Bundle,
    /// Who hears of it.
    pub status: Status,
}

impl Push<'_> {
    /// Pushes the image under all names; with `by_digest`, to their repositories without a tag. Gives the manifest, or the
    /// index.
    ///
    /// Layers are compressed while others are sent, and not at all if the registry has them. An index comes last: whoever
    /// finds it finds all that it lists.
    ///
    /// # Errors
    /// [`OutputError`]: a layer cannot be read, or the registry refuses.
    pub async fn run(&self, names: &[Reference], by_digest: bool) -> Result<Manifest, OutputError> {
        let mut places: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
        for name in names {
            places.entry((name.registry(), name.repository())).or_default().push(name);
        }
        let mut pushed = None;
        for names in places.into_values() {
            let mut manifests = Vec::new();
            for Variant { image, encoding, .. } in &self.bundle.variants {
                let Push { store, client, status, .. } = self;
                let manifest =
                    Blobs { store, client, image, encoding, status: status.clone() }.all(names[0]).await?;
                if self.bundle.index.is_some() {
                    self.manifest(names[0], true, &manifest).await?;
                }
                manifests.push(manifest);
            }
            let top = self.bundle.top(&manifests);
            for name in names {
                self.manifest(name, by_digest, &top).await?;
            }
            pushed = Some(top);
        }
        pushed.ok_or(OutputError::NoName)
    }

    /// Pushes a document under its name, or its digest.
    async fn manifest(
        &self,
        name: &Reference,
        by_digest: bool,
        Manifest { media_type, document }: &Manifest,
    ) -> Result<(), OutputError> {
        let target = if by_digest { &name.with_digest(document.digest.clone()) } else { name };
        let what = format!("pushing manifest for {name}@{}", document.digest);
        (self.status)(&what, 0, 0, false);
        self.client.push_manifest(target, media_type, &document.bytes).await?;
        (self.status)(&what, 0, 0, true);
        Ok(())
    }
}

/// The layers and the config of an image on their way to a registry.
pub(crate) struct Blobs<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) client: &'a Client,
    pub(crate) image: &'a Arc<Finished>,
    pub(crate) encoding: &'a Encoding,
    pub(crate) status: Status,
}

impl Blobs<'_> {
    /// Pushes a cache under `name`: the layers of the image, and the documents that name them.
    pub(crate) async fn cache(
        &self,
        name: &Reference,
        config: &Document,
        (media_type, manifest): (&str, &Document),
    ) -> Result<(), OutputError> {
        let (compressions, uploads) = (Semaphore::new(COMPRESSIONS), Semaphore::new(UPLOADS));
        let layers =
            (0..self.image.layers.len()).map(|number| self.layer(name, number, &compressions, &uploads));
        try_join_all(layers).await?;
        let digest = self.store.put_blob(&config.bytes)?;
        self.send(name, &digest, config.bytes.len() as u64).await?;
        self.client.push_manifest(name, media_type, &manifest.bytes).await?;
        Ok(())
    }

    /// Brings all blobs into the repository of `name`, and gives the manifest that names them.
    async fn all(&self, name: &Reference) -> Result<Manifest, OutputError> {
        let (compressions, uploads) = (Semaphore::new(COMPRESSIONS), Semaphore::new(UPLOADS));
        (self.status)("pushing layers", 0, 0, false);
        let layers =
            (0..self.image.layers.len()).map(|number| self.layer(name, number, &compressions, &uploads));
        let layers = try_join_all(layers).await?;
        let config = self.store.put_blob(&self.image.document.bytes)?;
        let size = self.image.document.bytes.len() as u64;
        self.send(name, &config, size).await?;
        (self.status)("pushing layers", 0, 0, true);
        let store = self.store.clone();
        let image = self.image.clone();
        let below = self.image.below.iter().map(|layer| listed_elsewhere(layer, self.encoding));
        let below: Vec<_> = below.collect::<Option<_>>().ok_or(OutputError::NotHere)?;
        let listed = tokio::task::spawn_blocking(move || {
            let of = layers.iter().zip(&image.layers).enumerate();
            let listed =
                of.map(|(at, (blob, (_, diff_id)))| listed(&store, (blob, diff_id), image.rewritten(at)));
            listed.collect::<Result<Vec<_>, _>>()
        });
        let here = listed.await.map_err(|_| OutputError::Worker)??;
        let layers: Vec<_> = below.into_iter().chain(here).collect();
        Ok(manifest_of(self.image, &layers, self.encoding))
    }

    async fn layer(
        &self,
        name: &Reference,
        number: usize,
        compressions: &Semaphore,
        uploads: &Semaphore,
    ) -> Result<Blob, OutputError> {
        // Never closed, so that there is always leave.
        let known = known_blob(self.store, self.image, number, self.encoding)?;
        if let Some(blob) = known
            && self.there(name, &blob.digest).await?
        {
            self.remember(name, &blob.digest)?;
            return Ok(blob);
        }
        let leave = compressions.acquire().await;
        let (store, image, encoding) = (self.store.clone(), self.image.clone(), self.encoding.clone());
        let made = tokio::task::spawn_blocking(move || layer_blob(&store, &image, number, &encoding));
        let blob = made.await.map_err(|_| OutputError::Worker)??;
        drop(leave);
        let leave = uploads.acquire().await;
        self.send(name, &blob.digest, blob.size).await?;
        drop(leave);
        Ok(blob)
    }

    /// Whether the repository has a blob, or its registry could give it one whose bytes are not here.
    async fn there(&self, name: &Reference, digest: &Digest) -> Result<bool, OutputError> {
        if self.client.has_blob(name, digest).await? {
            return Ok(true);
        }
        let from = self.store.blob_repository(digest, name.registry())?;
        match from.filter(|from| from != name.repository() && !self.store.has_blob(digest)) {
            Some(from) => Ok(self.client.mount_blob(name, digest, &from).await?),
            None => Ok(false),
        }
    }

    async fn send(&self, name: &Reference, digest: &Digest, size: u64) -> Result<(), OutputError> {
        let what = format!("pushing {digest}");
        let from = self.store.blob_repository(digest, name.registry())?;
        let from = from.filter(|from| from != name.repository());
        let blob = registry::Blob { digest: digest.clone(), size, path: self.store.blob_path(digest) };
        let (status, told) = (self.status.clone(), what.clone());
        let sent = move |bytes| status(&told, bytes, size, false);
        let how = self.client.push_blob(name, &blob, from.as_deref(), sent).await?;
        if how == Pushed::Sent {
            (self.status)(&what, size, size, true);
        }
        self.remember(name, digest)
    }

    /// The registry can take the blob over from there the next time.
    fn remember(&self, name: &Reference, digest: &Digest) -> Result<(), OutputError> {
        Ok(self.store.set_blob_repository(digest, name.registry(), name.repository())?)
    }
}
