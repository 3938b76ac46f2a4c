//! What became of each step, to be kept and explained.

use std::sync::atomic::Ordering;

use lapstrake_graph::{Edge, Op, VertexId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::executor::{CacheIndex, Executor};
use crate::key::Key;
use crate::masked::{masked, masked_text};
use crate::solve::{CacheStatus, Solver};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// A record had its result, or the result of something that stands on it.
    Cached,
    /// It was done.
    Executed,
    /// It began, and did not end well.
    Failed,
    /// The build ended before it began.
    Skipped,
}

/// Something that went into a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is: `op`, `input 0`, `content of src`.
    pub label: String,
    /// Its value: the op as JSON, or a digest.
    pub value: String,
}

/// A step of a finished build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct StepReport<T> {
    /// Its vertex digest, which names it in events.
    pub digest: String,
    /// Its name: `[build 2/5] RUN make`.
    pub name: String,
    /// First and last line in the Dockerfile.
    pub lines: Option<(u32, u32)>,
    /// What became of it.
    #[serde(rename = "fate")]
    pub outcome: StepOutcome,
    /// It was to be done even if a record had it.
    #[serde(rename = "asked", default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Which steps it stands on, by their places in the list.
    pub inputs: Vec<usize>,
    /// Its plain key, if that was needed.
    pub key: Option<Key>,
    /// What the key is made of; the first is the op, then there is one for each input. Left out for what came from the
    /// cache: the record of the key has it.
    pub parts: Vec<KeyPart>,
    /// Its result, where it is known and in a form that can still be read.
    #[serde(default, deserialize_with = "readable")]
    pub result: Option<T>,
}

/// A result that another version wrote in another form is no result.
fn readable<'de, T: DeserializeOwned, D: Deserializer<'de>>(input: D) -> Result<Option<T>, D::Error> {
    let found = serde_json::Value::deserialize(input)?;
    Ok(serde_json::from_value(found).ok())
}

impl<E: Executor, C: CacheIndex<Output = E::Output>> Solver<'_, E, C> {
    /// What became of each step that one of `edges` needs, inputs before their consumers.
    pub fn report(&self, edges: &[Edge]) -> Vec<StepReport<E::Output>> {
        let mut ids = self.graph.topological();
        let goals: Vec<VertexId> =
            edges.iter().flat_map(|edge| self.graph.goals(*edge)).map(|goal| goal.vertex).collect();
        let mut needed = vec![false; self.nodes.len()];
        for goal in goals {
            for id in self.graph.needed_by(goal) {
                needed[id.index()] = true;
            }
        }
        ids.retain(|id| needed[id.index()]);
        let mut places = vec![0; self.nodes.len()];
        for (place, id) in ids.iter().enumerate() {
            places[id.index()] = place;
        }
        ids.into_iter().map(|id| self.step_report(id, &places)).collect()
    }

    fn step_report(&self, id: VertexId, places: &[usize]) -> StepReport<E::Output> {
        let (vertex, node) = (&self.graph[id], &self.nodes[id.index()]);
        let started = node.started.load(Ordering::Relaxed);
        let outcome = match node.solved.get() {
            Some(solved) if solved.status == CacheStatus::Cached => StepOutcome::Cached,
            Some(_) => StepOutcome::Executed,
            None if started => StepOutcome::Failed,
            None if node.announced.load(Ordering::Relaxed) => StepOutcome::Cached,
            None => StepOutcome::Skipped,
        };
        let (plain, keyed) = match node.read.get() {
            Some(read) => (Some(&read.plain), Some(&read.key)),
            None => (node.plain.get(), node.key.get()),
        };
        let parts = match (&vertex.op, keyed) {
            // A source has no record.
            (Op::Source(_), _) => {
                let op = self.executor.cache_map(vertex).op;
                vec![KeyPart {
                    label: "op".to_owned(),
                    value: masked_text(&String::from_utf8_lossy(&op), &self.secrets),
                }]
            }
            (_, Some(keyed)) if outcome != StepOutcome::Cached => masked(&keyed.parts, &self.secrets)
                .into_iter()
                .map(|(label, value)| KeyPart { label, value })
                .collect(),
            _ => Vec::new(),
        };
        StepReport {
            digest: vertex.step_digest().to_string(),
            name: self.secrets.hide(&vertex.meta.name),
            lines: vertex.meta.lines.map(|lines| (lines.first, lines.last)),
            outcome,
            forced: vertex.meta.ignore_cache,
            inputs: vertex.inputs.iter().map(|edge| places[edge.vertex.index()]).collect(),
            key: plain.map(|plain| plain.key).or(keyed.map(|keyed| keyed.key)),
            parts,
            result: node.solved.get().map(|solved| solved.result.value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in records of builds, to the byte: each version reads records of the others.
    #[test]
    fn records_of_steps_keep_their_names() {
        let report = StepReport {
            digest: "d".to_owned(),
            name: "n".to_owned(),
            lines: None,
            outcome: StepOutcome::Executed,
            forced: true,
            inputs: vec![0],
            key: None,
            parts: vec![KeyPart { label: "op".to_owned(), value: "x".to_owned() }],
            result: Some(1),
        };
        let written = r#"{"digest":"d","name":"n","lines":null,"fate":"executed","asked":true,"inputs":[0],"key":null,"parts":[{"label":"op","value":"x"}],"result":1}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), written);
        assert_eq!(serde_json::from_str::<StepReport<i32>>(written).unwrap(), report);
    }
}
