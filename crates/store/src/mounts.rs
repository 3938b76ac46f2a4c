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
    fresh: bool,
    /// Held for as long as the directory is used.
    #[expect(dead_code, reason = "dropping it is what unlocks")]
    lock: File,
}

impl CacheDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Whether it was made just now, so that its owner and mode are still to be set.
    pub fn is_fresh(&self) -> bool {
        self.fresh
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
        let how = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&lock, how) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io_error("lock", &lock_path)(error.into())),
        }
        let data = dir.join("data");
        let fresh = match fs::create_dir(&data) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io_error("create", &data)(error)),
        };
        Ok(Some(CacheDir { data, fresh, lock }))
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
        drop(one);
        let again = store.cache_dir("../../x", Sharing::Shared).unwrap();
        assert_eq!(again.path(), path);
        assert!(!again.is_fresh());
    }
}
