//! File ops: `COPY`, `ADD`, and the directories and files that a build makes itself.
//!
//! [`run`] carries out one op. Its actions are prepared (`actions`), run on a view of the base (`base_view`), and committed
//! as a layer.

mod actions;
mod base_view;
pub(crate) mod context_reads;
pub(crate) mod copy;
mod copy_reuse;
pub(crate) mod copy_source;
mod partial_extract;
pub(crate) mod partial_read_count;

use lapstrake_engine::{CacheMap, Dep, Selector, Step};
use lapstrake_graph::{Copy, File, FileAction};
use lapstrake_snapshot::{Active, SnapshotError};
use lapstrake_store::LayerId;
use serde::Serialize;

use crate::error::OpsError;
use crate::failed::{Changes, FailedStep, FailedTrees, LeftTree};
use crate::file::actions::{FailedAction, apply_all, prepare_actions};
use crate::file::base_view::base_view;
use crate::file::context_reads::ContextReads;
use crate::file::copy_reuse::PreviousCopy;
use crate::job::context::BuildContext;
use crate::stack::{SharedStack, Stack};

/// The version of file ops, which is a part of their cache keys. Raised whenever the same op makes another tree, so that
/// results of the older code are not used.
const FILE_VERSION: u32 = 4;

/// The content of a file op's cache key.
#[derive(Serialize)]
struct Versioned<'a> {
    #[serde(flatten)]
    file: &'a File,
    version: u32,
}

/// How a file op with this number of inputs is cached: the base by its key, the inputs that it copies from by their content.
pub(crate) fn cache_map(file: &File, inputs: usize) -> CacheMap {
    let op = lapstrake_go::to_json(&Versioned { file, version: FILE_VERSION });
    CacheMap { op, deps: deps(file, inputs) }
}

/// How the inputs of a file op count.
pub(crate) fn deps(file: &File, inputs: usize) -> Vec<Dep> {
    let mut deps = vec![Dep::ByKey; inputs];
    for (input, selector) in selectors(file) {
        if let Some(dep) = deps.get_mut(input).filter(|_| input > 0) {
            *dep = Dep::ByContent(selector);
        }
    }
    deps
}

/// Runs a file op: the stack of its base with one layer on it.
pub(crate) fn run(
    reads: &ContextReads<'_>,
    file: &File,
    inputs: &[SharedStack],
    step: &Step,
) -> Result<Stack, OpsError> {
    let base = copy::base_stack(reads, inputs)?;
    let layer = match commit(reads, (file, inputs, &base), step, true) {
        Err(OpsError::Snapshot(SnapshotError::NotADelta)) => {
            commit(reads, (file, inputs, &base), step, false)
        }
        // A file that has gone may be in the layer that changes would lie on.
        Err(error) if error.is_of_change() => commit(reads, (file, inputs, &base), step, false),
        made => made,
    }?;
    Ok(base.with(layer))
}

/// Commits the layer that `file` makes on `base`. With `delta`, the layer may have only the changes since the previous copy.
fn commit(
    reads: &ContextReads<'_>,
    (file, inputs, base): (&File, &[SharedStack], &Stack),
    step: &Step,
    delta: bool,
) -> Result<LayerId, OpsError> {
    let job = reads.job;
    let single_id = job.worker.single_id();
    let keep = |failed: Box<FailedAction>, active: Option<Active>| {
        keep_failed(job, (file, inputs, base), step, (failed, active))
    };
    let actions = prepare_actions(reads, &file.actions, inputs).map_err(|failed| keep(failed, None))?;
    let active = base_view(job, base, &actions)?;
    let mut reuse = PreviousCopy::find(job, file, inputs);
    let previous = reuse.as_ref().and_then(|reuse| reuse.previous(delta));
    let copied = match apply_all(reads, actions, &active, previous) {
        Ok(copied) => copied,
        Err(failed) => return Err(keep(failed, Some(active))),
    };
    if let Some(reuse) = &mut reuse {
        reuse.forget_tree();
    }
    let base_layer = reuse.as_ref().and_then(PreviousCopy::id);
    let layer = active.commit_on(&job.store, copied, base_layer, single_id)?;
    if let Some(reuse) = reuse {
        reuse.remember(&layer);
    }
    Ok(layer)
}

/// Keeps what the actions before a failed one have made, if somebody wants that. Gives the error of the failed one.
fn keep_failed(
    job: &BuildContext,
    (file, inputs, base): (&File, &[SharedStack], &Stack),
    step: &Step,
    (failed, active): (Box<FailedAction>, Option<Active>),
) -> OpsError {
    let FailedAction { number, before, error } = *failed;
    let Some(steps) = &job.settings.failed else { return error };
    let made = match active.zip(before) {
        Some((active, copied)) => LeftTree::new(active, base.clone(), Changes::Copied(Box::new(copied))),
        None => SharedStack::from(base.clone()).into(),
    };
    let (actions, inputs) = (file.actions.clone(), inputs.to_vec());
    let trees = FailedTrees::File { actions, failed: number, inputs, made };
    steps.add(FailedStep { step: step.id().0.clone(), trees });
    error
}

/// The part of its input that `copy` copies.
fn selector_of(copy: &Copy) -> Selector {
    Selector {
        paths: copy.sources.clone(),
        exclude: copy.exclude.clone(),
        include: copy.variant.include.clone(),
        parents: copy.parents,
        wildcards: !copy.variant.literal,
        optional: copy.optional,
        keep_links: copy.variant.keep_links,
        needs_match: copy.variant.needs_match,
    }
}

/// The inputs that a file op copies from, with the paths that it reads. Several copies from one input are one selection.
fn selectors(file: &File) -> Vec<(usize, Selector)> {
    let mut found: Vec<(usize, Selector)> = Vec::new();
    for action in &file.actions {
        let FileAction::Copy(copy) = action else { continue };
        match found.iter_mut().find(|(input, _)| *input == copy.input) {
            Some((_, selector)) => {
                let asked = selector_of(copy);
                if (Selector { paths: asked.paths.clone(), ..selector.clone() }) == asked {
                    selector.paths.extend(asked.paths);
                } else {
                    *selector = Selector { wildcards: true, ..Selector::everything() };
                }
            }
            None => found.push((copy.input, selector_of(copy))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file op's key, to the byte. A change of what the same op makes must raise [`FILE_VERSION`].
    #[test]
    fn keys_of_file_ops_have_a_version() {
        let file = File { actions: Vec::new() };
        let written = lapstrake_go::to_json(&Versioned { file: &file, version: FILE_VERSION });
        assert_eq!(String::from_utf8(written).unwrap(), r#"{"actions":[],"version":4}"#);
    }
}
