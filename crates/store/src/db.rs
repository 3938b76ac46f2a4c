//! The database behind the records: connections and tables. [`crate::migrate`] opens it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// The tables of the first version.
pub(crate) const FIRST: &str = "
CREATE TABLE IF NOT EXISTS records1 (key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers (id TEXT PRIMARY KEY, diff_id TEXT, size INTEGER NOT NULL, content BLOB NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS diffs (diff_id TEXT PRIMARY KEY, layer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (diff_id TEXT NOT NULL, media_type TEXT NOT NULL, variant TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff_id, variant)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, manifest TEXT, layers TEXT NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (reference TEXT PRIMARY KEY, image TEXT NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repositories (digest TEXT NOT NULL, registry TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, registry)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (reference TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
";

/// The version of the database.
pub(crate) const NEWEST: i64 = 10;

/// The first version with relations. [`crate::migrate`] has a step of its own to this version.
pub(crate) const WITH_RELATIONS: i64 = 9;

/// The tables and columns of version 10: pins of build records, and parts of records besides their logs.
pub(crate) const OF_BUILDS: &str = "
ALTER TABLE builds ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
CREATE TABLE build_parts (build TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (build, name)) WITHOUT ROWID;
CREATE TRIGGER build_parts_go AFTER DELETE ON builds BEGIN DELETE FROM build_parts WHERE build = old.id; END;
";

/// What versions up to 8 added, by the version that did.
pub(crate) const ADDED: [(i64, &str); 5] = [(
    4,
    "
ALTER TABLE layers ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layers ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layers ADD COLUMN condemned INTEGER;
CREATE TABLE condemned_blobs (digest TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE generation (number INTEGER NOT NULL);
INSERT INTO generation VALUES (0);
CREATE TABLE mounts (name TEXT PRIMARY KEY, identity TEXT NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE builds (id TEXT PRIMARY KEY, started INTEGER NOT NULL, line TEXT NOT NULL, record BLOB NOT NULL, log BLOB NOT NULL);
CREATE INDEX builds_by_line ON builds (line, started);
CREATE INDEX builds_by_time ON builds (started);
",
), (
    5,
    "
ALTER TABLE layers ADD COLUMN unsynced TEXT;
CREATE INDEX layers_unsynced ON layers (unsynced) WHERE unsynced IS NOT NULL;
",
), (
    6,
    "
ALTER TABLE layers ADD COLUMN base TEXT;
CREATE INDEX layers_by_base ON layers (base) WHERE base IS NOT NULL;
",
), (
    7,
    "
ALTER TABLE layers ADD COLUMN own INTEGER;
",
), (
    8,
    "
CREATE TABLE variants (reference TEXT NOT NULL, place INTEGER NOT NULL, main TEXT NOT NULL, image TEXT NOT NULL, PRIMARY KEY (reference, place)) WITHOUT ROWID;
",
)];

/// How long to wait for other processes.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

/// Where the database is in the state directory `root`.
pub(crate) fn path(root: &Path) -> PathBuf {
    root.join("state.db")
}

/// Connects to a database file, and gives its version.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<(Connection, i64)> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    // A checkpoint syncs twice; the last process to close must not pay that at the end of a cached build.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = version(&db)?;
    Ok((db, version))
}

pub(crate) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
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
