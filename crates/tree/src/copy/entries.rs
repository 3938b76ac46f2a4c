//! Putting entries below one destination directory: first what is no file, in order; then files in parallel; last
//! the metadata of directories, deepest first.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::file::CopyMethods;
use super::overlay_upper::{LowerDir, check_room};
use super::{Copied, CopyOptions, Previous};
use crate::context::Reread;
use crate::context::live::{self, Taken};
use crate::entry::{ContentDigest, Entry, Kind, Meta, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::inroot::{open_child, open_plain_raw, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::scan::{Ownership, hash};
use crate::select::Picked;
use crate::tree::{Inode, join_links};

pub(super) struct EntryCopier<'a> {
    source: BorrowedFd<'a>,
    dest: BorrowedFd<'a>,
    pub(super) below: LowerDir,
    pub(super) base: &'a TreePath,
    pub(super) options: &'a CopyOptions,
    copied: &'a mut Copied,
    pub(super) previous: Option<Previous<'a>>,
    /// Only changes to the previous layer are put: what is not put would be seen as it is there.
    pub(super) patching: bool,
}

/// Copied files by their inode in the source.
pub(super) type Links = Mutex<HashMap<Inode, First>>;
/// An entry as it is now, and the inode in the source that a file shares with others.
pub(super) type Put = (Entry, Option<Inode>);

/// The first name of a file with several.
pub(super) struct First {
    to: TreePath,
    /// What was found instead of what was selected.
    taken: Option<Taken>,
}

/// The two directories that files are copied between, opened.
pub(super) struct Between<'f> {
    pub(super) from: &'f OwnedFd,
    pub(super) to: &'f OwnedFd,
    below: Option<OwnedFd>,
    /// What came of `to` before.
    before: Option<OwnedFd>,
    /// Files get the owner of whoever makes them, and this is who that is.
    pub(super) maker: Option<(u32, u32)>,
}

/// What became of a file.
pub(super) struct CopiedFile {
    pub(super) put: Option<Put>,
    /// What was found instead of what was selected, and whether it never held still.
    pub(super) found: Option<(Reread, bool)>,
}

impl From<Put> for CopiedFile {
    fn from(put: Put) -> Self {
        Self { put: Some(put), found: None }
    }
}

impl<'a> EntryCopier<'a> {
    pub(super) fn new(
        source: BorrowedFd<'a>,
        dest: BorrowedFd<'a>,
        base: &'a TreePath,
        options: &'a CopyOptions,
        copied: &'a mut Copied,
    ) -> Self {
        Self {
            source,
            dest,
            below: LowerDir::nothing(),
            base,
            options,
            copied,
            previous: None,
            patching: false,
        }
    }

    /// With lower layers under the destination.
    pub(super) fn onto(mut self, below: LowerDir) -> Self {
        self.below = below;
        self
    }

    /// One entry that is no directory, under another name. Returns the entry as it is now.
    pub(super) fn one_as(&mut self, entry: &Picked, name: &[u8]) -> Result<Option<Entry>, TreeError> {
        let entry = Picked { to: TreePath::parse(name)?, ..entry.clone() };
        Ok(self.all(std::slice::from_ref(&entry))?.pop())
    }

    /// Entries in walk order. Returns them as they are now in the destination's root.
    pub(super) fn all(&mut self, entries: &[Picked]) -> Result<Vec<Entry>, TreeError> {
        let mut dirs: Vec<(&Picked, Vec<Xattr>)> = Vec::new();
        let mut files: Vec<&Picked> = Vec::new();
        let mut put: Vec<Put> = Vec::with_capacity(entries.len());
        for entry in entries {
            match &entry.kind {
                Kind::Dir { .. } => {
                    let kept = self.make_dir(entry)?;
                    put.push((self.entry(entry, &kept), None));
                    dirs.push((entry, kept));
                }
                Kind::File { .. } => files.push(entry),
                Kind::Hardlink { .. } | Kind::Whiteout => {}
                _ if self.special(entry)? => put.push((self.entry(entry, &[]), None)),
                _ => {}
            }
            self.note(entry);
        }
        put.extend(self.files(&files)?);
        for (dir, kept) in dirs.iter().rev() {
            self.finish_dir(dir, kept)?;
        }
        Ok(join_links(put))
    }

    /// What `picked` is at its new place; `kept` are attributes that were there.
    pub(super) fn entry(&self, picked: &Picked, kept: &[Xattr]) -> Entry {
        let (uid, gid) = self.owner(&picked.meta);
        let is_dir = matches!(picked.kind, Kind::Dir { .. });
        let mode = match picked.kind {
            Kind::Symlink { .. } => 0o777,
            _ => self.mode(&picked.meta, is_dir).as_raw_mode(),
        };
        let mut xattrs = picked.meta.xattrs.clone();
        xattrs
            .extend(kept.iter().filter(|old| picked.meta.xattrs.iter().all(|x| x.name != old.name)).cloned());
        xattrs.sort();
        let meta = Meta { mode, uid, gid, mtime: picked.meta.mtime, xattrs };
        Entry { path: self.at(picked), kind: picked.kind.clone(), meta }
    }

    pub(super) fn note(&mut self, entry: &Picked) {
        if self.options.single_id {
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

    pub(super) fn at(&self, entry: &Picked) -> TreePath {
        self.base.join(&entry.to)
    }

    fn parent(&self, to: &TreePath) -> Result<OwnedFd, TreeError> {
        let parent = to.parent().unwrap_or_default();
        open_plain_raw(self.dest, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &self.base.join(&parent)))
    }

    /// The attributes that a directory of lower layers has at the same place.
    pub(super) fn kept(&mut self, entry: &Picked) -> Result<Vec<Xattr>, TreeError> {
        let path = self.at(entry);
        let Some(lower) = self.below.enter(&entry.to, &path)? else { return Ok(Vec::new()) };
        let lower = open_child(lower.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(TreeError::io("open", &path))?;
        hash::read_xattrs(lower.as_fd(), |name, _| xattr_counts(name))
            .map_err(TreeError::io("read attributes of", &path))
    }

    /// Makes a directory, and returns the attributes that one of lower layers has at the same place.
    fn make_dir(&mut self, entry: &Picked) -> Result<Vec<Xattr>, TreeError> {
        let path = self.at(entry);
        let kept = self.kept(entry)?;
        let parent = self.parent(&entry.to)?;
        let name = entry.to.name();
        match fs::mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Ok(_) if self.options.replace => {
                    crate::removal::remove_at(parent.as_fd(), name)
                        .and_then(|()| fs::mkdirat(&parent, name, Mode::RWXU))
                        .map_err(TreeError::io("replace", &path))?;
                }
                Ok(_) => return Err(TreeError::CopyToNonDirectory { path }),
                Err(e) => return Err(TreeError::io("stat", &path)(e)),
            },
            other => other.map_err(TreeError::io("make directory", &path))?,
        }
        Ok(kept)
    }

    fn finish_dir(&self, entry: &Picked, kept: &[Xattr]) -> Result<(), TreeError> {
        let path = self.at(entry);
        let fd = open_plain_raw(self.dest, &entry.to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &path))?;
        let finish = || {
            set_xattrs(fd.as_fd(), kept);
            self.finish(fd.as_fd(), &entry.meta, true)
        };
        finish().map_err(TreeError::owning("finish", &path, self.owner(&entry.meta)))
    }

    /// Owner, attributes, mode, times: in this order, as each clears something of the next.
    fn finish(&self, fd: BorrowedFd<'_>, meta: &Meta, is_dir: bool) -> Result<(), Errno> {
        if !self.options.single_id {
            let (uid, gid) = self.owner(meta);
            fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        set_xattrs(fd, &meta.xattrs);
        fs::fchmod(fd, self.mode(meta, is_dir))?;
        set_times_fd(fd, meta.mtime)
    }

    /// False for a device that nobody here can make.
    fn special(&mut self, entry: &Picked) -> Result<bool, TreeError> {
        let path = self.at(entry);
        let to = entry.to.parent().unwrap_or_default();
        let parent = self.parent(&entry.to)?;
        let name = entry.to.name();
        check_room(self.below.dir(&to).as_ref(), name, || path.clone())?;
        self.make_room(parent.as_fd(), name, &path)?;
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
                return Ok(false);
            }
            other => other.map_err(TreeError::io("create", &path))?,
        }
        if !self.options.single_id {
            let (uid, gid) = self.owner(&entry.meta);
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::owning(
                "set owner of",
                &path,
                self.owner(&entry.meta),
            ))?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            fs::chmodat(&parent, name, self.mode(&entry.meta, false), AtFlags::empty())
                .map_err(TreeError::io("set mode of", &path))?;
        }
        set_times_at(parent.as_fd(), name, entry.meta.mtime).map_err(TreeError::io("set times of", &path))?;
        Ok(true)
    }

    /// Files, those of one directory by one worker: the kernel takes turns within a directory anyway.
    fn files(&mut self, files: &[&Picked]) -> Result<Vec<Put>, TreeError> {
        let links = Links::default();
        let ways = CopyMethods::new();
        let same = |a: &&Picked, b: &&Picked| {
            a.to.parent() == b.to.parent() && a.source.parent() == b.source.parent()
        };
        let groups: Vec<&[&Picked]> = files.chunk_by(same).collect();
        let this = &*self;
        let filed: Result<Vec<Vec<CopiedFile>>, TreeError> =
            groups.par_iter().map(|group| this.group(group, &links, &ways)).collect();
        let mut put = Vec::with_capacity(files.len());
        for filed in filed?.into_iter().flatten() {
            put.extend(filed.put);
            if let Some((found, cut)) = filed.found {
                self.copied.cut.extend(cut.then(|| found.path.clone()));
                self.copied.retaken.push(found);
            }
        }
        Ok(put)
    }

    fn group(
        &self,
        group: &[&Picked],
        links: &Links,
        ways: &CopyMethods,
    ) -> Result<Vec<CopiedFile>, TreeError> {
        let Some(first) = group.first() else { return Ok(Vec::new()) };
        let source = first.source.parent().unwrap_or_default();
        let from = match open_plain_raw(self.source, &source, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        {
            Err(error) if self.options.live && live::is_gone(error) => {
                return group.iter().map(|entry| self.gone(entry)).collect();
            }
            other => other.map_err(TreeError::io("open", &source))?,
        };
        let to = self.parent(&first.to)?;
        let stat = fs::fstat(&to).map_err(TreeError::io("stat", self.base))?;
        // A directory with the set-group-id bit gives its own group to what is made in it.
        let inherits = stat.st_mode & 0o2000 != 0;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let before = self.previous.and_then(|previous| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = self.base.join(&first.to.parent().unwrap_or_default());
            // Not there: then nothing is taken from it.
            open_plain_raw(previous.files, &dir, flags, Mode::empty()).ok()
        });
        let between = Between {
            from: &from,
            before,
            to: &to,
            below: self.below.dir(&first.to.parent().unwrap_or_default()),
            maker: (!inherits).then_some((uid, gid)),
        };
        group.iter().map(|entry| self.file(&between, entry, links, ways)).collect()
    }

    fn file(
        &self,
        between: &Between<'_>,
        entry: &Picked,
        links: &Links,
        ways: &CopyMethods,
    ) -> Result<CopiedFile, TreeError> {
        let mut new = self.entry(entry, &[]);
        check_room(between.below.as_ref(), entry.to.name(), || self.at(entry))?;
        if self.is_as_before(between, entry, &new) {
            return Ok((new, None).into());
        }
        let from = match open_child(between.from.as_fd(), entry.source.name(), live::FLAGS) {
            // A socket of a build context: it arrives as an empty file.
            Err(Errno::NXIO) => None,
            Err(error) if self.options.live && live::is_gone(error) => return self.gone(entry),
            other => Some(other.map_err(TreeError::io("open", &entry.source))?),
        };
        let mut size = 0;
        let mut inode = None;
        if let Some(from) = &from {
            let stat = fs::fstat(from).map_err(TreeError::io("stat", &entry.source))?;
            if self.options.live && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return self.gone(entry);
            }
            size = crate::scan::size(&stat);
            inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        }
        // Held while the first name is made, so that no second one looks for it too early.
        let mut table = inode.map(|_| links.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if let (Some(inode), Some(table)) = (inode, &table)
            && let Some(first) = table.get(&inode)
        {
            self.link(&first.to, between.to.as_fd(), entry)?;
            return Ok(self.linked(entry, new, (inode, first.taken.as_ref())));
        }
        let to = self.create(between.to.as_fd(), &new)?;
        let (size, content) = match &from {
            None => (0, ContentDigest::of(b"")),
            Some(from) => {
                ways.copy(from.as_fd(), to.as_fd(), size).map_err(TreeError::io("copy", &entry.source))?
            }
        };
        let filed = if (Kind::File { size, content }) == entry.kind {
            let owner = (new.meta.uid, new.meta.gid);
            let done = self.finish_file(&to, between.maker, &new.meta);
            done.map_err(TreeError::owning("finish", &new.path, owner))?;
            new.kind = Kind::File { size, content };
            CopiedFile::from((new, inode))
        } else if self.options.live {
            self.take_again(between, entry, inode, &to)?
        } else {
            return Err(TreeError::Changed { path: entry.source.clone() });
        };
        if let (Some(inode), Some(table), Some(_)) = (inode, &mut table, &filed.put) {
            let taken = filed.found.as_ref().and_then(|(found, _)| found.now.clone());
            table.insert(inode, First { to: entry.to.clone(), taken });
        }
        Ok(filed)
    }

    /// Another name of a file that was put already.
    fn linked(&self, entry: &Picked, new: Entry, (inode, taken): (Inode, Option<&Taken>)) -> CopiedFile {
        let Some(taken) = taken else { return (new, Some(inode)).into() };
        let found = Reread { path: entry.source.clone(), now: Some(taken.clone()) };
        let put = (self.entry(&taken.entry(entry), &[]), Some(inode));
        CopiedFile { put: Some(put), found: Some((found, false)) }
    }

    /// Takes the file that an earlier copy made, if it is the same. What cannot be linked is copied.
    fn is_as_before(&self, between: &Between<'_>, entry: &Picked, new: &Entry) -> bool {
        let (Some(before), Some(previous)) = (&between.before, self.previous) else { return false };
        let name = new.path.name();
        !entry.linked
            && previous.tree.get(&new.path) == Some(new)
            && fs::linkat(before, name, between.to, name, AtFlags::empty()).is_ok()
    }

    /// As [`Self::finish`], with no call for what is right from the start.
    pub(super) fn finish_file(
        &self,
        file: &OwnedFd,
        maker: Option<(u32, u32)>,
        meta: &Meta,
    ) -> Result<(), Errno> {
        if !self.options.single_id && maker != Some((meta.uid, meta.gid)) {
            fs::fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
        }
        set_xattrs(file.as_fd(), &meta.xattrs);
        if meta.mode & 0o7000 != 0 || meta.mode & umask() != 0 {
            fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
        }
        set_times_fd(file.as_fd(), meta.mtime)
    }

    fn create(&self, parent: BorrowedFd<'_>, new: &Entry) -> Result<OwnedFd, TreeError> {
        // A clone is read back.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(new.meta.mode & 0o777);
        let create = || fs::openat(parent, new.path.name(), flags, mode);
        match create() {
            Err(Errno::EXIST) => {
                self.make_room(parent, new.path.name(), &new.path)?;
                create().map_err(TreeError::io("create", &new.path))
            }
            other => other.map_err(TreeError::io("create", &new.path)),
        }
    }

    fn make_room(&self, dir: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<(), TreeError> {
        match make_room(dir, name, path) {
            Err(TreeError::ReplaceDirectory { .. }) if self.options.replace => {
                crate::removal::remove_at(dir, name).map_err(TreeError::io("replace", path))
            }
            done => done,
        }
    }

    fn link(&self, first: &TreePath, parent: BorrowedFd<'_>, entry: &Picked) -> Result<(), TreeError> {
        let name = entry.to.name();
        self.make_room(parent, name, &self.at(entry))?;
        let from = self.parent(first)?;
        fs::linkat(&from, first.name(), parent, name, AtFlags::empty())
            .map_err(TreeError::io("link", &self.at(entry)))
    }
}

/// The bits that this process takes away from every mode: all of them where the kernel does not tell.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        // Asking with umask(2) would change it for a moment, for all threads.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o777)
    })
}

fn set_xattrs(fd: BorrowedFd<'_>, xattrs: &[Xattr]) {
    for xattr in xattrs {
        // Attributes are copied where that is possible.
        fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()).unwrap_or_default();
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
