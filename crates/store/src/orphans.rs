//! Layers that a killed process had put in their place, and that nothing names.
//!
//! A layer is there before its record is. Who is killed in between leaves a layer that the next build cannot find: it
//! makes another one. So when a process was killed (its part of `tmp/` was left behind), all layers without a name are
//! removed, as soon as no process is alive that may still be about to name one.

use std::fs;

use lapstrake_sys::persist::is_temporary;
use lapstrake_tree::removal::remove_all;
use rustix::fs::FlockOperation;

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layout::Store;
use crate::process_dir::{self, state_lock};
use crate::relations::{image_needs, record_needs};

/// Is there from when somebody was found killed until the layers have been looked at.
const MARK: &str = "killed";

impl Store {
    /// Removes what the dead have left: first their unfinished things, then layers without a name.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let (tmp, mark) = (self.root().join("tmp"), self.root().join(MARK));
        if process_dir::sweep(&tmp)? {
            files::create(&mark).map_err(io_error("create", &mark))?;
        }
        if !mark.exists() {
            return Ok(());
        }
        let state_lock = state_lock(self.root(), FlockOperation::LockExclusive)?;
        if process_dir::somebody_lives(&tmp)? {
            return Ok(());
        }
        self.remove_orphans()?;
        self.remove_half_indexes()?;
        // Another process may have done the same before us.
        fs::remove_file(&mark).unwrap_or_default();
        drop(state_lock);
        Ok(())
    }

    fn remove_orphans(&self) -> Result<(), StoreError> {
        let layers = self.root().join("layers");
        for entry in fs::read_dir(&layers).map_err(io_error("list", &layers))? {
            let entry = entry.map_err(io_error("list", &layers))?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            // One that only a tar's digest names, and that was packed when its blob was lost, is of no use to anybody.
            let lost = || id.parse().is_ok_and(|id| self.is_lost(&id).unwrap_or(false));
            if self.is_needed(&id)? || self.has_tar(&id)? && !lost() {
                continue;
            }
            // Moved away first: half a layer must not be found. It has no lock there, so anybody may finish this.
            let dead = self.root().join("tmp").join(format!("orphan-{id}"));
            // What the file system does not give away stays, and whoever comes opens the store all the same.
            if fs::rename(entry.path(), &dead).is_err() {
                continue;
            }
            remove_all(&dead).unwrap_or_default();
            self.with_db(|db| {
                db.execute("DELETE FROM diffs WHERE layer = ?1", [&id])?;
                db.execute("DELETE FROM layers WHERE id = ?1", [&id]).map(drop)
            })?;
        }
        Ok(())
    }

    /// Stat indexes that were being written. Who writes one in this moment only loses it.
    fn remove_half_indexes(&self) -> Result<(), StoreError> {
        let contexts = self.root().join("contexts");
        for entry in fs::read_dir(&contexts).map_err(io_error("list", &contexts))?.flatten() {
            // Those that end so are of versions before this one.
            let older = entry.path().extension().is_some_and(|extension| extension == "tmp");
            if older || is_temporary(&entry.file_name()) {
                fs::remove_file(entry.path()).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Whether a record or an image needs the layer.
    fn is_needed(&self, id: &str) -> Result<bool, StoreError> {
        let query = format!("SELECT {} OR {}", record_needs("?1"), image_needs("?1"));
        self.with_db(|db| db.prepare_cached(&query)?.query_row([id], |row| row.get(0)))
    }

    /// Whether a known tar unpacks to the layer, or to changes to it.
    fn has_tar(&self, id: &str) -> Result<bool, StoreError> {
        self.with_db(|db| db.prepare_cached(HAS_TAR)?.query_row([id], |row| row.get(0)))
    }
}

/// Whether a known tar unpacks to the layer `?1`, or to changes to it.
pub(crate) const HAS_TAR: &str = "
SELECT EXISTS (SELECT 1 FROM diffs WHERE diffs.layer = ?1) OR EXISTS
(SELECT 1 FROM layers AS patch CROSS JOIN diffs ON diffs.layer = patch.id WHERE patch.base = ?1)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerId, LayerSize, RecordOf};

    fn layer(store: &Store, digit: &str) -> LayerId {
        let id: LayerId = digit.repeat(64).parse().unwrap();
        let dir = store.temp_dir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 0, own: None }).unwrap();
        id
    }

    #[test]
    fn layers_without_a_name_go_once_nobody_can_name_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("s");
        let living = Store::open(&root).unwrap();
        let (named, orphan) = (layer(&living, "a"), layer(&living, "b"));
        let about = RecordOf { layers: std::slice::from_ref(&named), step: None };
        living.put_records(&[([1; 32], b"record".to_vec())], about).unwrap();
        // Nobody was killed: nobody looks.
        drop(living);
        assert!(Store::open(&root).unwrap().has_layer(&orphan));
        fs::create_dir(root.join("tmp/killed")).unwrap();
        fs::write(root.join("contexts/v1-0.7.tmp"), "").unwrap();
        fs::write(root.join("contexts/.lapstrake-7-0-1.partial"), "").unwrap();
        let living = Store::open(&root).unwrap();
        let kept = living.temp_dir().unwrap();
        drop((kept, living));
        let living = Store::open(&root).unwrap();
        assert!(living.has_layer(&named) && !living.has_layer(&orphan));
        assert_eq!(fs::read_dir(root.join("contexts")).unwrap().count(), 0);
        // Who is alive may be about to name one.
        let (orphan, kept) = (layer(&living, "c"), living.temp_dir().unwrap());
        fs::create_dir(root.join("tmp/killed")).unwrap();
        assert!(Store::open(&root).unwrap().has_layer(&orphan));
        drop((kept, living));
        let after = Store::open(&root).unwrap();
        assert!(after.has_layer(&named) && !after.has_layer(&orphan));
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }
}
