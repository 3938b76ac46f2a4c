//! Checking a state directory, and making the best of a damaged one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lapstrake_oci::{Digest, Sha256};
use lapstrake_tree::removal::remove_all;
use rusqlite::{TransactionBehavior, params};

use crate::boot::boot_id;
use crate::db::now;
use crate::error::{StoreError, io_error};
use crate::layer_id::LayerId;
use crate::layout::Store;
use crate::lazy_layers::UNSYNCED_FILES;
use crate::relations::{IMAGES_NEEDING, parsed};

/// The database's files, all that it needs.
const DATABASE: [&str; 3] = ["state.db", "state.db-wal", "state.db-shm"];

impl Store {
    /// What SQLite finds wrong with the database; nothing if it is whole.
    pub fn check_database(&self) -> Result<Vec<String>, StoreError> {
        let mut found: Vec<String> =
            self.with_db(|db| db.prepare("PRAGMA quick_check")?.query_map([], |row| row.get(0))?.collect())?;
        found.retain(|line| line != "ok");
        Ok(found)
    }

    /// The layers whose directories are there.
    pub fn layers_on_disk(&self) -> Result<Vec<LayerId>, StoreError> {
        let dir = self.root().join("layers");
        let names = fs::read_dir(&dir).map_err(io_error("list", &dir))?.flatten();
        Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// Puts a layer that is there back into the database.
    pub fn restore_layer(&self, id: &LayerId, content: [u8; 32], size: u64) -> Result<(), StoreError> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let base = self.layer_base(id);
        self.with_db(|db| {
            db.execute(
                "INSERT OR IGNORE INTO layers (id, size, content, created, used, base) \
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
                params![id.as_str(), size, content.as_slice(), now(), base.as_ref().map(LayerId::as_str)],
            )
            .map(drop)
        })
    }

    /// Removes a damaged layer with everything that names it, and gives the images among that.
    pub fn forget_layer(&self, id: &LayerId) -> Result<Vec<Digest>, StoreError> {
        let images: Vec<Digest> = self.with_db(|db| {
            db.prepare_cached(IMAGES_NEEDING)?
                .query_map([id.as_str()], |row| parsed(0, &row.get::<_, String>(0)?))?
                .collect()
        })?;
        for image in &images {
            self.remove_image(image)?;
        }
        self.remove_layers([id.as_str().to_owned()].into())?;
        Ok(images)
    }

    /// Removes layers at once, with all that names them: what is made anew must not find the damaged one in its place.
    fn remove_layers(&self, ids: BTreeSet<String>) -> Result<(), StoreError> {
        self.tombstone_layers(&ids)?;
        for id in ids {
            self.move_away(&self.root().join("layers").join(&id))?;
            self.with_db(|db| db.execute("DELETE FROM layers WHERE id = ?1", [&id]).map(drop))?;
        }
        Ok(())
    }

    /// The blobs whose bytes do not have their digest any more. Reads all of them.
    pub fn damaged_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let dir = self.root().join("blobs").join("sha256");
        let mut damaged = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))?.flatten() {
            let name = entry.file_name();
            let named = name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let Some(digest) = named else { continue };
            let mut hash = Sha256::new();
            let whole = self
                .open_blob(&digest)
                .and_then(|mut file| io::copy(&mut file, &mut hash).map_err(io_error("read", &entry.path())));
            if whole.is_err() || hash.finish() != digest {
                damaged.push(digest);
            }
        }
        Ok(damaged)
    }

    /// Removes a damaged blob, and the images that it describes.
    pub fn forget_blob(&self, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut images = Vec::new();
        for image in self.images()? {
            if image.id == *digest || image.manifest.as_ref() == Some(digest) {
                self.remove_image(&image.id)?;
                images.push(image.id);
            }
        }
        let path = self.blob_path(digest);
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        for id in self.unreachable()? {
            images.extend(self.forget_layer(&id)?);
        }
        Ok(images)
    }

    /// Drops what was made before the machine last went down and had not reached the disk for certain: layers of another
    /// boot that were never synced. It costs doing those steps again.
    pub(crate) fn drop_unsynced(&self) -> Result<(), StoreError> {
        let boot = boot_id();
        let unsynced: Vec<(String, String)> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT id, unsynced FROM layers WHERE unsynced NOT IN (?1, ?2) AND condemned IS NULL",
            )?
            .query_map([&boot, &format!("{UNSYNCED_FILES}{boot}")], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })?;
        if unsynced.is_empty() || boot.is_empty() {
            return Ok(());
        }
        // Nobody of that boot is left who could be using them.
        let (files, lost): (Vec<_>, Vec<_>) =
            unsynced.into_iter().partition(|(_, boot)| boot.starts_with(UNSYNCED_FILES));
        for (id, _) in files {
            self.drop_files(&id)?;
        }
        self.remove_layers(lost.into_iter().map(|(id, _)| id).collect())
    }

    pub(crate) fn move_away(&self, path: &Path) -> Result<(), StoreError> {
        self.forget_known();
        let away = self.temp_path()?;
        match fs::rename(path, &away) {
            Ok(()) => {
                // It has no name any more. What of it cannot go now is swept later.
                remove_all(&away).unwrap_or_default();
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("remove", path)(error)),
        }
    }

    /// Makes everything written so far durable, and remembers that.
    pub fn sync(&self) -> Result<(), StoreError> {
        // Only these: others may come while the disk works.
        let ids: Vec<String> = self.with_db(|db| {
            db.prepare_cached("SELECT id FROM layers WHERE unsynced IS NOT NULL")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let dir = fs::File::open(self.root()).map_err(io_error("open", self.root()))?;
        rustix::fs::syncfs(&dir).map_err(|e| io_error("sync", self.root())(e.into()))?;
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for id in ids {
                change.prepare_cached("UPDATE layers SET unsynced = NULL WHERE id = ?1")?.execute([id])?;
            }
            change.commit()
        })?;
        // All is on the disk already; this is for those who come next.
        self.shorten_log().unwrap_or_default();
        self.ensure_reserve();
        Ok(())
    }
}

/// Moves a database that cannot be used out of the way, so that a fresh one is made. Says where to.
pub fn set_database_aside(root: &Path) -> Result<PathBuf, StoreError> {
    let suffix = format!("damaged-{}", now());
    for name in DATABASE {
        let (from, to) = (root.join(name), root.join(format!("{name}.{suffix}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("move", &from)(error));
            }
            _ => {}
        }
    }
    Ok(root.join(format!("state.db.{suffix}")))
}

/// Writes the superblock anew where it cannot be read.
pub fn restore_superblock(root: &Path) -> Result<(), StoreError> {
    let path = root.join("state.json");
    fs::remove_file(&path)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(io_error("remove", &path))?;
    Store::open(root).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordOf;
    use crate::layers::LayerSize;

    fn layer(store: &Store, digit: &str) -> LayerId {
        let id: LayerId = digit.repeat(64).parse().unwrap();
        let dir = store.temp_dir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 1, own: None }).unwrap();
        id
    }

    #[test]
    fn what_was_not_synced_before_the_power_failed_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("s");
        let store = Store::open(&root).unwrap();
        let synced = layer(&store, "a");
        store.sync().unwrap();
        let lost = layer(&store, "b");
        for (key, id) in [(1, &synced), (2, &lost)] {
            let about = RecordOf { layers: std::slice::from_ref(id), step: None };
            store.put_records(&[([key; 32], b"record".to_vec())], about).unwrap();
        }
        // The same boot: all is well.
        let again = Store::open(&root).unwrap();
        assert!(again.record(&[2; 32]).unwrap().is_some());
        again
            .with_db(|db| db.execute("UPDATE layers SET unsynced = 'another' WHERE unsynced IS NOT NULL", []))
            .unwrap();
        let after = Store::open(&root).unwrap();
        assert!(after.record(&[1; 32]).unwrap().is_some() && after.record(&[2; 32]).unwrap().is_none());
        drop((store, again));
        assert!(after.has_layer(&synced) && !after.has_layer(&lost));
    }

    #[test]
    fn a_damaged_database_makes_room_for_a_new_one() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("s");
        let store = Store::open(&root).unwrap();
        let id = layer(&store, "a");
        assert!(store.check_database().unwrap().is_empty());
        drop(store);
        // Otherwise SQLite mends it by its log.
        fs::remove_file(root.join("state.db-wal")).unwrap();
        fs::write(root.join("state.db"), "this is no database, however long it is").unwrap();
        fs::write(root.join("state.json"), "{").unwrap();
        assert!(matches!(Store::open(&root), Err(StoreError::Superblock { .. })));
        fs::remove_file(root.join("state.json")).unwrap();
        assert!(matches!(Store::open(&root), Err(StoreError::Database { .. })));
        let aside = set_database_aside(&root).unwrap();
        restore_superblock(&root).unwrap();
        let store = Store::open(&root).unwrap();
        assert!(aside.exists() && store.layer(&id).unwrap().is_none());
        assert_eq!(store.layers_on_disk().unwrap(), std::slice::from_ref(&id));
        store.restore_layer(&id, [0; 32], 1).unwrap();
        assert!(store.layer(&id).unwrap().is_some());
    }
}
