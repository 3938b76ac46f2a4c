//! Layers on each other, for reading.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use lapstrake_store::{Stacking, Store, TempDir};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::replica::Replica;

use crate::active::{layer_files, made};
use crate::error::SnapshotError;
use crate::mount::{bind, mount, mount_copy};
use crate::replica_cache;
use crate::stacking::{Lower, directories, stacking};

/// What layers show together. Nobody may write to it.
pub struct View {
    mount: OwnedFd,
    /// What is shown, if it had to be copied.
    copy: Option<ViewCopy>,
}

/// The files of a view where they are no layer's own. They go with this value. A copy of layers is kept for the next step or
/// view that needs one.
pub struct ViewCopy(Option<Box<Files>>);

enum Files {
    /// A directory of its own.
    Own(#[expect(dead_code, reason = "held for its directory")] TempDir),
    /// All that layers show.
    Copied { state: PathBuf, lowers: Vec<Lower>, copy: (TempDir, Replica) },
}

impl From<TempDir> for ViewCopy {
    fn from(dir: TempDir) -> Self {
        ViewCopy(Some(Box::new(Files::Own(dir))))
    }
}

impl Drop for ViewCopy {
    fn drop(&mut self) {
        // Nobody could write to it, so it is still what the layers show.
        if let Some(Files::Copied { state, lowers, copy }) = self.0.take().map(|files| *files) {
            replica_cache::keep(state, lowers, copy);
        }
    }
}

impl View {
    /// Shows `lowers`, lowest first.
    ///
    /// # Errors
    /// [`SnapshotError::Mount`], [`SnapshotError::TooMany`], [`SnapshotError::Tree`] where a copy fails.
    pub fn new(store: &Store, lowers: &[Lower]) -> Result<View, SnapshotError> {
        match (lowers, stacking(store)?) {
            ([], _) => {
                let dir = store.temp_dir()?;
                Ok(View { mount: bind(dir.path())?, copy: Some(dir.into()) })
            }
            (lowers, Stacking::Overlay) => {
                Ok(View { mount: mount(&directories(store, lowers)?, None)?, copy: None })
            }
            ([Lower::Host(path)], Stacking::Copy { .. }) => Ok(View { mount: mount_copy(path)?, copy: None }),
            (lowers, Stacking::Copy { .. }) => View::copied(store, lowers),
        }
    }

    fn copied(store: &Store, lowers: &[Lower]) -> Result<View, SnapshotError> {
        if let [Lower::Layer(id)] = lowers
            && let [dir] = store.layer_dirs(id).as_slice()
        {
            return Ok(View { mount: mount_copy(dir)?, copy: None });
        }
        let copy = match replica_cache::take(store, lowers) {
            Some(copy) => copy,
            None => {
                let dir = store.temp_dir()?;
                let root = open_host_dir(&made(&dir, "root")?)?;
                let replica = Replica::make(layer_files(store, lowers)?, root.as_fd())?;
                (dir, replica)
            }
        };
        let mount = mount_copy(&copy.0.join("root"))?;
        let files = Files::Copied { state: store.root().to_owned(), lowers: lowers.to_vec(), copy };
        Ok(View { mount, copy: Some(ViewCopy(Some(Box::new(files)))) })
    }

    /// The mount, and what has to be kept as long as somebody uses the mount.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Option<ViewCopy>) {
        (self.mount, self.copy)
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
