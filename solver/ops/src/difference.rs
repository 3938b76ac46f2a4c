//! Diff ops: the changes that make one tree out of another.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use lapstrake_snapshot::Active;
use lapstrake_tree::copy::{self, CopyOptions, Dest};
use lapstrake_tree::select::{Picked, Selection, Selector};
use lapstrake_tree::{Kind, Tree, TreePath};

use crate::error::OpsError;
use crate::job::context::BuildContext;
use crate::stack::{SharedStack, Stack};

/// The changes that make the second input out of the first one, as a stack to be put on other trees.
pub(crate) fn difference(job: &BuildContext, inputs: &[SharedStack]) -> Result<Stack, OpsError> {
    let [lower, upper] = inputs else { return Err(OpsError::Worker) };
    if [lower, upper].iter().any(|stack| stack.local.is_some() || stack.below.is_some()) {
        return Err(OpsError::Unsupported {
            what: "a difference of directories that are no layers".to_owned(),
        });
    }
    if upper.layers.starts_with(&lower.layers) {
        let layers = upper.layers[lower.layers.len()..].to_vec();
        return Ok(Stack { layers, ..Stack::default() });
    }
    let (store, single_id) = (&job.store, job.worker.single_id());
    let (below, above) = (entries(&lower.tree(store)?)?, entries(&upper.tree(store)?)?);
    let active = Active::new(store, &lower.lowers(store, single_id)?)?;
    remove_missing(&active, &below, &above)?;
    let is_change = |picked: &Picked| below.get(&picked.to).is_none_or(|known| !same(known, picked));
    let changed: Vec<Picked> = above.values().filter(|picked| is_change(picked)).cloned().collect();
    let from = upper.open(store, single_id)?;
    let root = lapstrake_tree::select::SelectedRoot {
        name: Box::default(),
        is_dir: true,
        mtime: None,
        own: None,
        entries: changed,
    };
    let options = CopyOptions { single_id, replace: true, ..CopyOptions::default() };
    let selection = Selection { roots: vec![root] };
    let copied = copy::copy(from.as_fd(), &selection, Dest::plain(active.root()), b"/", &options)?;
    let layer = active.commit(store, copied, single_id)?;
    Ok(Stack::default().with(layer))
}

/// All entries of a tree by their paths.
fn entries(tree: &Tree) -> Result<BTreeMap<TreePath, Picked>, OpsError> {
    let all = tree.select(&Selector { wildcards: false, ..Selector::new("/") })?;
    let all = all.roots.into_iter().flat_map(|root| root.entries);
    Ok(all.map(|picked| (picked.to.clone(), picked)).collect())
}

/// Removes what `above` does not have; of a whole directory, the directory.
fn remove_missing(
    active: &Active,
    below: &BTreeMap<TreePath, Picked>,
    above: &BTreeMap<TreePath, Picked>,
) -> Result<(), OpsError> {
    let mut gone: Option<&TreePath> = None;
    for path in below.keys().filter(|path| !above.contains_key(*path)) {
        if gone.is_some_and(|gone| path.starts_with(gone)) {
            continue;
        }
        gone = Some(path);
        // A part of the way may be another kind of thing there, which the copy replaces.
        copy::remove(active.root(), path.as_bytes(), false, true)?;
    }
    Ok(())
}

/// Whether two entries are the same. The time of a directory only says that something in it has changed.
fn same(one: &Picked, other: &Picked) -> bool {
    let mut meta = one.meta.clone();
    if matches!((&one.kind, &other.kind), (Kind::Dir { .. }, Kind::Dir { .. })) {
        meta.mtime = other.meta.mtime;
        return meta == other.meta;
    }
    one.kind == other.kind && meta == other.meta
}
