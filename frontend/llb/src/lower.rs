//! From a definition to vertices of a graph.

use std::collections::BTreeMap;

use lapstrake_graph::{Copy, CopyVariant, Edge, File, FileAction, Graph, Op, Source, VertexMeta};
use lapstrake_oci::{Digest, Platform};
use lapstrake_proto::pb;

use crate::definition::{Definition, OutputOf, lines, output_of};
use crate::error::LlbError;
use crate::local::LocalSource;
use crate::names;

/// The answers to the questions of a definition: see [`Definition::images`].
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The platform of ops that name none; `None` for the one of this machine.
    pub platform: Option<Platform>,
    /// The session of the client. Directories of other sessions are told apart.
    pub session: String,
    /// The sources that images are, by the digests of their ops.
    pub images: BTreeMap<Digest, Source>,
}

/// The result of lowering.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The result of the definition.
    pub edge: Edge,
    /// The directories of clients that are sources, by their names in the graph.
    pub locals: BTreeMap<String, LocalSource>,
}

/// A definition on its way into a graph.
pub(crate) struct Lowering<'d> {
    pub(crate) definition: &'d Definition,
    pub(crate) answers: &'d Answers,
    pub(crate) graph: &'d mut Graph,
    pub(crate) locals: BTreeMap<String, LocalSource>,
    edges: BTreeMap<OutputOf, Edge>,
}

/// One op on its way.
pub(crate) struct This<'d> {
    pub(crate) digest: &'d Digest,
    pub(crate) op: &'d pb::Op,
    /// The edges that its inputs are.
    pub(crate) inputs: Vec<Edge>,
    pub(crate) meta: VertexMeta,
}

impl This<'_> {
    /// The error for values that cannot be.
    pub(crate) fn invalid(&self, why: impl Into<String>) -> LlbError {
        LlbError::Op { digest: self.digest.to_string(), why: why.into() }
    }

    /// The error for a part that is not built yet.
    pub(crate) fn unsupported(&self, what: impl Into<String>) -> LlbError {
        LlbError::Unsupported { digest: self.digest.to_string(), what: what.into() }
    }

    /// The input `index`.
    pub(crate) fn input(&self, index: i64) -> Result<Edge, LlbError> {
        let edge = usize::try_from(index).ok().and_then(|index| self.inputs.get(index));
        edge.copied().ok_or_else(|| self.invalid(format!("there is no input {index}")))
    }

    /// The platform of the op; the default where it names none.
    pub(crate) fn platform(&self, answers: &Answers) -> Platform {
        let asked = self.op.platform.as_ref().filter(|platform| !platform.os.is_empty());
        match asked {
            Some(asked) => Platform {
                os_version: asked.os_version.clone(),
                ..Platform::new(&asked.os, &asked.architecture, &asked.variant)
            },
            None => answers.platform.clone().unwrap_or_else(Platform::host),
        }
    }
}

impl Definition {
    /// Adds the ops of this definition to `graph`.
    ///
    /// # Errors
    /// An op that cannot be, or that is not built yet.
    pub fn lower(&self, answers: &Answers, graph: &mut Graph) -> Result<Lowered, LlbError> {
        let mut lowering =
            Lowering { definition: self, answers, graph, locals: BTreeMap::new(), edges: BTreeMap::new() };
        for digest in &self.order {
            lowering.op(digest)?;
        }
        let edge = lowering.edge(&self.root)?;
        let edge = lowering.layered(edge)?;
        Ok(Lowered { edge, locals: lowering.locals })
    }
}

impl Lowering<'_> {
    /// The edge that an output has become.
    fn edge(&self, output: &OutputOf) -> Result<Edge, LlbError> {
        self.edges.get(output).copied().ok_or_else(|| LlbError::Op {
            digest: output.op.to_string(),
            why: format!("there is no output {}", output.index),
        })
    }

    fn op(&mut self, digest: &Digest) -> Result<(), LlbError> {
        let definition = self.definition;
        let op = definition.ops.get(digest).ok_or_else(|| LlbError::MissingInput(digest.to_string()))?;
        let inputs = op.inputs.iter().map(|input| self.edge(&output_of(input)?)).collect::<Result<_, _>>()?;
        let this = This { digest, op, inputs, meta: self.meta(digest, op) };
        if op.constraints.as_ref().is_some_and(|constraints| !constraints.filter.is_empty()) {
            return Err(this.unsupported("a filter of workers"));
        }
        let made = match &op.op {
            Some(pb::op::Op::Source(source)) => vec![(0, self.source(&this, source)?)],
            Some(pb::op::Op::Exec(exec)) => self.exec(&this, exec)?,
            Some(pb::op::Op::File(file)) => self.file(&this, file)?,
            Some(pb::op::Op::Merge(merge)) => vec![(0, self.merge(&this, merge)?)],
            Some(pb::op::Op::Diff(diff)) => vec![(0, self.diff(&this, *diff)?)],
            Some(pb::op::Op::Passthrough(passthrough)) => self.passed_through(&this, passthrough)?,
            Some(pb::op::Op::Build(_)) => return Err(this.invalid("its nested definition was not read")),
            None => return Err(this.invalid("it says nothing to do")),
        };
        let outputs = made.into_iter().map(|(index, edge)| (OutputOf { op: digest.clone(), index }, edge));
        self.edges.extend(outputs);
        Ok(())
    }

    fn meta(&self, digest: &Digest, op: &pb::Op) -> VertexMeta {
        let meta = self.definition.metadata.get(&digest.to_string());
        let named = meta.and_then(|meta| meta.description.get(names::CUSTOM_NAME));
        let ignore_cache = meta.is_some_and(|meta| meta.ignore_cache);
        VertexMeta {
            id: Some(digest.clone()),
            name: named.cloned().unwrap_or_else(|| names::of_op(op)),
            lines: self.definition.lines(digest),
            ignore_cache,
            fresh_cache_mounts: ignore_cache,
        }
    }

    /// The empty tree.
    pub(crate) fn scratch(&mut self) -> Result<Edge, LlbError> {
        let meta = VertexMeta { name: "scratch".to_owned(), ..VertexMeta::default() };
        Ok(self.graph.add(Op::Source(Source::Scratch), Vec::new(), meta)?.into())
    }

    /// The input `index` of an op; the empty tree for −1.
    pub(crate) fn input_or_scratch(&mut self, this: &This<'_>, index: i64) -> Result<Edge, LlbError> {
        if index == -1 { self.scratch() } else { this.input(index) }
    }

    /// `edge` as something that has layers: a directory of a client is copied.
    fn layered(&mut self, edge: Edge) -> Result<Edge, LlbError> {
        let vertex = &self.graph[edge.vertex];
        if !matches!(vertex.op, Op::Source(Source::Local { .. })) {
            return Ok(edge);
        }
        let meta = VertexMeta { name: format!("copy {}", vertex.meta.name), ..VertexMeta::default() };
        let copy = FileAction::Copy(Copy {
            input: 1,
            sources: vec!["/".to_owned()],
            dest: "/".to_owned(),
            chown: None,
            chmod: None,
            chmod_made: false,
            exclude: Vec::new(),
            parents: false,
            optional: false,
            unpack: false,
            timestamp: None,
            variant: CopyVariant::default(),
        });
        let inputs = vec![self.scratch()?, edge];
        Ok(self.graph.add(Op::File(File { actions: vec![copy] }), inputs, meta)?.into())
    }

    /// The input `index` of an op, as something that has layers; the empty tree for −1.
    fn layers(&mut self, this: &This<'_>, index: i64) -> Result<Edge, LlbError> {
        let edge = self.input_or_scratch(this, index)?;
        self.layered(edge)
    }

    fn merge(&mut self, this: &This<'_>, merge: &pb::MergeOp) -> Result<Edge, LlbError> {
        let inputs = merge.inputs.iter().map(|input| self.layers(this, input.input));
        let inputs: Vec<Edge> = inputs.collect::<Result<_, _>>()?;
        if inputs.is_empty() {
            return Err(this.invalid("a merge of nothing"));
        }
        Ok(self.graph.add(Op::Merge, inputs, this.meta.clone())?.into())
    }

    /// The outputs of an op that only names inputs. They wait for the inputs that are no outputs.
    fn passed_through(
        &mut self,
        this: &This<'_>,
        passthrough: &pb::PassthroughOp,
    ) -> Result<Vec<(i64, Edge)>, LlbError> {
        let numbers = (0..).zip(&this.inputs);
        let others: Vec<Edge> = numbers
            .filter(|(number, _)| !passthrough.outputs.contains(number))
            .map(|(_, edge)| *edge)
            .collect();
        let mut outputs = Vec::new();
        for (number, input) in (0..).zip(&passthrough.outputs) {
            let mut edge = this.input(*input)?;
            if !others.is_empty() {
                let inputs = vec![self.layered(edge)?];
                edge = self.graph.add_after(Op::Merge, inputs, others.clone(), this.meta.clone())?.into();
            }
            outputs.push((number, edge));
        }
        Ok(outputs)
    }

    fn diff(&mut self, this: &This<'_>, diff: pb::DiffOp) -> Result<Edge, LlbError> {
        let lower = diff.lower.map_or(-1, |lower| lower.input);
        let upper = diff.upper.map_or(-1, |upper| upper.input);
        let inputs = vec![self.layers(this, lower)?, self.layers(this, upper)?];
        Ok(self.graph.add(Op::Diff, inputs, this.meta.clone())?.into())
    }
}

impl Definition {
    /// The lines of an op.
    fn lines(&self, digest: &Digest) -> Option<lapstrake_graph::Lines> {
        lines(self.locations(digest)?.locations.first()?)
    }
}
