//! Layers on each other, for reading.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lapstrake_store::{Stacking, Store, TempDir};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::replica::Replica;

use crate::active::{layer_files, made};
use crate::error::SnapshotError;
use crate::mount::{bind, mount, mount_copy};
use crate::stacking::{Lower, directories, stacking};

/// What layers show together. Nobody may write to it.
pub struct View {
    mount: OwnedFd,
    /// What is shown, if it had to be copied: it goes with the view.
    copy: Option<TempDir>,
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
                Ok(View { mount: bind(dir.path())?, copy: Some(dir) })
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
        let dir = store.temp_dir()?;
        let root = made(&dir, "root")?;
        Replica::make(layer_files(store, lowers)?, open_host_dir(&root)?.as_fd())?;
        Ok(View { mount: mount_copy(&root)?, copy: Some(dir) })
    }

    /// The mount, and what has to be kept as long as somebody uses the mount.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Option<TempDir>) {
        (self.mount, self.copy)
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
