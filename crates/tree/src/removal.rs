//! Removing whole directory trees, however deep: no recursion, and never more than a fixed number of descriptors but in
//! lower layers of an overlay.
//!
//! Directories are walked with a short stack of open ones. Deeper directories are first moved to the top
//! directory, so that its own depth counts from there. Links are never followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// How many directories are open at once, at most, besides the top one.
const OPEN: usize = 32;

/// Removes what is at `path`: a file, a link, or a directory with everything in it. Goes on after what cannot be removed.
///
/// # Errors
/// The first refusal of the system, `NotFound` if nothing is there.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
    Ok(remove_at(parent.as_fd(), name.as_bytes())?)
}

/// As [`remove_all`], of the entry `name` of the open directory `parent`. No path is resolved on the way.
///
/// # Errors
/// As [`remove_all`].
pub fn remove_all_at(parent: &impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(remove_at(parent.as_fd(), name)?)
}

/// As [`remove_all`], of a name in a directory.
///
/// # Errors
/// The first refusal of the system.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        // The kernel says either of a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let top = match open(parent, &c_string(name)?) {
        Ok(top) => top,
        // It was a file that may not be removed.
        Err(Errno::NOTDIR) => return Err(Errno::PERM),
        Err(errno) => return Err(errno),
    };
    let mut removal = Removal { top, moved: 0, waiting: Vec::new(), first: None };
    let top =
        removal.top.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
    removal.empty(top)?;
    while let Some(name) = removal.waiting.pop() {
        match open(&removal.top, &name) {
            Ok(dir) => removal.empty(dir)?,
            Err(errno) => removal.failed(errno),
        }
        let removed = rustix::fs::unlinkat(&removal.top, &name, AtFlags::REMOVEDIR);
        removal.note(removed);
    }
    let removed = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    // Why something in it stayed says more than that it is not empty.
    match removal.first {
        Some(first) => Err(first),
        None => removed,
    }
}

struct Removal {
    top: OwnedFd,
    /// How many directories were moved to the top.
    moved: u64,
    /// Their names.
    waiting: Vec<CString>,
    /// The first refusal.
    first: Option<Errno>,
}

/// An open directory on the way down.
struct Level {
    list: Dir,
    /// Its name in the one above; `None` for the one that the walk began with.
    name: Option<CString>,
}

impl Removal {
    /// Removes everything in `dir`.
    fn empty(&mut self, dir: OwnedFd) -> Result<(), Errno> {
        let mut levels = vec![Level { list: Dir::new(dir)?, name: None }];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.list.read() else {
                self.leave(&mut levels);
                continue;
            };
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    self.failed(errno);
                    self.leave(&mut levels);
                    continue;
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let (name, kind) = (name.to_owned(), entry.file_type());
            let at_limit = levels.len() >= OPEN;
            let below = self.one(&levels, &name, kind, at_limit);
            if let Some(below) = below {
                match Dir::new(below) {
                    Ok(list) => levels.push(Level { list, name: Some(name) }),
                    Err(errno) => self.failed(errno),
                }
            }
        }
        Ok(())
    }

    /// Removes one name, or gives the directory that has to be emptied first.
    fn one(&mut self, levels: &[Level], name: &CStr, kind: FileType, at_limit: bool) -> Option<OwnedFd> {
        let list = &levels.last()?.list;
        let dir = match list.fd() {
            Ok(dir) => dir,
            Err(errno) => {
                self.failed(errno);
                return None;
            }
        };
        // An empty directory goes at once. Where the list does not tell kinds, the refusal does.
        let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let refusal = match rustix::fs::unlinkat(dir, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return None,
            Err(errno) => errno,
        };
        let may_be_dir = match kind {
            FileType::Directory => matches!(refusal, Errno::NOTEMPTY | Errno::EXIST),
            FileType::Unknown => matches!(refusal, Errno::ISDIR | Errno::PERM),
            _ => false,
        };
        if !may_be_dir {
            self.failed(refusal);
            return None;
        }
        if at_limit {
            match self.lift(dir, name) {
                // An overlay moves no directory of its lower layers. Layers are no deeper than a path can tell, so that the
                // walk may go down there.
                Err(Errno::XDEV) => {}
                moved => {
                    self.note(moved);
                    return None;
                }
            }
        }
        match open(dir, name) {
            Ok(below) => Some(below),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.failed(refusal);
                None
            }
            Err(errno) => {
                self.failed(errno);
                None
            }
        }
    }

    fn lift(&mut self, dir: impl std::os::fd::AsFd, name: &CStr) -> Result<(), Errno> {
        loop {
            let fresh = c_string(format!(".removed-{}-{}", std::process::id(), self.moved).as_bytes())?;
            self.moved += 1;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&dir, name, self.top.as_fd(), &fresh, flags) {
                Err(Errno::EXIST) => {}
                Ok(()) => {
                    self.waiting.push(fresh);
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Goes back to the level above, and removes the one that was left.
    fn leave(&mut self, levels: &mut Vec<Level>) {
        let Some(Level { name, .. }) = levels.pop() else { return };
        let Some(name) = name else { return };
        let Some(above) = levels.last() else { return };
        let removed =
            above.list.fd().and_then(|above| rustix::fs::unlinkat(above, &name, AtFlags::REMOVEDIR));
        self.note(removed);
    }

    fn note(&mut self, done: Result<(), Errno>) {
        if let Err(errno) = done {
            self.failed(errno);
        }
    }

    fn failed(&mut self, errno: Errno) {
        if errno != Errno::NOENT {
            self.first.get_or_insert(errno);
        }
    }
}

fn open(dir: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        // Its owner may read a directory after giving that right back.
        Err(Errno::ACCESS) => {
            let path = rustix::fs::openat(&dir, name, flags | OFlags::PATH, Mode::empty())?;
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&path));
            rustix::fs::chmod(link, Mode::RWXU)?;
            rustix::fs::openat(&dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

fn c_string(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Nests directories without a path longer than the kernel takes.
    fn nest(root: &Path, levels: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(CWD, root, flags, Mode::empty()).unwrap();
        for level in 0..levels {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            if level % 500 == 0 {
                let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&at, "file", file, Mode::RUSR).unwrap();
            }
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn deep_trees_go_with_few_descriptors() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("deep");
        fs::create_dir(&dir).unwrap();
        nest(&dir, 20_000);
        fs::create_dir_all(dir.join("wide")).unwrap();
        (0..100).for_each(|number| fs::create_dir_all(dir.join(format!("wide/{number}/below"))).unwrap());
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                remove_all(&dir).unwrap();
                assert!(!dir.exists());
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn links_stay_what_they_are_and_their_targets_stay() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("dir"), root.path().join("other"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        symlink(&other, dir.join("sub/link")).unwrap();
        symlink(&other, root.path().join("link")).unwrap();
        remove_all(&dir).unwrap();
        remove_all(&root.path().join("link")).unwrap();
        assert!(other.join("kept").exists());
        assert_eq!(remove_all(&dir).unwrap_err().kind(), io::ErrorKind::NotFound);
        remove_all(&other.join("kept")).unwrap();
    }

    #[test]
    fn unreadable_directories_go_too() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("dir");
        fs::create_dir_all(dir.join("shut/in")).unwrap();
        fs::set_permissions(dir.join("shut"), fs::Permissions::from_mode(0o0)).unwrap();
        remove_all(&dir).unwrap();
        assert!(!dir.exists());
    }
}
