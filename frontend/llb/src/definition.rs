//! A decoded definition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapstrake_graph::Lines;
use lapstrake_oci::Digest;
use lapstrake_proto::pb;
use prost::Message as _;

use crate::error::LlbError;

/// The most ops of one definition.
const MOST_OPS: usize = 100_000;

/// A definition whose ops are decoded. Every input of an op is an op of the definition.
#[derive(Clone, Debug)]
pub struct Definition {
    pub(crate) ops: BTreeMap<Digest, pb::Op>,
    pub(crate) metadata: BTreeMap<String, pb::OpMetadata>,
    pub(crate) source: Arc<SourceMap>,
    /// The result.
    pub(crate) root: OutputOf,
    /// The ops that the result needs, inputs before their consumers.
    pub(crate) order: Vec<Digest>,
}

/// The texts that ops were made from, and the places of the ops in them.
#[derive(Clone, Debug, Default)]
pub struct SourceMap(pub(crate) pb::Source);

impl SourceMap {
    /// The places of the op with this digest, each with its text.
    pub fn places(&self, digest: &str) -> Vec<(&pb::SourceInfo, &[pb::Range])> {
        let text = |location: &pb::Location| self.0.infos.get(usize::try_from(location.source_index).ok()?);
        let all = self.0.locations.get(digest).into_iter().flat_map(|locations| &locations.locations);
        all.filter_map(|location| Some((text(location)?, location.ranges.as_slice()))).collect()
    }

    /// The size, in bytes of the protocol.
    pub fn bytes(&self) -> usize {
        self.0.encoded_len()
    }
}

/// One output of an op.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OutputOf {
    pub(crate) op: Digest,
    pub(crate) index: i64,
}

impl Definition {
    /// Decodes a definition. An empty one stands for the empty tree, and is `None`.
    ///
    /// # Errors
    /// Bytes that are no op, no result, or an input that is missing.
    pub fn decode(definition: &pb::Definition) -> Result<Option<Definition>, LlbError> {
        if definition.def.is_empty() {
            return Ok(None);
        }
        if definition.def.len() > MOST_OPS {
            return Err(LlbError::Definition(format!("more than {MOST_OPS} ops")));
        }
        let mut ops = BTreeMap::new();
        let mut last = None;
        for bytes in &definition.def {
            let op = pb::Op::decode(bytes.as_slice())?;
            last = Some(op.clone());
            ops.insert(Digest::sha256(bytes), op);
        }
        let last = last.filter(|last| last.op.is_none());
        let [root] = last.as_ref().map_or(&[][..], |last| &last.inputs) else {
            return Err(LlbError::Definition("the last op has to name the result".to_owned()));
        };
        let root = output_of(root)?;
        let mut decoded = Definition {
            ops,
            metadata: definition.metadata.clone().into_iter().collect(),
            source: Arc::new(SourceMap(definition.source.clone().unwrap_or_default())),
            root,
            order: Vec::new(),
        };
        decoded.order = decoded.sorted()?;
        Ok(Some(decoded))
    }

    /// The ops that the result needs, inputs first. An op cannot need itself, since it is named by its content.
    pub(crate) fn sorted(&self) -> Result<Vec<Digest>, LlbError> {
        let (mut order, mut entered, mut done) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut left = vec![self.root.op.clone()];
        while let Some(digest) = left.last().cloned() {
            if done.contains(&digest) {
                left.pop();
                continue;
            }
            let op = self.ops.get(&digest).ok_or_else(|| LlbError::MissingInput(digest.to_string()))?;
            if entered.insert(digest.clone()) {
                for input in &op.inputs {
                    left.push(output_of(input)?.op);
                }
                continue;
            }
            left.pop();
            done.insert(digest.clone());
            order.push(digest);
        }
        Ok(order)
    }

    pub(crate) fn locations(&self, digest: &Digest) -> Option<&pb::Locations> {
        self.source.0.locations.get(&digest.to_string())
    }

    /// The texts that the ops were made from, with the places of the ops.
    pub fn source_map(&self) -> Arc<SourceMap> {
        self.source.clone()
    }

    /// The text that the first op with a place was made from.
    pub fn text(&self) -> Option<&pb::SourceInfo> {
        self.source.0.infos.first()
    }

    /// The groups of steps that are shown as one, by the digests of their ops.
    pub fn progress_groups(&self) -> impl Iterator<Item = (&str, &pb::ProgressGroup)> {
        let groups = self.metadata.iter();
        groups.filter_map(|(digest, meta)| Some((digest.as_str(), meta.progress_group.as_ref()?)))
    }
}

/// The lines of a location.
pub(crate) fn lines(location: &pb::Location) -> Option<Lines> {
    let line = |position: Option<&pb::Position>| u32::try_from(position?.line).ok();
    let first = location.ranges.iter().filter_map(|range| line(range.start.as_ref())).min()?;
    let last = location.ranges.iter().filter_map(|range| line(range.end.as_ref())).max();
    Some(Lines { first, last: last.unwrap_or(first).max(first) })
}

/// The output that an input names.
pub(crate) fn output_of(input: &pb::Input) -> Result<OutputOf, LlbError> {
    let op = input.digest.parse().map_err(|_| LlbError::MissingInput(input.digest.clone()))?;
    Ok(OutputOf { op, index: input.index })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition of these ops, whose result is the last one.
    fn defined(ops: &[pb::Op]) -> pb::Definition {
        let mut def: Vec<Vec<u8>> = ops.iter().map(prost::Message::encode_to_vec).collect();
        let digest = Digest::sha256(def.last().unwrap()).to_string();
        let root = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() };
        def.push(root.encode_to_vec());
        pb::Definition { def, ..pb::Definition::default() }
    }

    #[test]
    fn inputs_come_first() {
        let leaf = pb::Op { op: Some(pb::op::Op::Source(pb::SourceOp::default())), ..pb::Op::default() };
        let digest = Digest::sha256(&leaf.encode_to_vec()).to_string();
        let input = pb::Input { digest, index: 0 };
        let merge = pb::Op {
            inputs: vec![input.clone(), input],
            op: Some(pb::op::Op::Merge(pb::MergeOp::default())),
            ..pb::Op::default()
        };
        let definition = Definition::decode(&defined(&[leaf, merge])).unwrap().unwrap();
        assert_eq!(definition.order.len(), 2);
        assert_eq!(definition.order[1], definition.root.op);
        assert!(Definition::decode(&pb::Definition::default()).unwrap().is_none());
    }

    #[test]
    fn broken_definitions_are_refused() {
        let refused = |def: Vec<Vec<u8>>| {
            Definition::decode(&pb::Definition { def, ..pb::Definition::default() }).unwrap_err()
        };
        assert!(matches!(refused(vec![vec![0xff]]), LlbError::Bytes(_)));
        assert!(matches!(refused(vec![Vec::new()]), LlbError::Definition(_)));
        let missing = pb::Input { digest: Digest::sha256(b"x").to_string(), index: 0 };
        let root = pb::Op { inputs: vec![missing], ..pb::Op::default() };
        assert!(matches!(refused(vec![root.encode_to_vec()]), LlbError::MissingInput(_)));
        let strange = pb::Input { digest: "sha256:../x".to_owned(), index: 0 };
        let root = pb::Op { inputs: vec![strange], ..pb::Op::default() };
        assert!(matches!(refused(vec![root.encode_to_vec()]), LlbError::MissingInput(_)));
    }
}
