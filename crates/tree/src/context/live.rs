//! Reading files that somebody may be writing.
//!
//! A read counts if the file's size, times and identity are the same before and after it. After a few reads that do
//! not, the bytes are taken up to the size that the file had when it was opened.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Content, Stamp};
use crate::entry::{ContentDigest, Entry, Kind, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::path::TreePath;
use crate::scan::hash;
use crate::select::Picked;
use crate::tree::Tree;

/// So often a file is read before what one read gave is taken as it is.
pub(crate) const READS: u32 = 3;

/// How files are opened here: a FIFO in the place of a file keeps nobody waiting.
pub(crate) const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Entries with what is known of each.
#[derive(Debug)]
pub(super) struct State {
    /// Digests of files in here mean nothing: they are in `contents`.
    pub(super) tree: Tree,
    pub(super) stamps: Vec<Stamp>,
    pub(super) contents: Vec<OnceLock<Content>>,
}

/// What was found of a file when it was read, where that is not what was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reread {
    /// The file.
    pub path: TreePath,
    /// What it is; `None` for what is no file any more.
    pub(crate) now: Option<Taken>,
}

/// A file as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) stamp: Stamp,
    pub(crate) content: Content,
}

impl Taken {
    /// `entry` as the file was found.
    pub(crate) fn entry(&self, entry: &Picked) -> Picked {
        let mut now = entry.clone();
        now.kind = Kind::File { size: self.stamp.size, content: self.content.digest };
        now.meta.mode = self.stamp.mode & 0o7777;
        now.meta.mtime = self.stamp.mtime;
        now.meta.xattrs.clone_from(&self.content.xattrs);
        now
    }
}

/// What came of reading a file.
pub(super) enum Read {
    AsBefore(Content),
    Otherwise(Reread),
}

impl State {
    pub(super) fn is_known(&self, entry: &Picked) -> bool {
        let known = |at: usize| self.contents[at].get().is_some();
        !matches!(entry.kind, Kind::File { .. }) || self.tree.index_of(&entry.source).is_ok_and(known)
    }

    /// The same with what was found of some files.
    pub(super) fn with(&self, changes: &[Reread]) -> Result<State, TreeError> {
        let changes: BTreeMap<&TreePath, Option<&Taken>> =
            changes.iter().map(|change| (&change.path, change.now.as_ref())).collect();
        let mut entries: Vec<Entry> = Vec::with_capacity(self.stamps.len());
        let (mut stamps, mut contents) = (Vec::new(), Vec::new());
        for ((entry, stamp), content) in self.tree.entries().iter().zip(&self.stamps).zip(&self.contents) {
            match changes.get(&entry.path) {
                Some(None) => continue,
                Some(Some(taken)) => {
                    let mut entry = entry.clone();
                    entry.kind = Kind::File { size: taken.stamp.size, content: ContentDigest([0; 32]) };
                    entry.meta.mode = taken.stamp.mode & 0o7777;
                    entry.meta.mtime = taken.stamp.mtime;
                    entries.push(entry);
                    stamps.push(taken.stamp);
                    contents.push(OnceLock::from(taken.content.clone()));
                }
                None => {
                    entries.push(entry.clone());
                    stamps.push(*stamp);
                    contents.push(content.clone());
                }
            }
        }
        Ok(State { tree: Tree::from_entries(entries)?, stamps, contents })
    }
}

/// Whether an error of opening says that there is no such file any more.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::STALE)
}

/// What the kernel says of an open file; `None` for what is none.
pub(crate) fn stamp_of(file: BorrowedFd<'_>) -> Result<Option<Stamp>, Errno> {
    let stat = fs::fstat(file)?;
    Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| Stamp::of(&stat)))
}

/// Attributes of a file that are copied with it.
pub(crate) fn xattrs_of(file: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    hash::read_xattrs(file, |name, _| xattr_counts(name))
}

/// Reads a file that was `stamp` when it was listed.
pub(super) fn read(root: BorrowedFd<'_>, path: &TreePath, stamp: &Stamp) -> Result<Read, TreeError> {
    if FileType::from_raw_mode(stamp.mode) == FileType::Socket {
        return Ok(Read::AsBefore(Content { digest: ContentDigest::of(b""), xattrs: Vec::new() }));
    }
    let gone = || Ok(Read::Otherwise(Reread { path: path.clone(), now: None }));
    let open = || open_plain_raw(root, path, FLAGS, Mode::empty());
    let mut expected = *stamp;
    let mut left = READS;
    loop {
        let file = match open() {
            Err(error) if is_gone(error) => return gone(),
            other => other.map_err(TreeError::io("open", path))?,
        };
        if expected != *stamp {
            // Not the first time: what it is now is what counts.
            let Some(now) = stamp_of(file.as_fd()).map_err(TreeError::io("stat", path))? else {
                return gone();
            };
            expected = now;
        }
        let found = content_of(&file, expected.size, path);
        let Some(after) = stamp_of(file.as_fd()).map_err(TreeError::io("stat", path))? else { return gone() };
        let (content, size) = found?;
        left -= 1;
        let whole = after == expected && size == expected.size;
        if whole && after == *stamp {
            return Ok(Read::AsBefore(content));
        }
        if whole || left == 0 {
            let stamp = Stamp { size, ..expected };
            return Ok(Read::Otherwise(Reread { path: path.clone(), now: Some(Taken { stamp, content }) }));
        }
        expected = after;
    }
}

/// The first `limit` bytes of a file, and how many there were.
fn content_of(file: &OwnedFd, limit: u64, path: &TreePath) -> Result<(Content, u64), TreeError> {
    let (size, digest) = hash::hash_first(file, limit).map_err(TreeError::io("read", path))?;
    let xattrs = xattrs_of(file.as_fd()).map_err(TreeError::io("read attributes of", path))?;
    Ok((Content { digest, xattrs }, size))
}
