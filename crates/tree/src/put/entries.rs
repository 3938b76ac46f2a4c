//! Putting entries below one destination directory: first what is no file, in order; then files in parallel; last
//! the metadata of directories, deepest first.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::file::Ways;
use super::{Copied, CopyOptions};
use crate::entry::{Kind, Meta, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::inroot::{open_child, open_plain_raw, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::scan::{Ownership, hash};
use crate::select::Picked;

pub(super) struct Putter<'a> {
    source: BorrowedFd<'a>,
    dest: BorrowedFd<'a>,
    base: &'a TreePath,
    options: &'a CopyOptions,
    copied: &'a mut Copied,
}

/// Names of copied files by their inode in the source.
type Links = Mutex<HashMap<(u64, u64), TreePath>>;

impl<'a> Putter<'a> {
    pub(super) fn new(
        source: BorrowedFd<'a>,
        dest: BorrowedFd<'a>,
        base: &'a TreePath,
        options: &'a CopyOptions,
        copied: &'a mut Copied,
    ) -> Self {
        Self { source, dest, base, options, copied }
    }

    /// One entry that is no directory, under another name.
    pub(super) fn one_as(&mut self, entry: &Picked, name: &[u8]) -> Result<(), TreeError> {
        let entry = Picked { to: TreePath::parse(name)?, ..entry.clone() };
        self.all(std::slice::from_ref(&entry))
    }

    /// Entries in walk order.
    pub(super) fn all(&mut self, entries: &[Picked]) -> Result<(), TreeError> {
        let mut dirs: Vec<&Picked> = Vec::new();
        let mut files: Vec<&Picked> = Vec::new();
        for entry in entries {
            match &entry.kind {
                Kind::Dir { .. } => {
                    self.make_dir(entry)?;
                    dirs.push(entry);
                }
                Kind::File { .. } => files.push(entry),
                Kind::Hardlink { .. } | Kind::Whiteout => {}
                _ => self.special(entry)?,
            }
            self.note(entry);
        }
        self.files(&files)?;
        for dir in dirs.iter().rev() {
            self.finish_dir(dir)?;
        }
        Ok(())
    }

    fn note(&mut self, entry: &Picked) {
        if self.options.squash_ids {
            let (uid, gid) = self.owner(&entry.meta);
            let path = self.base.join(&entry.to);
            self.copied.owners.insert(path, Ownership { uid, gid, mode: None });
        }
    }

    fn owner(&self, meta: &Meta) -> (u32, u32) {
        self.options.chown.unwrap_or((meta.uid, meta.gid))
    }

    fn mode(&self, meta: &Meta, is_dir: bool) -> Mode {
        let change = self.options.chmod.as_ref();
        Mode::from_raw_mode(change.map_or(meta.mode, |change| change.apply(meta.mode, is_dir)))
    }

    fn at(&self, entry: &Picked) -> TreePath {
        self.base.join(&entry.to)
    }

    fn parent(&self, to: &TreePath) -> Result<OwnedFd, TreeError> {
        let parent = to.parent().unwrap_or_default();
        open_plain_raw(self.dest, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &self.base.join(&parent)))
    }

    fn make_dir(&self, entry: &Picked) -> Result<(), TreeError> {
        let parent = self.parent(&entry.to)?;
        let name = entry.to.name();
        match fs::mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
                Ok(_) => Err(TreeError::CopyToNonDirectory { path: self.at(entry) }),
                Err(e) => Err(TreeError::io("stat", &self.at(entry))(e)),
            },
            other => other.map_err(TreeError::io("make directory", &self.at(entry))),
        }
    }

    fn finish_dir(&self, entry: &Picked) -> Result<(), TreeError> {
        let path = self.at(entry);
        let fd = open_plain_raw(self.dest, &entry.to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &path))?;
        self.finish(fd.as_fd(), &entry.meta, &entry.meta.xattrs, true).map_err(TreeError::io("finish", &path))
    }

    /// Owner, attributes, mode, times: in this order, as each clears something of the next.
    fn finish(&self, fd: BorrowedFd<'_>, meta: &Meta, xattrs: &[Xattr], is_dir: bool) -> Result<(), Errno> {
        if !self.options.squash_ids {
            let (uid, gid) = self.owner(meta);
            fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        for xattr in xattrs {
            // Attributes are copied where that is possible.
            fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()).unwrap_or_default();
        }
        fs::fchmod(fd, self.mode(meta, is_dir))?;
        set_times_fd(fd, meta.mtime)
    }

    fn special(&mut self, entry: &Picked) -> Result<(), TreeError> {
        let path = self.at(entry);
        let parent = self.parent(&entry.to)?;
        let name = entry.to.name();
        make_room(parent.as_fd(), name, &path)?;
        let node = |kind, major: u32, minor: u32| {
            fs::mknodat(&parent, name, kind, Mode::empty(), fs::makedev(major, minor))
        };
        let result = match &entry.kind {
            Kind::Symlink { target } => fs::symlinkat(&**target, &parent, name),
            // 0:0 would be taken for a deletion.
            Kind::CharDev { major: 0, minor: 0 } => Err(Errno::PERM),
            Kind::CharDev { major, minor } => node(FileType::CharacterDevice, *major, *minor),
            Kind::BlockDev { major, minor } => node(FileType::BlockDevice, *major, *minor),
            _ => node(FileType::Fifo, 0, 0),
        };
        let device = matches!(entry.kind, Kind::CharDev { .. } | Kind::BlockDev { .. });
        match result {
            Err(Errno::PERM | Errno::ACCESS) if device => {
                self.copied.skipped_devices.push(path);
                return Ok(());
            }
            other => other.map_err(TreeError::io("create", &path))?,
        }
        if !self.options.squash_ids {
            let (uid, gid) = self.owner(&entry.meta);
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(TreeError::io("set owner of", &path))?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            fs::chmodat(&parent, name, self.mode(&entry.meta, false), AtFlags::empty())
                .map_err(TreeError::io("set mode of", &path))?;
        }
        set_times_at(parent.as_fd(), name, entry.meta.mtime).map_err(TreeError::io("set times of", &path))
    }

    /// Files, those of one directory by one worker: the kernel takes turns within a directory anyway.
    fn files(&self, files: &[&Picked]) -> Result<(), TreeError> {
        let links = Links::default();
        let ways = Ways::new();
        let groups: Vec<&[&Picked]> = files.chunk_by(|a, b| a.to.parent() == b.to.parent()).collect();
        groups.par_iter().try_for_each(|group| {
            let Some(first) = group.first() else { return Ok(()) };
            let parent = self.parent(&first.to)?;
            group.iter().try_for_each(|entry| self.file(parent.as_fd(), entry, &links, &ways))
        })
    }

    fn file(
        &self,
        parent: BorrowedFd<'_>,
        entry: &Picked,
        links: &Links,
        ways: &Ways,
    ) -> Result<(), TreeError> {
        let from = match open_plain_raw(
            self.source,
            &entry.source,
            OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        ) {
            // A socket of a build context: it arrives as an empty file.
            Err(Errno::NXIO) => None,
            other => Some(other.map_err(TreeError::io("open", &entry.source))?),
        };
        let name = entry.to.name();
        let mut size = 0;
        let mut inode = None;
        if let Some(from) = &from {
            let stat = fs::fstat(from).map_err(TreeError::io("stat", &entry.source))?;
            size = crate::scan::size(&stat);
            inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        }
        // Held while the first name is made, so that no second one looks for it too early.
        let mut table = inode.map(|_| links.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if let (Some(inode), Some(table)) = (inode, &mut table) {
            if let Some(first) = table.get(&inode) {
                return self.link(first, parent, entry);
            }
            table.insert(inode, entry.to.clone());
        }
        let to = self.create(parent, name, entry)?;
        let mut xattrs = Vec::new();
        if let Some(from) = &from {
            ways.copy(from.as_fd(), to.as_fd(), size).map_err(TreeError::io("copy", &entry.source))?;
            xattrs = hash::read_xattrs(from.as_fd(), |name, _| xattr_counts(name)).unwrap_or_default();
        }
        self.finish(to.as_fd(), &entry.meta, &xattrs, false).map_err(TreeError::io("finish", &self.at(entry)))
    }

    fn create(&self, parent: BorrowedFd<'_>, name: &[u8], entry: &Picked) -> Result<OwnedFd, TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        match create() {
            Err(Errno::EXIST) => {
                make_room(parent, name, &self.at(entry))?;
                create().map_err(TreeError::io("create", &self.at(entry)))
            }
            other => other.map_err(TreeError::io("create", &self.at(entry))),
        }
    }

    fn link(&self, first: &TreePath, parent: BorrowedFd<'_>, entry: &Picked) -> Result<(), TreeError> {
        let name = entry.to.name();
        make_room(parent, name, &self.at(entry))?;
        let from = self.parent(first)?;
        fs::linkat(&from, first.name(), parent, name, AtFlags::empty())
            .map_err(TreeError::io("link", &self.at(entry)))
    }
}

/// Removes what has the name already, unless it is a directory.
pub(crate) fn make_room(dir: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<(), TreeError> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM)
            if open_child(dir, name, OFlags::PATH | OFlags::DIRECTORY).is_ok() =>
        {
            Err(TreeError::ReplaceDirectory { path: path.clone() })
        }
        Err(e) => Err(TreeError::io("replace", path)(e)),
    }
}
