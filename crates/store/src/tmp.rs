//! Unfinished things, each at a path of its own in this process's part of `tmp/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::async_delete::AsyncDelete;
use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// A fresh directory in `tmp/`, removed when dropped: soon, and at the latest when the store is closed.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    remover: Arc<AsyncDelete>,
}

impl TempDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        self.remover.remove(std::mem::take(&mut self.path));
    }
}

impl Store {
    /// A fresh, empty directory on the file system of the state directory.
    pub fn temp_dir(&self) -> Result<TempDir, StoreError> {
        let path = self.process_dir.path("")?;
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        Ok(TempDir { path, remover: Arc::clone(self.process_dir.remover()) })
    }

    /// A path in `tmp/` at which nothing exists yet.
    pub(crate) fn temp_path(&self) -> Result<PathBuf, StoreError> {
        self.process_dir.path("f")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_stay() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state");
        let living = Store::open(&root).unwrap();
        let kept = living.temp_dir().unwrap();
        fs::create_dir(root.join("tmp/dead")).unwrap();
        fs::write(root.join("tmp/dead/lock"), "").unwrap();
        fs::create_dir_all(root.join("tmp/dead/0/a/b")).unwrap();
        fs::create_dir(root.join("tmp/.new-unborn")).unwrap();
        fs::create_dir(root.join("tmp/.new-half")).unwrap();
        fs::write(root.join("tmp/.new-half/lock"), "").unwrap();
        let second = Store::open(&root).unwrap();
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 1);
        assert!(kept.path().exists());
        drop(kept);
        drop((living, second));
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }
}
