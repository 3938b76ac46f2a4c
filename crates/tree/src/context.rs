//! A build context read in place, through a stat index as git has one.
//!
//! Loading lists and stats everything that the ignore patterns leave; only files that a selector asks for are
//! opened and hashed, and only when their stat data differ from the last time or cannot be trusted. Owners do not
//! count: everything in a context belongs to 0:0. A socket is an empty file.
//!
//! An index entry is trusted when size, mode, device, inode, mtime and ctime are the same *and* both times are
//! older than the moment the previous load began: a change after that moment gives a later time, so it is seen; a
//! file that was touched within that very tick is hashed again.
//!
//! The context may change during the build. Each file is taken as it is at one moment: what a read finds takes the
//! place of what the walk found ([`ContextIndex::apply`]), and a [`View`] keeps what one step goes by.

mod index;
pub(crate) mod live;
mod walk;

use std::cmp;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rayon::prelude::*;
use rustix::fs::Stat;

use crate::entry::{ContentDigest, Entry, Kind, Xattr};
use crate::error::TreeError;
use crate::ignore::Patterns;
use crate::path::{TreePath, walk_order};
use crate::scan::{mtime, size};
use crate::select::{Picked, Selection, Selector};
use crate::tree::Tree;
pub use live::Reread;
use live::State;

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

impl Stamp {
    /// What the kernel tells of a file.
    fn of(stat: &Stat) -> Self {
        let ctime =
            stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec.cast_signed());
        let (dev, ino) = (stat.st_dev, stat.st_ino);
        // Its type differs between machines.
        let links = u64::from(stat.st_nlink > 1) + 1;
        Self { size: size(stat), mode: stat.st_mode, dev, ino, links, mtime: mtime(stat), ctime }
    }
}

/// What has to be read to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: ContentDigest,
    pub(crate) xattrs: Vec<Xattr>,
}

/// A context as it is known.
#[derive(Debug)]
pub struct ContextIndex {
    state: RwLock<Arc<State>>,
    ignore: Patterns,
    started: i64,
    dirty: AtomicBool,
    hashed: AtomicU64,
    /// How often something else than before became known of it.
    moved: AtomicU64,
}

/// What was known of a context at one moment. Cheap to copy.
#[derive(Clone, Debug)]
pub struct View(Arc<State>);

impl View {
    /// All entries; digests of files are not filled in.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.0.tree
    }

    /// The same with what was found of some files since.
    ///
    /// # Errors
    /// [`TreeError::Duplicate`], which cannot be: no path comes in.
    pub fn with(&self, changes: &[Reread]) -> Result<View, TreeError> {
        Ok(View(Arc::new(self.0.with(changes)?)))
    }
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

/// Gives `take` what is known of each of the entries that has a record; both are in walk order.
fn take_over(mut records: index::Records<'_>, entries: &[Entry], mut take: impl FnMut(usize, index::Known)) {
    let mut at = 0;
    while let Ok(Some(known)) = records.next() {
        let place = loop {
            let Some(entry) = entries.get(at) else { return };
            match walk_order(entry.path.as_bytes(), records.path()) {
                cmp::Ordering::Less => at += 1,
                other => break other,
            }
        };
        if place == cmp::Ordering::Equal {
            take(at, known);
        }
    }
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
        let device = rustix::fs::fstat(root).ok().map(|stat| stat.st_dev);
        // A damaged or older index is no index: everything is hashed again.
        if let Ok(records) = index::Records::of(&previous) {
            take_over(records, tree.entries(), |at, known| {
                // What is mounted in the context from elsewhere has times of its own.
                if known.stamp == stamps[at] && device.is_none_or(|device| device == known.stamp.dev) {
                    drop(contents[at].set(known.content));
                }
            });
        }
        let ignore = ignore.clone();
        let state = RwLock::new(Arc::new(State { tree, stamps, contents }));
        Ok(Self { state, ignore, started, dirty: false.into(), hashed: 0.into(), moved: 0.into() })
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        View(self.state.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether something else than what the walk found has become known: then two views may differ.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Acquire) > 0
    }

    /// Takes over what was found of some files when they were read.
    ///
    /// # Errors
    /// As [`View::with`].
    pub fn apply(&self, changes: &[Reread]) -> Result<(), TreeError> {
        if !changes.is_empty() {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            // Before the new state is seen: whoever sees it has to know.
            self.moved.fetch_add(1, Ordering::AcqRel);
            *state = Arc::new(state.with(changes)?);
        }
        Ok(())
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
    /// [`TreeError::Io`] from hashing.
    pub fn select(&self, root: BorrowedFd<'_>, selector: &Selector) -> Result<Selection, TreeError> {
        loop {
            match self.select_in(&self.view(), root, selector) {
                // What was found is known now, and a file that was read is not read again.
                Err(TreeError::Changed { .. }) => {}
                other => return other,
            }
        }
    }

    /// As [`Self::select`], by what was known at one moment.
    ///
    /// # Errors
    /// [`TreeError::Changed`] when the view does not hold any more: a later one has what was found instead.
    pub fn select_in(
        &self,
        view: &View,
        root: BorrowedFd<'_>,
        selector: &Selector,
    ) -> Result<Selection, TreeError> {
        let state = &*view.0;
        let mut selection = state.tree.select(selector).map_err(|e| self.explain(e))?;
        let mut picked: Vec<_> = selection.roots.iter_mut().flat_map(|r| &mut r.entries).collect();
        let first = picked.first().and_then(|first| state.tree.index_of(&first.source).ok()).unwrap_or(0);
        let fill = |(number, entry): (usize, &mut &mut Picked)| {
            self.fill(state, root, entry, first + number).transpose()
        };
        // Starting the pool of threads takes longer than looking these up.
        let changes: Result<Vec<Reread>, TreeError> =
            if picked.len() <= FEW && picked.iter().all(|entry| state.is_known(entry)) {
                picked.iter_mut().enumerate().filter_map(fill).collect()
            } else {
                picked.par_iter_mut().enumerate().with_min_len(64).filter_map(fill).collect()
            };
        let changes = changes?;
        self.apply(&changes)?;
        match changes.into_iter().next() {
            None => Ok(selection),
            Some(changed) => Err(TreeError::Changed { path: changed.path }),
        }
    }

    /// Fills in what a selected file holds, reading it if that is not known; or says what else was found. The file is
    /// number `expected` of the context, if all from the first one on were selected.
    fn fill(
        &self,
        state: &State,
        root: BorrowedFd<'_>,
        entry: &mut Picked,
        expected: usize,
    ) -> Result<Option<Reread>, TreeError> {
        let Kind::File { content, .. } = &mut entry.kind else { return Ok(None) };
        let there = state.tree.entries().get(expected).is_some_and(|there| there.path == entry.source);
        let found = if there { Ok(expected) } else { state.tree.index_of(&entry.source) };
        let Ok(at) = found else { return Ok(None) };
        let known = match state.contents[at].get() {
            Some(known) => known,
            None => {
                self.dirty.store(true, Ordering::Relaxed);
                self.hashed.fetch_add(1, Ordering::Relaxed);
                match live::read(root, &entry.source, &state.stamps[at])? {
                    live::Read::AsBefore(read) => state.contents[at].get_or_init(|| read),
                    live::Read::Otherwise(found) => return Ok(Some(found)),
                }
            }
        };
        *content = known.digest;
        entry.linked = state.stamps[at].links > 1;
        entry.meta.xattrs.clone_from(&known.xattrs);
        Ok(None)
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
        let state = self.view().0;
        let entries = state.tree.entries().iter().zip(&state.stamps).zip(&state.contents);
        let trusted = entries.filter_map(|((entry, stamp), content)| {
            let settled = stamp.mtime < self.started && stamp.ctime < self.started;
            let content = content.get().filter(|_| settled)?;
            Some((&entry.path, stamp, content))
        });
        let bytes = index::encode(trusted);
        let dir = index_file.parent().unwrap_or(Path::new(""));
        let written = lapstrake_sys::persist::replace(index_file, dir, &bytes);
        written.map_err(|error| TreeError::stream("write the stat index")(error))
    }
}

#[cfg(test)]
mod tests;
