//! Merge and diff ops: trees on each other, and the changes that make one tree out of another.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use lapstrake_snapshot::Active;
use lapstrake_store::LayerId;
use lapstrake_tree::copy::{self, CopyOptions, Dest};
use lapstrake_tree::select::{Picked, SelectedRoot, Selection, Selector};
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
    let layer = change(job, lower, &upper.tree(&job.store)?, upper)?;
    Ok(Stack::default().with(layer))
}

/// One stack with the layers of all inputs, in their order.
///
/// The kernel lists a deletion whose file is in no lower layer, although the file cannot be opened. Inputs with deletions
/// are therefore applied to the layers below, and become one layer.
pub(crate) fn merged(job: &BuildContext, inputs: &[SharedStack]) -> Result<Stack, OpsError> {
    let mut hides = inputs.iter().skip(1).map(|input| has_deletions(job, input));
    if !hides.any(|hides| hides.unwrap_or(true)) {
        return Ok(Stack::merged(inputs));
    }
    let mut stack = Stack::merged(&inputs[..1]);
    for input in &inputs[1..] {
        if !has_deletions(job, input)? {
            stack.layers.extend(input.layers.iter().cloned());
            continue;
        }
        let mut wanted = stack.tree(&job.store)?;
        for layer in &input.layers {
            wanted = wanted.with_layer(&Tree::decode(&job.store.layer_tree(&layer.id)?)?);
        }
        let layer = change(job, &stack, &wanted, input)?;
        stack = stack.with(layer);
    }
    Ok(stack)
}

/// Whether a layer of `stack` removes something, or hides all of a directory.
fn has_deletions(job: &BuildContext, stack: &Stack) -> Result<bool, OpsError> {
    for layer in &stack.layers {
        let tree = Tree::decode(&job.store.layer_tree(&layer.id)?)?;
        let hides = |kind: &Kind| matches!(kind, Kind::Whiteout | Kind::Dir { opaque: true });
        if tree.entries().iter().any(|entry| hides(&entry.kind)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The layer that turns `lower` into the tree `wanted`. New and changed entries are copied out of `from`.
fn change(job: &BuildContext, lower: &Stack, wanted: &Tree, from: &Stack) -> Result<LayerId, OpsError> {
    let (store, single_id) = (&job.store, job.worker.single_id());
    let (below, above) = (entries(&lower.tree(store)?)?, entries(wanted)?);
    let active = Active::new(store, &lower.lowers(store, single_id)?)?;
    remove_missing(&active, &below, &above)?;
    let is_change = |picked: &Picked| below.get(&picked.to).is_none_or(|known| !same(known, picked));
    let changed: Vec<Picked> = above.values().filter(|picked| is_change(picked)).cloned().collect();
    let from = from.open(store, single_id)?;
    let root = SelectedRoot { name: Box::default(), is_dir: true, mtime: None, own: None, entries: changed };
    let options = CopyOptions { single_id, replace: true, ..CopyOptions::default() };
    let selection = Selection { roots: vec![root] };
    let copied = copy::copy(from.as_fd(), &selection, Dest::plain(active.root()), b"/", &options)?;
    Ok(active.commit(store, copied, single_id)?)
}

/// All entries of a tree by their paths.
fn entries(tree: &Tree) -> Result<BTreeMap<TreePath, Picked>, OpsError> {
    let all = tree.select(&Selector { wildcards: false, ..Selector::new("/") })?;
    let all = all.roots.into_iter().flat_map(|root| root.entries);
    Ok(all.map(|picked| (picked.to.clone(), picked)).collect())
}

/// Removes the entries that `above` does not have. A whole directory is removed at once.
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
