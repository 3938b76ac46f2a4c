//! An image as it leaves: for one platform, or an index of the same for several.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_assemble::{ListedManifest, index};
use lapstrake_oci::{Platform, Reference, rfc3339};
use lapstrake_store::{ImageRow, StackLayer, Store};

use crate::encode::Encoding;
use crate::error::OutputError;
use crate::image::{Finished, Manifest};
use crate::manifest::written;

/// An image on its way out.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The image for each platform, in the order in which an index lists them; never empty.
    pub variants: Vec<Variant>,
    /// What is said of the index. Without one there is one variant, whose manifest stands for itself.
    pub index: Option<IndexNotes>,
}

/// An image for one platform, and how it is written down.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What an index says that it is for.
    pub platform: Platform,
    /// The image.
    pub image: Arc<Finished>,
    /// Its blobs and its manifest.
    pub encoding: Encoding,
}

/// What is said of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexNotes {
    /// In the index.
    pub annotations: BTreeMap<String, String>,
    /// Where the index is listed: in a layout.
    pub descriptor_annotations: BTreeMap<String, String>,
}

impl Bundle {
    /// One image.
    pub fn one(image: Finished, encoding: Encoding) -> Bundle {
        let platform = image.config.platform();
        Bundle { variants: vec![Variant { platform, image: Arc::new(image), encoding }], index: None }
    }

    /// The variant that is meant where only one can be.
    pub fn main(&self) -> &Variant {
        &self.variants[self.main_place()]
    }

    /// Which one that is: the one for this machine, else the first.
    pub(crate) fn main_place(&self) -> usize {
        let host = Platform::host();
        self.variants.iter().position(|variant| host.accepts(&variant.platform)).unwrap_or(0)
    }

    /// The document that stands for all of it: the manifest, or an index of these.
    pub(crate) fn top(&self, manifests: &[Manifest]) -> Manifest {
        let Some(notes) = &self.index else { return manifests[0].clone() };
        let listed = |(variant, manifest): (&Variant, &Manifest)| ListedManifest {
            platform: variant.platform.clone(),
            media_type: manifest.media_type.clone(),
            digest: manifest.document.digest.clone(),
            size: manifest.document.bytes.len() as u64,
            annotations: variant.encoding.descriptor_annotations.clone(),
        };
        let listed: Vec<_> = self.variants.iter().zip(manifests).map(listed).collect();
        let (media_type, document) = index(&listed, &notes.annotations);
        Manifest { media_type: media_type.to_owned(), document }
    }

    /// What is asked to be said of the manifest, or the index, where that is listed.
    pub fn asked_annotations(&self) -> &BTreeMap<String, String> {
        let of_one = &self.main().encoding.descriptor_annotations;
        self.index.as_ref().map_or(of_one, |notes| &notes.descriptor_annotations)
    }

    /// That, and when it was made.
    pub fn descriptor_annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.asked_annotations().clone();
        let created = self.main().image.config.created.clone().unwrap_or_else(|| rfc3339(0, 0));
        annotations.entry("org.opencontainers.image.created".to_owned()).or_insert(created);
        annotations
    }

    /// The manifest, or the index, that the image has in this form.
    ///
    /// # Errors
    /// [`OutputError`] when a layer cannot be read or its blob not be written.
    pub fn manifest(&self, store: &Store) -> Result<Manifest, OutputError> {
        Ok(self.top(&self.manifests(store)?))
    }

    /// The manifests of the variants, in this form.
    ///
    /// # Errors
    /// As [`Bundle::manifest`].
    pub fn manifests(&self, store: &Store) -> Result<Vec<Manifest>, OutputError> {
        let of = |variant: &Variant| Ok(written(store, &variant.image, &variant.encoding)?.manifest);
        self.variants.iter().map(of).collect()
    }
}

/// Stores the image under these names, durably. `layers` are those of each variant, with the digests that its config has.
pub fn keep(
    store: &Store,
    bundle: &Bundle,
    layers: Vec<Vec<StackLayer>>,
    names: &[Reference],
) -> Result<(), OutputError> {
    let mut images = Vec::new();
    for (Variant { image, .. }, layers) in bundle.variants.iter().zip(layers) {
        let rows = store.layers(image.layers.iter().map(|(layer, _)| layer))?;
        let size = rows.iter().map(|row| row.size).sum();
        let id = store.put_blob(&image.document.bytes)?;
        images.push(ImageRow { id, manifest: None, layers, size, stored: 0 });
    }
    // A cached build changes nothing and waits for no disk.
    if store.put_variants(&images, bundle.main_place(), names)? {
        store.sync()?;
    }
    Ok(())
}
