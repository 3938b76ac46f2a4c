//! Condemning, and removing what is condemned.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lapstrake_oci::Digest;
use lapstrake_tree::removal::remove_all;
use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, flock, statvfs};

use super::policy::{Rule, Space, victims};
use super::{Item, ItemKind};
use crate::db::now;
use crate::epochs::gc_lock;
use crate::error::{StoreError, io_error};
use crate::files;
use crate::layout::Store;
use crate::relations::{RECORDS_NEEDING, image_needs, record_needs, release_stack};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// How many things.
    pub count: u64,
    /// How many have to wait, because somebody may be using them.
    pub waiting: u64,
}

impl Store {
    /// How full the disk is that the store is on.
    pub fn space(&self) -> Result<Space, StoreError> {
        space_of(self.root()).map_err(io_error("look at", self.root()))
    }

    /// Condemns what the rules say, and gives it. Nothing is removed before [`Store::reclaim`].
    pub fn collect(&self, rules: &[Rule]) -> Result<Vec<Item>, StoreError> {
        self.condemn_unnamed()?;
        let items = self.items()?;
        let condemned: Vec<Item> =
            victims(&items, rules, self.space()?, now()).into_iter().map(|at| items[at].clone()).collect();
        self.condemn(&condemned)?;
        for item in &condemned {
            tracing::debug!(id = item.id, kind = item.kind.name(), size = item.size, "pruned");
        }
        tracing::info!(known = items.len(), pruned = condemned.len(), "garbage collection");
        Ok(condemned)
    }

    /// The work of the process that keeps the state directory small: the database's log is emptied, and the default rules
    /// with the limit `max_used` are applied.
    ///
    /// # Errors
    /// The state directory cannot be read or written.
    pub fn keep_within(&self, max_used: Option<u64>) -> Result<(), StoreError> {
        self.keep_by(&Rule::defaults(self.space()?, max_used))
    }

    /// As [`Store::keep_within`], with other rules.
    ///
    /// # Errors
    /// The state directory cannot be read or written.
    pub fn keep_by(&self, rules: &[Rule]) -> Result<(), StoreError> {
        self.shorten_log()?;
        self.collect(rules)?;
        self.reclaim()?;
        Ok(())
    }

    /// Whether garbage was collected in the last minute.
    pub fn was_collected_lately(&self) -> bool {
        let looked = fs::metadata(self.root().join("users").join("gc")).map(|meta| meta.mtime());
        looked.is_ok_and(|looked| now() - looked < 60)
    }

    /// Whether the default rules would take anything, as far as a sum over a table tells, or whether something condemned
    /// is still there. Says so once a minute at the most.
    pub fn wants_pruning(&self, max_used: Option<u64>) -> Result<bool, StoreError> {
        if self.was_collected_lately() {
            return Ok(false);
        }
        let space = self.space()?;
        let (used, condemned): (i64, i64) = self.with_db(|db| {
            db.query_row(
                "SELECT coalesce(sum(coalesce(own, size)) FILTER (WHERE condemned IS NULL), 0), \
                 count(condemned) + (SELECT count(*) FROM condemned_blobs) FROM layers",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        let used = u64::try_from(used).unwrap_or(0);
        let over = Rule::defaults(space, max_used).last().is_some_and(|rule| {
            rule.limits.max_used.is_some_and(|max| used > max)
                || rule.limits.min_free.is_some_and(|min| space.free < min && used > 0)
        });
        Ok(over || condemned > 0)
    }

    /// Condemns blobs that nothing names: configs and manifests of images that are gone, and what the killed left. Who is
    /// about to name one is older than the next generation, and takes the blob back by naming it.
    fn condemn_unnamed(&self) -> Result<(), StoreError> {
        let dir = self.root().join("blobs").join("sha256");
        let entries = fs::read_dir(&dir).map_err(io_error("list", &dir))?.flatten();
        let there: Vec<String> = entries
            .filter_map(|entry| format!("sha256:{}", entry.file_name().to_str()?).parse::<Digest>().ok())
            .map(|digest| digest.to_string())
            .collect();
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for digest in &there {
                tombstone_blob_unless_named(&change, digest)?;
            }
            change.commit()
        })
    }

    fn condemn(&self, items: &[Item]) -> Result<(), StoreError> {
        let of = |kind| items.iter().filter(move |item| item.kind == kind);
        let generation = self.generation()?;
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for blob in of(ItemKind::Blob) {
                // What is known of it stays as long as its file: a running build may need a packed layer's files yet.
                change.execute(
                    "INSERT OR REPLACE INTO condemned_blobs VALUES (?1, ?2)",
                    (&blob.id, generation),
                )?;
            }
            change.commit()
        })?;
        let mut layers: BTreeSet<String> = of(ItemKind::Layer).map(|item| item.id.clone()).collect();
        if of(ItemKind::Blob).next().is_some() {
            // Without its blob a packed layer is nothing.
            layers.extend(self.unreachable()?.iter().map(ToString::to_string));
        }
        self.tombstone_layers(&layers)?;
        for context in of(ItemKind::Context) {
            // Derived: whoever is reading it has it open, and whoever comes next makes another one.
            fs::remove_file(self.root().join("contexts").join(&context.id)).unwrap_or_default();
        }
        for mount in of(ItemKind::CacheMount) {
            self.remove_mount(&mount.id)?;
        }
        Ok(())
    }

    /// Condemns these layers with all records that name one of them, and what only those records named.
    pub(crate) fn tombstone_layers(&self, layers: &BTreeSet<String>) -> Result<(), StoreError> {
        let generation = self.generation()?;
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let unneeded = forget_records_of(&change, layers)?;
            for id in layers.union(&unneeded) {
                condemn_layer(&change, id, generation)?;
            }
            change.commit()
        })?;
        // Who comes from now on does not keep what went.
        if let Some(lock) = gc_lock(self.root())? {
            self.advance()?;
            drop(lock);
        }
        Ok(())
    }

    /// A cache directory is moved away while its lock is held, so it has no user; whoever waits for it finds a new one.
    fn remove_mount(&self, name: &str) -> Result<(), StoreError> {
        let dir = self.root().join("mounts").join(name);
        if let Ok(lock) = files::open(&dir.join("lock")) {
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(());
            }
            fs::remove_file(dir.join("ready")).or_else(absent).map_err(io_error("remove", &dir))?;
            self.remove_tree(&dir.join("data"))?;
            drop(lock);
        }
        self.with_db(|db| db.execute("DELETE FROM mounts WHERE name = ?1", [name]).map(drop))
    }

    /// Removes everything condemned that nobody can be using. This process must not use the store any more, but to
    /// prune, and in parts that hold a [`StoreUse`](crate::StoreUse). If another one is at it, there is nothing to do.
    pub fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        let mut done = Reclaimed::default();
        let Some(lock) = gc_lock(self.root())? else { return Ok(done) };
        let drained = self.drained()?;
        let mut refusal = Ok(());
        for id in self.condemned("SELECT id, condemned FROM layers WHERE condemned IS NOT NULL")? {
            let removed = self.remove_condemned(id, drained, &mut done, |change, id| {
                let gone =
                    change.execute("DELETE FROM layers WHERE id = ?1 AND condemned <= ?2", (id, drained));
                let gone = gone? > 0;
                if gone {
                    change.execute("DELETE FROM diffs WHERE layer = ?1", [id])?;
                }
                Ok(gone.then(|| self.root().join("layers").join(id)))
            });
            refusal = refusal.and(removed);
        }
        for digest in self.condemned("SELECT digest, generation FROM condemned_blobs")? {
            let removed = self.remove_condemned(digest, drained, &mut done, |change, digest| {
                let gone = change.execute(
                    "DELETE FROM condemned_blobs WHERE digest = ?1 AND generation <= ?2",
                    (digest, drained),
                );
                if gone.as_ref().is_ok_and(|gone| *gone > 0) {
                    forget_blob(change, digest)?;
                }
                let path = digest.parse().ok().map(|digest| self.blob_path(&digest));
                Ok(path.filter(|_| gone.as_ref().is_ok_and(|gone| *gone > 0)))
            });
            refusal = refusal.and(removed);
        }
        drop(lock);
        self.ensure_reserve();
        // One thing that stays is no reason for the others to stay.
        refusal.map(|()| done)
    }

    fn condemned(&self, query: &str) -> Result<Vec<(String, i64)>, StoreError> {
        self.with_db(|db| db.prepare(query)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
    }

    /// Moves one thing away, in one transaction with the row that says that it may go, then removes it.
    fn remove_condemned(
        &self,
        (name, generation): (String, i64),
        drained: i64,
        done: &mut Reclaimed,
        forget: impl Fn(&Transaction<'_>, &str) -> rusqlite::Result<Option<std::path::PathBuf>>,
    ) -> Result<(), StoreError> {
        if generation > drained {
            done.waiting += 1;
            return Ok(());
        }
        let away = self.temp_path()?;
        let moved = self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Some(path) = forget(&change, &name)? else { return Ok(None) };
            let moved = fs::rename(&path, &away);
            // What cannot be moved stays condemned.
            if !matches!(&moved, Err(error) if error.kind() != io::ErrorKind::NotFound) {
                change.commit()?;
            }
            Ok(Some((path, moved)))
        })?;
        let Some((path, moved)) = moved else { return Ok(()) };
        match moved {
            Ok(()) => {
                self.remove_tree(&away)?;
                done.count += 1;
                Ok(())
            }
            Err(error) => absent(error).map_err(io_error("remove", &path)),
        }
    }

    fn remove_tree(&self, path: &Path) -> Result<(), StoreError> {
        remove_all(path).or_else(absent).map_err(io_error("remove", path))
    }
}

/// How full the disk is that `path` is on.
pub(crate) fn space_of(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// What is not there need not be removed.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Condemns a blob that neither an image nor a layer's tar names.
pub(crate) fn tombstone_blob_unless_named(change: &Transaction<'_>, digest: &str) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "INSERT OR IGNORE INTO condemned_blobs SELECT ?1, number FROM generation WHERE \
             NOT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1) AND \
             NOT EXISTS (SELECT 1 FROM images WHERE id = ?1 OR manifest = ?1)",
        )?
        .execute([digest])
        .map(drop)
}

/// Removes the records that need one of these layers. Gives the layers that no record needs any more.
fn forget_records_of(
    change: &Transaction<'_>,
    layers: &BTreeSet<String>,
) -> rusqlite::Result<BTreeSet<String>> {
    let mut freed = BTreeSet::new();
    for id in layers {
        let needing: Vec<(Vec<u8>, i64)> = change
            .prepare_cached(RECORDS_NEEDING)?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (key, _) in &needing {
            change.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])?;
        }
        for (_, stack) in needing {
            release_stack(change, stack, &mut freed)?;
        }
    }
    // What lies on a layer needs the layer.
    let mut base = change.prepare_cached("SELECT base FROM layers WHERE id = ?1 AND base IS NOT NULL")?;
    let bases: Vec<String> = freed
        .iter()
        .filter_map(|id| base.query_row([id], |row| row.get(0)).optional().transpose())
        .collect::<rusqlite::Result<_>>()?;
    freed.extend(bases);
    let mut needed = change.prepare_cached(&format!("SELECT {}", record_needs("?1")))?;
    let mut unneeded = BTreeSet::new();
    for id in freed {
        if !needed.query_row([&id], |row| row.get(0))? {
            unneeded.insert(id);
        }
    }
    Ok(unneeded)
}

/// Condemns a layer, unless an image needs it. One may have come to need it since the items were listed.
fn condemn_layer(change: &Transaction<'_>, id: &str, generation: i64) -> rusqlite::Result<()> {
    change
        .prepare_cached(&format!(
            "UPDATE layers SET condemned = ?2 WHERE id = ?1 AND condemned IS NULL AND NOT {}",
            image_needs("?1")
        ))?
        .execute((id, generation))
        .map(drop)
}

/// Removes all rows about a blob, also those that only tell of what is in it.
fn forget_blob(change: &Transaction<'_>, digest: &str) -> rusqlite::Result<()> {
    let table = digest.strip_prefix("sha256:").map(|hex| format!("to-table-of-{hex}"));
    change.execute("DELETE FROM blobs WHERE digest = ?1 OR variant = ?2", (digest, table))?;
    change.execute("DELETE FROM repositories WHERE digest = ?1", [digest])?;
    Ok(())
}
