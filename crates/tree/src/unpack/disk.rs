//! What unpacking does to the disk: each operation relative to a directory's descriptor, none through a link.
//!
//! Order for every object: owner, attributes, mode, times (changing the owner clears set-user-id and capabilities).

use std::cell::RefCell;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{ContentDigest, Kind, Meta, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_at, set_times_fd};
use crate::path::TreePath;

const BUFFER: usize = 128 << 10;

/// Where it is said which files of lower layers a layer deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhiteoutStorage {
    /// On the disk, as overlayfs reads it, and in the tree.
    #[default]
    OnDisk,
    /// In the tree only: an overlay takes no such marks itself.
    InTree,
}

pub(crate) struct Disk<'a> {
    /// `None` where only the tree is wanted: nothing is made, and files are only hashed.
    dest: Option<BorrowedFd<'a>>,
    single_id: bool,
    marks: WhiteoutStorage,
    buffer: Vec<u8>,
    /// The directory of the last operation.
    last: RefCell<Option<(TreePath, Rc<OwnedFd>)>>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(dest: BorrowedFd<'a>, single_id: bool) -> Self {
        Self {
            dest: Some(dest),
            single_id,
            marks: WhiteoutStorage::OnDisk,
            buffer: vec![0; BUFFER],
            last: RefCell::new(None),
        }
    }

    /// The same with deletions marked as `marks` says.
    pub(crate) fn with_marks(self, marks: WhiteoutStorage) -> Self {
        Self { marks, ..self }
    }

    /// One that is nowhere.
    pub(crate) fn none() -> Self {
        Self {
            dest: None,
            single_id: true,
            marks: WhiteoutStorage::InTree,
            buffer: vec![0; BUFFER],
            last: RefCell::new(None),
        }
    }

    /// The directory that `path` lies in; `None` on a disk that is nowhere.
    fn parent(&self, path: &TreePath) -> Result<Option<Rc<OwnedFd>>, TreeError> {
        let Some(dest) = self.dest else { return Ok(None) };
        let dir = path.parent().unwrap_or_default();
        if let Some((_, fd)) = self.last.borrow().as_ref().filter(|(last, _)| *last == dir) {
            return Ok(Some(Rc::clone(fd)));
        }
        let fd = open_plain_raw(dest, &dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &dir))?;
        let fd = Rc::new(fd);
        *self.last.borrow_mut() = Some((dir, Rc::clone(&fd)));
        Ok(Some(fd))
    }

    pub(crate) fn mkdir(&self, path: &TreePath) -> Result<(), TreeError> {
        // Ours alone until its own metadata come at the end.
        let Some(parent) = self.parent(path)? else { return Ok(()) };
        fs::mkdirat(&*parent, path.name(), Mode::RWXU).map_err(TreeError::io("make directory", path))
    }

    pub(crate) fn unlink(&self, path: &TreePath, is_dir: bool) -> Result<(), TreeError> {
        let Some(parent) = self.parent(path)? else { return Ok(()) };
        *self.last.borrow_mut() = None;
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        fs::unlinkat(&*parent, path.name(), flags).map_err(TreeError::io("remove", path))
    }

    /// Takes away a deletion that [`Disk::whiteout`] made.
    pub(crate) fn unmark(&self, path: &TreePath) -> Result<(), TreeError> {
        if self.marks == WhiteoutStorage::InTree { Ok(()) } else { self.unlink(path, false) }
    }

    pub(crate) fn whiteout(&self, path: &TreePath) -> Result<(), TreeError> {
        if self.marks == WhiteoutStorage::InTree {
            return Ok(());
        }
        let Some(parent) = self.parent(path)? else { return Ok(()) };
        fs::mknodat(&*parent, path.name(), FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(TreeError::io("make whiteout", path))
    }

    pub(crate) fn link(&self, target: &TreePath, path: &TreePath) -> Result<(), TreeError> {
        let (Some(from), Some(to)) = (self.parent(target)?, self.parent(path)?) else { return Ok(()) };
        fs::linkat(&*from, target.name(), &*to, path.name(), AtFlags::empty())
            .map_err(TreeError::io("link", path))
    }

    /// Gives `path` to what has the same name in the directory `from` of another tree.
    pub(crate) fn link_from(&self, from: BorrowedFd<'_>, path: &TreePath) -> Result<(), TreeError> {
        let Some(to) = self.parent(path)? else { return Ok(()) };
        fs::linkat(from, path.name(), &*to, path.name(), AtFlags::empty())
            .map_err(TreeError::io("link", path))
    }

    pub(crate) fn symlink(&self, path: &TreePath, target: &[u8], meta: &Meta) -> Result<(), TreeError> {
        let Some(parent) = self.parent(path)? else { return Ok(()) };
        fs::symlinkat(target, &*parent, path.name()).map_err(TreeError::io("make link", path))?;
        self.own_name(&parent, path, meta)?;
        set_times_at(parent.as_fd(), path.name(), meta.mtime).map_err(TreeError::io("set times of", path))
    }

    /// Makes a device or FIFO; false when the kernel refuses devices to us.
    pub(crate) fn special(&self, path: &TreePath, kind: &Kind, meta: &Meta) -> Result<bool, TreeError> {
        let (file_type, device) = match kind {
            Kind::CharDev { major, minor } => (FileType::CharacterDevice, fs::makedev(*major, *minor)),
            Kind::BlockDev { major, minor } => (FileType::BlockDevice, fs::makedev(*major, *minor)),
            _ => (FileType::Fifo, 0),
        };
        let Some(parent) = self.parent(path)? else { return Ok(true) };
        match fs::mknodat(&*parent, path.name(), file_type, Mode::empty(), device) {
            Err(Errno::PERM | Errno::ACCESS) if file_type != FileType::Fifo => return Ok(false),
            other => other.map_err(TreeError::io("make device", path))?,
        }
        self.own_name(&parent, path, meta)?;
        // The name is ours and no link: nobody else writes here.
        fs::chmodat(&*parent, path.name(), Mode::from_raw_mode(meta.mode), AtFlags::empty())
            .map_err(TreeError::io("set mode of", path))?;
        set_times_at(parent.as_fd(), path.name(), meta.mtime).map_err(TreeError::io("set times of", path))?;
        Ok(true)
    }

    fn own_name(&self, parent: &OwnedFd, path: &TreePath, meta: &Meta) -> Result<(), TreeError> {
        if self.single_id {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        fs::chownat(parent, path.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::owning(
            "set owner of",
            path,
            (meta.uid, meta.gid),
        ))
    }

    pub(crate) fn file(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        xattrs: &[Xattr],
        content: &mut impl Read,
    ) -> Result<ContentDigest, TreeError> {
        let mut file = self.parent(path)?.map(|parent| create(&parent, path)).transpose()?;
        let mut hasher = blake3::Hasher::new();
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(got) => {
                    hasher.update(&self.buffer[..got]);
                    if let Some(file) = &mut file {
                        io::Write::write_all(file, &self.buffer[..got])
                            .map_err(TreeError::io("write", path))?;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TreeError::stream("read the archive")(e)),
            }
        }
        if let Some(file) = file {
            self.finish_fd(file.as_fd(), path, meta, xattrs)?;
        }
        Ok(ContentDigest(*hasher.finalize().as_bytes()))
    }

    pub(crate) fn finish_dir(&self, path: &TreePath, meta: &Meta, opaque: bool) -> Result<(), TreeError> {
        let Some(dest) = self.dest else { return Ok(()) };
        let fd = open_plain_raw(dest, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        if opaque && self.marks == WhiteoutStorage::OnDisk {
            mark_opaque(fd.as_fd(), path)?;
        }
        self.finish_fd(fd.as_fd(), path, meta, &meta.xattrs)
    }

    /// Marks a directory so that it hides what lower layers have there.
    pub(crate) fn hide_lower(&self, path: &TreePath) -> Result<(), TreeError> {
        let Some(dest) = self.dest else { return Ok(()) };
        let fd = open_plain_raw(dest, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        mark_opaque(fd.as_fd(), path)
    }

    fn finish_fd(
        &self,
        fd: BorrowedFd<'_>,
        path: &TreePath,
        meta: &Meta,
        xattrs: &[Xattr],
    ) -> Result<(), TreeError> {
        if !self.single_id {
            fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(TreeError::owning("set owner of", path, (meta.uid, meta.gid)))?;
        }
        for xattr in xattrs.iter().filter(|x| xattr_counts(&x.name)) {
            match fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()) {
                // The tree remembers it.
                Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
                other => other.map_err(TreeError::io("set attributes of", path))?,
            }
        }
        fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).map_err(TreeError::io("set mode of", path))?;
        set_times_fd(fd, meta.mtime).map_err(TreeError::io("set times of", path))
    }
}

fn mark_opaque(fd: BorrowedFd<'_>, path: &TreePath) -> Result<(), TreeError> {
    fs::fsetxattr(fd, "user.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(TreeError::io("make opaque", path))
}

fn create(parent: &OwnedFd, path: &TreePath) -> Result<std::fs::File, TreeError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(parent, path.name(), flags, Mode::RUSR | Mode::WUSR);
    fd.map(std::fs::File::from).map_err(TreeError::io("create", path))
}
