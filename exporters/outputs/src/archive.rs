//! OCI and docker archives: a tar of an image layout.

use std::io::{self, Read, Write};

use lapstrake_assemble::{docker_manifest_json, layout_index, manifest};
use lapstrake_oci::{Digest, Reference};
use lapstrake_store::{Blob, Store};
use rayon::prelude::*;

use crate::encode::{Encoding, layer_blob};
use crate::error::OutputError;
use crate::image::Finished;

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `type=oci`: an OCI image layout.
    Oci,
    /// `type=docker`: the same with the `manifest.json` that `docker load` reads.
    Docker,
}

/// Writes the image to `out`. Layers are compressed side by side and kept, so that the next time costs nothing.
/// Gives the digest of the manifest.
pub fn write_archive(
    store: &Store,
    image: &Finished,
    names: &[Reference],
    flavour: Flavour,
    encoding: &Encoding,
    out: impl Write,
) -> Result<Digest, OutputError> {
    let blobs: Vec<Blob> = image
        .layers
        .par_iter()
        .enumerate()
        .map(|(number, _)| layer_blob(store, image, number, encoding))
        .collect::<Result<_, _>>()?;
    let layers: Vec<(String, Digest, u64)> =
        blobs.iter().map(|blob| (blob.media_type.clone(), blob.digest.clone(), blob.size)).collect();
    let config = (&image.document.digest, image.document.bytes.len() as u64);
    let manifest = manifest(config, &layers, &encoding.annotations, encoding.docker_types);
    let size = manifest.bytes.len() as u64;
    let created = image.config.created.as_deref();
    let index = layout_index(encoding.manifest_type(), &manifest.digest, size, names, created);

    let failed = |source| OutputError::Write { what: "archive", source };
    let mut tar = tar::Builder::new(out);
    let mut written = std::collections::BTreeSet::new();
    add_dir(&mut tar, "blobs/").and_then(|()| add_dir(&mut tar, "blobs/sha256/")).map_err(failed)?;
    for blob in &blobs {
        if written.insert(blob.digest.clone()) {
            let file = store.open_blob(&blob.digest)?;
            add(&mut tar, &blob_name(&blob.digest), blob.size, file).map_err(failed)?;
        }
    }
    let digests: Vec<Digest> = blobs.into_iter().map(|blob| blob.digest).collect();
    let mut documents = vec![
        (blob_name(&image.document.digest), image.document.bytes.clone()),
        (blob_name(&manifest.digest), manifest.bytes),
        ("index.json".to_owned(), index),
    ];
    if flavour == Flavour::Docker {
        documents.push((
            "manifest.json".to_owned(),
            docker_manifest_json(&image.document.digest, names, &digests),
        ));
    }
    documents.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    for (name, bytes) in &documents {
        add(&mut tar, name, bytes.len() as u64, &bytes[..]).map_err(failed)?;
    }
    tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
    Ok(manifest.digest)
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

fn add(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    tar.append_data(&mut header(size, tar::EntryType::Regular, 0o644), name, content.take(size))
}

fn add_dir(tar: &mut tar::Builder<impl Write>, name: &str) -> io::Result<()> {
    tar.append_data(&mut header(0, tar::EntryType::Directory, 0o755), name, io::empty())
}
