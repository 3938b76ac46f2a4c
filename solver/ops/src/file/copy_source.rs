//! Trees to copy from: what a stack or a local context has, known before a file of it is opened.
//!
//! A local context may change during the build: an [`CopySource`] is the context as it was known at one moment.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_engine::{Key, KeyHasher};
use lapstrake_graph::Source;
use lapstrake_snapshot::ViewCopy;
use lapstrake_store::Store;
use lapstrake_tree::context::{ContextIndex, Trust, View, file_clock};
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::{Selection, Selector};
use lapstrake_tree::{Tree, TreeError};

use crate::error::OpsError;
use crate::settings::Settings;
use crate::stack::Stack;
use crate::worker::Worker;

/// A local context as it is known to the build.
pub(crate) struct LoadedContext {
    dir: OwnedFd,
    /// The place of the directory.
    pub(crate) path: PathBuf,
    pub(crate) index: ContextIndex,
    file: PathBuf,
}

/// What was read once for the whole build.
pub(crate) struct CopySources {
    worker: Arc<Worker>,
    settings: Arc<Settings>,
    contexts: Mutex<BTreeMap<String, Arc<LoadedContext>>>,
    trees: Mutex<HashMap<Stack, Arc<Tree>>>,
    /// The build was told of a file that never held still.
    pub(crate) warned: AtomicBool,
}

/// A tree to copy from.
pub(crate) enum CopySource {
    /// A directory of the host, in place, as it was known at one moment.
    Context(Arc<LoadedContext>, View),
    /// What a step made.
    Tree(Arc<Tree>),
}

impl CopySource {
    /// What `selector` means here, with the digests of all that is in it.
    pub(crate) fn select(&self, selector: &Selector) -> Result<Selection, TreeError> {
        match self {
            CopySource::Context(loaded, view) => loaded.index.select_in(view, loaded.dir.as_fd(), selector),
            CopySource::Tree(tree) => tree.select(selector),
        }
    }

    /// All that is here.
    pub(crate) fn tree(&self) -> &Tree {
        match self {
            CopySource::Context(_, view) => view.tree(),
            CopySource::Tree(tree) => tree,
        }
    }

    /// Whether somebody may be writing it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, CopySource::Context(..))
    }

    /// The directory behind it; `stack` is what [`CopySources::of`] was asked for.
    pub(crate) fn open(&self, store: &Store, stack: &Stack, single_id: bool) -> Result<OpenSource, OpsError> {
        match self {
            CopySource::Context(loaded, _) => {
                let dir = loaded.dir.try_clone().map_err(OpsError::io("duplicate", &loaded.file))?;
                Ok(OpenSource { dir, _copy: None })
            }
            CopySource::Tree(_) => {
                let (dir, copy) = stack.open(store, single_id)?.into_parts();
                Ok(OpenSource { dir, _copy: copy })
            }
        }
    }
}

/// Where files can be read.
pub(crate) struct OpenSource {
    pub(crate) dir: OwnedFd,
    /// What goes when nobody reads them any more.
    pub(crate) _copy: Option<ViewCopy>,
}

/// The key of a local context with this content.
pub(crate) fn context_key(source: &Source, content: &Key) -> Key {
    let op = lapstrake_go::to_json(source);
    KeyHasher::new("lapstrake source 1").part("op", &op).part("content", content.as_bytes()).finish()
}

impl CopySources {
    pub(crate) fn new(worker: Arc<Worker>, settings: Arc<Settings>) -> CopySources {
        CopySources {
            worker,
            settings,
            contexts: Mutex::default(),
            trees: Mutex::default(),
            warned: false.into(),
        }
    }

    /// What `stack` stands for.
    pub(crate) fn of(&self, stack: &Stack) -> Result<CopySource, OpsError> {
        match &stack.local {
            Some(name) => {
                let loaded = self.context(name)?;
                let view = loaded.index.view();
                Ok(CopySource::Context(loaded, view))
            }
            None => self.tree(stack).map(CopySource::Tree),
        }
    }

    /// The digest of the content of what `asked` selects of `stack`.
    pub(crate) fn content_key(
        &self,
        stack: &Stack,
        asked: &lapstrake_engine::Selector,
    ) -> Result<Key, OpsError> {
        let asked = selector(asked)?;
        let selection = match self.of(stack)? {
            // By what is known last: what a read finds instead is known then.
            CopySource::Context(loaded, _) => loaded.index.select(loaded.dir.as_fd(), &asked),
            origin => origin.select(&asked),
        };
        let selection = selection.map_err(stack.checksum_error())?;
        Ok(Key::from_bytes(selection.k_digest().0))
    }

    /// Brings the directory of a local context here, if the caller has it elsewhere. A directory that is here is read when a
    /// step needs it, so that errors in its ignore file are of that step.
    pub(crate) fn bring(&self, name: &str) -> Result<(), OpsError> {
        if self.settings.contexts.contains_key(name) {
            return Ok(());
        }
        self.context(name).map(drop)
    }

    pub(crate) fn context(&self, name: &str) -> Result<Arc<LoadedContext>, OpsError> {
        // Held while it is read, so that steps which start together read it once.
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = contexts.get(name) {
            return Ok(loaded.clone());
        }
        let context = self.settings.context(name)?;
        let dir = open_host_dir(&context.path)?;
        let file = self.worker.store().context_index(&context.path);
        let trust = if self.settings.distrust_times { Trust::Nothing } else { Trust::Times };
        let index = ContextIndex::load(dir.as_fd(), &file, &context.ignore, file_clock(), trust)?;
        let loaded = Arc::new(LoadedContext { dir, path: context.path, index, file });
        contexts.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    fn tree(&self, stack: &Stack) -> Result<Arc<Tree>, OpsError> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(stack) {
            return Ok(tree.clone());
        }
        let tree = if stack.below.is_some() {
            // A directory of the host has no tree yet.
            scan(stack.open(self.worker.store(), self.worker.single_id())?.as_fd(), &ScanOptions::default())?
        } else {
            stack.tree(self.worker.store())?
        };
        let tree = Arc::new(tree);
        trees.insert(stack.clone(), tree.clone());
        Ok(tree)
    }

    /// Keeps what was learnt about contexts for the next build. Without it that one only reads more.
    pub(crate) fn save(&self) {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        for loaded in contexts.values() {
            loaded.index.save(&loaded.file).unwrap_or_default();
        }
    }
}

/// The selector that the engine's one stands for.
pub(crate) fn selector(asked: &lapstrake_engine::Selector) -> Result<Selector, OpsError> {
    let everything = || vec!["/".to_owned()];
    let patterns = |list: &[String]| {
        if list.is_empty() { Ok(Patterns::default()) } else { Patterns::from_list(list) }
    };
    Ok(Selector {
        sources: if asked.paths.is_empty() { everything() } else { asked.paths.clone() },
        wildcards: asked.wildcards,
        follow: !asked.keep_links,
        exclude: patterns(&asked.exclude)?,
        include: patterns(&asked.include)?,
        parents: asked.parents,
        optional: asked.optional,
        needs_match: asked.needs_match,
    })
}
