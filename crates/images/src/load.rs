//! `lapstrake load`: docker archives and OCI archives.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lapstrake_build::Machine;
use lapstrake_diag::{Context as _, Outcome, Report};
use lapstrake_images::{Archive, DockerImage, ImagesError, Layout, MOST_FILES, tag_of};
use lapstrake_oci::media::{self, Kind, kind};
use lapstrake_oci::{
    Descriptor, DiffId, Digest, ImageConfig, Platform, Reference, is_artifact, is_image_config, read_index,
    read_manifest,
};
use lapstrake_ops::settle;
use lapstrake_registry::is_index;
use lapstrake_snapshot::import_packed;
use lapstrake_store::{Blob, ImageRow, StackLayer};
use lapstrake_tree::decompress::Compression;

use crate::args::images::Load;
use crate::session;

/// Loads images from an archive.
pub(crate) fn load(args: &Load) -> Outcome<ExitCode> {
    let session = session::open()?;
    let platform = args.platform.as_deref().map(session::asked_platform).transpose()?;
    let name = args.input.as_deref().map(own_name).unwrap_or_default();
    let archive = match &args.input {
        Some(dir) if dir.is_dir() => Archive::of_directory(dir)?,
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
            Archive::unpack(session.store.temp_dir()?, file)?
        }
        None => Archive::unpack(session.store.temp_dir()?, io::stdin())?,
    };
    let source = Source { archive, name, platform };
    let loaded = if let Some(images) = source.archive.docker_images()? {
        images.iter().map(|image| source.docker(&session, image)).collect::<Outcome<Vec<_>>>()?
    } else if let Some(index) = source.archive.document("index.json")? {
        source.layout(&session, &index)?
    } else {
        return Err(Report::new("not an image archive: neither manifest.json nor index.json is in it"));
    };
    session.store.sync()?;
    for (id, names) in loaded {
        if args.json {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            say!("{}", serde_json::json!({"ID": id, "Names": names}));
            continue;
        }
        if args.quiet {
            say!("{id}");
            continue;
        }
        if names.is_empty() {
            say!("Loaded image ID: {id}");
            continue;
        }
        for name in &names {
            say!("Loaded image: {}", name.familiar());
        }
    }
    Ok(ExitCode::SUCCESS)
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

/// The id of an image and its names.
type Loaded = (Digest, Vec<Reference>);

/// An archive, and what is wanted of it.
struct Source {
    archive: Archive,
    /// The name of images of which only a tag is known; none is valid too.
    name: String,
    /// The requested platform, if any.
    platform: Option<Platform>,
}

/// The names that an archive gives an image.
fn names(image: &DockerImage) -> Outcome<Vec<Reference>> {
    let given =
        |tag: &String| Reference::new_name(tag).with_context(|| format!("the archive's name `{tag}`"));
    image.names().map(given).collect()
}

impl Source {
    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImagesError> {
        self.archive.layout().blob(digest)
    }

    fn docker(&self, session: &Machine, image: &DockerImage) -> Outcome<Loaded> {
        let missing = || ImagesError::Missing { name: image.config.clone() };
        let config = self.archive.document(&image.config)?.ok_or_else(missing)?;
        let mut layers = Vec::new();
        for name in image.layers() {
            layers.push((self.archive.path(name)?, None));
        }
        let names = names(image)?;
        let row = match self.manifest_of(image)? {
            Some((_, Some(index))) if self.platform.is_none() => return self.index(session, &index, names),
            Some((digest, _)) => self.manifest(session, &digest)?,
            None => self.keep(session, &config, &layers, None)?,
        };
        named(session, &[row], names)
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

    fn layout(&self, session: &Machine, index: &[u8]) -> Outcome<Vec<Loaded>> {
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
                loaded.push(self.index(session, &digest, names)?);
            } else if !is_artifact(descriptor) && is_image(&bytes) {
                loaded.push(named(session, &[self.manifest(session, &digest)?], names)?);
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
    fn index(&self, session: &Machine, digest: &str, names: Vec<Reference>) -> Outcome<Loaded> {
        let bytes = self.blob(digest)?;
        let mut seen = BTreeSet::new();
        let mut whole = Vec::new();
        self.whole_images(&bytes, &mut seen, &mut whole);
        if self.platform.is_some() || whole.is_empty() {
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            let name: Reference = "archive".parse()?;
            whole = vec![self.archive.layout().image_for(&bytes, &name, &platform)?.0];
        }
        let rows = whole.iter().map(|digest| self.manifest(session, digest));
        named(session, &rows.collect::<Outcome<Vec<_>>>()?, names)
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
                _ => {}
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

    fn manifest(&self, session: &Machine, digest: &str) -> Outcome<ImageRow> {
        let bytes = self.blob(digest)?;
        let manifest = read_manifest(&bytes).context("the image's manifest cannot be read")?;
        let config = self.blob(manifest.config().digest().as_ref())?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let path = self.archive.layout().blob_path(layer.digest().as_ref())?;
            let digest = layer.digest().to_string().parse()?;
            layers.push((path, Some((layer.media_type().to_string(), digest))));
        }
        session.store.put_blob(&bytes)?;
        self.keep(session, &config, &layers, Some(digest.parse()?))
    }

    /// As [`keep`], if the image is for the platform that was asked for.
    fn keep(
        &self,
        session: &Machine,
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
            None => keep(session, (config, &known), layers, manifest),
        }
    }
}

/// Whether a manifest is an image's: others lie beside them in layouts.
fn is_image(manifest: &[u8]) -> bool {
    read_manifest(manifest).is_ok_and(|manifest| is_image_config(manifest.config().media_type().as_ref()))
}

/// Gives images, of one for several platforms, their names. The one for this machine is the one that they mean.
fn named(session: &Machine, rows: &[ImageRow], names: Vec<Reference>) -> Outcome<Loaded> {
    let host = Platform::host();
    let mut main = 0;
    for (number, row) in rows.iter().enumerate().rev() {
        if host.accepts(&session::config(&session.store, &row.id)?.platform()) {
            main = number;
        }
    }
    let id = rows.get(main).map(|row| row.id.clone()).context("the archive has an index of nothing")?;
    session.store.put_variants(rows, main, &names)?;
    Ok((id, names))
}

fn keep(
    session: &Machine,
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
        stack.push(keep_layer(session, path, told.as_ref(), expected)?);
    }
    let stack = settle(&session.store, stack, session.single_id)?;
    for layer in &stack {
        size += session.store.layer(&layer.id)?.map_or(0, |row| row.size);
    }
    let id = session.store.put_blob(config_bytes)?;
    Ok(ImageRow { id, manifest, layers: stack, size, stored: 0 })
}

/// Takes in a layer; `told` is its type and the digest of the file, where somebody says.
fn keep_layer(
    session: &Machine,
    path: &Path,
    told: Option<&(String, Digest)>,
    expected: &DiffId,
) -> Outcome<StackLayer> {
    let store = &session.store;
    let known = store.layer_of_diff(expected)?;
    if let (Some(id), Some(_)) = (known, store.layer_blob(expected, "original")?) {
        return Ok(StackLayer { id, diff_id: Some(expected.clone()), clamp: None });
    }
    let imported = import_packed(store, File::open(path)?)?;
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
