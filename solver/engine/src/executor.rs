//! The two seams: what steps do, and where their results are remembered.

use std::fmt::Debug;
use std::future::Future;

use lapstrake_diag::Reported;
use lapstrake_graph::Vertex;
use serde::{Deserialize, Serialize};

use crate::event::Step;
use crate::key::Key;

/// The result of a step. Its value is the executor's; the engine only hands it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult<T> {
    /// What the step made.
    pub value: T,
    /// The digest of its content without times; `None` where only [`Executor::content_key`] can tell.
    pub content: Option<Key>,
}

/// Which paths of a tree matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Paths or patterns from the root; empty is everything.
    pub paths: Vec<String>,
    /// Patterns, relative to each path, of what does not matter.
    pub exclude: Vec<String>,
    /// Whether the names of the parents of what is selected matter too (`--parents`).
    pub parents: bool,
    /// Whether paths are patterns, and name what they stand for (COPY), or just one path (a bind mount).
    pub wildcards: bool,
    /// Whether a path that is missing is nothing instead of an error.
    pub optional: bool,
    /// Patterns, relative to each path, of the only entries that matter; empty is everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Whether a path that is a link stands for the link.
    #[serde(default)]
    pub keep_links: bool,
    /// Whether a pattern has to match something.
    #[serde(default)]
    pub needs_match: bool,
}

impl Selector {
    /// All of a tree.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// Whether nothing is left out: then the tree's own digest will do.
    pub fn is_everything(&self) -> bool {
        *self == Selector::everything()
    }
}

/// How one input enters a step's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dep {
    /// By its own key.
    ByKey,
    /// By the content of selected paths; it is solved first.
    ByContent(Selector),
}

/// How a step is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMap {
    /// The op without what must not matter, canonical.
    pub op: Vec<u8>,
    /// One for each input.
    pub deps: Vec<Dep>,
}

/// A result to remember, with what its key was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// What went into the key: a label (`op`, `input 0`) and a value. Kept so that a miss can be explained.
    pub parts: Vec<(String, String)>,
    /// The result.
    pub result: StepResult<T>,
    /// The step's name at the time.
    pub name: String,
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution<T> {
    /// Its result.
    pub result: StepResult<T>,
    /// What it read of inputs that may change during the build. Empty as long as nothing has changed: then it is what
    /// their keys said.
    pub read: Vec<InputRead>,
}

impl<T> From<StepResult<T>> for Execution<T> {
    fn from(result: StepResult<T>) -> Self {
        Self { result, read: Vec::new() }
    }
}

/// What a step read of an input, in place of what was known of the input before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRead {
    /// The input's number.
    pub input: usize,
    /// The content that it selects of the input.
    pub content: Key,
    /// The key that a source with that content has, for an input that counts by its key.
    pub source: Key,
}

/// Does what ops say.
pub trait Executor: Send + Sync {
    /// What a step makes. It is cloned for each step that stands on it.
    type Output: Clone + Debug + PartialEq + Send + Sync;
    /// Why something could not be done.
    type Error: Reported;

    /// How `vertex` is cached. Not asked for sources.
    fn cache_map(&self, vertex: &Vertex) -> CacheMap;

    /// The output `number` of a vertex whose result is `result`. Output 0 is the result itself.
    fn output(&self, result: &StepResult<Self::Output>, number: u32) -> StepResult<Self::Output> {
        debug_assert_eq!(number, 0, "this executor knows one output");
        result.clone()
    }

    /// The key of a source: what its content is known by before it is there.
    fn source_key(&self, vertex: &Vertex) -> impl Future<Output = Result<Key, Self::Error>> + Send;

    /// The content of the selected paths of `result`, without times.
    fn content_key(
        &self,
        result: &StepResult<Self::Output>,
        selector: &Selector,
    ) -> impl Future<Output = Result<Key, Self::Error>> + Send;

    /// Hears that `consumer` fails, since [`Executor::content_key`] could not tell the content of its input `number`.
    fn unread(&self, consumer: &Vertex, number: usize, result: &StepResult<Self::Output>) {
        // Most executors keep nothing of a step that did not begin.
        let _ = (consumer, number, result);
    }

    /// Does it. Dropping the future undoes it: nothing may keep running or stay behind.
    fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[StepResult<Self::Output>],
        step: &Step,
    ) -> impl Future<Output = Result<Execution<Self::Output>, Self::Error>> + Send;
}

/// The right to do a step: nobody else does it meanwhile.
#[derive(Debug)]
pub struct LockedStep<L, T> {
    /// What is held. Dropped without [`CacheIndex::done`], it says nothing of the step, and the next one does it.
    pub lock: L,
    /// The result of another job that did the step while this one waited.
    pub result: Option<StepResult<T>>,
}

/// Remembers results.
pub trait CacheIndex: Send + Sync {
    /// What is remembered: the executor's [`Executor::Output`].
    type Output;
    /// Held while a key is being worked on.
    type Lock: Send;
    /// Why it could not.
    type Error: Reported;

    /// The newest record of `key` whose result is still all there.
    fn lookup(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<StepResult<Self::Output>>, Self::Error>> + Send;

    /// Waits until nobody else, in any process, works on `key`.
    fn lock(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<LockedStep<Self::Lock, Self::Output>, Self::Error>> + Send;

    /// Gives a lock back. Jobs that wait for it take the result instead of doing the step, even where records do not count.
    fn done(&self, lock: Self::Lock, result: &StepResult<Self::Output>);

    /// Remembers a record under each of these keys, all or none.
    fn insert(
        &self,
        keys: &[Key],
        record: &Record<Self::Output>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
