//! Images of archives and layouts, taken into the state directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lapstrake_diag::{Context as _, Outcome, Report};
use lapstrake_oci::media::{self, Kind, kind};
use lapstrake_oci::{
    Descriptor, DiffId, Digest, ImageConfig, Platform, Reference, is_artifact, is_image_config, read_index,
    read_manifest,
};
use lapstrake_registry::is_index;
use lapstrake_snapshot::{import_lazy, resolve_stack};
use lapstrake_store::{Blob, ImageRow, StackLayer, Store};
use lapstrake_tree::decompress::Compression;

use crate::archive::{Archive, DockerImage, MOST_FILES};
use crate::error::ImagesError;
use crate::layout::{Layout, tag_of};
use crate::stored::config;

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// The image's id.
    pub id: Digest,
    /// The names that the archive gives the image.
    pub names: Vec<Reference>,
}

/// An archive or a layout, and the images of it that are wanted.
pub struct Source {
    /// The archive.
    pub archive: Archive,
    /// The repository of images of which the archive knows only a tag; an empty text gives them no name.
    pub name: String,
    /// The platform of the images that are wanted; `None` for those of all platforms.
    pub platform: Option<Platform>,
}

/// The place that images are loaded into.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// The state directory.
    pub store: &'a Store,
    /// Whether only one user id is mapped.
    pub single_id: bool,
}

/// The name of an archive without what says that it is one.
fn own_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mut name = name.as_str();
    for ending in [".gz", ".zst", ".xz", ".tgz", ".tar", ".oci"] {
        name = name.strip_suffix(ending).unwrap_or(name);
    }
    name.to_owned()
}

/// The names that an archive gives an image.
fn names(image: &DockerImage) -> Outcome<Vec<Reference>> {
    let given =
        |tag: &String| Reference::new_name(tag).with_context(|| format!("the archive's name `{tag}`"));
    image.names().map(given).collect()
}

impl Source {
    /// The file or directory at `path`: a Docker archive, an OCI archive, or an OCI layout in a directory. Images of which the
    /// archive knows only a tag get the file's name without its ending.
    ///
    /// # Errors
    /// [`ImagesError`], or a file that cannot be opened.
    pub fn of_path(path: &Path, platform: Option<Platform>, store: &Store) -> Outcome<Source> {
        let archive = if path.is_dir() {
            Archive::of_directory(path)?
        } else {
            let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
            Archive::unpack(store.temp_dir()?, file)?
        };
        Ok(Source { archive, name: own_name(path), platform })
    }

    /// The archive that `input` gives.
    ///
    /// # Errors
    /// [`ImagesError`].
    pub fn of_stream(input: impl Read + Send, platform: Option<Platform>, store: &Store) -> Outcome<Source> {
        Ok(Source { archive: Archive::unpack(store.temp_dir()?, input)?, name: String::new(), platform })
    }

    /// Takes the wanted images into the state directory, which is synced then.
    ///
    /// # Errors
    /// There is no such image, or one of them is damaged.
    pub fn load(&self, into: Destination<'_>) -> Outcome<Vec<LoadedImage>> {
        let loaded = if let Some(images) = self.archive.docker_images()? {
            images.iter().map(|image| self.docker(into, image)).collect::<Outcome<Vec<_>>>()?
        } else if let Some(index) = self.archive.document("index.json")? {
            self.layout(into, &index)?
        } else {
            let text = "not an image archive: neither manifest.json nor index.json is in it";
            return Err(Report::new(text));
        };
        into.store.sync()?;
        Ok(loaded)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImagesError> {
        self.archive.layout().blob(digest)
    }

    fn docker(&self, into: Destination<'_>, image: &DockerImage) -> Outcome<LoadedImage> {
        let missing = || ImagesError::Missing { name: image.config.clone() };
        let config = self.archive.document(&image.config)?.ok_or_else(missing)?;
        let mut layers = Vec::new();
        for name in image.layers() {
            layers.push((self.archive.path(name)?, None));
        }
        let names = names(image)?;
        let row = match self.manifest_of(image)? {
            Some((_, Some(index))) if self.platform.is_none() => return self.index(into, &index, names),
            Some((digest, _)) => self.manifest(into, &digest)?,
            None => self.keep(into, &config, &layers, None)?,
        };
        named(into, &[row], names)
    }

    /// The manifest of an image that `manifest.json` tells of, where the archive is a layout as well: it knows more, what
    /// layers are and annotations. With the index that it is in, if it is one of several.
    fn manifest_of(&self, image: &DockerImage) -> Outcome<Option<(String, Option<String>)>> {
        let Some(index) = self.archive.document("index.json")? else { return Ok(None) };
        let index = read_index(&index).context("the archive's index.json cannot be read")?;
        let mut left: Vec<(String, Option<String>)> =
            index.manifests().iter().map(|entry| (entry.digest().to_string(), None)).collect();
        let name = |descriptor: &Descriptor| Layout::blob_name(descriptor.digest().as_ref()).ok();
        while let Some((digest, of)) = left.pop() {
            // An index may name what is not in the archive.
            let Ok(bytes) = self.blob(&digest) else { continue };
            if !is_index(&bytes) {
                let Ok(manifest) = read_manifest(&bytes) else { continue };
                let layers = manifest.layers().iter().map(name);
                let of_image = Some(image.config.clone());
                if name(manifest.config()) == of_image && layers.eq(image.layers().iter().cloned().map(Some))
                {
                    return Ok(Some((digest, of)));
                }
            } else if let Ok(inner) = read_index(&bytes) {
                // An index in it is that of one image; it names manifests only, or we would not come to an end.
                let manifests = inner.manifests().iter();
                let manifests = manifests.filter(|e| kind(e.media_type().as_ref()) == Some(Kind::Manifest));
                left.extend(manifests.map(|entry| (entry.digest().to_string(), Some(digest.clone()))));
            }
        }
        Ok(None)
    }

    fn layout(&self, into: Destination<'_>, index: &[u8]) -> Outcome<Vec<LoadedImage>> {
        let index = read_index(index).context("the archive's index.json cannot be read")?;
        let mut loaded = Vec::new();
        for descriptor in index.manifests() {
            let annotations = descriptor.annotations().clone().unwrap_or_default();
            // A bare word is a tag of some repository that is not named: skopeo writes such. The archive's own name stands
            // for that.
            let name = tag_of(descriptor).map(|name| {
                if name.contains([':', '/']) { name.to_owned() } else { format!("{}:{name}", self.name) }
            });
            let name = annotations.get("io.containerd.image.name").cloned().or(name);
            let names = name.and_then(|name| Reference::new_name(&name).ok()).into_iter().collect();
            let digest = descriptor.digest().to_string();
            let bytes = self.blob(&digest)?;
            if is_index(&bytes) {
                loaded.push(self.index(into, &digest, names)?);
            } else if !is_artifact(descriptor) && is_image(&bytes) {
                loaded.push(named(into, &[self.manifest(into, &digest)?], names)?);
            }
        }
        if loaded.is_empty() {
            return Err(Report::new(
                "the archive has no image: its index names none, or only attestations, signatures and the like",
            ));
        }
        Ok(loaded)
    }

    /// The image that is wanted of an index, or all that are in the archive.
    fn index(&self, into: Destination<'_>, digest: &str, names: Vec<Reference>) -> Outcome<LoadedImage> {
        let bytes = self.blob(digest)?;
        let mut seen = BTreeSet::new();
        let mut whole = Vec::new();
        self.whole_images(&bytes, &mut seen, &mut whole);
        if self.platform.is_some() || whole.is_empty() {
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            let name: Reference = "archive".parse()?;
            whole = vec![self.archive.layout().image_for(&bytes, &name, &platform)?.0];
        }
        let rows = whole.iter().map(|digest| self.manifest(into, digest));
        named(into, &rows.collect::<Outcome<Vec<_>>>()?, names)
    }

    /// All images of an index, and of indexes in it, that are in the archive with all their layers.
    fn whole_images(&self, index: &[u8], seen: &mut BTreeSet<String>, whole: &mut Vec<String>) {
        let Ok(index) = read_index(index) else { return };
        for entry in index.manifests().iter().filter(|entry| !is_artifact(entry)) {
            let digest = entry.digest().to_string();
            // An index may name what is not in the archive; and each is looked at once, so this ends.
            if seen.len() as u64 > MOST_FILES || !seen.insert(digest.clone()) {
                continue;
            }
            match self.blob(&digest) {
                Ok(bytes) if is_index(&bytes) => self.whole_images(&bytes, seen, whole),
                Ok(bytes) if is_image(&bytes) && self.is_whole(&digest) => whole.push(digest),
                _ => tracing::debug!(digest, "an entry of the index is no whole image of the archive"),
            }
        }
    }

    /// Whether an image is in the archive with all its layers: of several platforms some may have been left out.
    fn is_whole(&self, digest: &str) -> bool {
        let manifest = self.blob(digest).ok().and_then(|bytes| read_manifest(&bytes).ok());
        manifest.is_some_and(|manifest| {
            let mut blobs = manifest.layers().iter().chain([manifest.config()]);
            blobs.all(|blob| self.archive.layout().has_blob(blob.digest().as_ref()))
        })
    }

    fn manifest(&self, into: Destination<'_>, digest: &str) -> Outcome<ImageRow> {
        let bytes = self.blob(digest)?;
        let manifest = read_manifest(&bytes).context("the image's manifest cannot be read")?;
        let config = self.blob(manifest.config().digest().as_ref())?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let path = self.archive.layout().blob_path(layer.digest().as_ref())?;
            let digest = layer.digest().to_string().parse()?;
            layers.push((path, Some((layer.media_type().to_string(), digest))));
        }
        into.store.put_blob(&bytes)?;
        self.keep(into, &config, &layers, Some(digest.parse()?))
    }

    /// As [`keep`], if the image is for the platform that was asked for.
    fn keep(
        &self,
        into: Destination<'_>,
        config: &[u8],
        layers: &[(PathBuf, Option<(String, Digest)>)],
        manifest: Option<Digest>,
    ) -> Outcome<ImageRow> {
        let known = ImageConfig::read(config).context("the image's config cannot be read")?;
        let found = known.platform();
        match self.platform.as_ref().filter(|wanted| !wanted.accepts(&found)) {
            Some(wanted) => {
                Err(Report::new(format!("the archive has no image for {wanted}, only for {found}")))
            }
            None => keep(into, (config, &known), layers, manifest),
        }
    }
}

/// Whether a manifest is an image's: others lie beside them in layouts.
fn is_image(manifest: &[u8]) -> bool {
    read_manifest(manifest).is_ok_and(|manifest| is_image_config(manifest.config().media_type().as_ref()))
}

/// Gives images, of one for several platforms, their names. The one for this machine is the one that they mean.
fn named(into: Destination<'_>, rows: &[ImageRow], names: Vec<Reference>) -> Outcome<LoadedImage> {
    let host = Platform::host();
    let mut main = 0;
    for (number, row) in rows.iter().enumerate().rev() {
        if host.accepts(&config(into.store, &row.id)?.platform()) {
            main = number;
        }
    }
    let id = rows.get(main).map(|row| row.id.clone()).context("the archive has an index of nothing")?;
    into.store.put_variants(rows, main, &names)?;
    Ok(LoadedImage { id, names })
}

fn keep(
    into: Destination<'_>,
    (config_bytes, config): (&[u8], &ImageConfig),
    layers: &[(PathBuf, Option<(String, Digest)>)],
    manifest: Option<Digest>,
) -> Outcome<ImageRow> {
    if config.rootfs.diff_ids.len() != layers.len() {
        return Err(Report::new(format!(
            "the image has {} layers, and its config names {}",
            layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    let (mut stack, mut size) = (Vec::new(), 0);
    for ((path, told), expected) in layers.iter().zip(&config.rootfs.diff_ids) {
        stack.push(keep_layer(into, path, told.as_ref(), expected)?);
    }
    let stack = resolve_stack(into.store, stack, into.single_id)?;
    for layer in &stack {
        size += into.store.layer(&layer.id)?.map_or(0, |row| row.size);
    }
    let id = into.store.put_blob(config_bytes)?;
    Ok(ImageRow { id, manifest, layers: stack, size, stored: 0 })
}

/// Takes in a layer; `told` is its type and the digest of the file, where somebody says.
fn keep_layer(
    into: Destination<'_>,
    path: &Path,
    told: Option<&(String, Digest)>,
    expected: &DiffId,
) -> Outcome<StackLayer> {
    let store = into.store;
    let known = store.layer_of_diff(expected)?;
    if let (Some(id), Some(_)) = (known, store.layer_blob(expected, "original")?) {
        return Ok(StackLayer { id, diff_id: Some(expected.clone()), clamp: None });
    }
    let imported = import_lazy(store, File::open(path)?)?;
    if imported.diff_id != *expected {
        return Err(Report::new(format!(
            "the archive is damaged: a layer has digest {}, and the config says {expected}",
            imported.diff_id
        )));
    }
    let (digest, size) = store.copy_blob(File::open(path)?, told.map(|(_, digest)| digest))?;
    let media_type = match told {
        Some((media_type, _)) => media_type.clone(),
        None => layer_type(path)?.to_owned(),
    };
    store.link_layer_blob(expected, "original", &Blob { digest, size, media_type })?;
    Ok(StackLayer { id: imported.layer, diff_id: Some(expected.clone()), clamp: None })
}

/// The type of a layer by its first bytes: `manifest.json` tells of none.
fn layer_type(path: &Path) -> Outcome<&'static str> {
    let mut start = Vec::with_capacity(6);
    File::open(path)?.take(6).read_to_end(&mut start)?;
    Ok(match Compression::detect(&start) {
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
        // Docker's own type, which no registry is given: whoever pushes compresses such a layer.
        Compression::Plain => media::DOCKER_LAYER,
        Compression::Bzip2 | Compression::Xz => {
            return Err(Report::new("a layer has an unsupported compression"));
        }
    })
}
