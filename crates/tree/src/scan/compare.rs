//! Whether a place of another tree holds what an entry says, without scanning that tree.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Scanner, changed, open_plain_raw};
use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::path::TreePath;
use crate::scan::ScanOptions;

/// The object at the place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The place is empty.
    Nothing,
    /// The same: kind, content and all metadata that count.
    Same,
    /// Something else.
    Other,
}

/// Compares `entry` with what is at its path beneath `root`. Contents are read only where nothing else differs, in
/// pieces. Times of directories do not count: [`has_set_time`] tells of those. Hard links and whiteouts are the same as
/// nothing that there is.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn compare(root: BorrowedFd<'_>, entry: &Entry, options: &ScanOptions<'_>) -> Result<Found, TreeError> {
    let scanner = Scanner { root, options };
    let path = &entry.path;
    let Some((parent, stat)) = look(root, path).map_err(TreeError::io("stat", path))? else {
        return Ok(Found::Nothing);
    };
    let below = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let dir = open_plain_raw(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        Some(scanner.dir_entry(dir.as_fd(), path.clone(), &stat)?)
    } else {
        scanner.leaf(parent.as_fd(), path.clone(), &stat)?
    };
    let Some(mut below) = below else { return Ok(Found::Other) };
    if entry.is_dir() && below.is_dir() {
        // Whoever only passes through a directory changes its time: that it differs says nothing.
        below.meta.mtime = entry.meta.mtime;
    }
    if let (Kind::File { size: ours, .. }, Kind::File { size: theirs, .. }) = (&entry.kind, &below.kind) {
        // Attributes of files are read with the content.
        below.meta.xattrs.clone_from(&entry.meta.xattrs);
        if options.owner_default.is_some() {
            (below.meta.uid, below.meta.gid) = (entry.meta.uid, entry.meta.gid);
        }
        if ours != theirs || entry.meta != below.meta {
            return Ok(Found::Other);
        }
        scanner.content(&mut below)?;
    }
    Ok(if below == *entry { Found::Same } else { Found::Other })
}

/// Whether a program has given the directory at `path` beneath `now` another time than it has beneath `before`. Making and
/// removing names in a directory changes both its times to the same moment; setting a time does not.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn has_set_time(now: BorrowedFd<'_>, before: BorrowedFd<'_>, path: &TreePath) -> Result<bool, TreeError> {
    let stat = |root| look(root, path).map_err(TreeError::io("stat", path));
    let (Some((_, now)), Some((_, before))) = (stat(now)?, stat(before)?) else { return Ok(false) };
    let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec.cast_signed());
    Ok(modified(&now) != modified(&before) && modified(&now) != changed(&now))
}

/// What is at `path`, with the directory that it is in.
fn look(root: BorrowedFd<'_>, path: &TreePath) -> Result<Option<(std::os::fd::OwnedFd, Stat)>, Errno> {
    let found = match path.parent() {
        // The root has no name in any directory.
        None => return Err(Errno::INVAL),
        Some(parent) => open_plain_raw(root, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .and_then(|parent| {
                let stat = fs::statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((parent, stat))
            }),
    };
    match found {
        Ok(found) => Ok(Some(found)),
        // A parent may be a file or a link there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
