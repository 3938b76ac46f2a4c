//! Records of builds: what was asked, what became of each step, and what was said. The bytes are the caller's.

use std::path::PathBuf;

use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};

use crate::build_journal::{self, BuildJournal, BuildRow};
use crate::build_limits::BuildLimits;
use crate::db::now;
use crate::error::StoreError;
use crate::layout::Store;

/// Bytes of builds that are not in the database, from which on they are taken there: of a hundred cached builds or so.
const MANY: u64 = 256 << 10;

impl Store {
    /// Keeps the record of a build with what was said in it.
    pub fn put_build(&self, build: &BuildRow, log: &[u8]) -> Result<(), StoreError> {
        match build_journal::entry(build, log) {
            Some(entry) if (entry.len() as u64) < MANY => {
                if build_journal::append(&self.recent(), &entry)? > MANY {
                    self.settle_builds()
                } else {
                    Ok(())
                }
            }
            _ => self.insert_builds(&[(build.clone(), log.to_vec())]),
        }
    }

    /// From now on, this process keeps records by `limits`. Only the first call counts.
    pub fn limit_builds(&self, limits: BuildLimits) {
        self.build_limits.set(limits).unwrap_or_default();
    }

    /// Takes the builds that are only in their file into the database.
    fn settle_builds(&self) -> Result<(), StoreError> {
        let path = self.recent();
        let Some(recent) = BuildJournal::read(&path)? else { return Ok(()) };
        self.insert_builds(&recent.builds)?;
        recent.empty(&path)
    }

    fn recent(&self) -> PathBuf {
        self.root().join("builds.recent")
    }

    /// Adds builds, and drops the oldest that need not be kept. A build that is there already was taken over by somebody who did not get to empty the file.
    fn insert_builds(&self, builds: &[build_journal::Build]) -> Result<(), StoreError> {
        let limits = self.build_limits.get().copied().unwrap_or_default();
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (build, log) in builds {
                change
                    .prepare_cached(
                        "INSERT OR IGNORE INTO builds (id, started, line, record, log) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![build.id, build.started, build.line, build.record, log])?;
            }
            change
                .prepare_cached(
                    "DELETE FROM builds WHERE started < ?1 AND pinned = 0 AND id NOT IN \
                     (SELECT id FROM builds WHERE pinned = 0 ORDER BY started DESC LIMIT ?2)",
                )?
                .execute([now().saturating_sub(limits.age).saturating_mul(1_000), limits.count.max(0)])?;
            change.commit()
        })
    }

    /// All builds, newest first.
    pub fn builds(&self) -> Result<Vec<BuildRow>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            db.prepare("SELECT id, started, line, record FROM builds ORDER BY started DESC, id")?
                .query_map([], row)?
                .collect()
        })
    }

    /// The builds whose id begins with `id`, two at the most.
    pub fn builds_named(&self, id: &str) -> Result<Vec<BuildRow>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            db.prepare("SELECT id, started, line, record FROM builds WHERE substr(id, 1, ?2) = ?1 LIMIT 2")?
                .query_map(params![id, i64::try_from(id.chars().count()).unwrap_or(0)], row)?
                .collect()
        })
    }

    /// The newest build.
    pub fn last_build(&self) -> Result<Option<BuildRow>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            db.prepare("SELECT id, started, line, record FROM builds ORDER BY started DESC, id LIMIT 1")?
                .query_row([], row)
                .optional()
        })
    }

    /// The newest build of the same line that began before `build`.
    pub fn build_before(&self, build: &BuildRow) -> Result<Option<BuildRow>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            db.prepare(
                "SELECT id, started, line, record FROM builds WHERE line = ?1 AND started < ?2 \
                 ORDER BY started DESC, id LIMIT 1",
            )?
            .query_row(params![build.line, build.started], row)
            .optional()
        })
    }

    /// What was said in a build.
    pub fn build_log(&self, id: &str) -> Result<Vec<u8>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| db.query_row("SELECT log FROM builds WHERE id = ?1", [id], |row| row.get(0)))
    }

    /// Replaces the record of a build. A pinned one stays whatever its age. Says whether the build was there.
    pub fn update_build(&self, build: &BuildRow, pinned: bool) -> Result<bool, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            let change = "UPDATE builds SET record = ?2, pinned = ?3 WHERE id = ?1";
            Ok(db.execute(change, params![build.id, build.record, pinned])? > 0)
        })
    }

    /// Keeps `value` with a build under `name`, as long as the build itself. Says whether the build is there.
    pub fn put_build_part(&self, id: &str, name: &str, value: &[u8]) -> Result<bool, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            let add = "INSERT OR REPLACE INTO build_parts (build, name, value) SELECT id, ?2, ?3 FROM builds WHERE id = ?1";
            Ok(db.execute(add, params![id, name, value])? > 0)
        })
    }

    /// The value that [`Store::put_build_part`] has kept.
    pub fn build_part(&self, id: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| {
            let get = "SELECT value FROM build_parts WHERE build = ?1 AND name = ?2";
            db.query_row(get, [id, name], |row| row.get(0)).optional()
        })
    }

    /// Forgets a build; says whether it was there.
    pub fn remove_build(&self, id: &str) -> Result<bool, StoreError> {
        self.settle_builds()?;
        self.with_db(|db| Ok(db.execute("DELETE FROM builds WHERE id = ?1", [id])? > 0))
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow { id: row.get(0)?, started: row.get(1)?, line: row.get(2)?, record: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_builds_are_dropped_when_there_are_many() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let build = |id: &str, started: i64, line: &str| {
            let (id, line) = (id.to_owned(), line.to_owned());
            store.put_build(&BuildRow { id, started, line, record: b"r".to_vec() }, b"log").unwrap();
        };
        build("old", 1_000, "x");
        build("newer", 2_000, "y");
        let recent = now() * 1_000;
        for number in 0..49 {
            build(&format!("b{number:02}"), recent + number, "x");
        }
        let ids: Vec<String> = store.builds().unwrap().into_iter().map(|build| build.id).collect();
        assert_eq!((ids.len(), ids[0].as_str(), ids[49].as_str()), (50, "b48", "newer"));
        // The young ones stay.
        build("b49", recent + 49, "x");
        assert_eq!(store.builds().unwrap().len(), 50);
        let last = store.last_build().unwrap().unwrap();
        assert_eq!(last.id, "b49");
        assert_eq!(store.build_before(&last).unwrap().unwrap().id, "b48");
        assert_eq!(store.builds_named("b1").unwrap().len(), 2);
        assert_eq!(store.build_log("b49").unwrap(), b"log");
        assert!(store.remove_build("b49").unwrap() && !store.remove_build("b49").unwrap());
    }

    #[test]
    fn pinned_builds_stay_and_parts_go_with_their_build() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        store.limit_builds(BuildLimits { age: 0, count: 1 });
        let build = |id: &str, started: i64| BuildRow {
            id: id.to_owned(),
            started,
            line: "x".to_owned(),
            record: b"r".to_vec(),
        };
        store.put_build(&build("old", 1_000), b"log").unwrap();
        assert!(store.put_build_part("old", "error", b"why").unwrap());
        assert!(!store.put_build_part("nosuch", "error", b"why").unwrap());
        assert!(
            store.update_build(&BuildRow { record: b"new".to_vec(), ..build("old", 1_000) }, true).unwrap()
        );
        assert!(!store.update_build(&build("nosuch", 1), true).unwrap());
        for (id, started) in [("a", 2_000), ("b", 3_000), ("c", 4_000)] {
            store.put_build(&build(id, started), b"log").unwrap();
        }
        let ids = |store: &Store| store.builds().unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&store), ["c", "old"]);
        assert_eq!(store.builds_named("old").unwrap()[0].record, b"new");
        assert_eq!(store.build_part("old", "error").unwrap().as_deref(), Some(&b"why"[..]));
        // Without the pin, it goes with the next one.
        store.update_build(&build("old", 1_000), false).unwrap();
        store.put_build(&build("d", 5_000), b"log").unwrap();
        assert_eq!(ids(&store), ["d"]);
        assert_eq!(store.build_part("old", "error").unwrap(), None);
    }

    #[test]
    fn builds_are_in_their_file_until_somebody_asks_or_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let length = || std::fs::metadata(store.recent()).unwrap().len();
        let put = |id: &str, size: usize| {
            let row = BuildRow { id: id.to_owned(), started: 1, line: "x".to_owned(), record: vec![7; size] };
            store.put_build(&row, b"log").unwrap();
        };
        put("small", 10);
        assert_ne!(length(), 0);
        // As if whoever took it over had been killed before the file was empty.
        let entry = std::fs::read(store.recent()).unwrap();
        assert_eq!(store.builds().unwrap().len(), 1);
        assert_eq!(length(), 0);
        std::fs::write(store.recent(), entry).unwrap();
        assert_eq!(store.builds().unwrap().len(), 1);
        put("large", 1 << 20);
        assert_eq!(length(), 0);
        (0..3).for_each(|number| put(&format!("half{number}"), 100 << 10));
        assert_eq!(length(), 0);
        assert_eq!(store.builds().unwrap().len(), 5);
    }
}
