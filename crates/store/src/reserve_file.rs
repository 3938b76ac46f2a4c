//! A little room kept for when there is none.
//!
//! Whoever removes things writes first: that they are to go, and where to. On a full disk that fails, so a file of
//! nothing lies ready to be given up.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::files;
use crate::gc::space_of;
use crate::layout::Store;

/// Its size in bytes. What is written before anything is removed is a row for each thing, and the directory of the process.
const SIZE: u64 = 1 << 20;

/// Gives the room up if the disk below the state directory `root` is full: for who is about to remove things.
pub fn release_reserve(root: &Path) {
    if free(root).is_some_and(|free| free < SIZE) {
        // If it is not there, what room there is has to do.
        fs::remove_file(place(root)).unwrap_or_default();
    }
}

impl Store {
    /// Keeps room for the next time, where there is enough besides. It is a help that nothing depends on.
    pub(crate) fn ensure_reserve(&self) {
        let path = place(self.root());
        if path.exists() || free(self.root()).is_none_or(|free| free < 4 * SIZE) {
            return;
        }
        let made =
            files::create(&path).and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, SIZE)?));
        if made.is_err() {
            fs::remove_file(&path).unwrap_or_default();
        }
    }
}

fn place(root: &Path) -> PathBuf {
    root.join("ballast")
}

fn free(root: &Path) -> Option<u64> {
    Some(space_of(root).ok()?.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_not_spent_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        store.sync().unwrap();
        assert_eq!(fs::metadata(place(store.root())).unwrap().len(), SIZE);
        release_reserve(store.root());
        assert!(place(store.root()).exists());
    }
}
