//! Definitions with other ops in the places of some: converted sources, and nested definitions that were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_oci::Digest;
use lapstrake_proto::pb;
use prost::Message as _;

use crate::definition::{Definition, OutputOf, SourceMap, output_of};
use crate::error::LlbError;

/// The builder of nested definitions, which is the only one.
const BUILDER: i64 = -1;
/// The input that has the nested definition.
const INPUT: &str = "buildkit.llb.definition";
/// The file of the nested definition.
const FILE: &str = "buildkit.llb.definition";
/// The attribute that names another file.
const FILENAME: &str = "llbbuild.filename";

/// An op whose result is that of a definition in a file (`BuildOp`).
#[derive(Clone, Debug)]
pub struct Nested {
    /// The digest of the op.
    pub op: Digest,
    /// The definition of the tree that has the file.
    pub tree: Definition,
    /// The path of the file.
    pub file: String,
}

/// What takes the place of an op.
#[derive(Clone, Debug)]
pub enum Replacement {
    /// A source.
    Source(pb::SourceOp),
    /// The result of a definition.
    Definition(Box<Definition>),
}

impl Definition {
    /// The ops that are sources, with their digests.
    pub fn sources(&self) -> impl Iterator<Item = (&Digest, &pb::Op)> {
        let all = self.order.iter().filter_map(|digest| Some((digest, self.ops.get(digest)?)));
        all.filter(|(_, op)| matches!(op.op, Some(pb::op::Op::Source(_))))
    }

    /// The first nested definition. Its tree has none.
    ///
    /// # Errors
    /// The op names no file, or another builder.
    pub fn nested(&self) -> Result<Option<Nested>, LlbError> {
        let all = self.order.iter().filter_map(|digest| Some((digest, self.ops.get(digest)?)));
        let mut builds = all.filter_map(|(digest, op)| match &op.op {
            Some(pb::op::Op::Build(build)) => Some((digest, op, build)),
            _ => None,
        });
        let Some((digest, op, build)) = builds.next() else { return Ok(None) };
        let invalid = |why: String| LlbError::Op { digest: digest.to_string(), why };
        if build.builder != BUILDER {
            return Err(invalid("only LLB builder is currently allowed".to_owned()));
        }
        let input = build.inputs.get(INPUT);
        let input = input.ok_or_else(|| invalid(format!("no llb definition input {INPUT} found")))?;
        let found = usize::try_from(input.input).ok().and_then(|index| op.inputs.get(index));
        let found = found.ok_or_else(|| invalid(format!("invalid index {}", input.input)))?;
        let file = build.attrs.get(FILENAME).map_or(FILE, String::as_str).to_owned();
        Ok(Some(Nested { op: digest.clone(), tree: self.part(output_of(found)?)?, file }))
    }

    /// The definition of one of the outputs.
    fn part(&self, root: OutputOf) -> Result<Definition, LlbError> {
        let mut part = Definition { root, order: Vec::new(), ..self.clone() };
        part.order = part.sorted()?;
        Ok(part)
    }

    /// This definition with `others` in the places of the ops with these digests. Ops that stand on them get new digests.
    ///
    /// # Errors
    /// An input that does not exist.
    pub fn replaced(self, others: &BTreeMap<Digest, Replacement>) -> Result<Definition, LlbError> {
        if others.is_empty() {
            return Ok(self);
        }
        let mut made = Rewritten {
            metadata: self.metadata.clone(),
            source: self.source.0.clone(),
            ..Rewritten::default()
        };
        for digest in &self.order {
            let op = self.ops.get(digest).ok_or_else(|| LlbError::MissingInput(digest.to_string()))?;
            match others.get(digest) {
                Some(Replacement::Definition(other)) => made.embed(digest, other),
                Some(Replacement::Source(source)) => {
                    let op = pb::Op { op: Some(pb::op::Op::Source(source.clone())), ..op.clone() };
                    made.add(digest, op, true)?;
                }
                None => made.add(digest, op.clone(), false)?,
            }
        }
        let root = made.output(&self.root);
        let Rewritten { ops, metadata, source, .. } = made;
        let mut replaced =
            Definition { ops, metadata, source: Arc::new(SourceMap(source)), root, order: Vec::new() };
        replaced.order = replaced.sorted()?;
        Ok(replaced)
    }
}

/// A definition that grows from another one.
#[derive(Default)]
struct Rewritten {
    ops: BTreeMap<Digest, pb::Op>,
    metadata: BTreeMap<String, pb::OpMetadata>,
    source: pb::Source,
    /// The new digests of ops that have changed.
    renamed: BTreeMap<Digest, Digest>,
    /// The results of definitions that are in the places of ops.
    embedded: BTreeMap<Digest, OutputOf>,
}

impl Rewritten {
    /// The output that an output of the first definition has become.
    fn output(&self, output: &OutputOf) -> OutputOf {
        if let Some(root) = self.embedded.get(&output.op) {
            // A nested definition has one result. Others do not exist.
            return if output.index == 0 { root.clone() } else { output.clone() };
        }
        let op = self.renamed.get(&output.op).unwrap_or(&output.op);
        OutputOf { op: op.clone(), index: output.index }
    }

    /// Adds an op of the first definition. Its digest stays where nothing of it has changed.
    fn add(&mut self, digest: &Digest, mut op: pb::Op, mut changed: bool) -> Result<(), LlbError> {
        for input in &mut op.inputs {
            let before = output_of(input)?;
            let after = self.output(&before);
            if after != before {
                *input = pb::Input { digest: after.op.to_string(), index: after.index };
                changed = true;
            }
        }
        if !changed {
            self.ops.insert(digest.clone(), op);
            return Ok(());
        }
        let new = Digest::sha256(&op.encode_to_vec());
        let (from, to) = (digest.to_string(), new.to_string());
        if let Some(metadata) = self.metadata.get(&from).cloned() {
            self.metadata.insert(to.clone(), metadata);
        }
        if let Some(locations) = self.source.locations.get(&from).cloned() {
            self.source.locations.insert(to, locations);
        }
        self.ops.insert(new.clone(), op);
        self.renamed.insert(digest.clone(), new);
        Ok(())
    }

    /// Adds all of `other`, whose result is in the place of the op `digest`.
    fn embed(&mut self, digest: &Digest, other: &Definition) {
        self.ops.extend(other.ops.clone());
        self.metadata.extend(other.metadata.clone());
        let before = i32::try_from(self.source.infos.len()).unwrap_or(i32::MAX);
        self.source.infos.extend(other.source.0.infos.iter().cloned());
        for (digest, locations) in &other.source.0.locations {
            let mut locations = locations.clone();
            for location in &mut locations.locations {
                location.source_index = location.source_index.saturating_add(before);
            }
            self.source.locations.insert(digest.clone(), locations);
        }
        self.embedded.insert(digest.clone(), other.root.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(inputs: Vec<pb::Input>, op: pb::op::Op) -> pb::Op {
        pb::Op { inputs, op: Some(op), ..pb::Op::default() }
    }

    fn source(name: &str) -> pb::Op {
        let source = pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() };
        op(Vec::new(), pb::op::Op::Source(source))
    }

    fn input(op: &pb::Op) -> pb::Input {
        pb::Input { digest: Digest::sha256(&op.encode_to_vec()).to_string(), index: 0 }
    }

    fn definition(ops: &[pb::Op]) -> Definition {
        let last = pb::Op { inputs: vec![input(ops.last().unwrap())], ..pb::Op::default() };
        let def = ops.iter().chain([&last]).map(pb::Op::encode_to_vec).collect();
        Definition::decode(&pb::Definition { def, ..pb::Definition::default() }).unwrap().unwrap()
    }

    fn names(definition: &Definition) -> Vec<String> {
        let names = definition.sources().map(|(_, op)| match &op.op {
            Some(pb::op::Op::Source(source)) => source.identifier.clone(),
            _ => String::new(),
        });
        names.collect()
    }

    #[test]
    fn sources_are_converted() {
        let (one, two) = (source("a://1"), source("a://2"));
        let merge = op(vec![input(&one), input(&two)], pb::op::Op::Merge(pb::MergeOp::default()));
        let before = definition(&[one.clone(), two.clone(), merge]);
        let digest = |op: &pb::Op| Digest::sha256(&op.encode_to_vec());
        let other = pb::SourceOp { identifier: "b://1".to_owned(), ..pb::SourceOp::default() };
        let others = [(digest(&one), Replacement::Source(other))].into();
        let after = before.clone().replaced(&others).unwrap();
        let mut all = names(&after);
        all.sort();
        assert_eq!(all, ["a://2", "b://1"]);
        assert!(after.ops.contains_key(&digest(&two)) && after.root != before.root);
        assert_eq!(before.clone().replaced(&BTreeMap::new()).unwrap().root, before.root);
    }

    #[test]
    fn definitions_are_embedded() {
        let tree = source("a://tree");
        let build = |builder: i64, name: &str| {
            let inputs = [(name.to_owned(), pb::BuildInput { input: 0 })].into();
            let build = pb::BuildOp { builder, inputs, ..pb::BuildOp::default() };
            op(vec![input(&tree)], pb::op::Op::Build(build))
        };
        let nested = build(BUILDER, INPUT);
        let merge = op(vec![input(&nested), input(&tree)], pb::op::Op::Merge(pb::MergeOp::default()));
        let outer = definition(&[tree.clone(), nested, merge]);
        let found = outer.nested().unwrap().unwrap();
        assert_eq!((found.file.as_str(), names(&found.tree)), (FILE, vec!["a://tree".to_owned()]));
        let inner = Replacement::Definition(Box::new(definition(&[source("a://inner")])));
        let whole = outer.replaced(&[(found.op, inner)].into()).unwrap();
        assert!(whole.nested().unwrap().is_none());
        let mut all = names(&whole);
        all.sort();
        assert_eq!(all, ["a://inner", "a://tree"]);
        for (builder, name, word) in [(0, INPUT, "LLB builder"), (BUILDER, "x", "no llb definition input")] {
            let error = definition(&[tree.clone(), build(builder, name)]).nested().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
