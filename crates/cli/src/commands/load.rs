//! `lapstrake load`: docker archives and OCI archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lapstrake_oci::media::{self, Kind, kind};
use lapstrake_oci::{DiffId, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference};
use lapstrake_ops::StackLayer;
use lapstrake_snapshot::import_layer;
use lapstrake_store::{Blob, ImageRow, TempDir};

use crate::args::images::Load;
use crate::session::{self, Session};

/// Loads images from an archive.
pub(crate) fn load(args: &Load) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let input: Box<dyn Read + Send> = match &args.input {
        Some(path) => {
            Box::new(File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?)
        }
        None => Box::new(io::stdin()),
    };
    let archive = Archive::unpack(&session, input)?;
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
        if names.is_empty() || args.quiet {
            say!("Loaded image ID: {id}");
            continue;
        }
        for name in &names {
            say!("Loaded image: {}", name.familiar());
        }
    }
    Ok(ExitCode::SUCCESS)
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
    /// Held: the files go with it.
    #[expect(dead_code, reason = "dropping it removes the files")]
    dir: TempDir,
}

impl Archive {
    /// Only regular files are taken, under numbers of our own, so that no name in the archive becomes a path.
    fn unpack(session: &Session, input: Box<dyn Read + Send>) -> anyhow::Result<Archive> {
        let dir = session.store.temp_dir()?;
        let buffered = io::BufReader::with_capacity(256 << 10, input);
        let (_, plain) =
            lapstrake_tree::decompress::decompress(buffered).context("cannot read the archive")?;
        let mut archive = tar::Archive::new(plain);
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (number, entry) in archive.entries().context("cannot read the archive")?.enumerate() {
            let mut entry = entry.context("cannot read the archive")?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_file() {
                let path = dir.path().join(number.to_string());
                let mut file = File::create(&path).context("cannot unpack the archive")?;
                io::copy(&mut entry, &mut file).context("cannot unpack the archive")?;
                files.insert(name, path);
            } else if let Some(target) = entry.link_name_bytes() {
                // `docker save` used to link layers that it had twice.
                let target = String::from_utf8_lossy(&target).trim_start_matches("../").to_owned();
                if let Some(path) = files.get(&target).cloned() {
                    files.insert(name, path);
                }
            }
        }
        Ok(Archive { files, dir })
    }

    fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.files.get(name).map(PathBuf::as_path).with_context(|| format!("the archive has no `{name}`"))
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.files.get(name).map(std::fs::read).transpose()?)
    }

    fn blob_name(digest: &str) -> String {
        format!("blobs/{}", digest.replace(':', "/"))
    }

    fn blob(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let name = Archive::blob_name(digest);
        let bytes = std::fs::read(self.path(&name)?)?;
        if Digest::sha256(&bytes).to_string() != digest {
            bail!("the archive is damaged: `{name}` has other bytes than its name says");
        }
        Ok(bytes)
    }

    fn docker(&self, session: &Session, image: &DockerImage) -> anyhow::Result<Loaded> {
        let config = std::fs::read(self.path(&image.config)?)?;
        let mut layers = Vec::new();
        for name in &image.layers {
            layers.push((self.path(name)?, None));
        }
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let names = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
        keep(session, &config, &layers, None, names)
    }

    fn layout(&self, session: &Session, index: &[u8]) -> anyhow::Result<Vec<Loaded>> {
        let index: ImageIndex =
            serde_json::from_slice(index).context("the archive's index.json cannot be read")?;
        let mut loaded = Vec::new();
        for descriptor in index.manifests() {
            let annotations = descriptor.annotations().clone().unwrap_or_default();
            let name = annotations.get("io.containerd.image.name");
            let name = name.or(annotations.get("org.opencontainers.image.ref.name"));
            let names = name.and_then(|name| name.parse().ok()).into_iter().collect();
            let mut digest = descriptor.digest().to_string();
            if kind(descriptor.media_type().as_ref()) == Some(Kind::Index) {
                let inner: ImageIndex = serde_json::from_slice(&self.blob(&digest)?)?;
                digest =
                    lapstrake_registry::choose(&"archive".parse()?, &inner, &Platform::host())?.to_string();
            }
            loaded.push(self.manifest(session, &digest, names)?);
        }
        Ok(loaded)
    }

    fn manifest(&self, session: &Session, digest: &str, names: Vec<Reference>) -> anyhow::Result<Loaded> {
        let bytes = self.blob(digest)?;
        let manifest: ImageManifest =
            serde_json::from_slice(&bytes).context("the image's manifest cannot be read")?;
        let config = self.blob(manifest.config().digest().as_ref())?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let name = Archive::blob_name(layer.digest().as_ref());
            layers.push((self.path(&name)?, Some(layer.media_type().to_string())));
        }
        session.store.put_blob(&bytes)?;
        keep(session, &config, &layers, Some(digest.parse()?), names)
    }
}

fn keep(
    session: &Session,
    config_bytes: &[u8],
    layers: &[(&Path, Option<String>)],
    manifest: Option<Digest>,
    names: Vec<Reference>,
) -> anyhow::Result<Loaded> {
    let config: ImageConfig =
        serde_json::from_slice(config_bytes).context("the image's config cannot be read")?;
    if config.rootfs.diff_ids.len() != layers.len() {
        bail!("the image has {} layers, and its config names {}", layers.len(), config.rootfs.diff_ids.len());
    }
    let (mut stack, mut size) = (Vec::new(), 0);
    for ((path, media_type), expected) in layers.iter().zip(&config.rootfs.diff_ids) {
        stack.push(keep_layer(session, path, media_type.as_deref(), expected)?);
    }
    let stack = StackLayer::settle(&session.store, stack, session.single_id)?;
    for layer in &stack {
        size += session.store.layer(&layer.id)?.map_or(0, |row| row.size);
    }
    let id = session.store.put_blob(config_bytes)?;
    let tokens = String::from_utf8_lossy(&lapstrake_oci::to_json(&stack)).into_owned();
    let row = ImageRow { id: id.clone(), manifest, layers: tokens, size, stored: 0 };
    session.store.put_image(&row, &names)?;
    Ok((id, names))
}

fn keep_layer(
    session: &Session,
    path: &Path,
    media_type: Option<&str>,
    expected: &DiffId,
) -> anyhow::Result<StackLayer> {
    let store = &session.store;
    let imported = import_layer(store, File::open(path)?, session.single_id)?;
    if imported.diff_id != *expected {
        bail!(
            "the archive is damaged: a layer has digest {}, and the config says {expected}",
            imported.diff_id
        );
    }
    let (digest, size) = store.copy_blob(File::open(path)?, None)?;
    let plain = if digest == expected.0 { media::OCI_LAYER } else { media::OCI_LAYER_GZIP };
    let media_type = media_type.unwrap_or(plain).to_owned();
    store.link_layer_blob(expected, "original", &Blob { digest, size, media_type })?;
    Ok(StackLayer { id: imported.layer, diff_id: Some(expected.clone()) })
}
