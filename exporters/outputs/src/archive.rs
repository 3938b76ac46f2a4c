//! OCI and docker archives: a tar of an image layout.

use std::io::{self, Read, Write};

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use lapstrake_assemble::{docker_manifest_json, layout_index, manifest};
use lapstrake_oci::{Digest, Reference, media};
use lapstrake_snapshot::write_tar;
use lapstrake_store::{Blob, Store};
use rayon::prelude::*;

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

/// zlib-rs at level 4 is as small as Go's default and faster than its fastest that is; one writer, whole blocks of
/// 128 KiB, so that its bytes depend on the layer alone.
const LEVEL: u32 = 4;
const VARIANT: &str = "gzip-4";

/// Writes the image to `out`. Layers are compressed side by side and kept, so that the next time costs nothing.
/// Gives the digest of the manifest.
pub fn write_archive(
    store: &Store,
    image: &Finished,
    names: &[Reference],
    flavour: Flavour,
    out: impl Write,
) -> Result<Digest, OutputError> {
    let blobs: Vec<Blob> = image
        .layers
        .par_iter()
        .enumerate()
        .map(|(number, _)| layer_blob(store, image, number))
        .collect::<Result<_, _>>()?;
    let layers: Vec<(String, Digest, u64)> =
        blobs.iter().map(|blob| (blob.media_type.clone(), blob.digest.clone(), blob.size)).collect();
    let config = (&image.document.digest, image.document.bytes.len() as u64);
    let manifest = manifest(config, &layers, &std::collections::BTreeMap::new());
    let size = manifest.bytes.len() as u64;
    let created = image.config.created.as_deref();
    let index = layout_index(media::OCI_MANIFEST, &manifest.digest, size, names, created);

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

/// The blob of layer `number`: as it came, or compressed now.
fn layer_blob(store: &Store, image: &Finished, number: usize) -> Result<Blob, OutputError> {
    let (id, diff_id) = &image.layers[number];
    for variant in ["original", VARIANT] {
        if let Some(blob) = store.layer_blob(diff_id, variant)? {
            return Ok(Blob { media_type: oci_type(&blob.media_type), ..blob });
        }
    }
    let clamp = image.clamp.filter(|_| number >= image.base);
    let writer = store.blob_writer()?;
    let gzip = GzEncoder::new(writer, Level::new(LEVEL));
    // The compressor's output depends on how its input is cut: always the same pieces.
    let mut pieces = io::BufWriter::with_capacity(128 << 10, gzip);
    write_tar(store, id, clamp, Exact(&mut pieces))?;
    let failed = |source| OutputError::Write { what: "compressed layer", source };
    let gzip = pieces.into_inner().map_err(|error| failed(error.into_error()))?;
    let (digest, size) = gzip.finish().map_err(failed)?.finish(None)?;
    let blob = Blob { digest, size, media_type: media::OCI_LAYER_GZIP.to_owned() };
    store.link_layer_blob(diff_id, VARIANT, &blob)?;
    Ok(blob)
}

/// Hands on small pieces, so that the buffer behind always fills to its end before it is emptied.
struct Exact<'a, W: Write>(&'a mut io::BufWriter<W>);

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.capacity() - self.0.buffer().len();
        let take = bytes.len().min(if room == 0 { self.0.capacity() } else { room });
        // A piece as large as the buffer would pass it by: then it is cut in two.
        let take = if take == self.0.capacity() { take / 2 } else { take };
        self.0.write(&bytes[..take])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn oci_type(media_type: &str) -> String {
    match media::kind(media_type) {
        Some(media::Kind::Layer(compression)) => compression.oci_layer().to_owned(),
        _ => media_type.to_owned(),
    }
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
