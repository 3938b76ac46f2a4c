//! A layer in the store as a tar.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use lapstrake_oci::{DiffId, Sha256};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::inroot::{PlainFiles, open_host_dir};
use lapstrake_tree::layer_tar::{self, HashStates, TarOptions, write_layer};
use lapstrake_tree::{Tree, TreePath};

use crate::error::SnapshotError;
use crate::import::digest;

/// Writes the canonical tar of a layer. No time is later than `clamp` (seconds since the epoch), where given.
pub fn write_tar(
    store: &Store,
    id: &LayerId,
    clamp: Option<i64>,
    out: impl Write,
) -> Result<(), SnapshotError> {
    let (tree, dirs) = opened(store, id)?;
    let options =
        TarOptions { clamp_mtime: clamp.map(|s| s.saturating_mul(1_000_000_000)), ..TarOptions::default() };
    write_layer(&tree, || opener(&dirs), out, &options)?;
    Ok(())
}

/// A layer's tree, and the directories that have its files, the topmost first.
fn opened(store: &Store, id: &LayerId) -> Result<(Tree, Vec<OwnedFd>), SnapshotError> {
    let tree = Tree::decode(&store.layer_tree(id)?)?;
    let dirs = store.layer_dirs(id).iter().rev().map(|dir| open_host_dir(dir)).collect::<Result<_, _>>()?;
    Ok((tree, dirs))
}

fn opener(dirs: &[OwnedFd]) -> impl FnMut(&TreePath) -> io::Result<File> {
    let mut files = PlainFiles::new(dirs);
    move |path| files.open(path).map(File::from).map_err(io::Error::other)
}

/// The digest of the canonical tar of a layer: computed once, then remembered. With `clamp` it is another tar, whose
/// digest nobody remembers.
pub fn diff_id(store: &Store, id: &LayerId, clamp: Option<i64>) -> Result<DiffId, SnapshotError> {
    if clamp.is_none()
        && let Some(known) = store.layer(id)?.and_then(|row| row.diff_id)
    {
        return Ok(known);
    }
    if clamp.is_some() {
        let mut hash = Sha256::new();
        write_tar(store, id, clamp, &mut hash)?;
        return Ok(DiffId(hash.finish()));
    }
    let (tree, dirs) = opened(store, id)?;
    // A layer of changes begins as the one that was made before it on the same layer, up to the first change.
    let owner = store.layer_base(id).unwrap_or_else(|| id.clone());
    let mut states = states_of(store, &owner).unwrap_or_default();
    let diff_id = DiffId(digest(&layer_tar::diff_id(&tree, || opener(&dirs), &mut states)?));
    if !states.is_empty() {
        store.keep_hash_states(&owner, &states.encode());
    }
    store.set_diff_id(id, &diff_id)?;
    Ok(diff_id)
}

/// States that were kept of the hash of a layer's tar. Without them the tar is read from its beginning.
fn states_of(store: &Store, id: &LayerId) -> Option<HashStates> {
    HashStates::decode(&store.hash_states(id)?).ok()
}
