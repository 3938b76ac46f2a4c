//! Vertices, edges and the graph that holds them.

use lapstrake_diag::{Code, Reported};
use std::collections::BTreeMap;
use std::fmt;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{Dfs, Reversed, Topo};
use serde::Serialize;

use lapstrake_oci::Digest;

use crate::{Exec, File, Source};

/// What a vertex does. A closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Brings in a tree; has no inputs.
    Source(Source),
    /// Runs a process in input 0; further inputs are what its mounts name.
    Exec(Exec),
    /// Changes input 0; further inputs are what its copies name.
    File(File),
    /// Stacks the inputs, lowest first (`COPY --link`).
    Merge,
    /// The changes that make input 1 out of input 0.
    Diff,
}

/// Which vertex of a [`Graph`]. Only meaningful with the graph that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(NodeIndex);

impl VertexId {
    /// A dense number, for tables beside the graph.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// One result of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexId,
    /// The number of the output, from 0. Only [`Exec`] has more than one.
    pub output: u32,
}

impl From<VertexId> for Edge {
    fn from(vertex: VertexId) -> Edge {
        Edge { vertex, output: 0 }
    }
}

/// The identity of a vertex: SHA-256 over its op and the digests of its inputs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct VertexDigest(Digest);

impl VertexDigest {
    /// As a plain digest, the way progress streams name vertices.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// First and last line of the instruction, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The first line.
    pub first: u32,
    /// The last line, heredoc bodies included.
    pub last: u32,
}

/// What people are told of a vertex. Never part of its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexMeta {
    /// The name of the step for programs, where a client has given one. Otherwise the digest of the vertex is the name.
    pub id: Option<Digest>,
    /// The step's name: `[build 2/5] RUN make`.
    pub name: String,
    /// Where it stands in the Dockerfile.
    pub lines: Option<Lines>,
    /// Run it even if it is cached.
    pub ignore_cache: bool,
    /// The cache mounts of the step begin empty: the first step of a job that uses such a directory empties it.
    pub fresh_cache_mounts: bool,
}

/// An op with its inputs.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it does it to.
    pub inputs: Vec<Edge>,
    /// What has to be done before, and gives it nothing (`FROM --after`).
    pub after: Vec<Edge>,
    /// What people are told.
    pub meta: VertexMeta,
    digest: VertexDigest,
}

impl Vertex {
    /// Its identity.
    pub fn digest(&self) -> &VertexDigest {
        &self.digest
    }

    /// The name of the step for programs, in progress streams and records.
    pub fn step_digest(&self) -> &Digest {
        self.meta.id.as_ref().unwrap_or(&self.digest.0)
    }
}

/// Why a vertex cannot be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidGraph {
    /// An input is not in this graph.
    #[error("step `{step}` has input {input} from outside of the graph")]
    ForeignInput {
        /// The step's name.
        step: String,
        /// Which input.
        input: usize,
    },
    /// An input is an output that its vertex does not have.
    #[error("input {input} of step `{step}` is an output that does not exist")]
    NoSuchOutput {
        /// The step's name.
        step: String,
        /// The number of the input.
        input: usize,
    },
    /// The op names an input that is not there, or has inputs where it must have none.
    #[error("step `{step}` has {has} inputs, and its op needs {needs}")]
    InputCount {
        /// The step's name.
        step: String,
        /// How many there are.
        has: usize,
        /// How many there must be, at least.
        needs: usize,
    },
}

impl Reported for InvalidGraph {
    fn code(&self) -> Code {
        Code::new("graph", "invalid")
    }
}

/// A directed acyclic graph of vertices; edges lead from an input to its consumer.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: StableDiGraph<Vertex, usize>,
    by_digest: BTreeMap<VertexDigest, VertexId>,
}

impl Graph {
    /// A graph with nothing in it.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds a vertex or, if one with the same digest is there, gives that one. Then its `ignore_cache` is kept if
    /// either asks for it, and the first name stays.
    pub fn add(&mut self, op: Op, inputs: Vec<Edge>, meta: VertexMeta) -> Result<VertexId, InvalidGraph> {
        self.add_after(op, inputs, Vec::new(), meta)
    }

    /// Like [`Graph::add`], for a vertex that waits for others besides its inputs. Those are part of its digest.
    pub fn add_after(
        &mut self,
        op: Op,
        inputs: Vec<Edge>,
        after: Vec<Edge>,
        meta: VertexMeta,
    ) -> Result<VertexId, InvalidGraph> {
        self.check(&op, &inputs, &meta)?;
        let digest = self.digest_of(&op, &inputs, &after);
        if let Some(id) = self.by_digest.get(&digest) {
            let id = *id;
            if let Some(vertex) = self.nodes.node_weight_mut(id.0) {
                vertex.meta.ignore_cache |= meta.ignore_cache;
            }
            return Ok(id);
        }
        let sources: Vec<NodeIndex> = inputs.iter().map(|edge| edge.vertex.0).collect();
        let id = VertexId(self.nodes.add_node(Vertex { op, inputs, after, meta, digest: digest.clone() }));
        for (number, source) in sources.into_iter().enumerate() {
            self.nodes.add_edge(source, id.0, number);
        }
        self.by_digest.insert(digest, id);
        Ok(id)
    }

    /// A graph with other sources in the places of some, and the vertices that those of this graph have become. What stands
    /// on a source has another digest then.
    ///
    /// # Errors
    /// None for a graph that was made by [`Graph::add_after`].
    pub fn with_sources(
        &self,
        others: &BTreeMap<VertexId, Source>,
    ) -> Result<(Graph, BTreeMap<VertexId, VertexId>), InvalidGraph> {
        let (mut graph, mut made) = (Graph::new(), BTreeMap::new());
        for id in self.topological() {
            let Vertex { op, inputs, after, meta, .. } = &self[id];
            let moved = |edges: &[Edge], made: &BTreeMap<VertexId, VertexId>| -> Vec<Edge> {
                let edges = edges.iter();
                edges.filter_map(|edge| Some(Edge { vertex: *made.get(&edge.vertex)?, ..*edge })).collect()
            };
            let op = others.get(&id).map_or_else(|| op.clone(), |source| Op::Source(source.clone()));
            let (inputs, after) = (moved(inputs, &made), moved(after, &made));
            made.insert(id, graph.add_after(op, inputs, after, meta.clone())?);
        }
        Ok((graph, made))
    }

    fn check(&self, op: &Op, inputs: &[Edge], meta: &VertexMeta) -> Result<(), InvalidGraph> {
        let step = || meta.name.clone();
        if let Some(input) = inputs.iter().position(|edge| !self.nodes.contains_node(edge.vertex.0)) {
            return Err(InvalidGraph::ForeignInput { step: step(), input });
        }
        let needs = needed_inputs(op);
        let has = inputs.len();
        let fits = if matches!(op, Op::Source(_)) { has == 0 } else { has >= needs };
        if !fits {
            return Err(InvalidGraph::InputCount { step: step(), has, needs });
        }
        let beyond = |edge: &Edge| match &self[edge.vertex].op {
            Op::Exec(exec) => edge.output >= exec.outputs(),
            _ => edge.output > 0,
        };
        match inputs.iter().position(beyond) {
            Some(input) => Err(InvalidGraph::NoSuchOutput { step: step(), input }),
            None => Ok(()),
        }
    }

    fn digest_of(&self, op: &Op, inputs: &[Edge], after: &[Edge]) -> VertexDigest {
        #[derive(Serialize)]
        struct Hashed<'a> {
            op: &'a Op,
            inputs: Vec<(&'a VertexDigest, u32)>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            after: Vec<(&'a VertexDigest, u32)>,
        }
        let digests = |edges: &[Edge]| -> Vec<(&VertexDigest, u32)> {
            edges.iter().map(|edge| (&self[edge.vertex].digest, edge.output)).collect()
        };
        let hashed = Hashed { op, inputs: digests(inputs), after: digests(after) };
        VertexDigest(Digest::sha256(&lapstrake_go::to_json(&hashed)))
    }

    /// The vertex `id`, if this graph has it.
    pub fn get(&self, id: VertexId) -> Option<&Vertex> {
        self.nodes.node_weight(id.0)
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All vertices, inputs before their consumers.
    pub fn topological(&self) -> Vec<VertexId> {
        let mut walk = Topo::new(&self.nodes);
        std::iter::from_fn(|| walk.next(&self.nodes)).map(VertexId).collect()
    }

    /// `target` and all that it needs, inputs before their consumers.
    pub fn needed_by(&self, target: VertexId) -> Vec<VertexId> {
        let reversed = Reversed(&self.nodes);
        let mut walk = Dfs::new(reversed, target.0);
        let mut needed =
            vec![false; self.nodes.node_indices().map(NodeIndex::index).max().map_or(0, |m| m + 1)];
        while let Some(node) = walk.next(reversed) {
            needed[node.index()] = true;
        }
        self.topological().into_iter().filter(|id| needed[id.index()]).collect()
    }

    /// What has to be done so that `target` can be called done: itself, and all that anything it needs waits for.
    pub fn goals(&self, target: Edge) -> Vec<Edge> {
        let mut goals = vec![target];
        let mut seen = 0;
        while let Some(goal) = goals.get(seen).copied() {
            seen += 1;
            for id in self.needed_by(goal.vertex) {
                let new = self[id].after.iter().filter(|edge| !goals.contains(edge)).copied();
                let new: Vec<Edge> = new.collect();
                goals.extend(new);
            }
        }
        goals
    }

    /// The vertices that have `id` for an input.
    pub fn consumers(&self, id: VertexId) -> Vec<VertexId> {
        let mut found: Vec<VertexId> =
            self.nodes.neighbors_directed(id.0, Direction::Outgoing).map(VertexId).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// # Panics
/// If `id` is from another graph, as slices do.
impl std::ops::Index<VertexId> for Graph {
    type Output = Vertex;

    fn index(&self, id: VertexId) -> &Vertex {
        &self.nodes[id.0]
    }
}

fn needed_inputs(op: &Op) -> usize {
    use crate::{FileAction, MountKind};
    match op {
        Op::Source(_) => 0,
        Op::Merge => 1,
        Op::Diff => 2,
        Op::File(file) => {
            let copies = file.actions.iter().filter_map(|action| match action {
                FileAction::Copy(copy) => Some(copy.input + 1),
                FileAction::MakeDir(_)
                | FileAction::MakeFile(_)
                | FileAction::Symlink(_)
                | FileAction::Remove(_) => None,
            });
            copies.max().unwrap_or(1).max(1)
        }
        Op::Exec(exec) => {
            let named = exec.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Bind(bind) => Some(bind.input + 1),
                MountKind::Cache(cache) => cache.from.map(|input| input + 1),
                MountKind::Tmpfs { .. } | MountKind::Secret(_) | MountKind::Ssh(_) => None,
            });
            named.max().unwrap_or(1).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileAction, MakeDir};

    fn named(name: &str) -> VertexMeta {
        VertexMeta { name: name.to_owned(), ..VertexMeta::default() }
    }

    fn mkdir(path: &str) -> Op {
        let dir = MakeDir { path: path.to_owned(), mode: 0o755, parents: true, owner: None, timestamp: None };
        Op::File(File { actions: vec![FileAction::MakeDir(dir)] })
    }

    #[test]
    fn names_stay_outside_of_digests() {
        let mut graph = Graph::new();
        let base = graph.add(Op::Source(Source::Scratch), vec![], named("a")).unwrap();
        let again = graph.add(Op::Source(Source::Scratch), vec![], named("b")).unwrap();
        assert_eq!(base, again);
        let one = graph.add(mkdir("/x"), vec![base.into()], named("x")).unwrap();
        let two = graph.add(mkdir("/y"), vec![base.into()], named("x")).unwrap();
        let three = graph.add(mkdir("/x"), vec![one.into()], named("x")).unwrap();
        assert_ne!(graph[one].digest(), graph[two].digest());
        assert_ne!(graph[one].digest(), graph[three].digest());
    }

    #[test]
    fn the_bytes_of_a_digest_are_fixed() {
        let mut graph = Graph::new();
        let base = graph.add(Op::Source(Source::Scratch), vec![], named("")).unwrap();
        assert_eq!(
            graph[base].digest().digest(),
            &Digest::sha256(br#"{"op":{"source":"scratch"},"inputs":[]}"#)
        );
    }

    #[test]
    fn needed_by_leaves_out_the_rest() {
        let mut graph = Graph::new();
        let base = graph.add(Op::Source(Source::Scratch), vec![], named("")).unwrap();
        let one = graph.add(mkdir("/x"), vec![base.into()], named("")).unwrap();
        let other = graph.add(mkdir("/y"), vec![base.into()], named("")).unwrap();
        let both = graph.add(Op::Merge, vec![one.into(), other.into()], named("")).unwrap();
        assert_eq!(graph.needed_by(one), vec![base, one]);
        assert_eq!(graph.needed_by(both).len(), 4);
        assert_eq!(graph.consumers(base), vec![one, other]);
    }

    #[test]
    fn inputs_must_fit() {
        let mut graph = Graph::new();
        let error = graph.add(mkdir("/"), vec![], named("s")).unwrap_err();
        assert_eq!(error, InvalidGraph::InputCount { step: "s".into(), has: 0, needs: 1 });
    }
}
