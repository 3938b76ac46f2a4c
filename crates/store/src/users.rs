//! Who may be using what is in the store.
//!
//! Nothing is removed while somebody may use it, and nobody registers what he uses. Instead, as in read-copy-update:
//! what is pruned is first *condemned*, which takes it out of the database, so that who comes later cannot find it.
//! Its files go once all processes have ended that were there before. For that each process holds, shared, the lock of
//! one of two files, the one of the *generation* in which it came. A new generation begins when nobody is left of the
//! one before the last, so two files are enough.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Timespec, Timestamps, flock, futimens};

use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// This process's lock.
#[derive(Default)]
pub(crate) struct User(Mutex<Option<File>>);

impl Store {
    /// Takes this process's lock. Who read the generation just before it ended holds the lock of the old one: that
    /// only makes others wait for longer.
    pub(crate) fn join_users(&self) -> Result<(), StoreError> {
        let file = self.users_file(self.generation()?)?;
        flock(&file, FlockOperation::LockShared).map_err(|e| io_error("lock", self.root())(e.into()))?;
        *self.user.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Gives this process's lock back: from now on it may use nothing that it found before.
    pub(crate) fn leave_users(&self) {
        self.user.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The present generation.
    pub(crate) fn generation(&self) -> Result<i64, StoreError> {
        self.with_db(|db| db.prepare_cached("SELECT number FROM generation")?.query_row([], |row| row.get(0)))
    }

    /// Begins a new generation if that can be, and gives it. The caller holds the lock of [`Store::gc_lock`].
    pub(crate) fn advance(&self) -> Result<i64, StoreError> {
        let now = self.generation()?;
        // The files of `now - 1` and of `now + 1` are the same one.
        if !self.nobody_in(now - 1)? {
            return Ok(now);
        }
        self.with_db(|db| db.execute("UPDATE generation SET number = ?1", [now + 1]))?;
        Ok(now + 1)
    }

    /// The newest generation of which nobody is left. The caller holds the lock of [`Store::gc_lock`], and uses nothing
    /// that it found before.
    pub(crate) fn drained(&self) -> Result<i64, StoreError> {
        self.leave_users();
        let now = self.advance()?;
        Ok(if self.nobody_in(now - 1)? { now - 1 } else { now - 2 })
    }

    /// The right to end generations and to remove what is condemned; `None` if another process has it.
    pub(crate) fn gc_lock(&self) -> Result<Option<File>, StoreError> {
        let path = self.root().join("users").join("gc");
        let file = File::options().create(true).append(true).open(&path).map_err(io_error("open", &path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // When somebody last looked: see [`Store::wants_pruning`].
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        futimens(&file, &times).map_err(|e| io_error("touch", &path)(e.into()))?;
        Ok(Some(file))
    }

    fn nobody_in(&self, generation: i64) -> Result<bool, StoreError> {
        let file = self.users_file(generation)?;
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    fn users_file(&self, generation: i64) -> Result<File, StoreError> {
        let path: PathBuf = self.root().join("users").join(generation.rem_euclid(2).to_string());
        let open = || File::options().create(true).append(true).open(&path);
        let opened = open().or_else(|error| {
            // State directories of earlier versions have no such place.
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            std::fs::create_dir_all(self.root().join("users"))?;
            open()
        });
        opened.map_err(io_error("open", &path))
    }
}
