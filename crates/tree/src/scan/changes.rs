//! What has changed in a directory since its files were noted, as a layer on what was there.
//!
//! The layer is the one that overlayfs would have made, with two differences: all names of a hard link change together,
//! and a renamed directory need not be copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, StatxFlags, XattrFlags};

use super::{Found, ScanOptions, Scanner, changed, compare, copy_link_metadata, has_set_time, read_names};
use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::length::{MAX_PATH, check_length};
use crate::path::TreePath;
use crate::tree::{Inode, Tree, join_links};

/// What tells an object from a later one of the same name, and that nobody has changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    /// Seconds and nanoseconds; no program can set it.
    changed: (i64, i64),
    /// When a directory was made, if the file system knows.
    born: Option<(i64, u32)>,
}

impl Stamp {
    /// The stamp of what `name` is in `dir`.
    pub(crate) fn of(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(Stamp, FileType), rustix::io::Errno> {
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok((Stamp::new(dir, name, &stat), kind))
    }

    fn new(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Stamp {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Stamp { inode: stat.st_ino, changed: changed(stat), born: is_dir.then(|| born(dir, name)).flatten() }
    }

    /// When it last changed.
    pub(crate) fn changed(&self) -> (i64, i64) {
        self.changed
    }

    /// Whether it is the same directory. Overlays without stable inode numbers have the time of birth all the same.
    fn is_directory(&self, now: &Stamp) -> bool {
        match (self.born, now.born) {
            (Some(then), Some(now)) => then == now,
            _ => self.inode == now.inode,
        }
    }
}

fn born(dir: BorrowedFd<'_>, name: &[u8]) -> Option<(i64, u32)> {
    let found = fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

/// One object as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) is_dir: bool,
    pub(crate) stamp: Stamp,
    /// Which of the directories that everything was copied from has it.
    pub(crate) origin: usize,
}

/// Everything that was in a directory.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// What was in each directory.
    pub(crate) dirs: HashMap<TreePath, BTreeMap<Box<[u8]>, Known>>,
    /// Where it was copied from, and still is.
    pub(crate) origins: Vec<OwnedFd>,
    /// A file of the same stamp is the same. Not so on file systems whose clocks are coarse.
    pub(crate) trusted: bool,
}

impl Before {
    /// Notes `entry` of a layer that `root` shows now, and whose files are in the directory of this number.
    pub(crate) fn note(
        &mut self,
        root: BorrowedFd<'_>,
        entry: &Entry,
        origin: usize,
    ) -> Result<(), TreeError> {
        let path = &entry.path;
        let parent = path.parent().unwrap_or_default();
        if entry.kind == Kind::Whiteout {
            if let Some(dir) = self.dirs.get_mut(&parent) {
                dir.remove(path.name());
            }
            return Ok(());
        }
        let dir = open_plain_raw(root, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &parent))?;
        let (stamp, _) = Stamp::of(dir.as_fd(), path.name()).map_err(TreeError::io("stat", path))?;
        let now = Known { is_dir: entry.is_dir(), stamp, origin };
        let known = self.dirs.entry(parent).or_default().insert(path.name().into(), now);
        let goes_on = known.is_some_and(|known| known.is_dir) && entry.kind == (Kind::Dir { opaque: false });
        if entry.is_dir() && !goes_on {
            // What was in a directory of this name is not in this one.
            self.dirs.insert(path.clone(), BTreeMap::new());
        }
        Ok(())
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing of this name was there, or something else.
    New,
    /// Its stamp is another one. It may still be what it was: that can be compared with the origin.
    Touched(usize),
    /// It is what it was, though its stamp is another one. A directory may have another time.
    Alike(usize),
    /// It is what it was.
    Same,
}

impl State {
    fn is_change(self) -> bool {
        !matches!(self, State::Same | State::Alike(_))
    }
}

/// What has changed in a directory.
#[derive(Debug)]
pub struct Changes {
    /// The layer that makes the directory of what it was.
    pub tree: Tree,
    /// Directories that are in no layer, and may have other times than their origins.
    pub(crate) alike: Vec<(TreePath, usize)>,
    /// Something is there that no layer can hold.
    pub(crate) has_more: bool,
}

/// One object as it is now.
struct Now {
    entry: Entry,
    /// Of what has several names.
    inode: Option<Inode>,
    /// The inode number that the name had before.
    was: Option<u64>,
    state: State,
}

/// A directory that is still to be looked at.
struct Next {
    path: TreePath,
    /// Everything in it counts as new.
    fresh: bool,
}

/// What one directory has.
#[derive(Default)]
struct Listed {
    found: Vec<Now>,
    gone: Vec<TreePath>,
    below: Vec<Next>,
    has_more: bool,
}

/// The layer that makes what is beneath `root` now of what was there before.
///
/// # Errors
/// As [`super::scan`].
pub(crate) fn changes(
    root: BorrowedFd<'_>,
    before: &Before,
    options: &ScanOptions<'_>,
) -> Result<Changes, TreeError> {
    let differ = Differ { scanner: Scanner { root, options }, before };
    let (mut found, gone, has_more) = differ.walk()?;
    found.par_iter_mut().try_for_each(|now| differ.judge(now))?;
    differ.join(&mut found)?;
    let mut entries = Vec::new();
    let (changed, others) = with_parents(found, &gone);
    for now in changed {
        entries.push((now.entry, now.inode));
    }
    let alike = others.into_iter().filter_map(|now| match now.state {
        State::Alike(origin) if now.entry.is_dir() => Some((now.entry.path, origin)),
        _ => None,
    });
    let alike = alike.collect();
    entries.extend(gone.into_iter().map(|path| (Entry::whiteout(path), None)));
    let mut entries = join_links(entries);
    copy_link_metadata(&mut entries);
    Ok(Changes { tree: Tree::from_entries(entries)?, alike, has_more })
}

/// What has changed, with the directories above it, and everything else.
fn with_parents(found: Vec<Now>, gone: &[TreePath]) -> (Vec<Now>, Vec<Now>) {
    let mut needed: BTreeSet<TreePath> = BTreeSet::new();
    let changed = found.iter().filter(|now| now.state.is_change()).map(|now| &now.entry.path);
    for path in changed.chain(gone) {
        for above in path.ancestors().skip(1) {
            if !needed.insert(above) {
                break;
            }
        }
    }
    found.into_iter().partition(|now| now.state.is_change() || needed.contains(&now.entry.path))
}

struct Differ<'a> {
    scanner: Scanner<'a>,
    before: &'a Before,
}

impl Differ<'_> {
    fn walk(&self) -> Result<(Vec<Now>, Vec<TreePath>, bool), TreeError> {
        let mut level = vec![Next { path: TreePath::root(), fresh: false }];
        let (mut found, mut gone, mut has_more) = (Vec::new(), Vec::new(), false);
        while !level.is_empty() {
            let listed: Vec<Listed> = level
                .par_iter()
                .with_min_len(4)
                .map(|next| self.directory(next))
                .collect::<Result<_, _>>()?;
            level.clear();
            for mut dir in listed {
                found.append(&mut dir.found);
                gone.append(&mut dir.gone);
                level.append(&mut dir.below);
                has_more |= dir.has_more;
            }
        }
        Ok((found, gone, has_more))
    }

    fn directory(&self, next: &Next) -> Result<Listed, TreeError> {
        let Next { path, fresh } = next;
        let fd = open_plain_raw(self.scanner.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        let nothing = BTreeMap::new();
        let before = self.before.dirs.get(path).filter(|_| !fresh).unwrap_or(&nothing);
        let mut left: BTreeSet<&[u8]> = before.keys().map(|name| &**name).collect();
        let mut listed = Listed::default();
        for (name, _) in read_names(fd.as_fd()).map_err(TreeError::io("list", path))? {
            let at = path.join_name(&name);
            check_length(at.as_bytes(), "its path", at.as_bytes(), MAX_PATH)?;
            let stat =
                fs::statat(&fd, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::io("stat", &at))?;
            let known = before.get(&name);
            let there = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.inner(fd.as_fd(), at, (&stat, known), &mut listed)?;
                    true
                }
                _ => self.leaf(fd.as_fd(), at, (&stat, known), &mut listed)?,
            };
            listed.has_more |= !there;
            if there {
                left.remove(&*name);
            }
        }
        listed.gone = left.into_iter().map(|name| path.join_name(name)).collect();
        Ok(listed)
    }

    /// A directory in a directory.
    fn inner(
        &self,
        parent: BorrowedFd<'_>,
        at: TreePath,
        (stat, known): (&Stat, Option<&Known>),
        listed: &mut Listed,
    ) -> Result<(), TreeError> {
        let stamp = Stamp::new(parent, at.name(), stat);
        let same = known.filter(|known| known.is_dir && known.stamp.is_directory(&stamp));
        listed.below.push(Next { path: at.clone(), fresh: same.is_none() });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, at.name(), flags, Mode::empty()).map_err(TreeError::io("open", &at))?;
        let mut entry = self.scanner.dir_entry(fd.as_fd(), at, stat)?;
        // It hides what it has replaced.
        entry.kind = Kind::Dir { opaque: same.is_none() && known.is_some() };
        let state = match same {
            None => State::New,
            Some(known) if self.is_untouched(known, &stamp) => State::Same,
            Some(known) => State::Touched(known.origin),
        };
        listed.found.push(Now { entry, inode: None, was: None, state });
        Ok(())
    }

    /// Whatever is no directory. False for what no layer can hold.
    fn leaf(
        &self,
        parent: BorrowedFd<'_>,
        at: TreePath,
        (stat, known): (&Stat, Option<&Known>),
        listed: &mut Listed,
    ) -> Result<bool, TreeError> {
        let stamp = Stamp::new(parent, at.name(), stat);
        let same = known.filter(|known| !known.is_dir);
        let state = match same {
            None => State::New,
            Some(known) if self.is_untouched(known, &stamp) => State::Same,
            Some(known) => State::Touched(known.origin),
        };
        if state == State::Same && stat.st_nlink == 1 {
            return Ok(true);
        }
        let Some(entry) = self.scanner.leaf(parent, at, stat)? else { return Ok(false) };
        if entry.kind == (Kind::CharDev { major: 0, minor: 0 }) {
            return Err(TreeError::Overlay { path: entry.path, feature: "a device 0:0" });
        }
        let linked = stat.st_nlink > 1 && matches!(entry.kind, Kind::File { .. });
        let inode = linked.then_some((stat.st_dev, stat.st_ino));
        listed.found.push(Now { entry, inode, was: same.map(|known| known.stamp.inode), state });
        Ok(true)
    }

    fn is_untouched(&self, known: &Known, now: &Stamp) -> bool {
        self.before.trusted && known.stamp == *now
    }

    /// Reads what may have changed, and finds out whether it has.
    fn judge(&self, now: &mut Now) -> Result<(), TreeError> {
        if now.state == State::Same {
            return Ok(());
        }
        self.scanner.content(&mut now.entry)?;
        // What the caller knows of owners is about what is there now.
        let below = ScanOptions { owners: None, ..*self.scanner.options };
        if let State::Touched(number) = &now.state
            && let Some(origin) = self.before.origins.get(*number)
            && compare(origin.as_fd(), &now.entry, &below)? == Found::Same
            && !(now.entry.is_dir() && has_set_time(self.scanner.root, origin.as_fd(), &now.entry.path)?)
        {
            now.state = State::Alike(*number);
        }
        Ok(())
    }

    /// If one name of a file is in the layer, all of them are: a link leads to the same layer. So it is where the names of
    /// a file are not those of one file of before.
    fn join(&self, found: &mut [Now]) -> Result<(), TreeError> {
        let mut names: HashMap<Inode, Vec<usize>> = HashMap::new();
        for (number, now) in found.iter().enumerate() {
            if let Some(inode) = now.inode {
                names.entry(inode).or_default().push(number);
            }
        }
        for numbers in names.values() {
            let first = found[numbers[0]].was;
            let one = numbers.iter().all(|number| found[*number].was == first);
            let same = numbers.iter().all(|number| !found[*number].state.is_change());
            if one && same {
                continue;
            }
            for number in numbers {
                let now = &mut found[*number];
                if !now.state.is_change() {
                    now.state = State::New;
                    self.scanner.content(&mut now.entry)?;
                }
            }
        }
        Ok(())
    }
}

/// Copies the attributes of an open file or directory, but for those of overlayfs and the kernel's own.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
    use rustix::io::Errno;
    let wanted = |name: &[u8]| {
        name == b"security.capability"
            || ![&b"security."[..], b"system.", b"trusted.overlay.", b"user.overlay."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    for xattr in super::hash::read_xattrs(from, |name, _| wanted(name))? {
        match fs::fsetxattr(to, &*xattr.name, &xattr.value, XattrFlags::empty()) {
            // What the layer's tree says of them counts.
            Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
            set => set?,
        }
    }
    Ok(())
}
