//! OCI and docker archives: an image layout, as a tar or as a directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lapstrake_assemble::{DockerImage, Document, LayoutImage, docker_manifest_json, layout_index};
use lapstrake_oci::{Digest, Reference};
use lapstrake_store::Store;
use lapstrake_sys::outfile::{NewMode, write_output};

use crate::bundle::Bundle;
use crate::error::OutputError;
use crate::image::Manifest;
use crate::manifest::{Written, written};

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
    pub bundle: &'a Bundle,
    /// Its names there.
    pub names: &'a [Reference],
}

/// Writes images to `out`. Gives their manifests, or indexes.
///
/// # Errors
/// [`OutputError`] when a layer cannot be read or `out` cannot be written.
pub fn write_archive(
    store: &Store,
    images: &[Saved<'_>],
    flavour: Flavour,
    out: impl Write,
) -> Result<Vec<Manifest>, OutputError> {
    let failed = |source| OutputError::Write { what: "archive", source };
    let mut tar = tar::Builder::new(out);
    for name in ["blobs/", "blobs/sha256/"] {
        let mut header = header(0, tar::EntryType::Directory, 0o755);
        tar.append_data(&mut header, name, io::empty()).map_err(failed)?;
    }
    let mut place = Place::Tar(tar);
    let manifests = write(store, images, flavour, &mut place)?;
    if let Place::Tar(tar) = place {
        tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
    }
    Ok(manifests)
}

/// Adds images to the layout in the directory `dir`, which is made if it is not there. What has one of their names there
/// loses it. Gives their manifests, or indexes.
///
/// # Errors
/// As [`write_archive`].
pub fn write_layout(
    store: &Store,
    images: &[Saved<'_>],
    flavour: Flavour,
    dir: &Path,
) -> Result<Vec<Manifest>, OutputError> {
    let failed = |source| OutputError::Write { what: "layout", source };
    fs::create_dir_all(dir.join("blobs/sha256")).map_err(failed)?;
    write(store, images, flavour, &mut Place::<io::Sink>::Dir(dir.to_owned()))
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
    place: &mut Place<W>,
) -> Result<Vec<Manifest>, OutputError> {
    let failed = |source| OutputError::Write { what: "archive", source };
    let mut there = BTreeSet::new();
    let (mut in_index, mut in_docker, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for Saved { bundle, names } in images {
        let mut manifests = Vec::new();
        for (number, variant) in bundle.variants.iter().enumerate() {
            let Written { manifest, blobs } = written(store, &variant.image, &variant.encoding)?;
            for blob in &blobs {
                if there.insert(blob.digest.clone()) {
                    let file = store.open_blob(&blob.digest)?;
                    place.add(&blob_name(&blob.digest), blob.size, file).map_err(failed)?;
                }
            }
            for document in [&variant.image.document, &manifest.document] {
                place.document(document, &mut there).map_err(failed)?;
            }
            // Docker's own list knows no platforms.
            if number == bundle.main_place() {
                in_docker.push(DockerImage {
                    config: variant.image.document.digest.clone(),
                    names: names.to_vec(),
                    layers: blobs.into_iter().map(|blob| blob.digest).collect(),
                });
            }
            manifests.push(manifest);
        }
        let top = bundle.top(&manifests);
        place.document(&top.document, &mut there).map_err(failed)?;
        in_index.push(LayoutImage {
            media_type: top.media_type.clone(),
            digest: top.document.digest.clone(),
            size: top.document.bytes.len() as u64,
            names: names.to_vec(),
            annotations: bundle.descriptor_annotations(),
            platform: bundle.index.is_none().then(|| bundle.main().image.config.platform()),
        });
        tops.push(top);
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
    Ok(tops)
}

impl<W: Write> Place<W> {
    /// Adds a document as a blob, unless it is there.
    fn document(&mut self, document: &Document, there: &mut BTreeSet<Digest>) -> io::Result<()> {
        if !there.insert(document.digest.clone()) {
            return Ok(());
        }
        self.add(&blob_name(&document.digest), document.bytes.len() as u64, &document.bytes[..])
    }

    fn add(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        match self {
            Place::Tar(tar) => {
                let mut header = header(size, tar::EntryType::Regular, 0o644);
                tar.append_data(&mut header, name, content.take(size))
            }
            Place::Dir(dir) => write_output(&dir.join(name), NewMode::Masked, |out| {
                io::copy(&mut content.take(size), out).map(drop)
            }),
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
