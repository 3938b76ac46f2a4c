//! Unfinished things: each process has a directory of its own, found dead or alive by its lock.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// This process's part of `tmp/`, made when first needed.
pub(crate) struct Session {
    parent: PathBuf,
    made: OnceLock<(PathBuf, File)>,
    next: AtomicU64,
}

impl Session {
    pub(crate) fn new(parent: PathBuf) -> Session {
        Session { parent, made: OnceLock::new(), next: AtomicU64::new(0) }
    }

    fn dir(&self) -> Result<&Path, StoreError> {
        if let Some((dir, _)) = self.made.get() {
            return Ok(dir);
        }
        let made = self.make()?;
        // Another thread may have been faster: then ours goes again.
        if let Err((dir, lock)) = self.made.set(made) {
            drop(lock);
            fs::remove_dir_all(&dir).map_err(io_error("remove", &dir))?;
        }
        Ok(self.made.get().map_or(self.parent.as_path(), |(dir, _)| dir.as_path()))
    }

    /// The directory gets its name only once its lock is held, so that no sweep can find it without.
    fn make(&self) -> Result<(PathBuf, File), StoreError> {
        for attempt in 0u32.. {
            let (seconds, nanos) = lapstrake_oci::now_seconds();
            let name = format!("{}-{seconds:x}{nanos:08x}-{attempt}", std::process::id());
            let hidden = self.parent.join(format!(".new-{name}"));
            match fs::create_dir(&hidden) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(io_error("create", &hidden)(error)),
            }
            let lock_path = hidden.join("lock");
            let lock = File::create(&lock_path).map_err(io_error("create", &lock_path))?;
            flock(&lock, FlockOperation::LockExclusive)
                .map_err(|e| io_error("lock", &lock_path)(e.into()))?;
            let dir = self.parent.join(name);
            fs::rename(&hidden, &dir).map_err(io_error("rename", &hidden))?;
            return Ok((dir, lock));
        }
        Err(io_error("create", &self.parent)(io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((dir, _)) = self.made.get() {
            // If this fails the next process sweeps it.
            fs::remove_dir_all(dir).unwrap_or_default();
        }
    }
}

/// A fresh directory in `tmp/`, removed when dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Gone already if its content was renamed away whole; else the next process sweeps what we cannot remove.
        fs::remove_dir_all(&self.path).unwrap_or_default();
    }
}

impl Store {
    /// A fresh, empty directory on the file system of the state directory.
    pub fn temp_dir(&self) -> Result<TempDir, StoreError> {
        let number = self.session.next.fetch_add(1, Ordering::Relaxed);
        let path = self.session.dir()?.join(number.to_string());
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        Ok(TempDir { path })
    }

    /// A path in `tmp/` at which nothing exists yet.
    pub(crate) fn temp_path(&self) -> Result<PathBuf, StoreError> {
        let number = self.session.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.session.dir()?.join(format!("f{number}")))
    }
}

/// Removes what dead processes left. An entry whose lock can be taken has no owner; one without a lock file is from a
/// process that died while making it, or is being made this very moment: the age tells.
pub(crate) fn sweep(tmp: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(tmp).map_err(io_error("list", tmp))? {
        let path = entry.map_err(io_error("list", tmp))?.path();
        if is_dead(&path) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            // Another process may sweep the same entry.
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_dead(path: &Path) -> bool {
    match File::open(path.join("lock")) {
        Ok(lock) => {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-"));
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && (!hidden || is_old(path))
        }
        Err(_) => is_old(path),
    }
}

fn is_old(path: &Path) -> bool {
    let minute = std::time::Duration::from_secs(60);
    fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > minute))
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
        let second = Store::open(&root).unwrap();
        assert!(!root.join("tmp/dead").exists());
        assert!(kept.path().exists());
        drop(kept);
        drop((living, second));
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }
}
