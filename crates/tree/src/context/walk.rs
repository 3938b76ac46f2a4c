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
}

#[derive(Default)]
struct Listed {
    found: Vec<(Entry, Stamp)>,
    below: Vec<Below>,
    /// Hidden themselves, here only for what a negation may bring back.
    hidden_dirs: Vec<(Entry, Stamp)>,
    /// How many names were looked at.
    names: usize,
}

impl Listed {
    fn add(&mut self, mut dir: Listed) {
        self.found.append(&mut dir.found);
        self.below.append(&mut dir.below);
        self.hidden_dirs.append(&mut dir.hidden_dirs);
        self.names += dir.names;
    }
}

/// Everything that `ignore` leaves, sorted, with its stat data.
pub(super) fn walk(root: BorrowedFd<'_>, ignore: &Patterns) -> Result<(Tree, Vec<Stamp>), TreeError> {
    let mut all = Listed::default();
    all.below.push(Below { path: TreePath::root(), state: ignore.root_state() });
    while !all.below.is_empty() {
        let level = std::mem::take(&mut all.below);
        let mut rest = level.as_slice();
        while (all.names < FEW || rest.len() <= PIECE)
            && let [dir, others @ ..] = rest
        {
            all.add(list(root, dir, ignore)?);
            rest = others;
        }
        // Even nothing would start the pool.
        if !rest.is_empty() {
            let listed = rest.par_iter().with_min_len(PIECE).map(|dir| list(root, dir, ignore));
            listed.collect::<Result<Vec<_>, _>>()?.into_iter().for_each(|dir| all.add(dir));
        }
    }
    let Listed { mut found, hidden_dirs, .. } = all;
    if found.len() < 1000 {
        found.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    } else {
        found.par_sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    }
    // A hidden directory comes back when something in it did; deepest first, as each brings back the one above.
    for (dir, stamp) in hidden_dirs.into_iter().rev() {
        let at = found.partition_point(|(e, _)| e.path < dir.path);
        if found.get(at).is_some_and(|(e, _)| e.path.starts_with(&dir.path)) {
            found.insert(at, (dir, stamp));
        }
    }
    let (entries, stamps): (Vec<Entry>, Vec<Stamp>) = found.into_iter().unzip();
    Ok((Tree::from_entries(entries)?, stamps))
}

fn list(root: BorrowedFd<'_>, dir: &Below, ignore: &Patterns) -> Result<Listed, TreeError> {
    let fd = match open_plain_raw(root, &dir.path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        // Gone since it was listed, or something else by now: it stays, with nothing in it.
        Err(error) if !dir.path.is_root() && live::is_gone(error) => return Ok(Listed::default()),
        other => other.map_err(TreeError::io("open", &dir.path))?,
    };
    let names = read_names(fd.as_fd()).map_err(TreeError::io("list", &dir.path))?;
    let found = Vec::with_capacity(names.len());
    let mut listed = Listed { found, names: names.len(), ..Listed::default() };
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
        if is_dir {
            listed.below.push(Below { path: path.clone(), state });
        }
        let entry = (Entry { path, kind, meta }, stamp(&stat));
        if verdict.excluded { listed.hidden_dirs.push(entry) } else { listed.found.push(entry) }
    }
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

pub(super) fn stamp(stat: &Stat) -> Stamp {
    let ctime = stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec.cast_signed());
    let (dev, ino) = (stat.st_dev, stat.st_ino);
    // Its type differs between machines.
    let links = u64::from(stat.st_nlink > 1) + 1;
    Stamp { size: size(stat), mode: stat.st_mode, dev, ino, links, mtime: mtime(stat), ctime }
}
