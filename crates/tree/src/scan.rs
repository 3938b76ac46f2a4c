//! From a directory to its [`Tree`]: a parallel walk relative to descriptors that never follows a link.
//!
//! Nobody may write the directory meanwhile: a file that changes while it is read is an error, not a wrong digest.
//! Sockets are skipped, as tar has no way to say them.

pub(crate) mod changes;
mod compare;
mod dir;
pub(crate) mod hash;
mod verify;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use rayon::prelude::*;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};

pub use compare::{Found, compare, has_set_time};
pub(crate) use dir::read_names;
pub use verify::first_damage;

use crate::entry::{ContentDigest, Entry, Kind, Meta, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::length::{MAX_PATH, check_length};
use crate::owner::Recorded;
use crate::path::TreePath;
use crate::tree::{Inode, Tree, join_links};

/// How marks of overlayfs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanMode {
    /// They are not: a device 0:0 is a device.
    #[default]
    Plain,
    /// An upper directory: devices 0:0 are whiteouts, `user.overlay.opaque` and `trusted.overlay.opaque` count.
    OverlayUpper,
}

/// Owner and mode that a path has in truth where the disk cannot hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits; `None` leaves those of the disk.
    pub mode: Option<u32>,
}

/// What there is below a directory, from whoever wrote it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The directory.
    pub dir: TreePath,
    /// Everything below it, in walk order.
    pub entries: Vec<Entry>,
}

/// A file whose content is known, from whoever wrote the file last.
#[derive(Clone, Debug)]
pub struct KnownContent {
    /// The file.
    pub path: TreePath,
    /// The digest of its content.
    pub digest: ContentDigest,
    /// The file as it was right after it was written.
    stamp: Stamp,
}

/// Tells one state of a file from another: no program can set the time of the last change of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mtime: i64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Stamp {
        Stamp { inode: stat.st_ino, size: size(stat), mtime: mtime(stat), changed: changed(stat) }
    }
}

impl KnownContent {
    /// The file at `path`, which `stat` is of.
    pub(crate) fn new(path: TreePath, digest: ContentDigest, stat: &Stat) -> KnownContent {
        KnownContent { path, digest, stamp: Stamp::of(stat) }
    }

    /// The digest, if the file at `path` is as it was.
    fn digest_of(&self, path: &TreePath, stat: &Stat) -> Option<ContentDigest> {
        (self.path == *path && self.stamp == Stamp::of(stat)).then_some(self.digest)
    }
}

/// What a scan does beyond listing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanOptions<'a> {
    /// How marks of overlayfs are read.
    pub mode: ScanMode,
    /// The root directory gets an entry of its own.
    pub with_root: bool,
    /// Recorded ownership that wins over the disk's.
    pub owners: Option<&'a BTreeMap<TreePath, Ownership>>,
    /// Every other entry has this owner, unless an attribute says otherwise (where one id is mapped, everything on disk
    /// belongs to it).
    pub owner_default: Option<(u32, u32)>,
    /// A directory whose content is not looked at, as it is known.
    pub known: Option<&'a TreePath>,
    /// A file that is not read again.
    pub known_content: Option<&'a KnownContent>,
}

/// Scans the directory behind `root`.
///
/// # Errors
/// [`TreeError::Io`] naming the path, [`TreeError::Changed`] when somebody writes meanwhile,
/// [`TreeError::Overlay`] for marks of overlayfs
/// that a layer cannot express.
pub fn scan(root: BorrowedFd<'_>, options: &ScanOptions<'_>) -> Result<Tree, TreeError> {
    let scanner = Scanner { root, options };
    let found = scanner.walk()?;
    let mut entries = join_links(found);
    let hashed: Result<Vec<()>, TreeError> =
        entries.par_iter_mut().with_min_len(16).map(|entry| scanner.content(entry)).collect();
    hashed?;
    copy_link_metadata(&mut entries);
    Tree::from_entries(entries)
}

/// Attributes are read with the content, after links were joined: the links get theirs here.
fn copy_link_metadata(entries: &mut [Entry]) {
    for i in 0..entries.len() {
        let (before, rest) = entries.split_at_mut(i);
        if let Kind::Hardlink { to } = &rest[0].kind
            && let Ok(file) = before.binary_search_by(|e| e.path.cmp(to))
        {
            rest[0].meta.clone_from(&before[file].meta);
        }
    }
}

type Listing = (Entry, Option<Inode>);

/// One directory's own entry and what lies directly in it.
struct Listed {
    found: Vec<Listing>,
    below: Vec<TreePath>,
}

struct Scanner<'a> {
    root: BorrowedFd<'a>,
    options: &'a ScanOptions<'a>,
}

impl Scanner<'_> {
    /// Level by level, each level in parallel: no recursion and no descriptor held, however deep the tree is.
    fn walk(&self) -> Result<Vec<Listing>, TreeError> {
        let mut level = vec![TreePath::root()];
        let mut found = Vec::new();
        while !level.is_empty() {
            let listed: Vec<Listed> =
                level.par_iter().with_min_len(4).map(|at| self.directory(at)).collect::<Result<_, _>>()?;
            level.clear();
            for mut dir in listed {
                found.append(&mut dir.found);
                level.append(&mut dir.below);
            }
        }
        Ok(found)
    }

    fn directory(&self, path: &TreePath) -> Result<Listed, TreeError> {
        let fd = open_plain_raw(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        let dir = fd.as_fd();
        let known = self.options.known == Some(path);
        let names = if known { Vec::new() } else { read_names(dir).map_err(TreeError::io("list", path))? };
        let mut listed = Listed { found: Vec::with_capacity(names.len() + 1), below: Vec::new() };
        if !path.is_root() || self.options.with_root {
            let stat = fs::fstat(dir).map_err(TreeError::io("stat", path))?;
            listed.found.push((self.dir_entry(dir, path.clone(), &stat)?, None));
        }
        for (name, _) in names {
            let at = path.join_name(&name);
            // No layer may say more, and nobody could read it back.
            check_length(at.as_bytes(), "its path", at.as_bytes(), MAX_PATH)?;
            let stat =
                fs::statat(dir, &*name, fs::AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::io("stat", &at))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                listed.below.push(at);
            } else if let Some(entry) = self.leaf(dir, at, &stat)? {
                let linked = stat.st_nlink > 1 && matches!(entry.kind, Kind::File { .. });
                listed.found.push((entry, linked.then_some((stat.st_dev, stat.st_ino))));
            }
        }
        Ok(listed)
    }

    fn dir_entry(&self, fd: BorrowedFd<'_>, at: TreePath, stat: &Stat) -> Result<Entry, TreeError> {
        let mut opaque = false;
        let mut unsupported = None;
        let mut recorded = Recorded::default();
        let xattrs = hash::read_xattrs(fd, |name, value| {
            recorded.take(name, value);
            if self.options.mode == ScanMode::OverlayUpper {
                match name {
                    b"user.overlay.opaque" | b"trusted.overlay.opaque" => opaque = value == b"y",
                    b"user.overlay.redirect" | b"trusted.overlay.redirect" => unsupported = Some("redirect"),
                    _ => {}
                }
            }
            xattr_counts(name)
        })
        .map_err(TreeError::io("read attributes of", &at))?;
        if let Some(feature) = unsupported {
            return Err(TreeError::Overlay { path: at, feature });
        }
        let mut meta = self.meta(&at, stat, xattrs);
        self.own(&at, &recorded, &mut meta);
        Ok(Entry { path: at, kind: Kind::Dir { opaque }, meta })
    }

    /// An entry that is no directory; `None` for what no layer can hold.
    fn leaf(&self, dir: BorrowedFd<'_>, at: TreePath, stat: &Stat) -> Result<Option<Entry>, TreeError> {
        let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File { size: size(stat), content: ContentDigest([0; 32]) },
            FileType::Symlink => {
                let text =
                    fs::readlinkat(dir, at.name(), Vec::new()).map_err(TreeError::io("read link", &at))?;
                Kind::Symlink { target: text.into_bytes().into() }
            }
            FileType::CharacterDevice if self.options.mode == ScanMode::OverlayUpper && stat.st_rdev == 0 => {
                return Ok(Some(Entry::whiteout(at)));
            }
            FileType::CharacterDevice => Kind::CharDev { major, minor },
            FileType::BlockDevice => Kind::BlockDev { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        let mut meta = self.meta(&at, stat, Vec::new());
        if matches!(kind, Kind::Symlink { .. }) {
            meta.mode = 0o777;
        }
        Ok(Some(Entry { path: at, kind, meta }))
    }

    fn meta(&self, at: &TreePath, stat: &Stat, xattrs: Vec<Xattr>) -> Meta {
        let (uid, gid) = self.options.owner_default.unwrap_or((stat.st_uid, stat.st_gid));
        let mut meta = Meta { mode: stat.st_mode & 0o7777, uid, gid, mtime: mtime(stat), xattrs };
        if let Some(owner) = self.options.owners.and_then(|owners| owners.get(at)) {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
            meta.mode = owner.mode.unwrap_or(meta.mode);
        }
        meta
    }

    /// Where one id is mapped, attributes say whose it is; what the caller knows goes before them.
    fn own(&self, at: &TreePath, recorded: &Recorded, meta: &mut Meta) {
        let Some(default) = self.options.owner_default else { return };
        if self.options.owners.is_none_or(|owners| !owners.contains_key(at)) {
            (meta.uid, meta.gid) = recorded.owner.unwrap_or(default);
        }
    }

    /// Fills in what needs the file to be open: digest and attributes.
    fn content(&self, entry: &mut Entry) -> Result<(), TreeError> {
        let Kind::File { size, content } = &mut entry.kind else { return Ok(()) };
        let fd = open_plain_raw(self.root, &entry.path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
            .map_err(TreeError::io("open", &entry.path))?;
        let mut metacopy = false;
        let mut recorded = Recorded::default();
        let xattrs = hash::read_xattrs(fd.as_fd(), |name, value| {
            recorded.take(name, value);
            metacopy |= matches!(name, b"user.overlay.metacopy" | b"trusted.overlay.metacopy");
            xattr_counts(name)
        });
        entry.meta.xattrs = xattrs.map_err(TreeError::io("read attributes of", &entry.path))?;
        if metacopy && self.options.mode == ScanMode::OverlayUpper {
            return Err(TreeError::Overlay { path: entry.path.clone(), feature: "metacopy" });
        }
        let known = self.options.known_content.filter(|known| known.path == entry.path);
        let known = known.and_then(|known| known.digest_of(&entry.path, &fs::fstat(&fd).ok()?));
        let (read, digest) = match known {
            Some(digest) => (*size, digest),
            None => hash::hash_file(&fd, *size).map_err(TreeError::io("read", &entry.path))?,
        };
        if read != *size {
            return Err(TreeError::Changed { path: entry.path.clone() });
        }
        *content = digest;
        self.own(&entry.path, &recorded, &mut entry.meta);
        if let (0, Some(node), Some(_)) = (read, recorded.node, self.options.owner_default) {
            entry.kind = node;
        }
        Ok(())
    }
}

/// Length of a file; the kernel never reports a negative one.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Modification time in nanoseconds, saturating.
pub(crate) fn mtime(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec.cast_signed())
}

/// The time of the last change of an inode, seconds and nanoseconds.
pub(crate) fn changed(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, stat.st_ctime_nsec.cast_signed())
}

#[cfg(test)]
mod tests;
