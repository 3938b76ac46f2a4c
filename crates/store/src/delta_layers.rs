//! Layers that are the changes to another one.
//!
//! A copy that is made again after a file was saved differs from the last one in that file. Its layer then has the file in
//! `patch/`, and in `base` the name of the layer, always a whole one, on which that directory is put. Its tree and its tar
//! are those of all of it. Whoever has such a layer in use has its base in use: records and images that name the one
//! keep the other.
//!
//! An older lapstrake looks for `fs/`, and takes such a layer for one that is not there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layer_id::LayerId;
use crate::layers::{BASE, base_of};
use crate::layout::Store;

const PATCH: &str = "patch";
const FILES: &str = "fs";

impl Store {
    /// The directories of a layer's files, to be put on each other, the lowest first.
    pub fn layer_dirs(&self, id: &LayerId) -> Vec<PathBuf> {
        let known = self.known();
        known.get(id.as_str()).cloned().unwrap_or_else(|| self.dirs_of(id))
    }

    fn dirs_of(&self, id: &LayerId) -> Vec<PathBuf> {
        let dir = self.layer_dir(id);
        match base_of(&dir) {
            Some(base) => vec![self.layer_dir(&base).join(FILES), dir.join(PATCH)],
            None => vec![dir.join(FILES)],
        }
    }

    /// The layer of which this one is changes.
    pub fn layer_base(&self, id: &LayerId) -> Option<LayerId> {
        base_of(&self.layer_dir(id))
    }

    /// Whether the layer's files are there, with those of the layer that it lies on. The disk is asked once: a layer that a process,
    /// or one part of it, has seen is not taken away while that uses the store (see [`crate::epochs`] and [`Store::begin_use`]).
    pub fn has_files(&self, id: &LayerId) -> bool {
        if self.known().contains_key(id.as_str()) {
            return true;
        }
        let dirs = self.dirs_of(id);
        let there = dirs.iter().all(|dir| dir.is_dir());
        if there {
            self.known().insert(id.as_str().to_owned(), dirs);
        }
        there
    }

    /// The layers whose files are there for certain, and where.
    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<PathBuf>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this process uses nothing that it has found so far.
    pub(crate) fn forget_known(&self) {
        self.known().clear();
    }

    /// Makes the layer in `dir`, whose files are in `fs/` and which is not in the store yet, the changes to `base`.
    pub fn make_delta(dir: &Path, base: &LayerId) -> Result<(), StoreError> {
        let note = dir.join(BASE);
        files::write(&note, base.as_str()).map_err(io_error("write", &note))?;
        let files = dir.join(FILES);
        fs::rename(&files, dir.join(PATCH)).map_err(io_error("rename", &files))
    }

    /// The database says of a layer what its directory says: another process may have made it of other parts.
    pub(crate) fn note_base(&self, id: &LayerId) -> Result<(), StoreError> {
        let base = self.layer_base(id);
        self.with_db(|db| {
            db.prepare_cached("UPDATE layers SET base = ?2, own = iif(?2 IS NULL, NULL, own) WHERE id = ?1 AND base IS NOT ?2")?
                .execute((id.as_str(), base.as_ref().map(LayerId::as_str)))
                .map(drop)
        })
    }
}
