//! Paths confined beneath a root: the only way this program touches a path somebody else may have shaped.
//!
//! A path is resolved as `chroot` would: absolute symbolic links and `..` stay inside, magic links of `/proc` are
//! refused. Results are file descriptors; a string is never resolved a second time. The kernel does it
//! (`openat2`); where it cannot, or where the place of a *missing* path has to be known, components are walked one
//! by one with `O_PATH | O_NOFOLLOW`, which gives the same answer. Nothing here decides what may be written.

mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::error::TreeError;
use crate::path::TreePath;
pub use walk::Place;
use walk::Walk;

/// How often an `openat2` that raced with a rename is tried again.
const RACE_RETRIES: u32 = 64;

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A directory that confines paths. Cheap to copy; borrows the descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Root<'fd> {
    fd: BorrowedFd<'fd>,
}

/// What a directory gets when it has to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewDir {
    /// Permission bits; the umask does not apply.
    pub mode: u32,
    /// Owner and group; `None` leaves those of the process.
    pub owner: Option<(u32, u32)>,
    /// Time of modification in nanoseconds; `None` leaves now.
    pub mtime: Option<i64>,
}

impl Default for NewDir {
    fn default() -> Self {
        Self { mode: 0o755, owner: None, mtime: None }
    }
}

impl<'fd> Root<'fd> {
    /// Confines to this directory. An `O_PATH` descriptor will do.
    #[must_use]
    pub fn new(fd: &'fd impl AsFd) -> Self {
        Self { fd: fd.as_fd() }
    }

    /// Confines to the directory behind a borrowed descriptor.
    #[must_use]
    pub fn from_fd(fd: BorrowedFd<'fd>) -> Self {
        Self { fd }
    }

    /// The root directory itself.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// Opens `path` as seen from inside; links are followed within the root, the last one too unless `flags` has
    /// `NOFOLLOW`. `mode` is for `CREATE`.
    ///
    /// # Errors
    /// [`TreeError::Io`] with the kernel's reason, [`TreeError::BadPath`] on a NUL.
    pub fn open(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, TreeError> {
        self.open_raw(path, flags, mode).map_err(|e| at("open", path)(e))
    }

    fn open_raw(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let relative = if path.is_empty() { b"." } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match open_confined(self.fd, relative, flags, mode, how) {
            Err(error) if by_hand(error) => self.open_by_walk(path, flags, mode),
            opened => opened,
        }
    }

    fn open_by_walk(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let follow = !flags.contains(OFlags::NOFOLLOW);
        let trailing_slash = path.ends_with(b"/") || path.ends_with(b"/.");
        let place = Walk::run(self.fd, path, follow || trailing_slash)?;
        let flags = if trailing_slash { flags | OFlags::DIRECTORY } else { flags };
        place.open(flags | OFlags::NOFOLLOW, mode)
    }

    /// Where `path` leads inside the root, whether it exists or not: links are followed (the last one if
    /// `follow_last`), and what lies behind a missing component is taken literally.
    ///
    /// # Errors
    /// [`TreeError::Io`]; `NOTDIR` when a component above the last is a file, `LOOP` after too many links.
    pub fn place(&self, path: &[u8], follow_last: bool) -> Result<Place, TreeError> {
        Walk::run(self.fd, path, follow_last).map_err(|e| at("resolve", path)(e))
    }

    /// An `O_PATH` descriptor of what `path` names.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn resolve(&self, path: &[u8]) -> Result<OwnedFd, TreeError> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// Opens a directory for reading.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, TreeError> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens a path known to be free of links (one a scan or an archive's own tree gave): a link anywhere in it,
    /// also as the last component, is an error, and so is leaving the root.
    ///
    /// # Errors
    /// [`TreeError::Io`]; `LOOP` for a link.
    pub fn open_plain(&self, path: &TreePath, flags: OFlags, mode: Mode) -> Result<OwnedFd, TreeError> {
        open_plain_raw(self.fd, path, flags, mode).map_err(TreeError::io("open", path))
    }

    /// The text of a symbolic link; links above it are followed.
    ///
    /// # Errors
    /// [`TreeError::Io`]; `INVAL` when it is no link.
    pub fn readlink(&self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let fd = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        read_link_fd(fd.as_fd()).map_err(|e| at("read link", path)(e))
    }

    /// Metadata of what `path` names; `follow` is about the last component.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn stat(&self, path: &[u8], follow: bool) -> Result<Stat, TreeError> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let fd = self.open(path, flags, Mode::empty())?;
        fs::fstat(&fd).map_err(|e| at("stat", path)(e))
    }

    /// True when something is there, a dangling link included.
    #[must_use]
    pub fn exists(&self, path: &[u8]) -> bool {
        self.stat(path, false).is_ok()
    }

    /// `mkdir -p`: follows links (a dangling one is made true by creating what it points to) and gives `new` to
    /// every directory it makes. Returns the directory (`O_PATH`), its real place, and what was made.
    ///
    /// # Errors
    /// [`TreeError::NotADirectory`] when a component is something else, else [`TreeError::Io`].
    pub fn mkdir_p(&self, path: &[u8], new: &NewDir) -> Result<MadeDir, TreeError> {
        let place = self.place(path, true).map_err(|e| match e.errno() {
            Some(Errno::NOTDIR) => {
                TreeError::NotADirectory { path: TreePath::clean(path).unwrap_or_default() }
            }
            _ => e,
        })?;
        let Place { mut dir, mut dir_path, rest, .. } = place;
        let mut made = Vec::new();
        for name in rest {
            let next = dir_path.join_name(&name);
            let fd = match open_child(dir.as_fd(), &name, OFlags::PATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    let fd = make_dir(dir.as_fd(), &name, new).map_err(TreeError::owning(
                        "make directory",
                        &next,
                        new.owner.unwrap_or_default(),
                    ))?;
                    made.push(next.clone());
                    fd
                }
                Err(e) => return Err(TreeError::io("open", &next)(e)),
            };
            let kind = fs::fstat(&fd).map_err(TreeError::io("stat", &next))?;
            if FileType::from_raw_mode(kind.st_mode) != FileType::Directory {
                return Err(TreeError::NotADirectory { path: next });
            }
            (dir, dir_path) = (fd, next);
        }
        // Making a child moved its parent's clock: times go on last, deepest first.
        if let Some(mtime) = new.mtime {
            // What was there above them is touched, too.
            let above = made.first().and_then(TreePath::parent).filter(|above| !above.is_root());
            for path in made.iter().rev().chain(&above) {
                let fd = self.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                set_times_fd(fd.as_fd(), mtime).map_err(TreeError::io("set times of", path))?;
            }
        }
        Ok(MadeDir { dir, path: dir_path, made })
    }
}

/// What [`Root::mkdir_p`] did.
#[derive(Debug)]
pub struct MadeDir {
    /// The directory, `O_PATH`.
    pub dir: OwnedFd,
    /// Its place with all links resolved.
    pub path: TreePath,
    /// The directories that did not exist before, topmost first.
    pub made: Vec<TreePath>,
}

fn at(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> TreeError {
    move |e| match TreePath::clean(path) {
        Ok(path) => TreeError::io(action, &path)(e),
        Err(bad) => bad.into(),
    }
}

/// As [`Root::open_plain`], in the first of several roots that has the path.
///
/// # Errors
/// [`TreeError::Io`]; `NOENT` if none has it.
pub fn open_plain_in(roots: &[OwnedFd], path: &TreePath, flags: OFlags) -> Result<OwnedFd, TreeError> {
    first_of(roots.iter().map(|root| open_plain_raw(root.as_fd(), path, flags, Mode::empty())))
        .map_err(TreeError::io("open", path))
}

/// The first that is there. Other errors are about what is there, and must not bring out what lies below.
fn first_of(opened: impl Iterator<Item = Result<OwnedFd, Errno>>) -> Result<OwnedFd, Errno> {
    for opened in opened {
        if !matches!(opened, Err(Errno::NOENT)) {
            return opened;
        }
    }
    Err(Errno::NOENT)
}

/// Opens many files as [`open_plain_in`] does. The directory of the last one stays open: in walk order most files lie
/// beside the one before, and the kernel then looks up one name for each.
#[derive(Debug)]
pub struct PlainFiles<'r> {
    roots: &'r [OwnedFd],
    last: Option<LastDir>,
}

/// A directory in each of the roots, or why it is not there.
#[derive(Debug)]
struct LastDir {
    path: Box<[u8]>,
    opened: Vec<Result<OwnedFd, Errno>>,
}

impl<'r> PlainFiles<'r> {
    /// Files beneath `roots`, the topmost first.
    #[must_use]
    pub fn new(roots: &'r [OwnedFd]) -> Self {
        Self { roots, last: None }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`open_plain_in`].
    pub fn open(&mut self, path: &TreePath) -> Result<OwnedFd, TreeError> {
        let bytes = path.as_bytes();
        let dir = &bytes[..bytes.len() - path.name().len()];
        let last = match self.last.take().filter(|last| *last.path == *dir) {
            Some(last) => last,
            None => self.directory(path, dir),
        };
        let name = path.name();
        let opened = last.opened.iter().map(|dir| match dir {
            Ok(dir) => open_child(dir.as_fd(), name, OFlags::RDONLY),
            Err(errno) => Err(*errno),
        });
        let opened = first_of(opened).map_err(TreeError::io("open", path));
        self.last = Some(last);
        opened
    }

    fn directory(&self, path: &TreePath, dir: &[u8]) -> LastDir {
        let (parent, flags) = (path.parent().unwrap_or_default(), OFlags::PATH | OFlags::DIRECTORY);
        let open = |root: &OwnedFd| open_plain_raw(root.as_fd(), &parent, flags, Mode::empty());
        LastDir { path: dir.into(), opened: self.roots.iter().map(open).collect() }
    }
}

/// `openat2`, again after a race with a rename: the kernel answers `EAGAIN` where one could have let the lookup out.
///
/// # Errors
/// The kernel's; `EAGAIN` after many races.
pub fn open_confined(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    for _ in 0..RACE_RETRIES {
        match fs::openat2(&root, path, flags, mode, how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => {
                NO_OPENAT2.store(true, Ordering::Relaxed);
                return Err(Errno::NOSYS);
            }
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// Whether names are to be opened one by one after this error of [`open_confined`]: without `openat2`, after too many
/// races, or behind one of the seccomp filters that answer `EPERM`. The names tell a real refusal from the filter's.
fn by_hand(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM | Errno::AGAIN)
}

/// Opens a link-free path beneath `root`; see [`Root::open_plain`].
pub(crate) fn open_plain_raw(
    root: BorrowedFd<'_>,
    path: &TreePath,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match open_confined(root, path.as_path(), flags, mode, how) {
        Err(error) if by_hand(error) => {}
        opened => return opened,
    }
    let mut dir: Option<OwnedFd> = None;
    let (parent, name) = match path.parent() {
        None => return fs::openat(root, c".", flags, mode),
        Some(parent) => (parent, path.name()),
    };
    for component in parent.components() {
        let from = dir.as_ref().map_or(root, AsFd::as_fd);
        dir = Some(open_child(from, component, OFlags::PATH | OFlags::DIRECTORY)?);
    }
    fs::openat(dir.as_ref().map_or(root, AsFd::as_fd), name, flags, mode)
}

/// Opens one name in a directory, never following a link.
pub(crate) fn open_child(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Makes one directory with exactly these attributes and returns it for reading.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &[u8], new: &NewDir) -> Result<OwnedFd, Errno> {
    // Born closed: nobody may enter before the owner is right.
    fs::mkdirat(dir, name, Mode::RWXU)?;
    let fd = open_child(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    if let Some((uid, gid)) = new.owner {
        fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fs::fchmod(&fd, Mode::from_raw_mode(new.mode))?;
    Ok(fd)
}

/// The text of the link behind an `O_PATH | O_NOFOLLOW` descriptor.
pub(crate) fn read_link_fd(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    fs::readlinkat(fd, c"", Vec::new()).map(std::ffi::CString::into_bytes)
}

/// Seconds and nanoseconds of a time in nanoseconds.
pub(crate) fn timespec(ns: i64) -> Timespec {
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

/// Access and modification time, both the same: an access time would make results differ.
pub(crate) fn timestamps(ns: i64) -> Timestamps {
    Timestamps { last_access: timespec(ns), last_modification: timespec(ns) }
}

/// Sets the times of what an ordinary descriptor refers to.
pub(crate) fn set_times_fd(fd: BorrowedFd<'_>, ns: i64) -> Result<(), Errno> {
    fs::futimens(fd, &timestamps(ns))
}

/// Sets the times of a name itself, never of what a link points to.
pub(crate) fn set_times_at(dir: BorrowedFd<'_>, name: &[u8], ns: i64) -> Result<(), Errno> {
    fs::utimensat(dir, name, &timestamps(ns), AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens a directory of the host by an ordinary path: for roots this program itself owns or was told by its user.
///
/// # Errors
/// [`TreeError::Stream`] with the kernel's reason.
pub fn open_host_dir(path: &std::path::Path) -> Result<OwnedFd, TreeError> {
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(TreeError::stream("open the root directory"))
}

#[cfg(test)]
mod tests;
