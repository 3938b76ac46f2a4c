//! Whether a layer in the store is whole.

use lapstrake_store::{LayerId, Store};
use lapstrake_tree::Tree;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::first_damage;
use lapstrake_tree::unpack::WhiteoutStorage;

use crate::error::SnapshotError;

/// What is wrong with a layer, if anything is. Reads all of it.
#[must_use]
pub fn damage(store: &Store, id: &LayerId) -> Option<String> {
    let tree =
        match store.layer_tree(id).map_err(SnapshotError::from).and_then(|bytes| Ok(Tree::decode(&bytes)?)) {
            Ok(tree) => tree,
            Err(error) => return Some(format!("its tree cannot be read: {error}")),
        };
    if tree.l_digest().to_string() != id.as_str() {
        return Some("its tree is another layer's".to_owned());
    }
    if !store.has_files(id) {
        return match store.lazy_blob(id) {
            Ok(Some(_)) => None,
            Ok(None) => Some("neither its files nor the blob that they came in are there".to_owned()),
            Err(error) => Some(format!("its blob cannot be found: {error}")),
        };
    }
    let dirs: Result<Vec<_>, _> = store.layer_dirs(id).iter().rev().map(|dir| open_host_dir(dir)).collect();
    let marks = if store.is_unmarked(id) { WhiteoutStorage::InTree } else { WhiteoutStorage::OnDisk };
    match dirs {
        Ok(dirs) => first_damage(&dirs, &tree, marks).map(|path| format!("`{path}` is not what it was")),
        Err(error) => Some(format!("its files cannot be read: {error}")),
    }
}

/// Takes layers whose files are there, and of which the database knows nothing, back into it. Says how many.
///
/// # Errors
/// [`SnapshotError::Store`] if the database refuses.
pub fn readopt(store: &Store) -> Result<usize, SnapshotError> {
    let mut count = 0;
    for id in store.layers_on_disk()? {
        // Nobody knows any more which blob a packed one is in.
        if !store.has_files(&id) || store.layer(&id)?.is_some() {
            continue;
        }
        let Ok(bytes) = store.layer_tree(&id) else { continue };
        let Ok(tree) = Tree::decode(&bytes) else { continue };
        store.restore_layer(&id, tree.k_digest().0, tree.content_size())?;
        count += 1;
    }
    Ok(count)
}
