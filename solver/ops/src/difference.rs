//! Merge and diff ops: trees on each other, and the changes that make one tree out of another.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use lapstrake_snapshot::Active;
use lapstrake_store::LayerId;
use lapstrake_tree::copy::{self, CopyOptions, Dest};
use lapstrake_tree::select::{Picked, SelectedRoot, Selection, Selector};
use lapstrake_tree::{Entry, Kind, Tree, TreePath};

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
        let stack = Stack { layers: upper.layers[lower.layers.len()..].to_vec(), ..Stack::default() };
        // What an opaque directory removes is known here, and not where the difference is applied.
        if !has(job, &stack, is_opaque)? {
            return Ok(stack);
        }
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
        let mut own = Tree::default();
        for layer in &input.layers {
            let layer = explicit(Tree::decode(&job.store.layer_tree(&layer.id)?)?, &own)?;
            wanted = wanted.with_layer(&layer);
            own = own.with_layer(&layer);
        }
        let layer = change(job, &stack, &wanted, input)?;
        stack = stack.with(layer);
    }
    Ok(stack)
}

/// Whether a layer of `stack` removes something, or hides all of a directory.
fn has_deletions(job: &BuildContext, stack: &Stack) -> Result<bool, OpsError> {
    has(job, stack, |kind| matches!(kind, Kind::Whiteout) || is_opaque(kind))
}

fn is_opaque(kind: &Kind) -> bool {
    matches!(kind, Kind::Dir { opaque: true })
}

/// Whether a layer of `stack` has an entry of such a kind.
fn has(job: &BuildContext, stack: &Stack, is: impl Fn(&Kind) -> bool) -> Result<bool, OpsError> {
    for layer in &stack.layers {
        let tree = Tree::decode(&job.store.layer_tree(&layer.id)?)?;
        if tree.entries().iter().any(|entry| is(&entry.kind)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The layer with deletions in place of opaque directories. Those hide what is in the tree `below`, on which the layer was made,
/// and nothing of other trees that it comes to lie on.
fn explicit(layer: Tree, below: &Tree) -> Result<Tree, OpsError> {
    if !layer.entries().iter().any(|entry| is_opaque(&entry.kind)) {
        return Ok(layer);
    }
    let mut removed: Vec<Entry> = Vec::new();
    for dir in layer.entries().iter().filter(|entry| is_opaque(&entry.kind)) {
        // The last entry that is no directory any more, with which everything below it is gone.
        let mut gone: Option<&TreePath> = None;
        for hidden in below.subtree(&dir.path) {
            if gone.is_some_and(|gone| hidden.path.starts_with(gone)) {
                continue;
            }
            match layer.get(&hidden.path) {
                Some(own) if own.is_dir() => continue,
                Some(_) => {}
                None => removed.push(Entry::whiteout(hidden.path.clone())),
            }
            gone = Some(&hidden.path);
        }
    }
    let mut entries = layer.into_entries();
    for entry in entries.iter_mut().filter(|entry| is_opaque(&entry.kind)) {
        entry.kind = Kind::Dir { opaque: false };
    }
    entries.append(&mut removed);
    Ok(Tree::from_entries(entries)?)
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

#[cfg(test)]
mod tests {
    use lapstrake_tree::Meta;

    use super::*;

    fn dir(path: &str, opaque: bool) -> Entry {
        Entry {
            path: TreePath::parse(path.as_bytes()).unwrap(),
            kind: Kind::Dir { opaque },
            meta: Meta::default(),
        }
    }

    #[test]
    fn opaque_directories_hide_what_they_were_made_on() {
        let tree = |entries| Tree::from_entries(entries).unwrap();
        let below = tree(vec![dir("a", false), dir("a/b", false), dir("a/b/c", false), dir("a/d", false)]);
        let layer = tree(vec![dir("a", true), dir("a/d", false), dir("a/e", false)]);
        let made = explicit(layer.clone(), &below).unwrap();
        let hidden = Entry::whiteout(TreePath::parse(b"a/b").unwrap());
        assert_eq!(made, tree(vec![dir("a", false), hidden, dir("a/d", false), dir("a/e", false)]));
        assert_eq!(below.with_layer(&made), below.with_layer(&layer));
        // Another tree keeps what the directory has there.
        let other = tree(vec![dir("a", false), dir("a/x", false)]);
        assert!(other.with_layer(&made).get(&TreePath::parse(b"a/x").unwrap()).is_some());
    }
}
