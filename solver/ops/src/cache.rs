//! The store as the engine's memory.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_engine::{CacheIndex, Key, Record, ResultRef};
use lapstrake_store::{LayerId, Lock, Store, StoreError};

use crate::error::OpsError;
use crate::imports::Imports;
use crate::stack::Stack;

/// Records in the store.
pub struct Cache {
    store: Arc<Store>,
    used: Mutex<BTreeSet<LayerId>>,
    imports: Option<Imports>,
}

impl Cache {
    /// Over `store`.
    pub fn new(store: Arc<Store>) -> Cache {
        Cache { store, used: Mutex::default(), imports: None }
    }

    /// Looks into these caches too, for what is not here.
    #[must_use]
    pub fn with(self, imports: Imports) -> Cache {
        Cache { imports: Some(imports), ..self }
    }

    fn here(&self, key: &Key) -> Result<Option<ResultRef>, OpsError> {
        let Some(bytes) = self.store.record(key.as_bytes())? else { return Ok(None) };
        // What cannot be read was written by another version: then it is no record.
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        let Ok(stack) = Stack::parse(&record.result) else { return Ok(None) };
        if !stack.is_whole(&self.store) {
            return Ok(None);
        }
        let ids = stack.layers.into_iter().map(|layer| layer.id);
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        Ok(Some(record.result))
    }

    /// Remembers which layers were of use, so that they are not the first to be pruned.
    pub fn finish(&self) -> Result<(), OpsError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        self.told(self.store.touch_layers(&used))
    }

    fn told<T>(&self, result: Result<T, StoreError>) -> Result<T, OpsError> {
        result.map_err(|error| OpsError::from(error).blame_disk(&self.store))
    }
}

impl CacheIndex for Cache {
    type Lock = Lock;
    type Error = OpsError;

    async fn lookup(&self, key: &Key) -> Result<Option<ResultRef>, OpsError> {
        if let Some(found) = self.here(key)? {
            return Ok(Some(found));
        }
        let Some(imports) = &self.imports else { return Ok(None) };
        let Some((stack, name)) = imports.find(key).await else { return Ok(None) };
        let result = stack.to_result(&self.store)?;
        // What its key is made of is known where it was built.
        self.insert(vec![Record { key: *key, parts: Vec::new(), result: result.clone(), name }]).await?;
        Ok(Some(result))
    }

    async fn lock(&self, key: &Key) -> Result<Lock, OpsError> {
        let (store, name) = (self.store.clone(), key.to_string());
        let lock = tokio::task::spawn_blocking(move || store.lock(&name)).await;
        self.told(lock.map_err(|_| OpsError::Worker)?)
    }

    async fn insert(&self, records: Vec<Record>) -> Result<(), OpsError> {
        let rows: Vec<([u8; 32], Vec<u8>)> =
            records.iter().map(|record| (*record.key.as_bytes(), lapstrake_go::to_json(record))).collect();
        self.told(self.store.put_records(&rows))
    }
}
