//! The store as the engine's memory.

pub(crate) mod imports;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_engine::{CacheIndex, Key, LockedStep, Record, StepResult};
use lapstrake_store::{LayerId, Lock, RecordOf, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::cache::imports::CacheImports;
use crate::error::OpsError;
use crate::stack::{SharedStack, Stack, StackResult};
use crate::worker::Worker;
use crate::worker::single_flight::CallGuard;

/// Records in the store, as a job sees them.
pub struct Cache {
    worker: Arc<Worker>,
    store: Arc<Store>,
    used: Mutex<BTreeSet<LayerId>>,
    imports: Option<CacheImports>,
}

/// A record as it is stored: JSON, with the result as JSON in a string.
#[derive(Serialize)]
struct StoredRecord<'a> {
    key: &'a Key,
    parts: &'a [(String, String)],
    result: StoredResult<'a>,
    name: &'a str,
}

#[derive(Serialize, Deserialize)]
struct StoredResult<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    content: Option<Key>,
}

/// What a look-up needs of a record.
#[derive(Deserialize)]
struct ResultOnly<'a> {
    #[serde(borrow)]
    result: StoredResult<'a>,
}

/// What explains a record.
#[derive(Deserialize)]
struct WholeRecord<'a> {
    parts: Vec<(String, String)>,
    #[serde(borrow)]
    result: StoredResult<'a>,
    name: String,
}

impl StoredResult<'_> {
    /// What cannot be read was written by another version: then there is no result.
    fn read(self) -> Option<StackResult> {
        let stack: Stack = serde_json::from_str(&self.token).ok()?;
        Some(StepResult { value: stack.into(), content: self.content })
    }
}

/// The record of `key`, if there is one and it can be read. Its layers may be gone.
pub fn record(store: &Store, key: &Key) -> Option<Record<SharedStack>> {
    let bytes = store.record(key.as_bytes()).ok()??;
    let WholeRecord { parts, result, name } = serde_json::from_slice(&bytes).ok()?;
    Some(Record { parts, result: result.read()?, name })
}

impl Cache {
    /// Over the store of `worker`.
    pub fn new(worker: Arc<Worker>) -> Cache {
        Cache { store: worker.store().clone(), worker, used: Mutex::default(), imports: None }
    }

    /// Looks into these caches too, for what is not here.
    #[must_use]
    pub fn with(self, imports: CacheImports) -> Cache {
        Cache { imports: Some(imports), ..self }
    }

    fn local_result(&self, key: &Key) -> Result<Option<StackResult>, OpsError> {
        let Some(bytes) = self.store.record(key.as_bytes())? else { return Ok(None) };
        let found = serde_json::from_slice::<ResultOnly<'_>>(&bytes).ok();
        let Some(result) = found.and_then(|found| found.result.read()) else { return Ok(None) };
        if !result.value.is_whole(&self.store) {
            return Ok(None);
        }
        let ids = result.value.layer_ids();
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        Ok(Some(result))
    }

    /// Remembers which layers were of use, so that they are not the first to be pruned.
    pub fn finish(&self) -> Result<(), OpsError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        self.blame_disk(self.store.touch_layers(&used))
    }

    fn blame_disk<T>(&self, result: Result<T, StoreError>) -> Result<T, OpsError> {
        result.map_err(|error| OpsError::from(error).blame_disk(&self.store))
    }
}

/// Held while a step is done: by this job alone in this process, and by this process alone.
pub struct StepLock {
    _file: Lock,
    call: CallGuard<StackResult>,
}

impl CacheIndex for Cache {
    type Output = SharedStack;
    type Lock = StepLock;
    type Error = OpsError;

    async fn lookup(&self, key: &Key) -> Result<Option<StackResult>, OpsError> {
        if let Some(found) = self.local_result(key)? {
            tracing::debug!(%key, "cache lookup: found in the state directory");
            return Ok(Some(found));
        }
        let Some(imports) = &self.imports else {
            tracing::debug!(%key, "cache lookup: not found");
            return Ok(None);
        };
        let Some((stack, name)) = imports.find(key).await else {
            tracing::debug!(%key, "cache lookup: not found, in shared caches neither");
            return Ok(None);
        };
        tracing::debug!(%key, "cache lookup: found in a shared cache");
        let result = stack.into_result(&self.store)?;
        // What its key is made of is known where it was built.
        let record = Record { parts: Vec::new(), result, name };
        self.insert(&[*key], &record).await?;
        Ok(Some(record.result))
    }

    async fn lock(&self, key: &Key) -> Result<LockedStep<StepLock, SharedStack>, OpsError> {
        // The jobs of this process wait for each other without a thread, and can be canceled; one of them at a time waits for
        // other processes.
        let (call, result) = self.worker.steps.wait(*key).await;
        let (store, name) = (self.store.clone(), key.to_string());
        let file = tokio::task::spawn_blocking(move || store.lock(&name)).await;
        let file = self.blame_disk(file.map_err(|_| OpsError::Worker)?)?;
        Ok(LockedStep { lock: StepLock { _file: file, call }, result })
    }

    fn done(&self, lock: StepLock, result: &StackResult) {
        lock.call.done(result.clone());
    }

    async fn insert(&self, keys: &[Key], record: &Record<SharedStack>) -> Result<(), OpsError> {
        let Record { parts, result, name } = record;
        let token = result.value.to_text();
        let row = |key: &Key| {
            let result = StoredResult { token: Cow::Borrowed(&token), content: result.content };
            (*key.as_bytes(), lapstrake_go::to_json(&StoredRecord { key, parts, result, name }))
        };
        let rows: Vec<([u8; 32], Vec<u8>)> = keys.iter().map(row).collect();
        let layers = result.value.layer_ids();
        self.blame_disk(self.store.put_records(&rows, RecordOf { layers: &layers, step: Some(name) }))
    }
}

#[cfg(test)]
mod tests {
    use lapstrake_engine::KeyHasher;
    use lapstrake_store::StackLayer;

    use super::*;

    /// What is stored, to the byte: caches of earlier versions are read, and theirs read ours.
    #[test]
    fn records_are_written_as_they_always_were() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&root.path().join("s")).unwrap());
        let cache = Cache::new(Arc::new(Worker::new(store.clone(), false)));
        let key = KeyHasher::new("test").finish();
        let id: LayerId = "a".repeat(64).parse().unwrap();
        let diff_id = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        let layer = StackLayer { id, diff_id: Some(lapstrake_oci::DiffId(diff_id)), clamp: None };
        let stack = Stack { layers: vec![layer], below: Some("/a&b".into()), ..Stack::default() };
        let result = StepResult { value: stack.into(), content: None };
        let parts = vec![("op".to_owned(), "<x>".to_owned())];
        let told = Record { parts, result, name: "RUN x".to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(cache.insert(&[key], &told)).unwrap();
        let written = String::from_utf8(store.record(key.as_bytes()).unwrap().unwrap()).unwrap();
        let token = format!(
            r#"{{\"layers\":[{{\"id\":\"{}\",\"diff_id\":\"sha256:{}\"}}],\"below\":\"/a\\u0026b\"}}"#,
            "a".repeat(64),
            "b".repeat(64)
        );
        let wanted = format!(
            r#"{{"key":"{key}","parts":[["op","\u003cx\u003e"]],"result":{{"token":"{token}","content":null}},"name":"RUN x"}}"#
        );
        assert_eq!(written, wanted);
        assert_eq!(record(&store, &key), Some(told));
        // Its layer is not there, so nothing is found.
        assert_eq!(runtime.block_on(cache.lookup(&key)).unwrap(), None);
    }
}
