//! One archive on its way into a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::ExtractOptions;
use crate::copy::Copied;
use crate::entry::xattr_counts;
use crate::error::TreeError;
use crate::inroot::{NewDir, Root, make_dir, open_child, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::removal::remove_at;
use crate::scan::Ownership;
use crate::tar_read::TarEntry;

pub(super) struct Extractor<'a> {
    /// The destination. All other paths here are relative to it, free of links.
    dest: OwnedFd,
    /// Its own path in the tree.
    base: TreePath,
    options: &'a ExtractOptions,
    copied: Copied,
    last: Option<Parent>,
    /// Directories and their times, which come last.
    dirs: Vec<(TreePath, i64)>,
    /// Directories that something was put into.
    touched: BTreeSet<TreePath>,
    /// Device nodes that could not be made.
    skipped: BTreeSet<TreePath>,
    /// The paths of files with several names, by device and inode: owners are recorded by path.
    names: BTreeMap<(u64, u64), Vec<TreePath>>,
}

/// The directory of an entry.
struct Parent {
    /// As the archive names it.
    named: TreePath,
    path: TreePath,
    fd: OwnedFd,
}

/// Where an entry goes.
struct Spot<'d> {
    dir: BorrowedFd<'d>,
    name: &'d [u8],
    path: TreePath,
}

impl<'a> Extractor<'a> {
    /// Makes `dest` a directory of the tree at `root`, if it is none.
    pub(super) fn new(
        root: BorrowedFd<'a>,
        dest: &[u8],
        options: &'a ExtractOptions,
    ) -> Result<Self, TreeError> {
        let squash = options.limits.single_id;
        let (uid, gid) = options.chown.unwrap_or((0, 0));
        let new = NewDir { mode: 0o755, owner: (!squash).then_some((uid, gid)), mtime: options.mtime };
        let made = Root::from_fd(root).mkdir_p(dest, &new).map_err(|e| match e {
            TreeError::NotADirectory { path } => TreeError::CopyToNonDirectory { path },
            e => e,
        })?;
        let mut copied = Copied::default();
        if squash {
            let owner = Ownership { uid, gid, mode: None };
            copied.owners.extend(made.made.into_iter().map(|path| (path, owner)));
        }
        Ok(Self {
            dest: made.dir,
            base: made.path,
            options,
            copied,
            last: None,
            dirs: Vec::new(),
            touched: BTreeSet::new(),
            skipped: BTreeSet::new(),
            names: BTreeMap::new(),
        })
    }

    /// Unpacks one entry.
    pub(super) fn entry(&mut self, entry: &TarEntry, content: &mut impl Read) -> Result<(), TreeError> {
        let name = TreePath::clean(&entry.name)?;
        let Some(named) = name.parent() else { return self.top(entry) };
        let parent = match self.last.take() {
            Some(last) if last.named == named => last,
            _ => self.parent(named)?,
        };
        let path = parent.path.join_name(name.name());
        let spot = Spot { dir: parent.fd.as_fd(), name: name.name(), path };
        let replaced = match entry.kind {
            EntryType::Directory => self.directory(&spot, entry)?,
            _ => {
                let replaced = self.clear(&spot)?;
                self.other(&spot, entry, content)?;
                replaced
            }
        };
        // What was there may have been the link that led to this directory.
        self.last = (!replaced).then_some(parent);
        Ok(())
    }

    /// Sets times, and tells what the disk does not show.
    pub(super) fn finish(mut self) -> Result<Copied, TreeError> {
        if let Some(mtime) = self.options.mtime {
            // What was there before gets the time that there is for all that is made: else it would be now.
            for path in &self.touched {
                self.set_time(path, mtime)?;
            }
        }
        for (path, mtime) in &self.dirs {
            self.set_time(path, *mtime)?;
        }
        self.copied.skipped_devices = self.skipped.iter().map(|path| self.base.join(path)).collect();
        Ok(self.copied)
    }

    fn set_time(&self, path: &TreePath, mtime: i64) -> Result<(), TreeError> {
        // The root of an image has no time in any layer.
        if path.is_root() && self.base.is_root() {
            return Ok(());
        }
        match Root::new(&self.dest).open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => set_times_fd(fd.as_fd(), mtime).map_err(self.failed("set times of", path)),
            // A later entry of the archive put something else there.
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// An entry that names the destination itself. Only one by an absolute name or `..` says anything of it.
    fn top(&mut self, entry: &TarEntry) -> Result<(), TreeError> {
        let is_dot = !entry.name.starts_with(b"/") && TreePath::clean_strict(&entry.name).is_ok();
        if is_dot {
            return Ok(());
        }
        if entry.kind != EntryType::Directory {
            return Err(entry.bad("it would replace the directory that the archive is unpacked to"));
        }
        // The root of an image is in no layer.
        if self.base.is_root() {
            return Ok(());
        }
        let here = TreePath::root();
        let fd = open_child(self.dest.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(self.failed("open", &here))?;
        self.own(&here, entry);
        self.finish_fd(fd.as_fd(), entry).map_err(self.unfinished(&here, entry))?;
        self.dirs.push((here, time(entry)));
        Ok(())
    }

    /// The directory that the archive calls `named`, made if it is missing. Links are followed, but none is made true.
    fn parent(&mut self, named: TreePath) -> Result<Parent, TreeError> {
        let root = Root::new(&self.dest);
        let base = self.base.clone();
        let not_a_directory = |path: &TreePath| TreeError::NotADirectory { path: base.join(path) };
        let place = root.place(named.as_bytes(), true).map_err(|e| match e.errno() {
            Some(Errno::NOTDIR) => not_a_directory(&named),
            _ => e,
        })?;
        let (mut fd, mut path) = (place.dir, place.dir_path);
        let squash = self.options.limits.single_id;
        let new = NewDir {
            mode: 0o755,
            owner: (!squash).then_some((0, 0)),
            // Set at the end, as more may be put there.
            mtime: None,
        };
        for name in &place.rest {
            let next = path.join_name(name);
            fd = match open_child(fd.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(fd) => fd,
                Err(Errno::NOTDIR) => return Err(not_a_directory(&next)),
                Err(Errno::NOENT) if place.by_link => {
                    let (path, target) = (self.base.join(&named), self.base.join(&next));
                    return Err(TreeError::DanglingLink { path, target });
                }
                Err(Errno::NOENT) => {
                    self.touched.insert(path);
                    let made = make_dir(fd.as_fd(), name, &new);
                    let made = made.map_err(self.failed("make directory", &next))?;
                    self.own_as(&next, (0, 0));
                    made
                }
                Err(e) => return Err(self.failed("open", &next)(e)),
            };
            path = next;
        }
        self.touched.insert(path.clone());
        Ok(Parent { named, path, fd })
    }

    /// Removes what has the name already, with everything in it. False if there was nothing.
    fn clear(&self, spot: &Spot<'_>) -> Result<bool, TreeError> {
        match remove_at(spot.dir, spot.name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.failed("replace", &spot.path)(e)),
        }
    }

    /// True if it takes the place of something else.
    fn directory(&mut self, spot: &Spot<'_>, entry: &TarEntry) -> Result<bool, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut replaced = false;
        let fd = match open_child(spot.dir, spot.name, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                replaced = self.clear(spot)?;
                fs::mkdirat(spot.dir, spot.name, Mode::RWXU)
                    .and_then(|()| open_child(spot.dir, spot.name, flags))
                    .map_err(self.failed("make directory", &spot.path))?
            }
            Err(e) => return Err(self.failed("open", &spot.path)(e)),
        };
        self.own(&spot.path, entry);
        self.finish_fd(fd.as_fd(), entry).map_err(self.unfinished(&spot.path, entry))?;
        self.dirs.push((spot.path.clone(), time(entry)));
        Ok(replaced)
    }

    /// Makes what is no directory, where there is nothing.
    fn other(&mut self, spot: &Spot<'_>, entry: &TarEntry, content: &mut impl Read) -> Result<(), TreeError> {
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                self.own(&spot.path, entry);
                return self.file(spot, entry, content);
            }
            EntryType::Link => return self.link(spot, entry),
            EntryType::Symlink if entry.link.is_empty() || entry.link.contains(&0) => {
                return Err(entry.bad("its link text is empty or has a NUL byte"));
            }
            EntryType::Symlink => {
                fs::symlinkat(&*entry.link, spot.dir, spot.name)
                    .map_err(self.failed("make link", &spot.path))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                if !node(spot, entry).map_err(self.failed("make device", &spot.path))? {
                    self.skipped.insert(spot.path.clone());
                    return Ok(());
                }
            }
            _ => return Err(entry.bad("it is of no known kind")),
        }
        self.own(&spot.path, entry);
        let is_link = entry.kind == EntryType::Symlink;
        self.finish_at(spot, entry, is_link).map_err(self.unfinished(&spot.path, entry))
    }

    fn file(&self, spot: &Spot<'_>, entry: &TarEntry, content: &mut impl Read) -> Result<(), TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(spot.dir, spot.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.failed("create", &spot.path))?;
        let mut file = File::from(fd);
        io::copy(content, &mut file).map_err(self.failed("write", &spot.path))?;
        self.finish_fd(file.as_fd(), entry)
            .and_then(|()| set_times_fd(file.as_fd(), time(entry)))
            .map_err(self.unfinished(&spot.path, entry))
    }

    /// Gives a file another name, and all its names what the entry says of this one.
    fn link(&mut self, spot: &Spot<'_>, entry: &TarEntry) -> Result<(), TreeError> {
        let target = TreePath::clean(&entry.link)?;
        if self.skipped.contains(&target) {
            self.skipped.insert(spot.path.clone());
            return Ok(());
        }
        let missing =
            || TreeError::NoLinkTarget { path: self.base.join(&spot.path), target: self.base.join(&target) };
        let place = Root::new(&self.dest).place(target.as_bytes(), false)?;
        let [last] = place.rest.as_slice() else { return Err(missing()) };
        fs::linkat(&place.dir, &**last, spot.dir, spot.name, AtFlags::empty()).map_err(|e| match e {
            Errno::NOENT => missing(),
            e => self.failed("link", &spot.path)(e),
        })?;
        let stat = fs::statat(spot.dir, spot.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("stat", &spot.path))?;
        if self.options.limits.single_id {
            let names = self.names.entry((stat.st_dev, stat.st_ino)).or_default();
            names.extend([place.path(), spot.path.clone()]);
            for path in names.clone() {
                self.own(&path, entry);
            }
        }
        let finished = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => open_child(spot.dir, spot.name, OFlags::RDONLY | OFlags::NONBLOCK)
                .and_then(|fd| {
                    self.finish_fd(fd.as_fd(), entry)?;
                    set_times_fd(fd.as_fd(), time(entry))
                }),
            // Of a link's second name only the owner counts.
            FileType::Symlink => self.chown(spot, entry),
            _ => self.finish_at(spot, entry, false),
        };
        finished.map_err(self.unfinished(&spot.path, entry))
    }

    fn owner(&self, entry: &TarEntry) -> (u32, u32) {
        self.options.chown.unwrap_or((entry.uid, entry.gid))
    }

    fn own(&mut self, path: &TreePath, entry: &TarEntry) {
        self.own_as(path, self.owner(entry));
    }

    fn own_as(&mut self, path: &TreePath, (uid, gid): (u32, u32)) {
        if self.options.limits.single_id {
            self.copied.owners.insert(self.base.join(path), Ownership { uid, gid, mode: None });
        }
    }

    /// Owner, attributes, mode: in this order, as each clears something of the next.
    fn finish_fd(&self, fd: BorrowedFd<'_>, entry: &TarEntry) -> Result<(), Errno> {
        if !self.options.limits.single_id {
            let (uid, gid) = self.owner(entry);
            fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        for xattr in entry.xattrs.iter().filter(|x| xattr_counts(&x.name)) {
            // Attributes are kept where that is possible.
            fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()).unwrap_or_default();
        }
        fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
    }

    /// What is true of something that is not opened. A symbolic link has no mode.
    fn finish_at(&self, spot: &Spot<'_>, entry: &TarEntry, is_link: bool) -> Result<(), Errno> {
        self.chown(spot, entry)?;
        if !is_link {
            fs::chmodat(spot.dir, spot.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        set_times_at(spot.dir, spot.name, time(entry))
    }

    fn chown(&self, spot: &Spot<'_>, entry: &TarEntry) -> Result<(), Errno> {
        if self.options.limits.single_id {
            return Ok(());
        }
        let (uid, gid) = self.owner(entry);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fs::chownat(spot.dir, spot.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// For `map_err`: what an entry says of this path could not be set.
    fn unfinished(&self, path: &TreePath, entry: &TarEntry) -> impl FnOnce(Errno) -> TreeError {
        let (path, owner) = (self.base.join(path), self.owner(entry));
        move |errno| TreeError::owning("finish", &path, owner)(errno)
    }

    /// For `map_err`: an error at this path of the destination.
    fn failed<E: Into<io::Error>>(
        &self,
        action: &'static str,
        path: &TreePath,
    ) -> impl FnOnce(E) -> TreeError {
        let path = self.base.join(path);
        move |source| TreeError::Io { action, path, source: source.into() }
    }
}

/// The time of an entry in nanoseconds. As in BuildKit, what is before 1970 or too late to be told is 1970.
fn time(entry: &TarEntry) -> i64 {
    if (0..i64::MAX).contains(&entry.mtime) { entry.mtime } else { 0 }
}

/// False when the kernel refuses devices to us, and for 0:0, which would be taken for a deletion.
fn node(spot: &Spot<'_>, entry: &TarEntry) -> Result<bool, Errno> {
    let kind = match entry.kind {
        EntryType::Char if entry.device == (0, 0) => return Ok(false),
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = if kind == FileType::Fifo { 0 } else { fs::makedev(entry.device.0, entry.device.1) };
    match fs::mknodat(spot.dir, spot.name, kind, Mode::empty(), device) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => Ok(false),
        Err(e) => Err(e),
    }
}
