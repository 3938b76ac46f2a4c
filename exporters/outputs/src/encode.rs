//! Layers as blobs: which compression, which media type.

use std::collections::BTreeMap;
use std::io::{self, Write};

use lapstrake_assemble::ListedLayer;
use lapstrake_oci::media::{self, Compression};
use lapstrake_oci::{DiffId, Sha256};
use lapstrake_snapshot::write_tar;
use lapstrake_store::{Blob, BlobWriter, LayerId, Store, StoreError};

use crate::convert::{GZIP_LEVEL, copy_tar, estargz_variant, table_of};
use crate::error::OutputError;
use crate::gzip::ParallelGzip;
use crate::image::{Elsewhere, Finished};

const ZSTD_LEVEL: u32 = 3;
/// Annotations of an eStargz layer: its table, and how long its tar is.
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const TOC_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// How a layer's tar becomes a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// As it is.
    Plain,
    /// By gzip.
    #[default]
    Gzip,
    /// By gzip, file by file and with a table of them. New layers have to be made so before their config is: see
    /// [`crate::Tars`].
    Estargz,
    /// By Zstandard.
    Zstd,
}

impl LayerForm {
    fn compression(self) -> Compression {
        match self {
            LayerForm::Plain => Compression::None,
            LayerForm::Gzip | LayerForm::Estargz => Compression::Gzip,
            LayerForm::Zstd => Compression::Zstd,
        }
    }
}

/// How an image is written down: everything that changes bytes of blobs and manifests, but not the image's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// How layers are compressed.
    pub form: LayerForm,
    /// How hard: the compression's own levels; `None` is a good one.
    pub level: Option<u32>,
    /// Compress layers anew that came compressed in another way.
    pub force: bool,
    /// Docker's media types instead of those of the OCI.
    pub docker_types: bool,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the manifest where it is listed: in a layout's index.
    pub descriptor_annotations: BTreeMap<String, String>,
    /// Leave the types of layers that are not to be given away as they are.
    pub nondistributable: bool,
}

impl Encoding {
    /// The media type of a manifest.
    pub fn manifest_type(&self) -> &'static str {
        if self.docker_types { media::DOCKER_MANIFEST } else { media::OCI_MANIFEST }
    }

    /// The form's name in the store.
    fn variant(&self) -> String {
        match self.form {
            LayerForm::Plain => "plain".to_owned(),
            // The last number is that of the way in which blocks are cut.
            LayerForm::Gzip | LayerForm::Estargz => format!("gzip-{}-4", self.level.unwrap_or(GZIP_LEVEL)),
            LayerForm::Zstd => format!("zstd-{}", self.level.unwrap_or(ZSTD_LEVEL)),
        }
    }

    /// The media type of a layer of this compression.
    fn media_type(&self, compression: Compression) -> &'static str {
        match (self.docker_types, compression) {
            (true, Compression::None) => media::DOCKER_LAYER,
            (true, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
            (true, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
            (false, _) => compression.oci_layer(),
        }
    }

    /// The forms in which a layer may be had, the best one first.
    fn variants(&self) -> Vec<String> {
        let original = (!self.force).then(|| "original".to_owned());
        let estargz = self.form == LayerForm::Estargz;
        let estargz = estargz.then(|| estargz_variant(self.level.unwrap_or(GZIP_LEVEL)));
        original.into_iter().chain(estargz).chain([self.variant()]).collect()
    }

    /// A blob as this encoding names it; `None` if it is compressed in a way that is not wanted.
    pub fn fitting(&self, blob: Blob) -> Option<Blob> {
        let Some(media::Kind::Layer(compression)) = media::kind(&blob.media_type) else { return Some(blob) };
        if self.nondistributable && media::is_nondistributable(&blob.media_type) {
            return Some(blob);
        }
        // What `docker save` leaves is not compressed for the archive's sake.
        if blob.media_type == media::DOCKER_LAYER && self.form != LayerForm::Plain {
            return None;
        }
        if self.force && compression != self.form.compression() {
            return None;
        }
        Some(Blob { media_type: self.media_type(compression).to_owned(), ..blob })
    }
}

/// The layer of a manifest that `blob` is, with what has to be said of it there: also, as BuildKit does, the second that no
/// time in it is behind, if times were rewritten. Docker's types know no annotations.
pub(crate) fn listed(
    store: &Store,
    (blob, diff_id): (&Blob, &DiffId),
    rewritten: Option<i64>,
) -> Result<ListedLayer, OutputError> {
    let mut layer = ListedLayer {
        media_type: blob.media_type.clone(),
        digest: blob.digest.clone(),
        size: blob.size,
        annotations: BTreeMap::new(),
    };
    if let Some(second) = rewritten.filter(|_| !blob.media_type.starts_with("application/vnd.docker.")) {
        layer.annotations.insert("buildkit/rewritten-timestamp".to_owned(), second.to_string());
    }
    if blob.media_type == media::OCI_LAYER_GZIP
        && let Some((toc, size)) = table_of(store, (blob, diff_id))?
    {
        layer.annotations.insert(TOC_DIGEST.to_owned(), toc.to_string());
        layer.annotations.insert(TOC_SIZE.to_owned(), size.to_string());
    }
    Ok(layer)
}

/// The layer of a manifest that stays elsewhere, with what was said of it where it came from that a reader of parts needs.
pub(crate) fn listed_elsewhere(layer: &Elsewhere, encoding: &Encoding) -> Option<ListedLayer> {
    let Blob { digest, size, media_type } = encoding.fitting(layer.blob.clone())?;
    let oci = media_type == media::OCI_LAYER_GZIP;
    let said =
        layer.annotations.iter().filter(|(key, _)| oci && [TOC_DIGEST, TOC_SIZE].contains(&key.as_str()));
    let annotations = said.map(|(key, value)| (key.clone(), value.clone())).collect();
    Some(ListedLayer { media_type, digest, size, annotations })
}

/// The blob of layer `number` if it was ever made; its bytes need not be here any more.
pub(crate) fn known_blob(
    store: &Store,
    image: &Finished,
    number: usize,
    encoding: &Encoding,
) -> Result<Option<Blob>, OutputError> {
    let (_, diff_id) = &image.layers[number];
    for variant in encoding.variants() {
        let known = store.known_layer_blob(diff_id, &variant)?;
        if let Some(blob) = known.and_then(|blob| encoding.fitting(blob)) {
            return Ok(Some(blob));
        }
    }
    Ok(None)
}

/// The blob of layer `number`: as it came, as it was made before, or made now and kept.
pub(crate) fn layer_blob(
    store: &Store,
    image: &Finished,
    number: usize,
    encoding: &Encoding,
) -> Result<Blob, OutputError> {
    let (id, diff_id) = &image.layers[number];
    for variant in encoding.variants() {
        let here = store.layer_blob(diff_id, &variant)?;
        if let Some(blob) = here.and_then(|blob| encoding.fitting(blob)) {
            return Ok(blob);
        }
    }
    let clamp = image.rewritten(number);
    let failed = |source| OutputError::Write { what: "layer's blob", source };
    let mut out = Encoder::new(store.blob_writer()?, encoding).map_err(failed)?;
    match store.layer_blob(diff_id, "original")? {
        // Somebody else's tar, which ours of the same files need not be.
        Some(original) => copy_tar(store, &original, diff_id, &mut out)?,
        None => own_tar(store, (id, diff_id), clamp, &mut out)?,
    }
    let (digest, size) = out.finish().map_err(failed)?.finish(None)?;
    let blob = Blob { digest, size, media_type: encoding.form.compression().oci_layer().to_owned() };
    store.link_layer_blob(diff_id, &encoding.variant(), &blob)?;
    Ok(Blob { media_type: encoding.media_type(encoding.form.compression()).to_owned(), ..blob })
}

/// Writes our own tar of a layer, which must have this digest: an image whose config says another one is of no use.
fn own_tar(
    store: &Store,
    (id, diff_id): (&LayerId, &DiffId),
    clamp: Option<i64>,
    out: &mut Encoder<'_>,
) -> Result<(), OutputError> {
    let known = store.layer(id)?.and_then(|row| row.diff_id);
    if clamp.is_none() && known.as_ref() == Some(diff_id) {
        // It was computed from these very files.
        return Ok(write_tar(store, id, None, out)?);
    }
    let mut hashing = Hashing { out, hash: Sha256::new() };
    write_tar(store, id, clamp, &mut hashing)?;
    let found = hashing.hash.finish();
    if found == diff_id.0 {
        return Ok(());
    }
    Err(StoreError::WrongDigest { expected: diff_id.to_string(), found: found.to_string() }.into())
}

struct Hashing<'e, 's> {
    out: &'e mut Encoder<'s>,
    hash: Sha256,
}

impl Write for Hashing<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A blob being compressed.
enum Encoder<'s> {
    Plain(BlobWriter<'s>),
    Gzip(ParallelGzip<BlobWriter<'s>>),
    Zstd(zstd::Encoder<'static, BlobWriter<'s>>),
}

impl<'s> Encoder<'s> {
    fn new(blob: BlobWriter<'s>, encoding: &Encoding) -> io::Result<Encoder<'s>> {
        Ok(match encoding.form {
            LayerForm::Plain => Encoder::Plain(blob),
            LayerForm::Gzip | LayerForm::Estargz => {
                Encoder::Gzip(ParallelGzip::new(blob, encoding.level.unwrap_or(GZIP_LEVEL))?)
            }
            LayerForm::Zstd => Encoder::Zstd(zstd_encoder(blob, encoding.level.unwrap_or(ZSTD_LEVEL))?),
        })
    }

    fn finish(self) -> io::Result<BlobWriter<'s>> {
        match self {
            Encoder::Plain(blob) => Ok(blob),
            Encoder::Gzip(gzip) => gzip.finish(),
            Encoder::Zstd(zstd) => zstd.finish(),
        }
    }
}

fn zstd_encoder<W: Write>(out: W, level: u32) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, i32::try_from(level).unwrap_or(i32::MAX))?;
    // With any number of workers but none the bytes are the same.
    encoder.multithread(u32::try_from(rayon::current_num_threads()).unwrap_or(1))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl Write for Encoder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Plain(out) => out.write(bytes),
            Encoder::Gzip(out) => out.write(bytes),
            Encoder::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_the_same_on_any_number_of_threads() {
        // Some blocks of what a worker takes at once, and text that goes across them.
        let line = |n: u64| format!("{n} {:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let data: Vec<u8> = (0..700_000).flat_map(|n| line(n / 3).into_bytes()).collect();
        let packed = |threads: usize, piece: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut encoder = zstd_encoder(Vec::new(), ZSTD_LEVEL).unwrap();
                data.chunks(piece).for_each(|piece| encoder.write_all(piece).unwrap());
                encoder.finish().unwrap()
            })
        };
        let one = packed(1, 100_003);
        assert!(zstd::decode_all(&one[..]).unwrap() == data);
        for (threads, piece) in [(1, 1 << 20), (2, 100_003), (3, 7919), (8, 1 << 20)] {
            assert!(packed(threads, piece) == one, "{threads} threads, pieces of {piece}");
        }
    }
}
