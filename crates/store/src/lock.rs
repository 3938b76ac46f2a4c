//! Locks between processes, by name. The kernel drops them with the process, however it ends.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    path: PathBuf,
}

impl Store {
    /// Waits for the lock `name` (letters, digits and dashes). Blocks the thread.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        let path = self.root().join("locks").join(name);
        loop {
            let file =
                File::options().create(true).append(true).open(&path).map_err(io_error("open", &path))?;
            flock(&file, FlockOperation::LockExclusive).map_err(|e| io_error("lock", &path)(e.into()))?;
            // Whoever had it before has removed the file: a lock on a removed file is worth nothing.
            let ours = file.metadata().map_err(io_error("look at", &path))?;
            if fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Lock { file: Some(file), path });
            }
        }
    }
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
}
