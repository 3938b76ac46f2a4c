//! What all ops of a job have at hand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lapstrake_graph::{Exec, FileAction, Graph, NetworkMode, Op, Source};
use lapstrake_oci::Digest;
use lapstrake_runtime::{Chosen, Network, Preference, RuntimeError, Sandbox};
use lapstrake_store::Store;
use lapstrake_tree::TreePath;

use crate::error::OpsError;
use crate::file::copy_source::Origins;
use crate::file::partial_read_count::Passes;
use crate::settings::Settings;
use crate::source::fetched::Remotes;
use crate::source::image::{Files, Images};
use crate::worker::Worker;

/// What a job is allowed, and what its steps share. The rest is the worker's.
pub(crate) struct JobContext {
    pub(crate) worker: Arc<Worker>,
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) images: Arc<Images>,
    pub(crate) origins: Origins,
    pub(crate) remotes: Remotes,
    pub(crate) passes: Passes,
    chosen: OnceLock<Chosen>,
    /// The manifests of images whose files no step needs.
    untouched: OnceLock<BTreeSet<Digest>>,
    /// The remotes of repositories that the build needs.
    git_remotes: OnceLock<BTreeSet<String>>,
    choosing: Mutex<()>,
}

/// The inputs that `file` copies from as a whole.
fn wholly_copied(file: &lapstrake_graph::File) -> impl Iterator<Item = usize> {
    let copies = file.actions.iter().filter_map(|action| match action {
        FileAction::Copy(copy) => Some(copy),
        _ => None,
    });
    let root = |source: &String| TreePath::clean(source.as_bytes()).is_ok_and(|path| path.is_root());
    copies.filter(move |copy| copy.input > 0 && copy.sources.iter().any(root)).map(|copy| copy.input)
}

impl JobContext {
    pub(crate) fn new(worker: Arc<Worker>, images: Arc<Images>, settings: Settings) -> JobContext {
        let settings = Arc::new(settings);
        let store = worker.store().clone();
        let origins = Origins::new(worker.clone(), settings.clone());
        JobContext {
            worker,
            store,
            settings,
            images,
            origins,
            remotes: Remotes::default(),
            passes: Passes::default(),
            chosen: OnceLock::new(),
            untouched: OnceLock::new(),
            git_remotes: OnceLock::new(),
            choosing: Mutex::new(()),
        }
    }

    /// Finds out which images no step of `graph` needs files of.
    pub(crate) fn expect(&self, graph: &Graph) {
        let mut touched = BTreeSet::new();
        let mut images = Vec::new();
        let mut git_remotes = BTreeSet::new();
        for id in graph.topological() {
            let Some(vertex) = graph.get(id) else { continue };
            if let Op::Source(Source::Git(git)) = &vertex.op {
                git_remotes.insert(git.remote.clone());
            }
            if let Op::Source(Source::Image { manifest, .. }) = &vertex.op {
                images.push((id, manifest));
            }
            match &vertex.op {
                Op::Exec(_) => touched.extend(vertex.inputs.iter().map(|edge| edge.vertex)),
                // What they stand on is only looked at: see `ground`. Of the others they read some files: see `part`.
                Op::File(file) => {
                    let whole = wholly_copied(file).filter_map(|input| vertex.inputs.get(input));
                    touched.extend(whole.map(|edge| edge.vertex));
                }
                Op::Source(_) | Op::Merge => {}
            }
        }
        // What is merged or stood on is needed if the whole is: from the last vertex to the first.
        for id in graph.topological().into_iter().rev() {
            let Some(vertex) = graph.get(id).filter(|_| touched.contains(&id)) else { continue };
            let below = match &vertex.op {
                Op::Merge => vertex.inputs.len(),
                Op::File(_) => 1,
                Op::Source(_) | Op::Exec(_) => 0,
            };
            touched.extend(vertex.inputs.iter().take(below).map(|edge| edge.vertex));
        }
        let untouched = images.into_iter().filter(|(id, _)| !touched.contains(id));
        let untouched = untouched.map(|(_, manifest)| manifest.clone()).collect();
        // Whoever expects another build after the first only loses the knowledge: files are then unpacked early.
        self.untouched.set(untouched).unwrap_or_default();
        // Likewise: the first graph counts, and a secret for one host alone stays with it.
        self.git_remotes.set(git_remotes).unwrap_or_default();
    }

    /// The remotes of repositories that the build needs, as far as that is known.
    pub(crate) fn git_remotes(&self) -> impl Iterator<Item = &String> {
        self.git_remotes.get().into_iter().flatten()
    }

    /// When the files of an image are to be unpacked.
    pub(crate) fn files_of(&self, manifest: &Digest) -> Files {
        let untouched = self.untouched.get().is_some_and(|all| all.contains(manifest));
        if untouched { Files::Later } else { Files::Now }
    }

    /// The network of `exec`.
    pub(crate) fn network(&self, exec: &Exec) -> Result<Network, OpsError> {
        match exec.network {
            NetworkMode::None => Ok(Network::None),
            NetworkMode::Host => Ok(Network::Host),
            NetworkMode::Default => {
                let sandbox = self.sandbox(exec)?;
                let choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
                if self.chosen.get().is_none() {
                    let chosen = sandbox.choose_network(self.settings.network).map_err(RuntimeError::from)?;
                    // Nobody else sets it while we hold the lock.
                    self.chosen.set(chosen).unwrap_or_default();
                }
                drop(choosing);
                self.chosen.get().map(|chosen| chosen.network).ok_or(OpsError::Worker)
            }
        }
    }

    /// What the network of steps is, once one of them needed it.
    pub(crate) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.get()
    }

    /// The worker's sandbox.
    pub(crate) fn sandbox(&self, exec: &Exec) -> Result<&Sandbox, OpsError> {
        let own = exec.network == NetworkMode::Default && self.settings.network != Preference::Host;
        self.worker.sandbox(own)
    }
}
