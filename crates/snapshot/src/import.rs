//! A layer's tar into the store.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd as _;

use lapstrake_oci::{DiffId, Digest};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::unpack::{UnpackOptions, unpack_layer};

use crate::active::put;
use crate::error::SnapshotError;
use crate::implied;

/// A layer that came from a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The layer.
    pub layer: LayerId,
    /// The digest of the tar that it came from.
    pub diff_id: DiffId,
}

/// Unpacks a layer's tar, compressed or not, into the store, and remembers which tar it came from. With `single_id`
/// owners are kept in the tree only. On other layers it may need [`crate::settle`].
pub fn import_layer(
    store: &Store,
    tar: impl Read + Send,
    single_id: bool,
) -> Result<Imported, SnapshotError> {
    let temp = store.temp_dir()?;
    let dir = temp.join("layer");
    let files = dir.join("fs");
    fs::create_dir_all(&files).map_err(|source| SnapshotError::Directory { path: files.clone(), source })?;
    let root = open_host_dir(&files)?;
    let options = UnpackOptions { squash_ids: single_id, ..UnpackOptions::default() };
    let unpacked = unpack_layer(tar, root.as_fd(), &options)?;
    implied::note(&dir, &unpacked.implied_dirs)?;
    let layer = put(store, &dir, &unpacked.tree, None, single_id)?;
    let diff_id = DiffId(digest(&unpacked.diff_id));
    store.link_diff(&diff_id, &layer)?;
    Ok(Imported { layer, diff_id })
}

/// Scans the plain directory `dir` (with its files in `fs/`, in `tmp/`) and takes it in as a layer.
pub fn adopt_layer(store: &Store, dir: &std::path::Path) -> Result<LayerId, SnapshotError> {
    let root = open_host_dir(&dir.join("fs"))?;
    let options = lapstrake_tree::scan::ScanOptions { owner_default: Some((0, 0)), ..Default::default() };
    let tree = lapstrake_tree::scan::scan(root.as_fd(), &options)?;
    put(store, dir, &tree, None, false)
}

/// SHA-256 bytes as a digest.
pub(crate) fn digest(bytes: &[u8; 32]) -> Digest {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().expect("32 bytes are 64 hex digits")
}
