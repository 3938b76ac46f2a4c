//! The parallel walk of a context, level by level.

use std::os::fd::{AsFd, BorrowedFd};

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Stamp, live};
use crate::entry::{ContentDigest, Entry, Kind, Meta};
use crate::error::TreeError;
use crate::ignore::{DirState, Patterns};
use crate::inroot::open_plain_raw;
use crate::path::TreePath;
use crate::scan::{mtime, read_names, size};
use crate::tree::Tree;

/// So many names one thread looks at by itself, in however many directories they are: starting the pool takes as long.
const FEW: usize = 500;
/// So many directories are listed in one go.
const PIECE: usize = 4;

/// A directory to be listed.
struct Below {
    path: TreePath,
    state: DirState,
    /// Which of the listings is that of the directory.
    number: usize,
}

/// A name in a directory.
struct Item {
    entry: Entry,
    stamp: Stamp,
    /// What is below it, for a directory.
    below: Option<DirState>,
    /// The listing of what is below it, once it has a number.
    listing: Option<usize>,
    /// A directory that is hidden itself, here only for what a negation may bring back.
    hidden: bool,
}

/// All directories that were listed, each sorted by name.
#[derive(Default)]
struct Listings {
    dirs: Vec<Vec<Item>>,
    /// How many names were looked at.
    names: usize,
}

/// A directory's own names.
#[derive(Default)]
struct Listed {
    items: Vec<Item>,
    names: usize,
}

impl Listings {
    /// Takes in the listing with this number, and adds the directories in it to those that are still to be listed.
    fn add(&mut self, number: usize, mut listed: Listed, next: &mut Vec<Below>) {
        for item in &mut listed.items {
            let Some(state) = item.below.take() else { continue };
            item.listing = Some(self.dirs.len());
            next.push(Below { path: item.entry.path.clone(), state, number: self.dirs.len() });
            self.dirs.push(Vec::new());
        }
        self.dirs[number] = listed.items;
        self.names += listed.names;
    }

    /// All of it in walk order, as it comes when each directory's names are followed by what is below them.
    fn in_order(mut self) -> (Vec<Entry>, Vec<Stamp>) {
        let count = self.dirs.iter().map(Vec::len).sum();
        let (mut entries, mut stamps) = (Vec::with_capacity(count), Vec::with_capacity(count));
        // The directories that are being followed, each with the place of its own entry if that is hidden.
        let mut open = vec![(std::mem::take(&mut self.dirs[0]).into_iter(), None)];
        while let Some((items, hidden)) = open.last_mut() {
            match items.next() {
                Some(item) => {
                    let hidden = item.hidden.then_some(entries.len());
                    entries.push(item.entry);
                    stamps.push(item.stamp);
                    if let Some(listing) = item.listing {
                        open.push((std::mem::take(&mut self.dirs[listing]).into_iter(), hidden));
                    }
                }
                None => {
                    // A hidden directory comes back when something in it did.
                    if hidden.is_some_and(|at| at + 1 == entries.len()) {
                        entries.pop();
                        stamps.pop();
                    }
                    open.pop();
                }
            }
        }
        (entries, stamps)
    }
}

/// Everything that `ignore` leaves, sorted, with its stat data.
pub(super) fn walk(root: BorrowedFd<'_>, ignore: &Patterns) -> Result<(Tree, Vec<Stamp>), TreeError> {
    let mut all = Listings { dirs: vec![Vec::new()], names: 0 };
    let mut next = vec![Below { path: TreePath::root(), state: ignore.root_state(), number: 0 }];
    while !next.is_empty() {
        let level = std::mem::take(&mut next);
        let mut rest = level.as_slice();
        while (all.names < FEW || rest.len() <= PIECE)
            && let [dir, others @ ..] = rest
        {
            all.add(dir.number, list(root, dir, ignore)?, &mut next);
            rest = others;
        }
        // Even nothing would start the pool.
        if !rest.is_empty() {
            let listed = rest.par_iter().with_min_len(PIECE).map(|dir| list(root, dir, ignore));
            let listed = listed.collect::<Result<Vec<_>, _>>()?;
            rest.iter().zip(listed).for_each(|(dir, listed)| all.add(dir.number, listed, &mut next));
        }
    }
    let (entries, stamps) = all.in_order();
    Ok((Tree::from_entries(entries)?, stamps))
}

fn list(root: BorrowedFd<'_>, dir: &Below, ignore: &Patterns) -> Result<Listed, TreeError> {
    let fd = match open_plain_raw(root, &dir.path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        // Gone since it was listed, or something else by now: it stays, with nothing in it.
        Err(error) if !dir.path.is_root() && live::is_gone(error) => return Ok(Listed::default()),
        other => other.map_err(TreeError::io("open", &dir.path))?,
    };
    let names = read_names(fd.as_fd()).map_err(TreeError::io("list", &dir.path))?;
    let mut listed = Listed { items: Vec::with_capacity(names.len()), names: names.len() };
    for (name, _) in names {
        let path = dir.path.join_name(&name);
        let (verdict, state) = ignore.child(&dir.state, &path);
        let verdict = ignore.settled(verdict)?;
        let stat = match fs::statat(&fd, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since it was listed: editors and compilers do that.
            Err(Errno::NOENT) => continue,
            other => other.map_err(TreeError::io("stat", &path))?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if verdict.excluded && !(is_dir && ignore.may_return_below(&path)) {
            continue;
        }
        let Some(kind) = kind(fd.as_fd(), &path, &stat)? else { continue };
        let link = matches!(kind, Kind::Symlink { .. });
        let mode = if link { 0o777 } else { stat.st_mode & 0o7777 };
        let meta = Meta { mode, uid: 0, gid: 0, mtime: mtime(&stat), xattrs: Vec::new() };
        let (entry, stamp) = (Entry { path, kind, meta }, Stamp::of(&stat));
        let below = is_dir.then_some(state);
        listed.items.push(Item { entry, stamp, below, listing: None, hidden: verdict.excluded });
    }
    listed.items.sort_unstable_by(|a, b| a.entry.path.name().cmp(b.entry.path.name()));
    Ok(listed)
}

fn kind(dir: BorrowedFd<'_>, path: &TreePath, stat: &Stat) -> Result<Option<Kind>, TreeError> {
    let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let content = ContentDigest([0; 32]);
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size: size(stat), content },
        FileType::Socket => Kind::File { size: 0, content },
        FileType::Directory => Kind::Dir { opaque: false },
        FileType::Symlink => match fs::readlinkat(dir, path.name(), Vec::new()) {
            // Gone, or something else by now.
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            text => {
                Kind::Symlink { target: text.map_err(TreeError::io("read link", path))?.into_bytes().into() }
            }
        },
        FileType::CharacterDevice => Kind::CharDev { major, minor },
        FileType::BlockDevice => Kind::BlockDev { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Unknown => return Ok(None),
    }))
}
