//! Directories that a layer's tar does not name but puts files into.
//!
//! Its author meant the directory that a lower layer has. Overlayfs shows the topmost one, so unpacking such a layer
//! alone would, say, take the sticky bit from `/tmp`. Which layers those are is kept beside them; where one lies on a
//! layer that has the directory, another layer with the right metadata takes its place, made of links to its files.

use std::fs;
use std::os::fd::AsFd as _;

use lapstrake_store::{LayerId, StackLayer, Store};
use lapstrake_tree::clone_tree::clone_tree;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::{Entry, Tree, TreePath};

use crate::active::store_layer;
use crate::error::SnapshotError;
use crate::import::{IMPLIED, unpack_lazy};
use crate::stacking::{marks, note_marks};

fn implicit_parents(store: &Store, layer: &LayerId) -> Vec<TreePath> {
    let Some(beside) = store.layer_dirs(layer).first().map(|dir| dir.with_file_name(IMPLIED)) else {
        return Vec::new();
    };
    let text = fs::read(beside).unwrap_or_default();
    let paths = text.split(|b| *b == 0).filter(|path| !path.is_empty());
    let mut paths: Vec<TreePath> = paths.filter_map(|path| TreePath::parse(path).ok()).collect();
    paths.sort();
    paths
}

/// The layers of an image, lowest first, as they have to be on each other; see [`resolve_implicit_parents`].
///
/// # Errors
/// [`SnapshotError`] where a layer cannot be read or written.
pub fn resolve_stack(
    store: &Store,
    layers: Vec<StackLayer>,
    single_id: bool,
) -> Result<Vec<StackLayer>, SnapshotError> {
    let ids: Vec<LayerId> = layers.iter().map(|layer| layer.id.clone()).collect();
    let settled = resolve_implicit_parents(store, &ids, single_id)?;
    let with_id = |(layer, id): (StackLayer, LayerId)| StackLayer { id, ..layer };
    Ok(layers.into_iter().zip(settled).map(with_id).collect())
}

/// The layers of an image, lowest first, each as it has to be on those below it. With `single_id` owners are kept in
/// trees only.
///
/// # Errors
/// [`SnapshotError`] when a layer cannot be read or another one not be made.
pub fn resolve_implicit_parents(
    store: &Store,
    layers: &[LayerId],
    single_id: bool,
) -> Result<Vec<LayerId>, SnapshotError> {
    let implied: Vec<Vec<TreePath>> = layers.iter().map(|layer| implicit_parents(store, layer)).collect();
    let Some(last) = implied.iter().rposition(|paths| !paths.is_empty()) else { return Ok(layers.to_vec()) };
    let mut settled = Vec::with_capacity(layers.len());
    let mut below = Tree::default();
    for (number, (layer, implied)) in layers.iter().zip(&implied).enumerate() {
        // Below the lowest there is nothing to be meant.
        if number > last || last == 0 {
            settled.push(layer.clone());
            continue;
        }
        let mut tree = Tree::decode(&store.layer_tree(layer)?)?;
        let mut id = layer.clone();
        if let Some(meant) = as_meant(&tree, implied, &below)? {
            id = replace(store, layer, &meant, single_id)?;
            tree = meant;
        }
        // A layer may be large, and nobody asks what shows of the last.
        if number < last {
            below = if number == 0 { tree.alone() } else { below.with_layer(&tree) };
        }
        settled.push(id);
    }
    Ok(settled)
}

/// The tree with what `below` says about `implied` directories, which are sorted; `None` when that is what it has.
fn as_meant(tree: &Tree, implied: &[TreePath], below: &Tree) -> Result<Option<Tree>, SnapshotError> {
    let meant = |entry: &Entry| {
        let lower = below.get(&entry.path).filter(|lower| lower.is_dir() && lower.meta != entry.meta);
        lower.map(|lower| lower.meta.clone())
    };
    if !implied.iter().filter_map(|path| tree.get(path)).any(|entry| meant(entry).is_some()) {
        return Ok(None);
    }
    let entries = tree.entries().iter().cloned().map(|mut entry| {
        if implied.binary_search(&entry.path).is_ok()
            && let Some(meta) = meant(&entry)
        {
            entry.meta = meta;
        }
        entry
    });
    Ok(Some(Tree::from_entries(entries.collect())?))
}

fn replace(store: &Store, layer: &LayerId, tree: &Tree, single_id: bool) -> Result<LayerId, SnapshotError> {
    // What takes its place has no blob of its own to wait in.
    unpack_lazy(store, layer, single_id)?;
    let temp = store.temp_dir()?;
    let dir = temp.join("layer");
    let files = dir.join("fs");
    fs::create_dir_all(&files).map_err(|source| SnapshotError::Directory { path: files.clone(), source })?;
    // It came as a tar: it is no patch.
    let from = store.layer_dirs(layer).pop().unwrap_or_default();
    let (from, to) = (open_host_dir(&from)?, open_host_dir(&files)?);
    let marks = marks(store)?;
    clone_tree(from.as_fd(), tree, to.as_fd(), (single_id, marks))?;
    note_marks(&dir, tree, marks)?;
    store_layer(store, &dir, tree, None, single_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::import_layer;

    fn layer(store: &Store, entries: &[(&str, u32)]) -> LayerId {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mode) in entries {
            let mut header = tar::Header::new_gnu();
            let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
            header.set_entry_type(kind);
            header.set_mode(*mode);
            header.set_mtime(7);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            tar.append_data(&mut header, name, &[][..]).unwrap();
        }
        import_layer(store, &tar.into_inner().unwrap()[..], true).unwrap().layer
    }

    #[test]
    fn the_lower_directory_is_meant() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let base = layer(&store, &[("tmp/", 0o1777), ("opt/", 0o700)]);
        let upper = layer(&store, &[("tmp/x", 0o644), ("new/y", 0o600), ("opt/", 0o755), ("opt/z", 0o644)]);
        let settled = resolve_implicit_parents(&store, &[base.clone(), upper.clone()], true).unwrap();
        assert_eq!(settled[0], base);
        let tree = Tree::decode(&store.layer_tree(&settled[1]).unwrap()).unwrap();
        let modes: Vec<(String, u32)> =
            tree.entries().iter().map(|e| (e.path.to_string(), e.meta.mode)).collect();
        let want = [
            ("/new", 0o755),
            ("/new/y", 0o600),
            ("/opt", 0o755),
            ("/opt/z", 0o644),
            ("/tmp", 0o1777),
            ("/tmp/x", 0o644),
        ];
        assert_eq!(modes, want.map(|(path, mode)| (path.to_owned(), mode)));
        let on_disk = fs::metadata(store.layer_dirs(&settled[1])[0].join("tmp")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&on_disk) & 0o7777, 0o1777);
        assert_eq!(resolve_implicit_parents(&store, std::slice::from_ref(&upper), true).unwrap(), [upper]);
        assert_eq!(
            resolve_implicit_parents(&store, &[base.clone(), settled[1].clone()], true).unwrap(),
            [base, settled[1].clone()]
        );
    }
}
