//! A layer in the store as a tar.

use std::fs::File;
use std::io::{self, Write};

use lapstrake_oci::{DiffId, Digest, Sha256};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::inroot::{open_host_dir, open_plain_in};
use lapstrake_tree::layer_tar::{TarOptions, write_layer};
use lapstrake_tree::{Tree, TreePath};
use rustix::fs::OFlags;

use crate::error::SnapshotError;

/// Writes the canonical tar of a layer. No time is later than `clamp` (seconds since the epoch), where given.
pub fn write_tar(
    store: &Store,
    id: &LayerId,
    clamp: Option<i64>,
    out: impl Write,
) -> Result<(), SnapshotError> {
    let tree = Tree::decode(&store.layer_tree(id)?)?;
    let dirs: Vec<_> =
        store.layer_dirs(id).iter().rev().map(|dir| open_host_dir(dir)).collect::<Result<_, _>>()?;
    let open = |path: &TreePath| -> io::Result<File> {
        open_plain_in(&dirs, path, OFlags::RDONLY).map(File::from).map_err(io::Error::other)
    };
    let options =
        TarOptions { clamp_mtime: clamp.map(|s| s.saturating_mul(1_000_000_000)), ..TarOptions::default() };
    write_layer(&tree, open, out, &options)?;
    Ok(())
}

/// The digest of the canonical tar of a layer: computed once, then remembered. With `clamp` it is another tar, whose
/// digest nobody remembers.
pub fn diff_id(store: &Store, id: &LayerId, clamp: Option<i64>) -> Result<DiffId, SnapshotError> {
    if clamp.is_none()
        && let Some(known) = store.layer(id)?.and_then(|row| row.diff_id)
    {
        return Ok(known);
    }
    let mut hash = Sha256::new();
    write_tar(store, id, clamp, &mut hash)?;
    let digest: Digest = hash.finish();
    let diff_id = DiffId(digest);
    if clamp.is_none() {
        store.set_diff_id(id, &diff_id)?;
    }
    Ok(diff_id)
}
