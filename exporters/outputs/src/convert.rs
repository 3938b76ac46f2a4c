//! Tars of layers that others made, and layers whose tars become other ones: eStargz adds a table to what is inside.

use std::io::{self, BufReader, Read as _, Write};

use lapstrake_oci::{DiffId, Digest, Sha256, media};
use lapstrake_snapshot::write_tar;
use lapstrake_store::{Blob, LayerId, Store, StoreError};
use lapstrake_tree::decompress::decompress;

use crate::error::OutputError;
use crate::estargz;

/// libdeflate at level 1 makes blobs 3 % longer than Go at its default level, and takes two thirds of the time of level 3,
/// which makes them 1 % shorter than Go.
pub(crate) const GZIP_LEVEL: u32 = 1;

/// The name in the store of the form that [`crate::estargz`] makes.
pub(crate) fn estargz_variant(level: u32) -> String {
    format!("estargz-{level}-3")
}

/// Makes the layer with the tar `diff_id` an eStargz one, and gives the digest of what is inside that. What was made
/// once is found again. One that is eStargz already stays.
pub(crate) fn to_estargz(
    store: &Store,
    (id, diff_id): (&LayerId, &DiffId),
    clamp: Option<i64>,
    level: Option<u32>,
) -> Result<DiffId, OutputError> {
    let level = level.unwrap_or(GZIP_LEVEL);
    let variant = estargz_variant(level);
    // Beside the forms of a tar: what it became.
    let memo = format!("to-{variant}");
    if let Some(made) = store.layer_blob(diff_id, &memo)?
        && let Some(inside) = store.diff_id_of(&made.digest, &variant)?
    {
        store.link_diff(&inside, id)?;
        return Ok(inside);
    }
    let original = store.layer_blob(diff_id, "original")?;
    let failed = |source| OutputError::Write { what: "layer as eStargz", source };
    if let Some(blob) = &original
        && estargz::look(store.open_blob(&blob.digest)?).map_err(failed)?.is_some()
    {
        store.link_layer_blob(diff_id, &variant, blob)?;
        return Ok(diff_id.clone());
    }
    let (from, mut to) = io::pipe().map_err(failed)?;
    let out = store.blob_writer()?;
    let (told, made) = std::thread::scope(|scope| {
        let teller = scope.spawn(move || match &original {
            Some(blob) => copy_tar(store, blob, diff_id, &mut to),
            None => Ok(write_tar(store, id, clamp, &mut to)?),
        });
        let made = estargz::write(BufReader::with_capacity(256 << 10, from), out, level);
        (teller.join(), made)
    });
    // Who reads tells best what is wrong with a tar, and who writes it why it ended early.
    let (out, inside) = match (made, told.map_err(|_| OutputError::Worker)?) {
        (Ok(made), told) => told.map(|()| made)?,
        (Err(error), Err(told)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(told),
        (Err(error), _) => return Err(failed(error)),
    };
    let (digest, size) = out.finish(None)?;
    let blob = Blob { digest, size, media_type: media::OCI_LAYER_GZIP.to_owned() };
    store.link_diff(&inside.diff_id, id)?;
    for (diff_id, variant) in
        [(&inside.diff_id, "original"), (&inside.diff_id, variant.as_str()), (diff_id, memo.as_str())]
    {
        store.link_layer_blob(diff_id, variant, &blob)?;
    }
    Ok(inside.diff_id)
}

/// The digest of the table of an eStargz blob, and how long its tar is; `None` for any other blob. The tar has to be read for
/// that once; then a row tells of it, which names no blob: its digest is that of the table.
pub(crate) fn table_of(
    store: &Store,
    (blob, diff_id): (&Blob, &DiffId),
) -> Result<Option<(Digest, u64)>, OutputError> {
    let memo = format!("to-table-of-{}", blob.digest.hex());
    if let Some(table) = store.known_layer_blob(diff_id, &memo)? {
        return Ok(Some((table.digest, table.size)));
    }
    // A layer that the registry has need not be here.
    if !store.has_blob(&blob.digest) {
        return Ok(None);
    }
    let failed = |source| OutputError::Write { what: "manifest", source };
    let found = estargz::look(store.open_blob(&blob.digest)?).map_err(failed)?;
    if let Some((digest, size)) = found.clone() {
        let media_type = "eStargz table".to_owned();
        store.link_layer_blob(diff_id, &memo, &Blob { digest, size, media_type })?;
    }
    Ok(found)
}

/// Writes the tar that is in `blob`.
pub(crate) fn copy_tar(
    store: &Store,
    blob: &Blob,
    diff_id: &DiffId,
    out: &mut impl Write,
) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { what: "layer's blob", source };
    let (_, mut tar) = decompress(BufReader::new(store.open_blob(&blob.digest)?)).map_err(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let got = tar.read(&mut buffer).map_err(failed)?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
        out.write_all(&buffer[..got]).map_err(failed)?;
    }
    let found = hash.finish();
    if found == diff_id.0 {
        return Ok(());
    }
    Err(StoreError::WrongDigest { expected: diff_id.to_string(), found: found.to_string() }.into())
}
