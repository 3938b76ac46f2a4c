//! Who is at work: each process has a directory in `tmp/`, found dead or alive by its lock.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lapstrake_tree::removal::remove_all;
use rustix::fs::{FlockOperation, flock};

use crate::async_delete::AsyncDelete;
use crate::error::{StoreError, io_error};
use crate::files;
use crate::state_dir::UNDELETABLE;

/// The file in a process's directory that the process has locked.
pub(crate) const LOCK: &str = "lock";
/// How the names of directories begin that are being made.
const HIDDEN: &str = ".new-";

/// This process's part of `tmp/`, made when first needed.
pub(crate) struct ProcessDir {
    root: PathBuf,
    parent: PathBuf,
    made: OnceLock<(PathBuf, File)>,
    next: AtomicU64,
    remover: Arc<AsyncDelete>,
}

impl ProcessDir {
    pub(crate) fn new(root: PathBuf) -> ProcessDir {
        let parent = root.join("tmp");
        ProcessDir { root, parent, made: OnceLock::new(), next: AtomicU64::new(0), remover: Arc::default() }
    }

    /// A path at which nothing exists yet: a number after `prefix`.
    pub(crate) fn path(&self, prefix: &str) -> Result<PathBuf, StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.dir()?.join(format!("{prefix}{number}")))
    }

    /// Who removes what is in it.
    pub(crate) fn remover(&self) -> &Arc<AsyncDelete> {
        &self.remover
    }

    fn dir(&self) -> Result<&Path, StoreError> {
        if let Some((dir, _)) = self.made.get() {
            return Ok(dir);
        }
        let made = self.make()?;
        // Another thread may have been faster: then ours goes again.
        if let Err((dir, lock)) = self.made.set(made) {
            drop(lock);
            remove_all(&dir).map_err(io_error("remove", &dir))?;
        }
        Ok(self.made.get().map_or(self.parent.as_path(), |(dir, _)| dir.as_path()))
    }

    /// The directory gets its name only once its lock is held. Until then a sweep may take it away: then another one is
    /// made. While layers without an owner are looked for, nobody new may come to own one: hence the gate.
    fn make(&self) -> Result<(PathBuf, File), StoreError> {
        let state_lock = state_lock(&self.root, FlockOperation::LockShared)?;
        for attempt in 0u32.. {
            let (seconds, nanos) = lapstrake_oci::now_seconds();
            let name = format!("{}-{seconds:x}{nanos:08x}-{attempt}", std::process::id());
            let made = self.named(&name);
            let again = made.as_ref().is_err_and(|error| {
                matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound)
            });
            // Without the parent there is nothing to wait for.
            if !again || !self.parent.is_dir() {
                drop(state_lock);
                return made.map_err(io_error("create a directory in", &self.parent));
            }
        }
        Err(io_error("create a directory in", &self.parent)(io::ErrorKind::AlreadyExists.into()))
    }

    fn named(&self, name: &str) -> io::Result<(PathBuf, File)> {
        let (hidden, dir) = (self.parent.join(format!("{HIDDEN}{name}")), self.parent.join(name));
        fs::create_dir(&hidden)?;
        let made = files::create(&hidden.join(LOCK)).and_then(|lock| {
            flock(&lock, FlockOperation::LockExclusive)?;
            fs::rename(&hidden, &dir)?;
            Ok(lock)
        });
        if made.is_err() {
            remove_all(&hidden).unwrap_or_default();
        }
        Ok((dir, made?))
    }
}

impl Drop for ProcessDir {
    fn drop(&mut self) {
        self.remover.stop();
        if let Some((dir, _)) = self.made.get() {
            // If this fails the next process sweeps it.
            remove_all(dir).unwrap_or_default();
        }
    }
}

/// A lock that is shared by who begins to write and exclusive for who looks for layers without a name.
pub(crate) fn state_lock(root: &Path, how: FlockOperation) -> Result<File, StoreError> {
    let path = root.join("state.json");
    let file = files::open(&path).map_err(io_error("open", &path))?;
    flock(&file, how).map_err(|e| io_error("lock", &path)(e.into()))?;
    Ok(file)
}

/// Removes what dead processes left, and says whether there was any. A directory whose lock can be taken has no owner,
/// and the lock is held while it is removed: who has made it and was about to take the lock finds it gone.
pub(crate) fn sweep(tmp: &Path) -> Result<bool, StoreError> {
    let mut dead = false;
    for entry in fs::read_dir(tmp).map_err(io_error("list", tmp))? {
        let path = entry.map_err(io_error("list", tmp))?.path();
        let hidden =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(HIDDEN.as_bytes()));
        let lock = files::open(&path.join(LOCK)).ok();
        let removed = match &lock {
            Some(lock) if flock(lock, FlockOperation::NonBlockingLockExclusive).is_err() => continue,
            // It is being made this very moment, or its maker died: if it has got its lock meanwhile, it stays.
            None if hidden => fs::remove_dir(&path),
            // The superblock of a new state directory.
            None if !is_dir(&path) && !is_old(&path) => continue,
            None if !is_dir(&path) => fs::remove_file(&path),
            _ => remove_all(&path),
        };
        match removed {
            Ok(()) => dead = true,
            // Another process may sweep the same entry.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            // An opening never fails for what cannot be removed. It is tried again each time, under a name that says so.
            Err(_) if is_undeletable(&path) => {}
            Err(_) => {
                dead = true;
                fs::rename(&path, undeletable_name(&path)).unwrap_or_default();
            }
        }
    }
    Ok(dead)
}

/// What sweeps could not remove.
pub(crate) fn undeletable(tmp: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tmp).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_undeletable(path)).collect()
}

/// Whether an earlier sweep could not remove this.
fn is_undeletable(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNDELETABLE.as_bytes()))
}

fn undeletable_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(UNDELETABLE);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Whether a process has a directory here.
pub(crate) fn somebody_lives(tmp: &Path) -> Result<bool, StoreError> {
    let mut entries = fs::read_dir(tmp).map_err(io_error("list", tmp))?.flatten();
    Ok(entries.any(|entry| {
        let lock = files::open(&entry.path().join(LOCK));
        lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err())
    }))
}

/// Whether a path is a directory itself, not by a link.
fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn is_old(path: &Path) -> bool {
    let minute = std::time::Duration::from_secs(60);
    fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > minute))
}
