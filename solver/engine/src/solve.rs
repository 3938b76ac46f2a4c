//! Solving: from a wanted edge to its result, doing only what no record saves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::try_join_all;
use lapstrake_diag::{Code, Reported};
use lapstrake_graph::{Edge, Graph, Lines, Op, Source, Vertex, VertexId};
use tokio::sync::OnceCell;

use crate::event::{Progress, Step, StepId};
use crate::executor::{
    CacheIndex, CacheMap, Dep, Execution, Executor, InputRead, LockedStep, Record, Selector, StepResult,
};
use crate::key::{Key, KeyHasher};
use crate::masked::{Secrets, masked};
use crate::stack_guard::StackGuard;

/// How a step came by its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// A record had it.
    Cached,
    /// It was done.
    Executed,
}

/// A step's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved<T> {
    /// The result.
    pub result: StepResult<T>,
    /// Whether the result came from the cache.
    pub status: CacheStatus,
}

/// A step that failed. The first one ends the build.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source}")]
pub struct StepFailed {
    /// The step's name.
    pub step: String,
    /// The step's digest, by which progress streams name it.
    pub digest: String,
    /// Where it stands in the Dockerfile.
    pub lines: Option<Lines>,
    /// What happened.
    pub source: Arc<dyn Reported>,
}

/// A failed step is reported as its cause.
impl Reported for StepFailed {
    fn code(&self) -> Code {
        self.source.code()
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        Some(&*self.source)
    }
}

type Solving<T> = Result<T, StepFailed>;
type Guarded<'a, T> = StackGuard<'a, Solving<T>>;

pub(crate) struct Node<T> {
    /// Without solving anything: see [`Solver::make_plain_key`].
    pub(crate) plain: OnceCell<PlainKey>,
    pub(crate) key: OnceCell<DerivedKey>,
    /// The contents of its inputs by their numbers, each asked for once: all keys go by the same.
    contents: OnceLock<Vec<OnceCell<Key>>>,
    /// Its keys with what was read, where that is not what they were made of.
    pub(crate) read: OnceLock<ReadKeys>,
    pub(crate) solved: OnceCell<Solved<T>>,
    pub(crate) announced: AtomicBool,
    pub(crate) started: AtomicBool,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            plain: OnceCell::new(),
            key: OnceCell::new(),
            contents: OnceLock::new(),
            read: OnceLock::new(),
            solved: OnceCell::new(),
            announced: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }
}

/// A plain key.
#[derive(Clone, Copy)]
pub(crate) struct PlainKey {
    pub(crate) key: Key,
    /// The step or one below it is to be done again: then no record of the key counts.
    forced: bool,
}

/// Keys of a step that read something else than its keys said, or that stands on one.
#[derive(Clone)]
pub(crate) struct ReadKeys {
    pub(crate) plain: PlainKey,
    pub(crate) key: DerivedKey,
}

#[derive(Clone)]
pub(crate) struct DerivedKey {
    pub(crate) key: Key,
    pub(crate) parts: Vec<(String, String)>,
}

/// Solves edges of one graph. Everything solved once stays solved for the life of this value.
pub struct Solver<'a, E: Executor, C> {
    pub(crate) graph: &'a Graph,
    pub(crate) executor: &'a E,
    cache: &'a C,
    progress: Progress,
    pub(crate) nodes: Vec<Node<E::Output>>,
    /// Some node has keys of what was read.
    has_read_keys: AtomicBool,
    pub(crate) secrets: Secrets,
}

impl<'a, E: Executor, C: CacheIndex<Output = E::Output>> Solver<'a, E, C> {
    /// A solver that has done nothing yet.
    pub fn new(graph: &'a Graph, executor: &'a E, cache: &'a C, progress: Progress) -> Solver<'a, E, C> {
        let size = graph.topological().into_iter().map(|id| id.index() + 1).max().unwrap_or(0);
        Solver {
            graph,
            executor,
            cache,
            progress,
            nodes: std::iter::repeat_with(Node::default).take(size).collect(),
            has_read_keys: AtomicBool::new(false),
            secrets: Secrets::default(),
        }
    }

    /// Leaves these out of what is stored, shown and reported of steps.
    #[must_use]
    pub fn hiding(self, secrets: Secrets) -> Self {
        let progress = self.progress.hiding(&secrets);
        Solver { secrets, progress, ..self }
    }

    /// The result of `edge`. Independent steps run side by side; the first failure ends all.
    pub async fn solve(&self, edge: Edge) -> Solving<Solved<E::Output>> {
        // What stages wait for is done even if a record saves everything that waits.
        let goals = self.graph.goals(edge).into_iter().map(|goal| self.solved(goal.vertex));
        try_join_all(goals).await?;
        let Solved { result, status } = self.solved(edge.vertex).await?;
        Ok(Solved { result: self.output(&result, edge), status })
    }

    /// The part of the result of a vertex that `edge` means.
    fn output(&self, result: &StepResult<E::Output>, edge: Edge) -> StepResult<E::Output> {
        if edge.output == 0 { result.clone() } else { self.executor.output(result, edge.output) }
    }

    /// Tells that `edge` is not needed, nor what it stands on that was not solved.
    pub fn pass_over(&self, edge: Edge) {
        self.announce_cached(edge.vertex);
    }

    fn failed(&self, id: VertexId, source: impl Reported) -> StepFailed {
        let vertex = &self.graph[id];
        StepFailed {
            step: vertex.meta.name.clone(),
            digest: vertex.step_digest().to_string(),
            lines: vertex.meta.lines,
            source: Arc::new(source),
        }
    }

    fn key(&self, id: VertexId) -> Guarded<'_, DerivedKey> {
        StackGuard::new(async move {
            let node = &self.nodes[id.index()];
            match node.read.get() {
                Some(read) => Ok(read.key.clone()),
                None => node.key.get_or_try_init(|| self.make_key(id)).await.cloned(),
            }
        })
    }

    fn plain(&self, id: VertexId) -> Guarded<'_, PlainKey> {
        StackGuard::new(async move {
            let node = &self.nodes[id.index()];
            match node.read.get() {
                Some(read) => Ok(read.plain),
                None => node.plain.get_or_try_init(|| self.make_plain_key(id)).await.copied(),
            }
        })
    }

    fn solved(&self, id: VertexId) -> Guarded<'_, Solved<E::Output>> {
        StackGuard::new(async move {
            self.nodes[id.index()].solved.get_or_try_init(|| self.make_result(id)).await.cloned()
        })
    }

    /// The key that needs no result: steps count by their own keys even where their content would do.
    async fn make_plain_key(&self, id: VertexId) -> Solving<PlainKey> {
        let vertex = &self.graph[id];
        let forced = vertex.meta.ignore_cache;
        if let Op::Source(_) = vertex.op {
            return Ok(PlainKey { key: self.key(id).await?.key, forced });
        }
        let map = self.executor.cache_map(vertex);
        let deps = vertex.inputs.iter().zip(&map.deps).enumerate().map(|(number, (edge, dep))| async move {
            match (dep, &self.graph[edge.vertex].op) {
                (Dep::ByContent(selector), Op::Source(_)) => {
                    Ok(PlainKey { key: self.content(id, number, selector).await?, forced: false })
                }
                _ => {
                    let PlainKey { key, forced } = self.plain(edge.vertex).await?;
                    Ok(PlainKey { key: of_output(key, edge.output), forced })
                }
            }
        });
        let deps = try_join_all(deps).await?;
        let keys: Vec<Key> = deps.iter().map(|dep| dep.key).collect();
        let forced = forced || deps.iter().any(|dep| dep.forced);
        Ok(PlainKey { key: combine(&map, &keys).key, forced })
    }

    async fn make_key(&self, id: VertexId) -> Solving<DerivedKey> {
        let vertex = &self.graph[id];
        if let Op::Source(_) = vertex.op {
            let key = self.executor.source_key(vertex).await.map_err(|e| self.failed(id, e))?;
            return Ok(DerivedKey { key, parts: vec![("source".to_owned(), key.to_string())] });
        }
        let map = self.executor.cache_map(vertex);
        let deps = vertex.inputs.iter().zip(&map.deps).enumerate().map(|(number, (edge, dep))| async move {
            match dep {
                // What a step that had to run again gave is only known from its content.
                Dep::ByKey if self.graph[edge.vertex].meta.ignore_cache => {
                    self.content(id, number, &Selector::everything()).await
                }
                Dep::ByKey => self.key(edge.vertex).await.map(|keyed| of_output(keyed.key, edge.output)),
                Dep::ByContent(selector) => self.content(id, number, selector).await,
            }
        });
        Ok(combine(&map, &try_join_all(deps).await?))
    }

    /// The content of what a step selects of an input: always with the same selector. Errors are the consumer's: it
    /// named the paths.
    async fn content(&self, consumer: VertexId, number: usize, selector: &Selector) -> Solving<Key> {
        let inputs = &self.graph[consumer].inputs;
        let contents = self.nodes[consumer.index()]
            .contents
            .get_or_init(|| std::iter::repeat_with(OnceCell::new).take(inputs.len()).collect());
        let ask = || async {
            let result = self.solved(inputs[number].vertex).await?.result;
            let result = self.output(&result, inputs[number]);
            match result.content {
                Some(content) if selector.is_everything() => Ok(content),
                _ => self.executor.content_key(&result, selector).await.map_err(|error| {
                    self.executor.unread(&self.graph[consumer], number, &result);
                    self.failed(consumer, error)
                }),
            }
        };
        contents[number].get_or_try_init(ask).await.copied()
    }

    async fn make_result(&self, id: VertexId) -> Solving<Solved<E::Output>> {
        let vertex = &self.graph[id];
        try_join_all(vertex.after.iter().map(|edge| self.solved(edge.vertex))).await?;
        if let Op::Source(_) = vertex.op {
            return self.execute(id, &[]).await.map(|(solved, _)| solved);
        }
        let plain = self.plain(id).await?;
        if !plain.forced
            && let Some(found) = self.lookup(id, &plain.key).await?
        {
            return Ok(found);
        }
        let by_definition = self.key(id).await?;
        if (plain.forced || by_definition.key != plain.key)
            && let Some(found) = self.lookup(id, &by_definition.key).await?
        {
            // Else one of the two keys may be of what was read since, and the other one not.
            if !self.has_read_keys.load(Ordering::Acquire) {
                self.remember(id, &by_definition, &[plain.key], &found.result).await?;
            }
            return Ok(found);
        }
        let inputs = try_join_all(vertex.inputs.iter().map(|edge| self.solved(edge.vertex))).await?;
        let inputs =
            inputs.iter().zip(&vertex.inputs).map(|(solved, edge)| self.output(&solved.result, *edge));
        let inputs: Vec<StepResult<E::Output>> = inputs.collect();
        let by_content = self.content_key_of(id).await?;
        if let Some(found) = self.lookup_by_content(id, &by_content.key).await? {
            return Ok(found);
        }
        // Another process may have finished the same step while this one waited for the lock: one more look-up.
        let LockedStep { lock, result } =
            self.cache.lock(&by_content.key).await.map_err(|e| self.failed(id, e))?;
        if let Some(result) = result {
            // The next job that waits need not do the step either.
            self.cache.done(lock, &result);
            return self.take_over(id, result, by_content.key).await;
        }
        if let Some(found) = self.lookup_by_content(id, &by_content.key).await? {
            return Ok(found);
        }
        let (solved, read) = self.execute(id, &inputs).await?;
        let by_content =
            if read.is_empty() { by_content } else { self.content_key_of_reads(id, &read).await? };
        let keys = self.read_keys(id, &read).await?;
        let all = [keys.plain.key, keys.key.key, by_content.key];
        self.remember(id, &keys.key, &all, &solved.result).await?;
        // What was read may not be what the lock's key says: then the result is of no use to those who wait.
        if read.is_empty() {
            self.cache.done(lock, &solved.result);
        } else {
            drop(lock);
        }
        Ok(solved)
    }

    /// The result of another job that did the same step at the same time.
    async fn take_over(
        &self,
        id: VertexId,
        result: StepResult<E::Output>,
        by_content: Key,
    ) -> Solving<Solved<E::Output>> {
        let keys = self.read_keys(id, &[]).await?;
        self.remember(id, &keys.key, &[keys.plain.key, keys.key.key, by_content], &result).await?;
        self.announce_cached(id);
        Ok(Solved { result, status: CacheStatus::Cached })
    }

    /// A record of the content key, which then is one of the other keys too. All inputs are solved.
    async fn lookup_by_content(&self, id: VertexId, by_content: &Key) -> Solving<Option<Solved<E::Output>>> {
        let found = self.lookup(id, by_content).await?;
        if let Some(found) = &found {
            let keys = self.read_keys(id, &[]).await?;
            self.remember(id, &keys.key, &[keys.plain.key, keys.key.key], &found.result).await?;
        }
        Ok(found)
    }

    /// The plain and the definition key of a step all of whose inputs are solved: if it, or one of these, read something
    /// else than was known before, these keys are made again of that.
    async fn read_keys(&self, id: VertexId, read: &[InputRead]) -> Solving<ReadKeys> {
        let vertex = &self.graph[id];
        let known = ReadKeys { plain: self.plain(id).await?, key: self.key(id).await? };
        let below = || vertex.inputs.iter().any(|edge| self.nodes[edge.vertex.index()].read.get().is_some());
        if read.is_empty() && !below() {
            return Ok(known);
        }
        let map = self.executor.cache_map(vertex);
        let (mut plain, mut key) = (Vec::new(), Vec::new());
        for (number, (edge, dep)) in vertex.inputs.iter().zip(&map.deps).enumerate() {
            let read = read.iter().find(|read| read.input == number);
            let is_source = matches!(self.graph[edge.vertex].op, Op::Source(_));
            let is_forced = self.graph[edge.vertex].meta.ignore_cache;
            plain.push(match (dep, read) {
                (Dep::ByContent(_), Some(read)) => read.content,
                (Dep::ByKey, Some(read)) => read.source,
                (Dep::ByContent(selector), None) if is_source => self.content(id, number, selector).await?,
                _ => of_output(self.plain(edge.vertex).await?.key, edge.output),
            });
            key.push(match (dep, read) {
                (Dep::ByContent(_), Some(read)) => read.content,
                (Dep::ByKey, Some(read)) => read.source,
                (Dep::ByKey, None) if is_forced => self.content(id, number, &Selector::everything()).await?,
                (Dep::ByKey, None) => of_output(self.key(edge.vertex).await?.key, edge.output),
                (Dep::ByContent(selector), None) => self.content(id, number, selector).await?,
            });
        }
        let plain = PlainKey { key: combine(&map, &plain).key, forced: known.plain.forced };
        let keys = ReadKeys { plain, key: combine(&map, &key) };
        self.has_read_keys.store(true, Ordering::Release);
        // Nobody else solves this step.
        Ok(self.nodes[id.index()].read.get_or_init(|| keys).clone())
    }

    /// The content key of a step that read something else of its inputs than was known before.
    async fn content_key_of_reads(&self, id: VertexId, read: &[InputRead]) -> Solving<DerivedKey> {
        let vertex = &self.graph[id];
        let map = self.executor.cache_map(vertex);
        let everything = Selector::everything();
        let deps = map.deps.iter().enumerate().map(|(number, dep)| {
            let selector = match dep {
                Dep::ByKey => &everything,
                Dep::ByContent(selector) => selector,
            };
            let read = read.iter().find(|read| read.input == number).map(|read| read.content);
            async move {
                match read {
                    Some(content) => Ok(content),
                    None => self.content(id, number, selector).await,
                }
            }
        });
        let deps = try_join_all(deps).await?;
        Ok(combine(&map, &deps))
    }

    async fn content_key_of(&self, id: VertexId) -> Solving<DerivedKey> {
        self.content_key_of_reads(id, &[]).await
    }

    async fn lookup(&self, id: VertexId, key: &Key) -> Solving<Option<Solved<E::Output>>> {
        if self.graph[id].meta.ignore_cache {
            return Ok(None);
        }
        let found = self.cache.lookup(key).await.map_err(|e| self.failed(id, e))?;
        Ok(found.map(|result| {
            self.announce_cached(id);
            Solved { result, status: CacheStatus::Cached }
        }))
    }

    /// Remembers the result under these keys. What they are made of is kept as the definition key says it: it tells most.
    async fn remember(
        &self,
        id: VertexId,
        made_of: &DerivedKey,
        keys: &[Key],
        result: &StepResult<E::Output>,
    ) -> Solving<()> {
        let name = self.secrets.hide(&self.graph[id].meta.name);
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let parts = masked(&made_of.parts, &self.secrets);
        let record = Record { parts, result: result.clone(), name };
        self.cache.insert(&keys, &record).await.map_err(|e| self.failed(id, e))
    }

    async fn execute(
        &self,
        id: VertexId,
        inputs: &[StepResult<E::Output>],
    ) -> Solving<(Solved<E::Output>, Vec<InputRead>)> {
        let vertex = &self.graph[id];
        self.nodes[id.index()].announced.store(true, Ordering::Relaxed);
        self.nodes[id.index()].started.store(true, Ordering::Relaxed);
        let step = self.begin(vertex);
        let guard = Canceled(Some(step.clone()));
        let outcome = self.executor.execute(vertex, inputs, &step).await;
        guard.defuse();
        step.complete(false, outcome.as_ref().err().map(ToString::to_string));
        let Execution { result, read } = outcome.map_err(|e| self.failed(id, e))?;
        Ok((Solved { result, status: CacheStatus::Executed }, read))
    }

    /// Tells that a step begins. The empty tree is no work, and nobody wants to hear of it.
    fn begin(&self, vertex: &Vertex) -> Step {
        let silent = vertex.op == Op::Source(Source::Scratch);
        let nobody = Progress::none();
        let progress = if silent { &nobody } else { &self.progress };
        progress.start(StepId(vertex.step_digest().to_string()), &vertex.meta.name)
    }

    /// Tells of a step whose record was found, and first of those below it, which nobody needs to look at any more.
    fn announce_cached(&self, id: VertexId) {
        for id in self.graph.needed_by(id) {
            let node = &self.nodes[id.index()];
            if !node.announced.swap(true, Ordering::Relaxed) {
                let vertex = &self.graph[id];
                self.begin(vertex).complete(true, None);
            }
        }
    }
}

/// Ends a step's line on the screen when its future is dropped half-way.
struct Canceled(Option<Step>);

impl Canceled {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for Canceled {
    fn drop(&mut self) {
        if let Some(step) = self.0.take() {
            step.complete(false, Some("canceled".to_owned()));
        }
    }
}

/// The key of an output of a vertex with this key. Output 0 has the key of the vertex.
pub(crate) fn of_output(key: Key, number: u32) -> Key {
    match number {
        0 => key,
        _ => {
            let hasher = KeyHasher::new("lapstrake output 1").part("vertex", key.as_bytes());
            hasher.part("number", &number.to_le_bytes()).finish()
        }
    }
}

pub(crate) fn combine(map: &CacheMap, deps: &[Key]) -> DerivedKey {
    let mut hasher = KeyHasher::new("lapstrake step 1").part("op", &map.op);
    let mut parts = vec![("op".to_owned(), String::from_utf8_lossy(&map.op).into_owned())];
    for (number, (key, dep)) in deps.iter().zip(&map.deps).enumerate() {
        hasher = hasher.part("input", key.as_bytes());
        let label = match dep {
            Dep::ByKey => format!("input {number}"),
            Dep::ByContent(selector) => format!("content of {}", selector.paths.join(" ")),
        };
        parts.push((label, key.to_string()));
    }
    DerivedKey { key: hasher.finish(), parts }
}

#[cfg(test)]
mod tests;
