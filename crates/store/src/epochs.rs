//! Who may be using what is in the store.
//!
//! Nothing is removed while somebody may use it, and nobody registers what he uses. Instead, as in read-copy-update:
//! what is pruned is first *tombstoned*, which takes it out of the database, so that who comes later cannot find it.
//! Its files go once all processes have ended that were there before. For that each process holds, shared, the lock of
//! one of two files, the one of the *generation* in which it came. A new generation begins when nobody is left of the
//! one before the last, so two files are enough.
//!
//! A server lives long, and would keep everything for ever. Each of its builds holds a lock of its own instead:
//! [`Store::begin_use`](crate::Store::begin_use).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Timespec, Timestamps, flock, futimens};

use crate::error::{StoreError, io_error};
use crate::files;

/// This process's lock.
#[derive(Default)]
pub(crate) struct EpochGuard(Mutex<Option<File>>);

impl EpochGuard {
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

/// The lock of one part of a process, beside the lock of the whole process.
pub(crate) fn join_part(root: &Path, generation: i64) -> Result<File, StoreError> {
    let (path, lock) = open(root, &number(generation))?;
    flock(&lock, FlockOperation::LockShared).map_err(|e| io_error("lock", &path)(e.into()))?;
    Ok(lock)
}

/// Whether no process is left of a generation.
pub(crate) fn is_epoch_empty(root: &Path, generation: i64) -> Result<bool, StoreError> {
    let (_, file) = open(root, &number(generation))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// The right to end generations and to remove what is tombstoned; `None` if another process has it. The file's time is
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

/// The locks of a process that uses the store alone. Processes that open the store wait for them.
pub(crate) struct ExclusiveAccess {
    _locks: Vec<File>,
}

/// How long a process waits to be alone: the background sweep that a build starts takes less.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until no other process uses the store.
///
/// # Errors
/// [`StoreError::OlderInUse`] names the processes that did not end in time.
pub(crate) fn exclusive_access(root: &Path) -> Result<ExclusiveAccess, StoreError> {
    let mut locks = Vec::new();
    let begun = Instant::now();
    // A process that collects garbage has only the last of them.
    for name in ["0", "1", "gc"] {
        let (path, file) = open(root, name)?;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if begun.elapsed() > PATIENCE {
                let processes = holders(&file).map_err(io_error("look at", &path))?;
                return Err(StoreError::OlderInUse { path: root.to_owned(), processes });
            }
            std::thread::sleep(PAUSE);
        }
        locks.push(file);
    }
    Ok(ExclusiveAccess { _locks: locks })
}

/// The processes that hold a lock on a file, as text for an error.
///
/// The kernel gives `/proc/locks` in pieces. Locks that come and go between two pieces hide others, so the file is read again
/// where it names nobody.
fn holders(file: &File) -> io::Result<String> {
    const READINGS: usize = 20;
    let meta = file.metadata()?;
    // Of a file on btrfs the device is another one than here.
    let inode = format!(":{}", meta.ino());
    let read = || {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let held: BTreeSet<u32> = locks.lines().filter_map(|line| holder(line, &inode)).collect();
        held
    };
    let held = (0..READINGS).map(|_| read()).find(|held| !held.is_empty()).unwrap_or_default();
    let named: Vec<String> = held.into_iter().map(named).collect();
    Ok(if named.is_empty() { "another process".to_owned() } else { named.join(", ") })
}

/// The process of a line such as `1: FLOCK  ADVISORY  READ 4711 fd:01:1234 0 EOF`, if the lock is on this inode.
fn holder(line: &str, inode: &str) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, process, place, ..] = words.as_slice() else { return None };
    place.ends_with(inode).then(|| process.parse().ok())?
}

/// A process by its number, its program and its verb. Further arguments may be secret.
fn named(process: u32) -> String {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let verb = words.next().unwrap_or_default();
    match (program, verb.as_ref()) {
        ("", _) => format!("process {process}"),
        (program, "") => format!("process {process} (`{program}`)"),
        (program, verb) => format!("process {process} (`{program} {verb}`)"),
    }
}

fn number(generation: i64) -> String {
    generation.rem_euclid(2).to_string()
}

fn open(root: &Path, name: &str) -> Result<(PathBuf, File), StoreError> {
    let path = root.join("users").join(name);
    let open = || files::append(&path);
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
