//! Results: stacks of layers, or directories of the host.

use std::path::PathBuf;

use lapstrake_engine::{Key, KeyHasher, ResultRef};
use lapstrake_oci::DiffId;
use lapstrake_snapshot::{Lower, View};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::{Tree, TreeError};
use serde::{Deserialize, Serialize};

use crate::error::OpsError;

/// How many layers are unpacked side by side.
const AT_ONCE: usize = 4;

/// A layer in a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackLayer {
    /// Its files.
    pub id: LayerId,
    /// The tar that it came from, for layers of other people's images: it must leave as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// The second that no time in that tar is behind, where times were rewritten when the image was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<i64>,
}

impl StackLayer {
    /// The layers of an image, lowest first, as they have to be on each other; see [`lapstrake_snapshot::settle`].
    pub fn settle(
        store: &Store,
        layers: Vec<StackLayer>,
        single_id: bool,
    ) -> Result<Vec<StackLayer>, OpsError> {
        let ids: Vec<LayerId> = layers.iter().map(|layer| layer.id.clone()).collect();
        let settled = lapstrake_snapshot::settle(store, &ids, single_id)?;
        let with_id = |(layer, id): (StackLayer, LayerId)| StackLayer { id, ..layer };
        Ok(layers.into_iter().zip(settled).map(with_id).collect())
    }
}

/// A tree, as a step gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Stack {
    /// The stack that a result names.
    pub fn parse(result: &ResultRef) -> Result<Stack, OpsError> {
        serde_json::from_str(&result.token)
            .map_err(|source| OpsError::Malformed { what: "a step's result".to_owned(), source })
    }

    /// As a result.
    pub fn to_result(&self, store: &Store) -> Result<ResultRef, OpsError> {
        let token = String::from_utf8_lossy(&lapstrake_go::to_json(self)).into_owned();
        let content = if self.local.is_some() { None } else { Some(self.content(store)?) };
        Ok(ResultRef { token, content })
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

    /// The same stack with one more layer on it.
    pub(crate) fn with(&self, id: LayerId) -> Stack {
        let mut stack = self.clone();
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
    pub(crate) fn has_packed(&self, store: &Store) -> bool {
        self.layers.iter().any(|layer| !store.has_files(&layer.id))
    }

    fn unpack(&self, store: &Store, single_id: bool) -> Result<(), OpsError> {
        let packed: Vec<&LayerId> =
            self.layers.iter().map(|layer| &layer.id).filter(|id| !store.has_files(id)).collect();
        for some in packed.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let unpack =
                    |id| scope.spawn(move || lapstrake_snapshot::unpack_packed(store, id, single_id));
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
        self.layers.iter().all(|layer| store.has_layer(&layer.id))
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
