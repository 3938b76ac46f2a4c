//! Who may be using what is in the store.
//!
//! Nothing is removed while somebody may use it, and nobody registers what he uses. Instead, as in read-copy-update:
//! what is pruned is first *condemned*, which takes it out of the database, so that who comes later cannot find it.
//! Its files go once all processes have ended that were there before. For that each process holds, shared, the lock of
//! one of two files, the one of the *generation* in which it came. A new generation begins when nobody is left of the
//! one before the last, so two files are enough.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Timespec, Timestamps, flock, futimens};

use crate::error::{StoreError, io_error};

/// This process's lock.
#[derive(Default)]
pub(crate) struct User(Mutex<Option<File>>);

impl User {
    /// Takes it. Who read the generation just before it ended holds the lock of the old one: that only makes others wait
    /// for longer.
    pub(crate) fn join(&self, root: &Path, generation: i64) -> Result<(), StoreError> {
        let (path, file) = open(root, &number(generation))?;
        flock(&file, FlockOperation::LockShared).map_err(|e| io_error("lock", &path)(e.into()))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Gives it back: from now on this process may use nothing that it found before.
    pub(crate) fn leave(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Whether no process is left of a generation.
pub(crate) fn nobody_in(root: &Path, generation: i64) -> Result<bool, StoreError> {
    let (_, file) = open(root, &number(generation))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// The right to end generations and to remove what is condemned; `None` if another process has it. The file's time is
/// when somebody last had it.
pub(crate) fn gc_lock(root: &Path) -> Result<Option<File>, StoreError> {
    let (path, file) = open(root, "gc")?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    futimens(&file, &times).map_err(|e| io_error("touch", &path)(e.into()))?;
    Ok(Some(file))
}

fn number(generation: i64) -> String {
    generation.rem_euclid(2).to_string()
}

fn open(root: &Path, name: &str) -> Result<(PathBuf, File), StoreError> {
    let path = root.join("users").join(name);
    let open = || File::options().create(true).append(true).open(&path);
    let opened = open().or_else(|error| {
        // State directories of earlier versions have no such place.
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        fs::create_dir_all(root.join("users"))?;
        open()
    });
    match opened {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(io_error("open", &path)(error)),
    }
}
