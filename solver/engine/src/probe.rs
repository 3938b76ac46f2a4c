//! What is cached, found out without doing anything.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use lapstrake_graph::{Edge, Graph, Op, Source, VertexId};
use tokio::sync::OnceCell;

use crate::event::{Progress, StepId};
use crate::executor::{CacheIndex, Dep, Executor, Selector, StepResult};
use crate::key::Key;
use crate::solve::{combine, of_output};
use crate::stack_guard::StackGuard;

/// What a build would do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forecast {
    /// Brings in files or an image: looked at in each build.
    Source,
    /// Takes it from the cache.
    Cached,
    /// Does it, unless what it stands on turns out to have the content that it had before.
    Executed,
    /// It stands on something that would have to be fetched to know.
    Unknown,
}

struct Node<T> {
    key: OnceCell<Option<Key>>,
    result: OnceCell<Option<StepResult<T>>>,
    cached: AtomicBool,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { key: OnceCell::new(), result: OnceCell::new(), cached: AtomicBool::new(false) }
    }
}

struct Probe<'a, E: Executor, C> {
    graph: &'a Graph,
    executor: &'a E,
    cache: &'a C,
    nodes: Vec<Node<E::Output>>,
}

/// What a build of `edge` would do with each step that it needs, inputs before their consumers. Nothing is done, and
/// nothing fetched; what cannot be found out that way is unknown.
pub async fn probe<E: Executor, C: CacheIndex<Output = E::Output>>(
    graph: &Graph,
    executor: &E,
    cache: &C,
    edge: Edge,
) -> Vec<(VertexId, Forecast)> {
    let ids = graph.needed_by(edge.vertex);
    let size = ids.iter().map(|id| id.index() + 1).max().unwrap_or(0);
    let nodes = std::iter::repeat_with(Node::default).take(size).collect();
    let probe = Probe { graph, executor, cache, nodes };
    let steps = ids.iter().filter(|id| !matches!(graph[**id].op, Op::Source(_)));
    join_all(steps.map(|id| probe.result(*id))).await;
    let forecast = |id: VertexId| {
        let node = &probe.nodes[id.index()];
        match (&graph[id].op, node.key.get()) {
            (Op::Source(_), _) => Forecast::Source,
            _ if node.cached.load(Ordering::Relaxed) => Forecast::Cached,
            (_, Some(Some(_))) => Forecast::Executed,
            _ if graph[id].meta.ignore_cache => Forecast::Executed,
            _ => Forecast::Unknown,
        }
    };
    ids.iter().map(|id| (*id, forecast(*id))).collect()
}

impl<E: Executor, C: CacheIndex<Output = E::Output>> Probe<'_, E, C> {
    fn key(&self, id: VertexId) -> StackGuard<'_, Option<Key>> {
        StackGuard::new(async move { *self.nodes[id.index()].key.get_or_init(|| self.make_key(id)).await })
    }

    /// The result of a step, if it can be had without doing anything.
    fn result(&self, id: VertexId) -> StackGuard<'_, Option<StepResult<E::Output>>> {
        StackGuard::new(async move {
            self.nodes[id.index()].result.get_or_init(|| self.make_result(id)).await.clone()
        })
    }

    async fn make_key(&self, id: VertexId) -> Option<Key> {
        let vertex = &self.graph[id];
        match &vertex.op {
            // These would be fetched to know their keys.
            Op::Source(Source::Http(_) | Source::Git(_) | Source::Archive { .. }) => return None,
            Op::Source(_) => return self.executor.source_key(vertex).await.ok(),
            _ => {}
        }
        let map = self.executor.cache_map(vertex);
        let deps = vertex.inputs.iter().zip(&map.deps).map(|(edge, dep)| async move {
            match (dep, &self.graph[edge.vertex].op) {
                (Dep::ByContent(selector), Op::Source(_)) => self.content(edge.vertex, selector).await,
                _ => self.key(edge.vertex).await.map(|key| of_output(key, edge.output)),
            }
        });
        let deps: Option<Vec<Key>> = join_all(deps).await.into_iter().collect();
        Some(combine(&map, &deps?).key)
    }

    async fn content(&self, input: VertexId, selector: &Selector) -> Option<Key> {
        let result = self.result(input).await?;
        match result.content {
            Some(content) if selector.is_everything() => Some(content),
            _ => self.executor.content_key(&result, selector).await.ok(),
        }
    }

    async fn make_result(&self, id: VertexId) -> Option<StepResult<E::Output>> {
        let vertex = &self.graph[id];
        match &vertex.op {
            // To name a directory of this machine is no work.
            Op::Source(Source::Scratch | Source::Local { .. }) => {
                let step = Progress::none().start(StepId(String::new()), "");
                return self.executor.execute(vertex, &[], &step).await.ok().map(|done| done.result);
            }
            Op::Source(_) => return None,
            _ => {}
        }
        let key = self.key(id).await?;
        if vertex.meta.ignore_cache {
            return None;
        }
        let found = self.cache.lookup(&key).await.ok()??;
        for below in self.graph.needed_by(id) {
            self.nodes[below.index()].cached.store(true, Ordering::Relaxed);
        }
        Some(found)
    }
}
