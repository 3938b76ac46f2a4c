//! Which files a step found in its bind mounts. They are in no layer, so `explain` could not tell which of them changed.

use lapstrake_engine::{CacheMap, Dep, Key};
use lapstrake_store::Store;
use lapstrake_tree::select::Selection;
use lapstrake_tree::{Entry, Tree, TreePath};

use crate::error::OpsError;
use crate::file::copy_source::selector;
use crate::job::context::BuildContext;
use crate::stack::StackResult;

/// Trees with more entries are not kept: what was gained would not be worth it.
const MAX_ENTRIES: usize = 200_000;

/// Keeps the trees that a step is about to see, under the names that its key has for them. Only ever a help: what goes
/// wrong here went wrong before, where it counts.
pub(crate) fn save(job: &BuildContext, map: &CacheMap, inputs: &[StackResult]) {
    for (dep, input) in map.deps.iter().zip(inputs) {
        if let Dep::ByContent(asked) = dep {
            save_tree(job, asked, input).unwrap_or_default();
        }
    }
}

fn save_tree(
    job: &BuildContext,
    asked: &lapstrake_engine::Selector,
    input: &StackResult,
) -> Result<(), OpsError> {
    let stack = &input.value;
    let selection = job.copy_sources.of(stack)?.select(&selector(asked)?).map_err(stack.checksum_error())?;
    if selection.len() > MAX_ENTRIES {
        return Ok(());
    }
    // As the engine names it: see `Solver::content`.
    let by_result = input.content.filter(|_| asked.is_everything());
    let key = by_result.unwrap_or_else(|| Key::from_bytes(selection.k_digest().0));
    let encode = || zstd::bulk::compress(&tree_of(selection)?.encode(), 1).ok();
    Ok(job.store.put_trace(&key.to_string(), encode)?)
}

/// What was selected, as it is below the place where it is mounted: the same content may have come from elsewhere.
fn tree_of(selection: Selection) -> Option<Tree> {
    let [root] = <[_; 1]>::try_from(selection.roots).ok()?;
    let name = TreePath::parse(&root.name).ok()?;
    let entries = root.entries.into_iter().map(|picked| {
        let path = if root.is_dir { picked.to } else { name.clone() };
        Entry { path, kind: picked.kind, meta: picked.meta }
    });
    Tree::from_entries(entries.collect()).ok()
}

/// The tree that a key names by its content, where a step has seen it through a mount and it is still known. Paths are
/// relative to the mount.
pub fn mount_manifest(store: &Store, key: &str) -> Option<Tree> {
    let bytes = zstd::decode_all(store.trace(key)?.as_slice()).ok()?;
    Tree::decode(&bytes).ok()
}
