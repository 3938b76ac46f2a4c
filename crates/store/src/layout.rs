//! The state directory's layout and its opening.
//!
//! ```text
//! state.json             superblock {"format": 2}; a higher number is refused, a lower one raised (see [`crate::migrate`])
//! state.db               SQLite (WAL): records, layers, blobs' diff ids, images, tags, who has which blob
//! builds.recent          records of builds that are not in the database yet, one after the other
//! blobs/sha256/<hex>     immutable OCI blobs: configs and manifests, and layers that came or go compressed
//! layers/<id>/fs/        a layer's files in overlayfs format (whiteouts are char 0:0, `user.overlay.opaque`)
//! layers/<id>/patch/     instead of `fs/`: what differs from the layer that `base` names
//! layers/<id>/base       the id of that layer; missing where there is `fs/`
//! layers/<id>/tree       its encoded tree: every entry with its metadata and the digest of its content
//! layers/<id>/unmarked   there where files lack the marks of deletions: the state directory was on an overlay, which takes none
//! layers/<id>/hash-states states of the hash of its tar (derived)
//! layers/<id>/implied    directories that its tar did not name, each ended by a NUL; missing when there are none
//! reserve file                 a megabyte of nothing, given up by who makes room on a full disk
//! contexts/v2-<hash>     stat indexes of build contexts (derived: may be deleted at any time)
//! contexts/v2-<hash>-2-<hash> the layer that a copy from that context made last (derived too)
//! contexts/v2-seen-<hash> what a step saw through a bind mount, by its content, for `explain` (derived too)
//! mounts/<hash>/         RUN --mount=type=cache directories: `data/` and `lock`
//! users/0, users/1       held shared by living processes: what is pruned goes when nobody is left who may use it
//! locks/<name>           one file for each key that somebody works on; removed when done
//! killed                 there while a process that was killed may have left layers that nothing names
//! tmp/<session>/         what is not finished; `lock` is held by the process that owns it
//! ```
//!
//! Primary data (blobs, layers, images, mounts) is governed by the superblock. Derived data (records, stat indexes)
//! carries its version in its own name or key and is dropped rather than migrated.

use std::collections::{BTreeSet, HashMap};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use rusqlite::Connection;

use crate::build_limits::BuildLimits;
use crate::db;
use crate::epochs::EpochGuard;
use crate::error::{StoreError, io_error};
use crate::lock::{self, Lock};
use crate::migrate;
use crate::process_dir::ProcessDir;
use crate::state_dir;
use crate::superblock::{FORMAT, format_of, write_superblock};

/// How layers of a state directory are put on each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// The kernel mounts them as an overlay.
    Overlay,
    /// All that they show is copied to one directory.
    Copy {
        /// Why there is no overlay.
        why: String,
    },
}

/// An open state directory.
pub struct Store {
    root: PathBuf,
    db: Mutex<Connection>,
    pub(crate) user: EpochGuard,
    /// The cache directories that this process has used.
    pub(crate) mounts_used: Mutex<BTreeSet<String>>,
    /// The directories of layers that were seen to be there, by the layers' ids.
    pub(crate) known: Mutex<HashMap<String, Vec<PathBuf>>>,
    pub(crate) process_dir: ProcessDir,
    pub(crate) stacking: Mutex<Option<Stacking>>,
    /// The records of builds that this process keeps, where they are other than the usual ones.
    pub(crate) build_limits: OnceLock<BuildLimits>,
}

impl Store {
    /// Opens the state directory at `root`, making it if it is not there. The directory is for its owner alone: it
    /// holds root file systems with other users' files and set-user-id programs.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        state_dir::secure(root)?;
        let found = format_of(root)?;
        if found.is_none() {
            create(root)?;
        }
        let db = Mutex::new(migrate::open(root)?);
        // The file is a lock too (see `process_dir::state_lock`): it is replaced only where there is need.
        if found != Some(FORMAT) && format_of(root)? != Some(FORMAT) {
            write_superblock(root)?;
        }
        lock::sweep(&root.join("locks"))?;
        let (user, process_dir) = (EpochGuard::default(), ProcessDir::new(root.to_owned()));
        let (mounts_used, known) = (Mutex::default(), Mutex::default());
        let stacking = Mutex::default();
        let build_limits = OnceLock::new();
        let root_dir = root.to_owned();
        let store =
            Store { root: root_dir, db, user, mounts_used, known, process_dir, stacking, build_limits };
        store.join_epoch()?;
        store.drop_unsynced()?;
        store.sweep()?;
        Ok(store)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What dead processes left and nobody could remove.
    pub fn undeletable(&self) -> Vec<PathBuf> {
        crate::process_dir::undeletable(&self.root.join("tmp"))
    }

    /// The file for the stat index of the build context at `context`.
    pub fn context_index(&self, context: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        let name = lapstrake_oci::Digest::sha256(context.as_os_str().as_bytes());
        self.root.join("contexts").join(format!("v2-{}", &name.hex()[..32]))
    }

    /// The file with the id of the layer that a copy from the context at `context` made; `op` tells copies apart.
    pub fn context_copy(&self, context: &Path, op: &[u8]) -> PathBuf {
        let index = self.context_index(context);
        let name = index.file_name().unwrap_or_default().to_string_lossy().into_owned();
        index.with_file_name(format!("{name}-2-{}", &lapstrake_oci::Digest::sha256(op).hex()[..32]))
    }

    /// Waits for the lock `name` (letters, digits and dashes). Blocks the thread.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        lock::take(self.root.join("locks").join(name))
    }

    pub(crate) fn with_db<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // A panic of another thread cannot leave SQLite's own state half-way, so a poisoned lock is taken all the same.
        let mut db = self.db.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&mut db).map_err(|source| StoreError::Database { path: db::path(&self.root), source })
    }
}

fn create(root: &Path) -> Result<(), StoreError> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    for name in [""].iter().chain(&state_dir::DIRECTORIES) {
        let path = if name.is_empty() { root.to_owned() } else { root.join(name) };
        private.create(&path).map_err(io_error("create", &path))?;
    }
    Ok(())
}
