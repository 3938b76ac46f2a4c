//! A few files of layers, without the rest of them being unpacked.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use lapstrake_store::{LayerId, Store, StoreError};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::unpack::{PartialExtract, UnpackOptions};

use crate::error::SnapshotError;

/// Puts files of `layer` into the directory `dest`, at the same places: out of its blob if it is packed, else as links.
/// Directories there are not those of the layer, and neither is what belongs to whom.
///
/// False if that cannot be done: then the layer has to be unpacked.
///
/// # Errors
/// [`SnapshotError`] if its blob is gone or damaged.
pub fn extract_files(
    store: &Store,
    layer: &LayerId,
    part: &PartialExtract,
    dest: BorrowedFd<'_>,
) -> Result<bool, SnapshotError> {
    if part.is_empty() {
        return Ok(true);
    }
    if store.has_files(layer) {
        let dirs: Vec<OwnedFd> =
            store.layer_dirs(layer).iter().rev().map(|dir| open_host_dir(dir)).collect::<Result<_, _>>()?;
        let dirs: Vec<BorrowedFd<'_>> = dirs.iter().map(|dir| dir.as_fd()).collect();
        return Ok(part.link_from(&dirs, dest)?);
    }
    let missing = || StoreError::Missing { what: "layer", name: layer.to_string() };
    let blob = store.lazy_blob(layer)?.ok_or_else(missing)?;
    Ok(part.take_from(store.open_blob(&blob.digest)?, dest, &UnpackOptions::default())?)
}
