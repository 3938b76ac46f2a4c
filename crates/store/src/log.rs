//! The database's log (SQLite's WAL), kept short.
//!
//! Whoever opens the database while nobody else has it open reads the whole log, page by page. What takes the log into the
//! database is worth more than it costs; but it syncs twice, and a cached build waits for no disk. So builds that sync
//! anyway do it, and the sweeper. A cached build adds nothing to it (its record has a file of its own, see `recent`).

use std::fs;
use std::time::Duration;

use crate::db::BUSY;
use crate::error::StoreError;
use crate::layout::Store;

/// Bytes of log from which it is worth starting a process to shorten it: 62 pages.
const LONG: u64 = 256 << 10;
/// From which it is worth waiting for the disk. From a thousand pages on SQLite would do as much itself in each process,
/// and never empty the log.
const VERY_LONG: u64 = 1 << 20;

impl Store {
    /// Whether the log has become so long that the next processes would feel it.
    pub fn log_is_long(&self) -> bool {
        self.log_length() > LONG
    }

    /// Whether it is so long that whoever finds it so should shorten it.
    pub fn log_is_very_long(&self) -> bool {
        self.log_length() > VERY_LONG
    }

    fn log_length(&self) -> u64 {
        fs::metadata(self.root().join("state.db-wal")).map_or(0, |log| log.len())
    }

    /// Takes the log into the database and empties it. Where somebody else reads or writes in this moment, it stays as
    /// long as it is: the next one tries again.
    pub fn shorten_log(&self) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.busy_timeout(Duration::ZERO)?;
            // Its row says whether somebody was in the way.
            let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            db.busy_timeout(BUSY)?;
            match done {
                Err(rusqlite::Error::SqliteFailure(error, _))
                    if error.code == rusqlite::ErrorCode::DatabaseBusy =>
                {
                    Ok(())
                }
                other => other,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordOf;

    fn log(store: &Store) -> u64 {
        fs::metadata(store.root().join("state.db-wal")).unwrap().len()
    }

    #[test]
    fn the_log_is_long_after_many_records_and_empty_after_it_was_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        store.shorten_log().unwrap();
        assert_eq!(log(&store), 0);
        assert!(!store.log_is_long());
        for number in 0..100 {
            store.put_records(&[([number; 32], b"value".to_vec())], RecordOf::default()).unwrap();
        }
        assert!(store.log_is_long() && !store.log_is_very_long());
        // Who has the database open besides, and is not reading, is in nobody's way.
        let other = Store::open(store.root()).unwrap();
        store.shorten_log().unwrap();
        assert_eq!(log(&store), 0);
        assert_eq!(other.record(&[7; 32]).unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn a_sync_empties_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        store.put_records(&[([1; 32], b"value".to_vec())], RecordOf::default()).unwrap();
        assert_ne!(log(&store), 0);
        store.sync().unwrap();
        assert_eq!(log(&store), 0);
    }
}
