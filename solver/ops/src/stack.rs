//! Results: stacks of layers, or directories of the host.

use std::borrow::Cow;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use lapstrake_engine::{Key, KeyHasher, StepResult};
use lapstrake_graph::Source;
use lapstrake_snapshot::{Lower, View};
use lapstrake_store::{LayerId, StackLayer, Store};
use lapstrake_tree::{Tree, TreeError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::OpsError;

/// How many layers are unpacked side by side.
const AT_ONCE: usize = 4;

/// A tree, as a step gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stack {
    /// The layers, lowest first.
    pub layers: Vec<StackLayer>,
    /// A directory of the host below them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<PathBuf>,
    /// Directories of the host that processes see, read-only, at the same place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<PathBuf>,
    /// The name of a local context: then there is nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// What the directories of the host looked like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Key>,
    /// The further outputs of a process: the trees that it has written to besides its root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Stack>,
}

/// A stack that is the result of a step: one value for all steps that stand on it. In records of builds it is a string of
/// JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SharedStack(Arc<Stack>);

impl Deref for SharedStack {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.0
    }
}

impl SharedStack {
    /// The digest of the content without times, where it can be told.
    pub(crate) fn content_of(stack: &Stack, store: &Store) -> Option<Key> {
        stack.local.is_none().then(|| stack.content(store).ok()).flatten()
    }
}

impl From<Stack> for SharedStack {
    fn from(stack: Stack) -> SharedStack {
        SharedStack(Arc::new(stack))
    }
}

impl Serialize for SharedStack {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for SharedStack {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<SharedStack, D::Error> {
        let stack: Stack =
            serde_json::from_str(&Cow::<str>::deserialize(input)?).map_err(de::Error::custom)?;
        Ok(stack.into())
    }
}

/// The result of a step.
pub type StackResult = StepResult<SharedStack>;

/// What became of a step, and its result.
pub type StackReport = lapstrake_engine::StepReport<SharedStack>;

impl Stack {
    /// As the result of a step.
    pub fn into_result(self, store: &Store) -> Result<StackResult, OpsError> {
        let content = if self.local.is_some() { None } else { Some(self.content(store)?) };
        Ok(StepResult { value: self.into(), content })
    }

    /// As a source of another graph.
    pub fn as_source(&self) -> Source {
        let own = Stack { outputs: Vec::new(), ..self.clone() };
        Source::Solved { result: own.to_text() }
    }

    /// As the text by which caches and records of builds know it.
    pub(crate) fn to_text(&self) -> String {
        String::from_utf8_lossy(&lapstrake_go::to_json(self)).into_owned()
    }

    /// The ids of all layers that it needs: its own, lowest first, and those of its further outputs.
    pub fn layer_ids(&self) -> Vec<LayerId> {
        let all = std::iter::once(self).chain(&self.outputs).flat_map(|stack| &stack.layers);
        all.map(|layer| layer.id.clone()).collect()
    }

    /// The output `number`: the stack itself, or one of the further outputs.
    pub(crate) fn output(&self, number: u32) -> Option<Stack> {
        let number = usize::try_from(number).ok()?;
        match number.checked_sub(1) {
            None => Some(Stack { outputs: Vec::new(), ..self.clone() }),
            Some(further) => self.outputs.get(further).cloned(),
        }
    }

    /// For `map_err`: no checksum could be made of it.
    pub(crate) fn checksum_error(&self) -> impl FnOnce(TreeError) -> OpsError + '_ {
        |source| OpsError::Checksum { of: self.name(), source: Box::new(source) }
    }

    /// What it is called in errors: one word, as tools that read them expect.
    pub(crate) fn name(&self) -> String {
        let last = self.layers.last().map(|layer| layer.id.to_string());
        self.local.clone().or(last).unwrap_or_else(|| "scratch".to_owned())
    }

    /// One stack with the layers of all inputs, in their order. A directory of the host is taken from the first one only.
    pub(crate) fn merged(inputs: &[SharedStack]) -> Stack {
        let mut merged = inputs.first().and_then(|first| first.output(0)).unwrap_or_default();
        for stack in inputs.iter().skip(1) {
            merged.layers.extend(stack.layers.iter().cloned());
        }
        merged
    }

    /// The same stack with one more layer on it.
    pub(crate) fn with(&self, id: LayerId) -> Stack {
        let mut stack = Stack { outputs: Vec::new(), ..self.clone() };
        stack.layers.push(StackLayer { id, diff_id: None, clamp: None });
        stack
    }

    /// What is to be put on each other, lowest first. Layers that are packed are unpacked first.
    pub fn lowers(&self, store: &Store, single_id: bool) -> Result<Vec<Lower>, OpsError> {
        self.unpack(store, single_id)?;
        Ok(self.as_lowers())
    }

    /// The same of layers that may be packed.
    pub(crate) fn as_lowers(&self) -> Vec<Lower> {
        let host = self.below.iter().cloned().map(Lower::Host);
        host.chain(self.layers.iter().map(|layer| Lower::Layer(layer.id.clone()))).collect()
    }

    /// Whether files of some layer would have to be unpacked first.
    pub(crate) fn has_lazy(&self, store: &Store) -> bool {
        self.layers.iter().any(|layer| !store.has_files(&layer.id))
    }

    fn unpack(&self, store: &Store, single_id: bool) -> Result<(), OpsError> {
        let packed: Vec<&LayerId> =
            self.layers.iter().map(|layer| &layer.id).filter(|id| !store.has_files(id)).collect();
        for some in packed.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let unpack = |id| scope.spawn(move || lapstrake_snapshot::unpack_lazy(store, id, single_id));
                let threads: Vec<_> = some.iter().map(|id| unpack(*id)).collect();
                threads.into_iter().try_for_each(|thread| {
                    thread.join().map_err(|_| OpsError::Worker)?.map_err(OpsError::from)
                })
            })?;
        }
        Ok(())
    }

    /// Its tree, for reading.
    pub fn open(&self, store: &Store, single_id: bool) -> Result<View, OpsError> {
        Ok(View::new(store, &self.lowers(store, single_id)?)?)
    }

    /// Everything in its layers, without a directory of the host below them.
    pub(crate) fn tree(&self, store: &Store) -> Result<Tree, OpsError> {
        let mut layers = self.layers.iter();
        let read = |layer: &StackLayer| Ok::<Tree, OpsError>(Tree::decode(&store.layer_tree(&layer.id)?)?);
        let Some(first) = layers.next() else { return Ok(Tree::default()) };
        layers.try_fold(read(first)?.alone(), |below, layer| Ok(below.with_layer(&read(layer)?)))
    }

    /// Whether all of it is still there.
    pub(crate) fn is_whole(&self, store: &Store) -> bool {
        let own = self.layers.iter().all(|layer| store.has_layer(&layer.id));
        own && self.outputs.iter().all(|stack| stack.is_whole(store))
    }

    /// The digest of the content without times.
    fn content(&self, store: &Store) -> Result<Key, OpsError> {
        let mut hasher = KeyHasher::new("lapstrake stack 1");
        if let Some(key) = &self.fingerprint {
            hasher = hasher.part("host", key.as_bytes());
        }
        for row in store.layers(self.layers.iter().map(|layer| &layer.id))? {
            hasher = hasher.part("layer", &row.content);
        }
        Ok(hasher.finish())
    }
}
