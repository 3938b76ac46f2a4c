//! The database behind the records: opening and tables.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::error::StoreError;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS records1 (key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers (id TEXT PRIMARY KEY, diff_id TEXT, size INTEGER NOT NULL, content BLOB NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS diffs (diff_id TEXT PRIMARY KEY, layer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (diff_id TEXT NOT NULL, media_type TEXT NOT NULL, variant TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff_id, variant)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, manifest TEXT, layers TEXT NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (reference TEXT PRIMARY KEY, image TEXT NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repositories (digest TEXT NOT NULL, registry TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, registry)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (reference TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 3;
";

pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    connect(path).map_err(|source| StoreError::Database { path: path.to_owned(), source })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(30))?;
    // A checkpoint syncs twice; the last process to close must not pay that at the end of a cached build.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // All tables of earlier versions are still the same; newer ones have more.
    if version < 3 {
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
    }
    db.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(db)
}

/// Seconds since the Unix epoch, for the columns that say when.
pub(crate) fn now() -> i64 {
    lapstrake_oci::now_seconds().0
}

#[cfg(test)]
mod tests {
    #[test]
    fn sqlite_has_the_wal_reset_fix() {
        // 3.7.0 to 3.51.2 can lose committed rows when a WAL is reset under a reader.
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }
}
