//! Locks between processes, by name. The kernel drops them with the process, however it ends.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::files;

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    path: PathBuf,
}

/// Waits for the lock at `path`. Blocks the thread.
pub(crate) fn take(path: PathBuf) -> Result<Lock, StoreError> {
    loop {
        let file = files::append(&path).map_err(io_error("open", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| io_error("lock", &path)(e.into()))?;
        // Whoever had it before has removed the file: a lock on a removed file is worth nothing.
        if is_at(&file, &path)? {
            return Ok(Lock { file: Some(file), path });
        }
    }
}

/// Removes the files of locks whose holders were killed. Whoever waits for one of them meanwhile finds out as always.
pub(crate) fn sweep(locks: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(locks).map_err(io_error("list", locks))? {
        let path = entry.map_err(io_error("list", locks))?.path();
        let Ok(file) = files::open(&path) else { continue };
        let free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if free && is_at(&file, &path)? {
            drop(Lock { file: Some(file), path });
        }
    }
    Ok(())
}

fn is_at(file: &File, path: &Path) -> Result<bool, StoreError> {
    let ours = file.metadata().map_err(io_error("look at", path))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while held; the next holder finds out and makes a new one.
        fs::remove_file(&self.path).unwrap_or_default();
        drop(self.file.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&root.path().join("s")).unwrap());
        let inside = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (store, inside) = (store.clone(), inside.clone());
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let lock = store.lock("x").unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(fs::read_dir(root.path().join("s/locks")).unwrap().count(), 0);
    }

    #[test]
    fn the_locks_of_the_dead_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("s");
        let store = Store::open(&root).unwrap();
        let held = store.lock("held").unwrap();
        fs::write(root.join("locks/dead"), "").unwrap();
        let again = Store::open(&root).unwrap();
        assert!(!root.join("locks/dead").exists() && root.join("locks/held").exists());
        drop((held, again));
    }
}
