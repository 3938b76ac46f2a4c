//! What all ops of a job have at hand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lapstrake_graph::{Exec, FileAction, Graph, NetworkMode, Op, Source};
use lapstrake_oci::Digest;
use lapstrake_runtime::{ChosenNetwork, Network, NetworkPreference, RuntimeError, Sandbox};
use lapstrake_store::Store;
use lapstrake_tree::TreePath;

use crate::error::OpsError;
use crate::file::copy_source::CopySources;
use crate::file::partial_read_count::PartialReadCount;
use crate::settings::Settings;
use crate::source::fetched::FetchCache;
use crate::source::image::{Images, Unpack};
use crate::worker::Worker;

/// What a job is allowed, and what its steps share. The rest is the worker's.
pub(crate) struct BuildContext {
    pub(crate) worker: Arc<Worker>,
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) images: Arc<Images>,
    pub(crate) copy_sources: CopySources,
    pub(crate) fetch_cache: FetchCache,
    pub(crate) partial_reads: PartialReadCount,
    chosen: OnceLock<ChosenNetwork>,
    /// The manifests of images whose files no step needs.
    unread_images: OnceLock<BTreeSet<Digest>>,
    /// The remotes of repositories that the build needs.
    git_remotes: OnceLock<BTreeSet<String>>,
    network_choice: Mutex<()>,
    /// The identities of cache directories that this job has renewed.
    pub(crate) renewed_caches: Mutex<BTreeSet<String>>,
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

impl BuildContext {
    pub(crate) fn new(worker: Arc<Worker>, images: Arc<Images>, settings: Settings) -> BuildContext {
        let settings = Arc::new(settings);
        let store = worker.store().clone();
        let copy_sources = CopySources::new(worker.clone(), settings.clone());
        BuildContext {
            worker,
            store,
            settings,
            images,
            copy_sources,
            fetch_cache: FetchCache::default(),
            partial_reads: PartialReadCount::default(),
            chosen: OnceLock::new(),
            unread_images: OnceLock::new(),
            git_remotes: OnceLock::new(),
            network_choice: Mutex::new(()),
            renewed_caches: Mutex::default(),
        }
    }

    /// Finds out which images no step of `graph` needs files of.
    pub(crate) fn inspect_graph(&self, graph: &Graph) {
        let mut read_vertices = BTreeSet::new();
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
                Op::Exec(_) => read_vertices.extend(vertex.inputs.iter().map(|edge| edge.vertex)),
                // What they stand on is only looked at: see `ground`. Of the others they read some files: see `part`.
                Op::File(file) => {
                    let whole = wholly_copied(file).filter_map(|input| vertex.inputs.get(input));
                    read_vertices.extend(whole.map(|edge| edge.vertex));
                }
                // Whatever is compared is read.
                Op::Diff => read_vertices.extend(vertex.inputs.iter().map(|edge| edge.vertex)),
                Op::Source(_) | Op::Merge => {}
            }
        }
        // What is merged or stood on is needed if the whole is: from the last vertex to the first.
        for id in graph.topological().into_iter().rev() {
            let Some(vertex) = graph.get(id).filter(|_| read_vertices.contains(&id)) else { continue };
            let below = match &vertex.op {
                Op::Merge | Op::Diff => vertex.inputs.len(),
                Op::File(_) => 1,
                Op::Source(_) | Op::Exec(_) => 0,
            };
            read_vertices.extend(vertex.inputs.iter().take(below).map(|edge| edge.vertex));
        }
        let unread_images = images.into_iter().filter(|(id, _)| !read_vertices.contains(id));
        let unread_images = unread_images.map(|(_, manifest)| manifest.clone()).collect();
        // Whoever expects another build after the first only loses the knowledge: files are then unpacked early.
        self.unread_images.set(unread_images).unwrap_or_default();
        // Likewise: the first graph counts, and a secret for one host alone stays with it.
        self.git_remotes.set(git_remotes).unwrap_or_default();
    }

    /// The remotes of repositories that the build needs, as far as that is known.
    pub(crate) fn git_remotes(&self) -> impl Iterator<Item = &String> {
        self.git_remotes.get().into_iter().flatten()
    }

    /// When the files of an image are to be unpacked.
    pub(crate) fn unpack_mode(&self, manifest: &Digest) -> Unpack {
        let unread_images = self.unread_images.get().is_some_and(|all| all.contains(manifest));
        if unread_images { Unpack::Lazy } else { Unpack::Eager }
    }

    /// The network of `exec`.
    pub(crate) fn network(&self, exec: &Exec) -> Result<Network, OpsError> {
        match exec.network {
            NetworkMode::None => Ok(Network::None),
            NetworkMode::Host => Ok(Network::Host),
            NetworkMode::Default => {
                let sandbox = self.sandbox(exec)?;
                let network_choice = self.network_choice.lock().unwrap_or_else(PoisonError::into_inner);
                if self.chosen.get().is_none() {
                    let chosen = sandbox.choose_network(self.settings.network).map_err(RuntimeError::from)?;
                    // Nobody else sets it while we hold the lock.
                    self.chosen.set(chosen).unwrap_or_default();
                }
                drop(network_choice);
                self.chosen.get().map(|chosen| chosen.network).ok_or(OpsError::Worker)
            }
        }
    }

    /// What the network of steps is, once one of them needed it.
    pub(crate) fn chosen_network(&self) -> Option<&ChosenNetwork> {
        self.chosen.get()
    }

    /// The worker's sandbox.
    pub(crate) fn sandbox(&self, exec: &Exec) -> Result<Arc<Sandbox>, OpsError> {
        let own = exec.network == NetworkMode::Default && self.settings.network != NetworkPreference::Host;
        self.worker.sandbox(own)
    }
}
