//! Taking away from a directory what its tree does not have.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::entry::Entry;
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_fd};
use crate::path::TreePath;
use crate::tree::Tree;

/// Removes `gone`, what is in a directory before the directory, from beneath `root`. The directories that stay keep the
/// times that `tree` says.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn prune_extra(root: BorrowedFd<'_>, gone: &[Entry], tree: &Tree) -> Result<(), TreeError> {
    let open = |path: &TreePath, flags| {
        open_plain_raw(root, path, flags | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))
    };
    let mut touched: BTreeSet<TreePath> = BTreeSet::new();
    for entry in gone {
        let parent = entry.path.parent().unwrap_or_default();
        let flags = if entry.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match fs::unlinkat(open(&parent, OFlags::PATH)?, entry.path.name(), flags) {
            // What no tree tells of is in it: a socket.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => {}
            Err(errno) => return Err(TreeError::io("remove", &entry.path)(errno)),
        }
        touched.insert(parent);
    }
    for path in touched {
        if let Some(entry) = tree.get(&path) {
            set_times_fd(std::os::fd::AsFd::as_fd(&open(&path, OFlags::RDONLY)?), entry.meta.mtime)
                .map_err(TreeError::io("set times of", &path))?;
        }
    }
    Ok(())
}
