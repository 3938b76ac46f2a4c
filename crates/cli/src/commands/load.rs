//! `lapstrake load`: docker archives and OCI archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lapstrake_oci::media::{self, Kind, kind};
use lapstrake_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference,
};
use lapstrake_ops::StackLayer;
use lapstrake_snapshot::import_packed;
use lapstrake_store::{Blob, ImageRow, TempDir};
use lapstrake_tree::decompress::Compression;
use lapstrake_tree::members::{Member, members};

use crate::args::images::Load;
use crate::session::{self, Session};

/// An archive has a few files for each layer, and images a hundred layers at most.
const MOST_FILES: u64 = 100_000;
/// As much as a layer may have when it is unpacked.
const MOST_BYTES: u64 = 256 << 30;
/// Configs and manifests are small; more than this is an attack or a mistake.
const LONGEST_DOCUMENT: u64 = 8 << 20;

/// Loads images from an archive.
pub(crate) fn load(args: &Load) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let input: Box<dyn Read + Send> = match &args.input {
        Some(path) => {
            Box::new(File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?)
        }
        None => Box::new(io::stdin()),
    };
    let platform = args.platform.as_deref().map(session::asked_platform).transpose()?;
    let name = args.input.as_deref().map(own_name).unwrap_or_default();
    let archive = Archive { name, platform, ..Archive::unpack(&session, input)? };
    let loaded = if let Some(list) = archive.read("manifest.json")? {
        let images: Vec<DockerImage> =
            serde_json::from_slice(&list).context("the archive's manifest.json cannot be read")?;
        images.iter().map(|image| archive.docker(&session, image)).collect::<anyhow::Result<Vec<_>>>()?
    } else if let Some(index) = archive.read("index.json")? {
        archive.layout(&session, &index)?
    } else {
        bail!("this is no image archive: it has neither manifest.json nor index.json");
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

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The id of an image and its names.
type Loaded = (Digest, Vec<Reference>);

/// An unpacked archive: plain files, found by the names that its index gives.
struct Archive {
    files: BTreeMap<String, PathBuf>,
    /// What images are called of which only a tag is known; nothing may be no name.
    name: String,
    /// Which platform's images are wanted, if somebody said.
    platform: Option<Platform>,
    /// Held: the files go with it.
    #[expect(dead_code, reason = "dropping it removes the files")]
    dir: TempDir,
}

impl Archive {
    /// Only regular files are taken, under numbers of our own, so that no name in the archive becomes a path.
    fn unpack(session: &Session, input: Box<dyn Read + Send>) -> anyhow::Result<Archive> {
        let dir = session.store.temp_dir()?;
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut links = Vec::new();
        let text = |name: &[u8]| String::from_utf8_lossy(name).trim_start_matches("./").to_owned();
        members(input, (MOST_FILES, MOST_BYTES), |member, content| {
            match member {
                Member::File { name } => {
                    let path = dir.path().join(files.len().to_string());
                    let mut file = File::create(&path).context("cannot unpack the archive")?;
                    io::copy(content, &mut file).context("cannot unpack the archive")?;
                    files.insert(text(name), path);
                }
                // `docker save` used to link layers that it had twice, also before they came.
                Member::Link { name, target } => {
                    links.push((text(name), text(target).trim_start_matches("../").to_owned()));
                }
            }
            Ok::<_, anyhow::Error>(())
        })
        .context("cannot read the archive")?;
        for (name, target) in links {
            if let Some(path) = files.get(&target).cloned() {
                files.insert(name, path);
            }
        }
        Ok(Archive { files, name: String::new(), platform: None, dir })
    }

    fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.files.get(name).map(PathBuf::as_path).with_context(|| format!("the archive has no `{name}`"))
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.files.get(name).map(|path| document(path, name)).transpose()
    }

    fn blob_name(digest: &str) -> String {
        format!("blobs/{}", digest.replace(':', "/"))
    }

    fn blob(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let name = Archive::blob_name(digest);
        let bytes = document(self.path(&name)?, &name)?;
        if Digest::sha256(&bytes).to_string() != digest {
            bail!("the archive is damaged: `{name}` has other bytes than its name says");
        }
        Ok(bytes)
    }

    fn docker(&self, session: &Session, image: &DockerImage) -> anyhow::Result<Loaded> {
        let config = document(self.path(&image.config)?, &image.config)?;
        let mut layers = Vec::new();
        for name in &image.layers {
            layers.push((self.path(name)?, None));
        }
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let names = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
        let row = match self.manifest_of(image)? {
            Some((_, Some(index))) if self.platform.is_none() => return self.index(session, &index, names),
            Some((digest, _)) => self.manifest(session, &digest)?,
            None => self.keep(session, &config, &layers, None)?,
        };
        named(session, &[row], names)
    }

    /// The manifest of an image that `manifest.json` tells of, where the archive is a layout as well: it knows more, what
    /// layers are and annotations. With the index that it is in, if it is one of several.
    fn manifest_of(&self, image: &DockerImage) -> anyhow::Result<Option<(String, Option<String>)>> {
        let Some(index) = self.read("index.json")? else { return Ok(None) };
        let index: ImageIndex =
            serde_json::from_slice(&index).context("the archive's index.json cannot be read")?;
        let mut left: Vec<(String, Option<String>)> =
            index.manifests().iter().map(|entry| (entry.digest().to_string(), None)).collect();
        let name = |descriptor: &Descriptor| Archive::blob_name(descriptor.digest().as_ref());
        while let Some((digest, of)) = left.pop() {
            // An index may name what is not in the archive.
            let Ok(bytes) = self.blob(&digest) else { continue };
            if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) {
                let layers = manifest.layers().iter().map(name);
                if name(manifest.config()) == image.config && layers.eq(image.layers.iter().cloned()) {
                    return Ok(Some((digest, of)));
                }
            } else if let Ok(inner) = serde_json::from_slice::<ImageIndex>(&bytes) {
                // An index in it is that of one image; it names manifests only, or we would not come to an end.
                let manifests = inner.manifests().iter();
                let manifests = manifests.filter(|e| kind(e.media_type().as_ref()) == Some(Kind::Manifest));
                left.extend(manifests.map(|entry| (entry.digest().to_string(), Some(digest.clone()))));
            }
        }
        Ok(None)
    }

    fn layout(&self, session: &Session, index: &[u8]) -> anyhow::Result<Vec<Loaded>> {
        let index: ImageIndex =
            serde_json::from_slice(index).context("the archive's index.json cannot be read")?;
        let mut loaded = Vec::new();
        for descriptor in index.manifests() {
            let annotations = descriptor.annotations().clone().unwrap_or_default();
            // A bare word is a tag of some repository that is not named: skopeo writes such. The archive's own name stands
            // for that.
            let name = annotations.get("org.opencontainers.image.ref.name").map(|name| {
                if name.contains([':', '/']) { name.clone() } else { format!("{}:{name}", self.name) }
            });
            let name = annotations.get("io.containerd.image.name").cloned().or(name);
            let names = name.and_then(|name| name.parse().ok()).into_iter().collect();
            let digest = descriptor.digest().to_string();
            loaded.push(if kind(descriptor.media_type().as_ref()) == Some(Kind::Index) {
                self.index(session, &digest, names)?
            } else {
                named(session, &[self.manifest(session, &digest)?], names)?
            });
        }
        Ok(loaded)
    }

    /// The image that is wanted of an index, or all that are in the archive.
    fn index(&self, session: &Session, digest: &str, names: Vec<Reference>) -> anyhow::Result<Loaded> {
        let inner: ImageIndex = serde_json::from_slice(&self.blob(digest)?)?;
        let of_images = inner.manifests().iter().filter(|entry| {
            entry.platform().as_ref().is_some_and(|platform| platform.os().to_string() != "unknown")
        });
        let mut seen = BTreeSet::new();
        let all = of_images.map(|entry| entry.digest().to_string());
        let mut whole: Vec<String> =
            all.filter(|digest| seen.insert(digest.clone()) && self.is_whole(digest)).collect();
        if self.platform.is_some() || whole.is_empty() {
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            whole = vec![lapstrake_registry::choose(&"archive".parse()?, &inner, &platform)?.to_string()];
        }
        let rows = whole.iter().map(|digest| self.manifest(session, digest));
        named(session, &rows.collect::<anyhow::Result<Vec<_>>>()?, names)
    }

    /// Whether an image is in the archive with all its layers: of several platforms some may have been left out.
    fn is_whole(&self, digest: &str) -> bool {
        let manifest = self.blob(digest).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        manifest.is_some_and(|manifest: ImageManifest| {
            let mut blobs = manifest.layers().iter().chain([manifest.config()]);
            blobs.all(|blob| self.files.contains_key(&Archive::blob_name(blob.digest().as_ref())))
        })
    }

    fn manifest(&self, session: &Session, digest: &str) -> anyhow::Result<ImageRow> {
        let bytes = self.blob(digest)?;
        let manifest: ImageManifest =
            serde_json::from_slice(&bytes).context("the image's manifest cannot be read")?;
        let config = self.blob(manifest.config().digest().as_ref())?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let name = Archive::blob_name(layer.digest().as_ref());
            let digest = layer.digest().to_string().parse()?;
            layers.push((self.path(&name)?, Some((layer.media_type().to_string(), digest))));
        }
        session.store.put_blob(&bytes)?;
        self.keep(session, &config, &layers, Some(digest.parse()?))
    }

    /// As [`keep`], if the image is for the platform that was asked for.
    fn keep(
        &self,
        session: &Session,
        config: &[u8],
        layers: &[(&Path, Option<(String, Digest)>)],
        manifest: Option<Digest>,
    ) -> anyhow::Result<ImageRow> {
        let known: ImageConfig =
            serde_json::from_slice(config).context("the image's config cannot be read")?;
        let found = known.platform();
        match self.platform.as_ref().filter(|wanted| !wanted.accepts(&found)) {
            Some(wanted) => bail!("the archive has no image for {wanted}: it is for {found}"),
            None => keep(session, (config, &known), layers, manifest),
        }
    }
}

/// Gives images, of one for several platforms, their names. The one for this machine is the one that they mean.
fn named(session: &Session, rows: &[ImageRow], names: Vec<Reference>) -> anyhow::Result<Loaded> {
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
    session: &Session,
    (config_bytes, config): (&[u8], &ImageConfig),
    layers: &[(&Path, Option<(String, Digest)>)],
    manifest: Option<Digest>,
) -> anyhow::Result<ImageRow> {
    if config.rootfs.diff_ids.len() != layers.len() {
        bail!("the image has {} layers, and its config names {}", layers.len(), config.rootfs.diff_ids.len());
    }
    let (mut stack, mut size) = (Vec::new(), 0);
    for ((path, told), expected) in layers.iter().zip(&config.rootfs.diff_ids) {
        stack.push(keep_layer(session, path, told.as_ref(), expected)?);
    }
    let stack = StackLayer::settle(&session.store, stack, session.single_id)?;
    for layer in &stack {
        size += session.store.layer(&layer.id)?.map_or(0, |row| row.size);
    }
    let id = session.store.put_blob(config_bytes)?;
    let tokens = String::from_utf8_lossy(&lapstrake_oci::to_json(&stack)).into_owned();
    Ok(ImageRow { id, manifest, layers: tokens, size, stored: 0 })
}

/// Takes in a layer; `told` is its type and the digest of the file, where somebody says.
fn keep_layer(
    session: &Session,
    path: &Path,
    told: Option<&(String, Digest)>,
    expected: &DiffId,
) -> anyhow::Result<StackLayer> {
    let store = &session.store;
    let known = store.layer_of_diff(expected)?;
    if let (Some(id), Some(_)) = (known, store.layer_blob(expected, "original")?) {
        return Ok(StackLayer { id, diff_id: Some(expected.clone()) });
    }
    let imported = import_packed(store, File::open(path)?)?;
    if imported.diff_id != *expected {
        bail!(
            "the archive is damaged: a layer has digest {}, and the config says {expected}",
            imported.diff_id
        );
    }
    let (digest, size) = store.copy_blob(File::open(path)?, told.map(|(_, digest)| digest))?;
    let media_type = match told {
        Some((media_type, _)) => media_type.clone(),
        None => layer_type(path)?.to_owned(),
    };
    store.link_layer_blob(expected, "original", &Blob { digest, size, media_type })?;
    Ok(StackLayer { id: imported.layer, diff_id: Some(expected.clone()) })
}

/// The type of a layer by its first bytes: `manifest.json` tells of none.
fn layer_type(path: &Path) -> anyhow::Result<&'static str> {
    let mut start = Vec::with_capacity(6);
    File::open(path)?.take(6).read_to_end(&mut start)?;
    Ok(match Compression::detect(&start) {
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
        // Docker's own type, which no registry is given: whoever pushes compresses such a layer.
        Compression::Plain => media::DOCKER_LAYER,
        Compression::Bzip2 | Compression::Xz => {
            bail!("a layer is compressed in a way that images do not know")
        }
    })
}

/// A small file whole.
fn document(path: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > LONGEST_DOCUMENT {
        bail!(
            "`{name}` in the archive has more than {LONGEST_DOCUMENT} bytes: it is no description of an image"
        );
    }
    Ok(std::fs::read(path)?)
}
