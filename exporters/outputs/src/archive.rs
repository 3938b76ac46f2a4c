//! OCI and docker archives: an image layout, as a tar or as a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lapstrake_assemble::{DockerImage, Document, LayoutImage, docker_manifest_json, layout_index};
use lapstrake_oci::{Digest, Reference, rfc3339};
use lapstrake_store::{Blob, Store};
use rayon::prelude::*;

use crate::encode::{Encoding, layer_blob, listed};
use crate::error::OutputError;
use crate::image::{Finished, Manifest};
use crate::manifest::manifest_of;

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `type=oci`: an OCI image layout.
    Oci,
    /// `type=docker`: the same with the `manifest.json` that `docker load` reads.
    Docker,
}

/// An image and the names that it has in an archive.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The image.
    pub image: &'a Finished,
    /// Its names there.
    pub names: &'a [Reference],
}

/// An image with the form that it leaves in: its manifest and the blobs of its layers, which are in the store.
pub(crate) struct Written {
    pub(crate) manifest: Manifest,
    pub(crate) blobs: Vec<Blob>,
}

/// Compresses what is not compressed yet, side by side, and keeps it, so that the next time costs nothing.
pub(crate) fn written(store: &Store, image: &Finished, encoding: &Encoding) -> Result<Written, OutputError> {
    let blobs: Vec<Blob> = image
        .layers
        .par_iter()
        .enumerate()
        .map(|(number, _)| layer_blob(store, image, number, encoding))
        .collect::<Result<_, _>>()?;
    let layers = blobs
        .iter()
        .enumerate()
        .map(|(number, blob)| listed(store, (blob, &image.layers[number].1), image.rewritten(number)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Written { manifest: manifest_of(image, &layers, encoding), blobs })
}

/// The manifest that an image has in this form.
///
/// # Errors
/// [`OutputError`] when a layer cannot be read or its blob not be written.
pub fn image_manifest(store: &Store, image: &Finished, encoding: &Encoding) -> Result<Document, OutputError> {
    Ok(written(store, image, encoding)?.manifest.document)
}

/// Writes images to `out`. Gives their manifests.
///
/// # Errors
/// [`OutputError`] when a layer cannot be read or `out` cannot be written.
pub fn write_archive(
    store: &Store,
    images: &[Saved<'_>],
    flavour: Flavour,
    encoding: &Encoding,
    out: impl Write,
) -> Result<Vec<Document>, OutputError> {
    let failed = |source| OutputError::Write { what: "archive", source };
    let mut tar = tar::Builder::new(out);
    for name in ["blobs/", "blobs/sha256/"] {
        let mut header = header(0, tar::EntryType::Directory, 0o755);
        tar.append_data(&mut header, name, io::empty()).map_err(failed)?;
    }
    let mut place = Place::Tar(tar);
    let manifests = write(store, images, flavour, encoding, &mut place)?;
    if let Place::Tar(tar) = place {
        tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
    }
    Ok(manifests)
}

/// Adds images to the layout in the directory `dir`, which is made if it is not there. What has one of their names there
/// loses it. Gives their manifests.
///
/// # Errors
/// As [`write_archive`].
pub fn write_layout(
    store: &Store,
    images: &[Saved<'_>],
    flavour: Flavour,
    encoding: &Encoding,
    dir: &Path,
) -> Result<Vec<Document>, OutputError> {
    let failed = |source| OutputError::Write { what: "layout", source };
    fs::create_dir_all(dir.join("blobs/sha256")).map_err(failed)?;
    write(store, images, flavour, encoding, &mut Place::<io::Sink>::Dir(dir.to_owned()))
}

/// Where the files of a layout go.
enum Place<W: Write> {
    Tar(tar::Builder<W>),
    Dir(PathBuf),
}

fn write<W: Write>(
    store: &Store,
    images: &[Saved<'_>],
    flavour: Flavour,
    encoding: &Encoding,
    place: &mut Place<W>,
) -> Result<Vec<Document>, OutputError> {
    let failed = |source| OutputError::Write { what: "archive", source };
    let mut there = BTreeSet::new();
    let (mut in_index, mut in_docker, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
    for Saved { image, names } in images {
        let Written { manifest: Manifest { media_type, document: manifest }, blobs } =
            written(store, image, encoding)?;
        for blob in &blobs {
            if there.insert(blob.digest.clone()) {
                let file = store.open_blob(&blob.digest)?;
                place.add(&blob_name(&blob.digest), blob.size, file).map_err(failed)?;
            }
        }
        for document in [&image.document, &manifest] {
            if there.insert(document.digest.clone()) {
                let size = document.bytes.len() as u64;
                place.add(&blob_name(&document.digest), size, &document.bytes[..]).map_err(failed)?;
            }
        }
        in_index.push(LayoutImage {
            media_type,
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            names: names.to_vec(),
            annotations: descriptor_annotations(image, encoding),
            platform: image.config.platform(),
        });
        in_docker.push(DockerImage {
            config: image.document.digest.clone(),
            names: names.to_vec(),
            layers: blobs.into_iter().map(|blob| blob.digest).collect(),
        });
        manifests.push(manifest);
    }
    let before = place.index().map_err(failed)?;
    let mut documents = vec![("index.json", layout_index(&in_index, before.as_deref()))];
    if flavour == Flavour::Docker {
        documents.push(("manifest.json", docker_manifest_json(&in_docker)));
    }
    documents.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    for (name, bytes) in &documents {
        place.add(name, bytes.len() as u64, &bytes[..]).map_err(failed)?;
    }
    Ok(manifests)
}

/// What is said of a manifest where it is listed: when it was made, and what was asked for.
pub fn descriptor_annotations(image: &Finished, encoding: &Encoding) -> BTreeMap<String, String> {
    let mut annotations = encoding.descriptor_annotations.clone();
    let created = image.config.created.clone().unwrap_or_else(|| rfc3339(0, 0));
    annotations.entry("org.opencontainers.image.created".to_owned()).or_insert(created);
    annotations
}

impl<W: Write> Place<W> {
    fn add(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        match self {
            Place::Tar(tar) => {
                let mut header = header(size, tar::EntryType::Regular, 0o644);
                tar.append_data(&mut header, name, content.take(size))
            }
            Place::Dir(dir) => {
                let (path, partial) = (dir.join(name), dir.join(format!(".{}.partial", std::process::id())));
                let mut file = File::create(&partial)?;
                let copied =
                    io::copy(&mut content.take(size), &mut file).and_then(|_| fs::rename(&partial, path));
                if copied.is_err() {
                    // The first error is the one to tell.
                    fs::remove_file(&partial).unwrap_or_default();
                }
                copied
            }
        }
    }

    /// The index that is there already.
    fn index(&self) -> io::Result<Option<Vec<u8>>> {
        let Place::Dir(dir) = self else { return Ok(None) };
        match fs::read(dir.join("index.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn header(size: u64, kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
