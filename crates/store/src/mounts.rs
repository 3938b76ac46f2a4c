//! Directories that outlive builds: `RUN --mount=type=cache`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use lapstrake_oci::Digest;
use lapstrake_tree::removal::remove_all;
use rusqlite::params;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, statat};

use crate::db::now;
use crate::error::{StoreError, io_error};
use crate::files;
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
        files::create(&self.ready).map_err(io_error("create", &self.ready))?;
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
                self.note_mount(&name, identity)?;
                return Ok(dir);
            }
        }
        Err(StoreError::Missing { what: "cache directory", name: identity.to_owned() })
    }

    /// The next user of the cache directory with this identity finds it empty. A directory that somebody uses at this
    /// moment stays as it is.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn renew_cache_dir(&self, identity: &str) -> Result<(), StoreError> {
        let dir = self.root().join("mounts").join(Digest::sha256(identity.as_bytes()).hex());
        let lock_path = dir.join("lock");
        let lock = match files::append_existing(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("open", &lock_path)(error)),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(io_error("lock", &lock_path)(error.into())),
        }
        // A directory that is not ready is emptied by its next user.
        let ready = dir.join("ready");
        match fs::remove_file(&ready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &ready)(error)),
            _ => Ok(()),
        }
    }

    fn note_mount(&self, name: &str, identity: &str) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached(
                "INSERT INTO mounts (name, identity, size, created, used, uses) VALUES (?1, ?2, 0, ?3, ?3, 1) \
                 ON CONFLICT (name) DO UPDATE SET used = excluded.used, uses = uses + 1",
            )?
            .execute(params![name, identity, now()])
        })?;
        self.mounts_used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    /// Finds out how large the cache directories are that this process has used, for `df` and `prune`. Called once the
    /// build is over: whoever uses one at the same time changes its size anyway.
    pub fn measure_mounts(&self) -> Result<(), StoreError> {
        let names = std::mem::take(&mut *self.mounts_used.lock().unwrap_or_else(PoisonError::into_inner));
        for name in names {
            let data = self.root().join("mounts").join(&name).join("data");
            // One that cannot be listed to its end counts as far as it could be.
            let size = files::open(&data).map_or(0, |dir| size_below(&dir));
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            self.with_db(|db| {
                db.prepare_cached("UPDATE mounts SET size = ?2 WHERE name = ?1")?.execute(params![name, size])
            })?;
        }
        Ok(())
    }

    fn try_cache_dir(&self, name: &str, sharing: Sharing) -> Result<Option<CacheDir>, StoreError> {
        let dir = self.root().join("mounts").join(name);
        files::make_dir(&dir).map_err(io_error("create", &dir))?;
        let lock_path = dir.join("lock");
        let lock = files::append(&lock_path).map_err(io_error("open", &lock_path))?;
        let (data, ready) = (dir.join("data"), dir.join("ready"));
        let failed = |errno: rustix::io::Errno| io_error("lock", &lock_path)(errno.into());
        let fresh = match sharing {
            Sharing::Shared => share(&lock, &ready).map_err(failed)?,
            Sharing::Locked => {
                flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
                !ready.exists()
            }
            Sharing::Private => match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => !ready.exists(),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            },
        };
        if fresh {
            // The process that began to fill the directory was killed.
            match remove_all(&data) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &data)(error));
                }
                _ => {}
            }
            fs::create_dir(&data).map_err(io_error("create", &data))?;
        }
        Ok(Some(CacheDir { data, ready, fresh, sharing, lock }))
    }
}

/// Takes the lock of a directory that many use: shared, or exclusive for the one that makes the directory. Blocks until the
/// directory is ready, or its maker is gone. Says whether the directory is to be made.
fn share(lock: &File, ready: &Path) -> rustix::io::Result<bool> {
    loop {
        if !ready.exists() {
            match flock(lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if !ready.exists() => return Ok(true),
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno),
            }
        }
        // A wait for an exclusive lock would last until all other users are done, also after the directory is ready.
        flock(lock, FlockOperation::LockShared)?;
        if ready.exists() {
            return Ok(false);
        }
        flock(lock, FlockOperation::Unlock)?;
    }
}

/// The room that the files in `dir` take on the disk. What is in there was made by processes of builds: links are not
/// followed, every name is used once, and a directory is reached from the one above or by way of `..`, so that only two
/// are open however deep they lie.
fn size_below(dir: &impl AsFd) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut sum = 0;
    let Ok(mut at) = openat(dir, c".", flags, Mode::empty()) else { return 0 };
    let mut levels = vec![Level::list(&at, &mut sum)];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            if let Ok(next) = openat(&at, &name, flags, Mode::empty()) {
                levels.push(Level::list(&next, &mut sum));
                at = next;
            }
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        match openat(&at, c"..", flags, Mode::empty()) {
            Ok(up) if Level::id(&up) == above.id => at = up,
            // Somebody moves directories meanwhile.
            _ => break,
        }
    }
    sum
}

/// A directory on the way down.
struct Level {
    /// Device and inode.
    id: Option<(u64, u64)>,
    /// Directories in it that were not looked at yet.
    below: Vec<CString>,
}

impl Level {
    fn id(dir: &OwnedFd) -> Option<(u64, u64)> {
        fstat(dir).ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Adds up what is directly in a directory.
    fn list(dir: &OwnedFd, sum: &mut u64) -> Level {
        let mut below = Vec::new();
        for entry in Dir::read_from(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            // In units of 512 bytes, whatever the file system's own are.
            *sum += u64::try_from(stat.st_blocks).unwrap_or(0) * 512 / stat.st_nlink.max(1);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                below.push(name.to_owned());
            }
        }
        Level { id: Level::id(dir), below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_is_measured() {
        let root = tempfile::tempdir().unwrap();
        let mut at = openat(rustix::fs::CWD, root.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        let file = openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        std::io::Write::write_all(&mut File::from(file), &[1; 1 << 20]).unwrap();
        let measure = move || {
            assert!(size_below(&File::open(root.path()).unwrap()) >= 1 << 20);
            remove_all(root.path()).unwrap();
        };
        std::thread::Builder::new().stack_size(128 << 10).spawn(measure).unwrap().join().unwrap();
    }

    #[test]
    fn a_directory_is_shared_once_it_is_ready() {
        let root = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Store::open(&root.path().join("s")).unwrap());
        let mut maker = store.cache_dir("x", Sharing::Shared).unwrap();
        assert!(maker.is_fresh());
        let (sender, waiters) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (store, sender) = (store.clone(), sender.clone());
            std::thread::spawn(move || sender.send(store.cache_dir("x", Sharing::Shared).unwrap()));
        }
        let soon = std::time::Duration::from_millis(100);
        assert!(waiters.recv_timeout(soon).is_err(), "nobody gets a directory that is not ready");
        maker.settle().unwrap();
        // The maker goes on, and so does the first waiter.
        let late = std::time::Duration::from_secs(10);
        let (one, two) = (waiters.recv_timeout(late).unwrap(), waiters.recv_timeout(late).unwrap());
        assert!(!one.is_fresh() && !two.is_fresh());
        assert_eq!((one.path(), two.path()), (maker.path(), maker.path()));
    }

    #[test]
    fn a_waiter_makes_the_directory_of_a_maker_that_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Store::open(&root.path().join("s")).unwrap());
        let maker = store.cache_dir("x", Sharing::Shared).unwrap();
        let waiter = {
            let store = store.clone();
            std::thread::spawn(move || store.cache_dir("x", Sharing::Shared).unwrap())
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(maker);
        assert!(waiter.join().unwrap().is_fresh());
    }

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
