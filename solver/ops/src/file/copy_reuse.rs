//! What a copy from a local context made the last time: most of it is the same now.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use lapstrake_graph::{File, FileAction};
use lapstrake_store::LayerId;
use lapstrake_tree::Tree;
use lapstrake_tree::copy::Previous;
use lapstrake_tree::inroot::open_host_dir;

use crate::job::context::BuildContext;
use crate::stack::SharedStack;

/// The layer of the last build that did the same copy, and where the next one will look for ours. Only ever a help:
/// whatever cannot be read is not there.
pub(crate) struct PreviousCopy {
    pointer: PathBuf,
    id: Option<LayerId>,
    layer: Option<(OwnedFd, Tree)>,
}

impl PreviousCopy {
    /// For a file op that is nothing but one copy out of a local context.
    pub(crate) fn find(job: &BuildContext, file: &File, inputs: &[SharedStack]) -> Option<PreviousCopy> {
        let [FileAction::Copy(copy)] = file.actions.as_slice() else { return None };
        let context = job.copy_sources.context(inputs.get(copy.input)?.local.as_ref()?).ok()?;
        let pointer = job.store.context_copy(&context.path, &lapstrake_go::to_json(file));
        let layer = || {
            let id: LayerId = fs::read_to_string(&pointer).ok()?.parse().ok()?;
            job.store.protect_layer(&id).ok().filter(|there| *there)?;
            // Changes to changes would pile up.
            let id = job.store.layer_base(&id).unwrap_or(id);
            let tree = Tree::decode(&job.store.layer_tree(&id).ok()?).ok()?;
            let files = open_host_dir(job.store.layer_dirs(&id).first()?).ok()?;
            Some((id, (files, tree)))
        };
        let (id, layer) = layer().unzip();
        Some(PreviousCopy { pointer, id, layer })
    }

    /// As a copy takes it; `delta` if it will do to put what has changed since.
    pub(crate) fn previous(&self, delta: bool) -> Option<Previous<'_>> {
        self.layer.as_ref().map(|(files, tree)| Previous { files: files.as_fd(), tree, delta })
    }

    /// The layer that [`PreviousCopy::previous`] shows.
    pub(crate) fn id(&self) -> Option<&LayerId> {
        self.id.as_ref()
    }

    /// Nothing is compared with the layer any more, and trees are big.
    pub(crate) fn forget_tree(&mut self) {
        self.layer = None;
    }

    /// Leaves a note for the next build.
    pub(crate) fn remember(&self, layer: &LayerId) {
        let dir = self.pointer.parent().unwrap_or(Path::new(""));
        lapstrake_sys::persist::replace(&self.pointer, dir, layer.as_str().as_bytes()).unwrap_or_default();
    }
}
