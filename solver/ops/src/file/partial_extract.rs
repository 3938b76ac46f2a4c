//! What a copy reads of layers that are packed: the files that it wants, and nothing else.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use lapstrake_snapshot::{extract_files, stacking};
use lapstrake_store::{LayerId, Stacking, Store};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::select::Selection;
use lapstrake_tree::unpack::PartialExtract;
use lapstrake_tree::{Kind, Tree, TreePath};

use crate::error::OpsError;
use crate::file::copy_source::OpenSource;
use crate::job::context::BuildContext;
use crate::stack::Stack;

/// The files of `selection`, made of what is packed or linked, at their places in a directory that has nothing else. `None` if
/// `stack` has to be mounted for them, or may as well be.
pub(crate) fn partial_extract(
    job: &BuildContext,
    stack: &Stack,
    selection: &Selection,
) -> Result<Option<OpenSource>, OpsError> {
    let store = &job.store;
    if stack.local.is_some() || stack.below.is_some() {
        return Ok(None);
    }
    // Where layers are copied to be put on each other, a few files are linked sooner.
    let copies = matches!(stacking(store)?, Stacking::Copy { .. }) && stack.layers.len() > 1;
    if !copies && !stack.has_lazy(store) {
        return Ok(None);
    }
    let wanted = files_by_layer(store, stack, selection)?;
    for layer in wanted.keys().filter(|layer| !store.has_files(layer)) {
        if !job.partial_reads.count_read(layer) {
            // The others stay packed all the same, if they are not wanted.
            lapstrake_snapshot::unpack_lazy(store, layer, job.worker.single_id())?;
        }
    }
    let temp = store.temp_dir()?;
    let dir = open_host_dir(temp.path())?;
    // One after the other: two may have to make the same directory.
    for (layer, part) in &wanted {
        if !extract_files(store, layer, part, dir.as_fd())? {
            return Ok(None);
        }
    }
    Ok(Some(OpenSource { dir, _copy: Some(temp.into()) }))
}

/// Which layer has which of the files: the topmost one that has anything at that place.
fn files_by_layer(
    store: &Store,
    stack: &Stack,
    selection: &Selection,
) -> Result<BTreeMap<LayerId, PartialExtract>, OpsError> {
    let entries = selection.roots.iter().flat_map(|root| &root.entries);
    let files = entries.filter(|entry| matches!(entry.kind, Kind::File { .. }));
    let mut left: Vec<&TreePath> = files.map(|entry| &entry.source).collect();
    left.sort();
    left.dedup();
    let mut found = BTreeMap::new();
    for layer in stack.layers.iter().rev() {
        if left.is_empty() {
            break;
        }
        let tree = Tree::decode(&store.layer_tree(&layer.id)?)?;
        let (here, below): (Vec<_>, Vec<_>) = left.into_iter().partition(|path| tree.get(path).is_some());
        left = below;
        if !here.is_empty() {
            found.insert(layer.id.clone(), PartialExtract::of(&tree, here));
        }
    }
    Ok(found)
}
