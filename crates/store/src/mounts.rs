//! Directories that outlive builds: `RUN --mount=type=cache`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use lapstrake_oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// Who may use a cache directory at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Many.
    Shared,
    /// One; whoever finds it in use gets another one.
    Private,
    /// One; the others wait.
    Locked,
}

/// A cache directory in use.
#[derive(Debug)]
pub struct CacheDir {
    data: PathBuf,
    /// Is there once the directory has its owner, mode and first content.
    ready: PathBuf,
    fresh: bool,
    sharing: Sharing,
    /// Held for as long as the directory is used.
    lock: File,
}

impl CacheDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Whether it was made just now, so that its owner, mode and content are still to be set: then nobody else gets it
    /// until [`CacheDir::settle`].
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// A fresh directory is as it should be: from now on others may share it. If this is never called, the next user
    /// gets a fresh one.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        File::create(&self.ready).map_err(io_error("create", &self.ready))?;
        self.fresh = false;
        if self.sharing == Sharing::Shared {
            flock(&self.lock, FlockOperation::LockShared)
                .map_err(|e| io_error("lock", &self.ready)(e.into()))?;
        }
        Ok(())
    }
}

impl Store {
    /// The cache directory with this identity. Ids are hashed before they become a path. Blocks while it waits.
    pub fn cache_dir(&self, identity: &str, sharing: Sharing) -> Result<CacheDir, StoreError> {
        let hash = Digest::sha256(identity.as_bytes());
        for number in 0u32.. {
            let name = if number == 0 { hash.hex().to_owned() } else { format!("{}-{number}", hash.hex()) };
            if let Some(dir) = self.try_cache_dir(&name, sharing)? {
                return Ok(dir);
            }
        }
        Err(StoreError::Missing { what: "cache directory", name: identity.to_owned() })
    }

    fn try_cache_dir(&self, name: &str, sharing: Sharing) -> Result<Option<CacheDir>, StoreError> {
        let dir = self.root().join("mounts").join(name);
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        let (data, ready) = (dir.join("data"), dir.join("ready"));
        let take = |how| match flock(&lock, how) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(io_error("lock", &lock_path)(error.into())),
        };
        let how = match sharing {
            Sharing::Shared if ready.exists() => FlockOperation::LockShared,
            Sharing::Shared | Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        if !take(how)? {
            return Ok(None);
        }
        let mut fresh = false;
        if !ready.exists() {
            // Whoever began to fill it was killed.
            match fs::remove_dir_all(&data) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &data)(error));
                }
                _ => {}
            }
            fs::create_dir(&data).map_err(io_error("create", &data))?;
            fresh = true;
        } else if sharing == Sharing::Shared {
            take(FlockOperation::LockShared)?;
        }
        Ok(Some(CacheDir { data, ready, fresh, sharing, lock }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_directories_are_not_shared() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let one = store.cache_dir("../../x", Sharing::Private).unwrap();
        let two = store.cache_dir("../../x", Sharing::Private).unwrap();
        assert_ne!(one.path(), two.path());
        assert!(one.path().starts_with(root.path().join("s/mounts")));
        let path = one.path().to_owned();
        fs::write(path.join("half"), "").unwrap();
        drop(one);
        let mut again = store.cache_dir("../../x", Sharing::Shared).unwrap();
        assert_eq!(again.path(), path);
        assert!(again.is_fresh() && !path.join("half").exists());
        again.settle().unwrap();
        let third = store.cache_dir("../../x", Sharing::Shared).unwrap();
        assert!(third.path() == path && !third.is_fresh());
    }
}
