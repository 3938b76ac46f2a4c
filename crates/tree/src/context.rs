//! A build context read in place, through a stat index as git has one.
//!
//! Loading lists and stats everything that the ignore patterns leave; only files that a selector asks for are
//! opened and hashed, and only when their stat data differ from the last time or cannot be trusted. Owners do not
//! count: everything in a context belongs to 0:0. A socket is an empty file.
//!
//! An index entry is trusted when size, mode, device, inode, mtime and ctime are the same *and* both times are
//! older than the moment the previous load began: a change after that moment gives a later time, so it is seen; a
//! file that was touched within that very tick is hashed again.

mod index;
mod walk;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::entry::{ContentDigest, Kind, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::ignore::Patterns;
use crate::inroot::open_plain_raw;
use crate::path::TreePath;
use crate::scan::hash;
use crate::select::{Picked, Selection, Selector};
use crate::tree::Tree;

/// So many files one thread looks at by itself.
const FEW: usize = 256;

/// What the kernel says about a file: if it is the same, so is the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// 1, or 2 for a file with several names.
    pub(crate) links: u64,
    pub(crate) mtime: i64,
    pub(crate) ctime: i64,
}

/// What has to be read to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: ContentDigest,
    pub(crate) xattrs: Vec<Xattr>,
}

/// A context as it was when it was loaded.
#[derive(Debug)]
pub struct ContextIndex {
    /// Digests of files in here mean nothing: they are in `contents`.
    tree: Tree,
    stamps: Vec<Stamp>,
    contents: Vec<OnceLock<Content>>,
    ignore: Patterns,
    started: i64,
    dirty: AtomicBool,
    hashed: AtomicU64,
}

/// What tells that a file is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its size, times and identity, on file systems that keep them well.
    Times,
    /// Only its bytes.
    Nothing,
}

/// Whether the file system has change times of its own that are finer than a second, and that nobody else sets. Those of
/// other machines and of other systems do not count: whatever they say, files are read.
fn has_good_times(root: BorrowedFd<'_>) -> bool {
    /// FUSE (and virtiofs), NFS, SMB 1 and 2, 9p, FAT, exFAT, HFS+ and NTFS.
    const DOUBTFUL: [i64; 10] = [
        0x6573_5546,
        0x6969,
        0xff53_4d42,
        0xfe53_4d42,
        0x517b,
        0x0102_1997,
        0x4d44,
        0x2011_bab0,
        0x482b,
        0x5346_544e,
    ];
    rustix::fs::fstatfs(root).is_ok_and(|found| !DOUBTFUL.contains(&found.f_type))
}

/// The clock of file times: nanoseconds since the epoch, as coarse as file systems take it.
#[must_use]
pub fn file_clock() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

impl ContextIndex {
    /// Walks the context and takes digests over from the index file, which may be missing or useless. `started` is
    /// [`file_clock`] before the call.
    ///
    /// # Errors
    /// [`TreeError::Io`] naming the path that could not be listed.
    pub fn load(
        root: BorrowedFd<'_>,
        index_file: &Path,
        ignore: &Patterns,
        started: i64,
        trust: Trust,
    ) -> Result<Self, TreeError> {
        let (tree, stamps) = walk::walk(root, ignore)?;
        let mut contents = Vec::new();
        contents.resize_with(stamps.len(), OnceLock::new);
        let previous = match trust {
            Trust::Times if has_good_times(root) => std::fs::read(index_file).unwrap_or_default(),
            _ => Vec::new(),
        };
        // A damaged or older index is no index: everything is hashed again.
        let known = index::decode(&previous).unwrap_or_default();
        let mut known = known.into_iter().peekable();
        let device = rustix::fs::fstat(root).ok().map(|stat| stat.st_dev);
        for ((entry, stamp), content) in tree.entries().iter().zip(&stamps).zip(&contents) {
            while known.next_if(|k| k.path < entry.path).is_some() {}
            // What is mounted in the context from elsewhere has times of its own.
            if let Some(found) = known.next_if(|k| k.path == entry.path)
                && found.stamp == *stamp
                && device.is_none_or(|device| device == stamp.dev)
            {
                drop(content.set(found.content));
            }
        }
        let ignore = ignore.clone();
        Ok(Self { tree, stamps, contents, ignore, started, dirty: false.into(), hashed: 0.into() })
    }

    /// All entries; digests of files are not filled in.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// How many files had to be hashed since loading.
    #[must_use]
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Resolves a selector, and hashes what it names and is not known. `root` is the context's directory again.
    ///
    /// # Errors
    /// As [`Tree::select`], where [`TreeError::NotFound`] names the ignore pattern if one hides the path; or
    /// [`TreeError::Io`], [`TreeError::Changed`] from hashing.
    pub fn select(&self, root: BorrowedFd<'_>, selector: &Selector) -> Result<Selection, TreeError> {
        let mut selection = self.tree.select(selector).map_err(|e| self.explain(e))?;
        let mut picked: Vec<_> = selection.roots.iter_mut().flat_map(|r| &mut r.entries).collect();
        // Starting the pool of threads takes longer than looking these up.
        if picked.len() <= FEW && picked.iter().all(|entry| self.is_known(entry)) {
            picked.iter_mut().try_for_each(|entry| self.fill(root, entry))?;
        } else {
            picked.into_par_iter().with_min_len(64).try_for_each(|entry| self.fill(root, entry))?;
        }
        Ok(selection)
    }

    fn is_known(&self, entry: &Picked) -> bool {
        let known = |at: usize| self.contents[at].get().is_some();
        !matches!(entry.kind, Kind::File { .. }) || self.tree.index_of(&entry.source).is_ok_and(known)
    }

    /// Fills in what a selected file holds, reading it if that is not known.
    fn fill(&self, root: BorrowedFd<'_>, entry: &mut Picked) -> Result<(), TreeError> {
        let Kind::File { content, .. } = &mut entry.kind else { return Ok(()) };
        let Ok(at) = self.tree.index_of(&entry.source) else { return Ok(()) };
        let known = match self.contents[at].get() {
            Some(known) => known,
            None => {
                let read = self.read(root, &entry.source, &self.stamps[at])?;
                self.contents[at].get_or_init(|| read)
            }
        };
        *content = known.digest;
        entry.linked = self.stamps[at].links > 1;
        entry.meta.xattrs.clone_from(&known.xattrs);
        Ok(())
    }

    fn read(&self, root: BorrowedFd<'_>, path: &TreePath, stamp: &Stamp) -> Result<Content, TreeError> {
        self.dirty.store(true, Ordering::Relaxed);
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match open_plain_raw(root, path, flags, Mode::empty()) {
            Err(Errno::NXIO) => return Ok(Content { digest: ContentDigest::of(b""), xattrs: Vec::new() }),
            other => other.map_err(TreeError::io("open", path))?,
        };
        let (read, digest) = hash::hash_file(&fd, stamp.size).map_err(TreeError::io("read", path))?;
        if read != stamp.size {
            return Err(TreeError::Changed { path: path.clone() });
        }
        let xattrs = hash::read_xattrs(std::os::fd::AsFd::as_fd(&fd), |name, _| xattr_counts(name));
        let xattrs = xattrs.map_err(TreeError::io("read attributes of", path))?;
        Ok(Content { digest, xattrs })
    }

    /// Adds the ignore pattern to "not found".
    fn explain(&self, error: TreeError) -> TreeError {
        let TreeError::NotFound { path, hidden_by, nearest } = error else { return error };
        let verdict = TreePath::clean(path.as_bytes()).map(|p| self.ignore.excluded(&p)).unwrap_or_default();
        let rule = verdict.rule.filter(|_| verdict.excluded).and_then(|rule| self.ignore.rule(rule));
        let hidden_by = hidden_by.or(rule.map(|(text, line)| (text.to_owned(), line)));
        TreeError::NotFound { path, hidden_by, nearest }
    }

    /// Writes the index for the next time, by renaming a finished file over the old one; does nothing when nothing
    /// was hashed.
    ///
    /// # Errors
    /// [`TreeError::Stream`] when the file cannot be written.
    pub fn save(&self, index_file: &Path) -> Result<(), TreeError> {
        if !self.dirty.load(Ordering::Relaxed) {
            return Ok(());
        }
        let entries = self.tree.entries().iter().zip(&self.stamps).zip(&self.contents);
        let trusted = entries.filter_map(|((entry, stamp), content)| {
            let settled = stamp.mtime < self.started && stamp.ctime < self.started;
            let content = content.get().filter(|_| settled)?;
            Some((&entry.path, stamp, content))
        });
        let bytes = index::encode(trusted);
        let unique = format!("{}.tmp", std::process::id());
        let temporary = index_file.with_extension(unique);
        let written =
            std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, index_file));
        if written.is_err() {
            // Nobody else would remove it; and where there is no room, it takes some.
            std::fs::remove_file(&temporary).unwrap_or_default();
        }
        written.map_err(TreeError::stream("write the stat index"))
    }
}

#[cfg(test)]
mod tests;
