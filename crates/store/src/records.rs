//! Cache records: bytes by key, and the layers that they need.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use crate::db::now;
use crate::error::StoreError;
use crate::gc;
use crate::layer_id::LayerId;
use crate::layout::Store;
use crate::relations::{release_stack, stack_of, stack_of_record};

/// What records are about: the store keeps these layers as long as one of the records is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordOf<'a> {
    /// The layers of the result, lowest first.
    pub layers: &'a [LayerId],
    /// The name of the step that made the topmost layer.
    pub step: Option<&'a str>,
}

impl Store {
    /// The record of `key`.
    pub fn record(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_db(|db| {
            db.prepare_cached("SELECT value FROM records WHERE key = ?1")?
                .query_row([key.as_slice()], |row| row.get(0))
                .optional()
        })
    }

    /// Replaces the records of these keys, all or none. All are about the same result.
    pub fn put_records(
        &self,
        records: &[([u8; 32], Vec<u8>)],
        about: RecordOf<'_>,
    ) -> Result<(), StoreError> {
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let stack = stack_of(&change, about.layers)?;
            for (key, value) in records {
                let replaced = stack_of_record(&change, key)?;
                change
                    .prepare_cached(
                        "INSERT OR REPLACE INTO records (key, created, stack, step, value) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![key.as_slice(), now(), stack, about.step, value])?;
                if let Some(replaced) = replaced.filter(|replaced| *replaced != stack) {
                    release_stack(&change, replaced, &mut BTreeSet::new())?;
                }
            }
            gc::protect_named(&change, about.layers)?;
            change.commit()
        })
    }

    /// Forgets all records.
    pub fn clear_records(&self) -> Result<(), StoreError> {
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change.execute("DELETE FROM records", [])?;
            change.execute("DELETE FROM stacks", [])?;
            change.commit()
        })
    }
}
