//! Cache records: bytes by key.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use crate::db::now;
use crate::error::StoreError;
use crate::gc;
use crate::layout::Store;

impl Store {
    /// The record of `key`.
    pub fn record(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_db(|db| {
            db.prepare_cached("SELECT value FROM records1 WHERE key = ?1")?
                .query_row([key.as_slice()], |row| row.get(0))
                .optional()
        })
    }

    /// Replaces the records of these keys, all or none.
    pub fn put_records(&self, records: &[([u8; 32], Vec<u8>)]) -> Result<(), StoreError> {
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (key, value) in records {
                change
                    .prepare_cached(
                        "INSERT OR REPLACE INTO records1 (key, value, created) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![key.as_slice(), value, now()])?;
            }
            gc::spare_named(&change, records.iter().map(|(_, value)| value.as_slice()))?;
            change.commit()
        })
    }

    /// Forgets all records.
    pub fn clear_records(&self) -> Result<(), StoreError> {
        self.with_db(|db| db.execute("DELETE FROM records1", []).map(drop))
    }
}
