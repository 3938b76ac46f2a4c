//! Writing to the upper directory of an overlay itself, past the mount that shows it.
//!
//! Through the mount every new file costs the kernel a file in the work directory and a rename. Directly it costs what
//! a file costs. What the layers below have is looked up here instead, and only where they have the directory.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::path::TreePath;

/// The two halves of an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// The upper directory. Nobody looks at the mount between such a copy and the end of the mount.
    pub upper: BorrowedFd<'a>,
    /// All lower layers together, for reading.
    pub below: BorrowedFd<'a>,
}

/// One directory of an overlay, opened on both sides.
pub(super) struct UpperAndLower {
    pub(super) upper: OwnedFd,
    pub(super) below: LowerDir,
}

impl Layers<'_> {
    /// Opens the directory `path`, which the mount shows as `seen`. `None` when the layers cannot be used directly.
    pub(super) fn enter(&self, seen: BorrowedFd<'_>, path: &TreePath, is_new: bool) -> Option<UpperAndLower> {
        if !is_new {
            // Any change makes overlayfs copy the directory up, with everything above it.
            let stat = fs::fstat(seen).ok()?;
            fs::fchmod(seen, Mode::from_raw_mode(stat.st_mode & 0o7777)).ok()?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let upper = open_plain_raw(self.upper, path, flags, Mode::empty()).ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let below = match open_plain_raw(self.below, path, flags, Mode::empty()) {
            Ok(dir) => Some(dir),
            // What is below is no directory: the one above hides it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(_) => return None,
        };
        Some(UpperAndLower { upper, below: LowerDir { dir: below, merged: BTreeSet::new() } })
    }
}

/// What lower layers have below one directory.
#[derive(Debug, Default)]
pub(super) struct LowerDir {
    dir: Option<OwnedFd>,
    /// Directories that they have too, apart from the first.
    merged: BTreeSet<TreePath>,
}

impl LowerDir {
    /// Nothing: what is written to shows all there is.
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    /// The directory `to` as it is below, if there is one.
    pub(super) fn dir(&self, to: &TreePath) -> Option<OwnedFd> {
        let dir = self.dir.as_ref()?;
        if !to.is_root() && !self.merged.contains(to) {
            return None;
        }
        open_plain_raw(dir.as_fd(), to, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()
    }

    /// Remembers a directory that is put on one of the same name, and gives the latter.
    pub(super) fn enter(&mut self, to: &TreePath, path: &TreePath) -> Result<Option<OwnedFd>, TreeError> {
        let Some(parent) = self.dir(&to.parent().unwrap_or_default()) else { return Ok(None) };
        match kind_of(parent.as_fd(), to.name()).map_err(TreeError::io("stat", path))? {
            None => Ok(None),
            Some(FileType::Directory) => {
                self.merged.insert(to.clone());
                Ok(self.dir(to))
            }
            Some(_) => Err(TreeError::CopyToNonDirectory { path: path.clone() }),
        }
    }
}

/// That what is put as `name` hides no directory of `below`.
pub(super) fn check_room(
    below: Option<&OwnedFd>,
    name: &[u8],
    path: impl Fn() -> TreePath,
) -> Result<(), TreeError> {
    let Some(below) = below else { return Ok(()) };
    match kind_of(below.as_fd(), name).map_err(|e| TreeError::io("stat", &path())(e))? {
        Some(FileType::Directory) => Err(TreeError::ReplaceDirectory { path: path() }),
        _ => Ok(()),
    }
}

fn kind_of(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
