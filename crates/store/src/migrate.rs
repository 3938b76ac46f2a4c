//! Opening the database, and bringing a state directory of an earlier lapstrake to the present format.
//!
//! Up to version 8 every change of the database was one that older processes did not notice: new tables and new columns.
//! Version 9 takes tables away, because an older process would write records and images without saying which layers they
//! need. So nothing older may be at work in the directory then: its processes hold the locks of [`crate::epochs`], and are
//! named if they do not end soon. The superblock gets its new format first. From then on an older lapstrake refuses the
//! directory, and whatever ends the change half-way, the next process finds it undone in the database and does it again.
//! Version 10 adds a column and a table for build records. No older process is disturbed.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::db::{self, ADDED, FIRST, NEWEST, OF_BUILDS, WITH_RELATIONS};
use crate::epochs;
use crate::error::{StoreError, io_error};
use crate::layer_id::LayerId;
use crate::relations::{self, stack_of};
use crate::superblock::write_superblock;

/// Opens the database of the state directory `root`.
pub(crate) fn open(root: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Database { path: db::path(root), source };
    let (mut db, version) = db::connect(&db::path(root)).map_err(failed)?;
    if version > NEWEST {
        return Err(StoreError::TooNew { path: root.to_owned(), found: version, known: NEWEST });
    }
    if version < NEWEST {
        // Only one process changes the journal's mode at a time: SQLite would take two that wait for each other for a
        // deadlock, and fail one of them at once.
        let dir = File::open(root).map_err(io_error("open", root))?;
        flock(&dir, FlockOperation::LockExclusive).map_err(|errno| io_error("lock", root)(errno.into()))?;
        migrate(root, &mut db)?;
    }
    db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    Ok(db)
}

/// Brings the database `db` of the state directory `root` to the present version. The caller holds the lock for it.
fn migrate(root: &Path, db: &mut Connection) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { path: db::path(root), source };
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    let found = db::version(db).map_err(failed)?;
    if found >= NEWEST {
        // Another process was quicker.
        return Ok(());
    }
    let alone =
        if has_old_records(db).map_err(failed)? { Some(epochs::exclusive_access(root)?) } else { None };
    write_superblock(root)?;
    upgrade(db).map_err(failed)?;
    drop(alone);
    Ok(())
}

fn has_old_records(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'records1'")?.exists([])
}

fn upgrade(db: &mut Connection) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = db::version(&change)?;
    if found < WITH_RELATIONS {
        change.execute_batch(FIRST)?;
        for (_, tables) in ADDED.iter().filter(|(version, _)| *version > found) {
            change.execute_batch(tables)?;
        }
        to_relations(&change)?;
    }
    change.execute_batch(OF_BUILDS)?;
    change.pragma_update(None, "user_version", NEWEST)?;
    change.commit()
}

/// Version 9: what records and images need are relations, and no longer words in their texts.
fn to_relations(change: &Transaction<'_>) -> rusqlite::Result<()> {
    change.execute_batch(relations::TABLES)?;
    let mut old = change.prepare("SELECT key, value, created FROM records1")?;
    let mut rows = old.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let OldRecord { layers, step } = OldRecord::read(&value);
        change
            .prepare_cached(
                "INSERT INTO records (key, created, stack, step, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![key, row.get::<_, i64>(2)?, stack_of(change, &layers)?, step, value])?;
    }
    drop(rows);
    drop(old);
    change.execute_batch(
        "INSERT INTO image_layers SELECT images.id, json_each.key, json_each.value ->> 'id', \
         json_each.value ->> 'diff_id', json_each.value ->> 'clamp' FROM images, json_each(images.layers);
         ALTER TABLE images DROP COLUMN layers;
         DROP TABLE records1;",
    )
}

/// What a record of version 8 needs.
#[derive(Default)]
struct OldRecord {
    layers: Vec<LayerId>,
    step: Option<String>,
}

/// The record of a step: its result is JSON in a string.
#[derive(Deserialize)]
struct OfStep {
    result: OldResult,
    name: String,
}

#[derive(Deserialize)]
struct OldResult {
    token: String,
}

/// A result; also the whole record of a git repository or an archive.
#[derive(Deserialize)]
struct OldStack {
    layers: Vec<OldLayer>,
}

#[derive(Deserialize)]
struct OldLayer {
    id: LayerId,
}

impl OldRecord {
    /// Records in other forms need nothing: what the web said of a file, and what no lapstrake can read.
    fn read(value: &[u8]) -> OldRecord {
        let stack = |text: &[u8]| serde_json::from_slice::<OldStack>(text).ok();
        let (stack, step) = match serde_json::from_slice::<OfStep>(value) {
            Ok(record) => (stack(record.result.token.as_bytes()), Some(record.name)),
            Err(_) => (stack(value), None),
        };
        let Some(stack) = stack else { return OldRecord::default() };
        OldRecord { layers: stack.layers.into_iter().map(|layer| layer.id).collect(), step }
    }
}

#[cfg(test)]
pub(crate) mod tests;
