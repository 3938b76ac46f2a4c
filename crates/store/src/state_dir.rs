//! Whose the state directory is. It is for its owner alone: it holds root file systems with other users' files and
//! set-user-id programs, logs and build arguments. A directory that was there before may have any mode, and whoever could
//! write to it may have put links in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, statat};
use rustix::io::Errno;

use crate::error::{StoreError, io_error};

/// The directories in a state directory.
pub(crate) const DIRECTORIES: [&str; 8] =
    ["blobs", "blobs/sha256", "layers", "contexts", "mounts", "locks", "users", "tmp"];
/// The files in a state directory.
const FILES: [&str; 8] = [
    "state.json",
    "state.db",
    "state.db-wal",
    "state.db-shm",
    "state.db-journal",
    "builds.recent",
    "ballast",
    "killed",
];
/// What a fresh file system has in its root.
const FRESH: &str = "lost+found";
/// What names of things in `tmp` begin with that could not be removed: they are of any kind and anybody's.
pub(crate) const UNDELETABLE: &str = "stuck-";
/// The permissions by which others can put something into a directory.
const WRITABLE: u32 = 0o022;

/// Makes sure that the state directory at `root`, if it is there, and what is directly in it are this user's and nobody
/// else's: modes are mended, what is a link or another user's is refused.
///
/// # Errors
/// [`StoreError::Foreign`] and [`StoreError::Planted`].
pub(crate) fn secure(root: &Path) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match openat(CWD, root, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(io_error("open", root)(errno.into())),
    };
    let stat = fstat(&dir).map_err(|errno| io_error("look at", root)(errno.into()))?;
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me {
        return Err(StoreError::Foreign { path: root.to_owned(), owner: stat.st_uid });
    }
    let open_to_others = stat.st_mode & 0o077 != 0;
    if open_to_others {
        // Somebody's home, or `/tmp`, is not made private because its name was given by mistake.
        refuse_other_use(root, &dir)?;
    }
    for name in DIRECTORIES {
        check(root, &dir, name, FileType::Directory)?;
    }
    for name in FILES {
        check(root, &dir, name, FileType::RegularFile)?;
    }
    if stat.st_mode & WRITABLE != 0 {
        refuse_planted(root, &dir)?;
    }
    if open_to_others {
        private(root, &dir)?;
    }
    Ok(())
}

/// Refuses what others may have put into a directory: links, what is theirs, and further names of files elsewhere. Nothing of
/// ours is a link.
fn refuse_planted(path: &Path, dir: &OwnedFd) -> Result<(), StoreError> {
    let me = rustix::process::geteuid().as_raw();
    for entry in Dir::read_from(dir).map_err(|errno| io_error("list", path)(errno.into()))? {
        let entry = entry.map_err(|errno| io_error("list", path)(errno.into()))?;
        let name = entry.file_name();
        let known = [&b"."[..], b"..", FRESH.as_bytes()].contains(&name.to_bytes());
        if known || name.to_bytes().starts_with(UNDELETABLE.as_bytes()) {
            continue;
        }
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(io_error("look at", &path)(errno.into())),
        };
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => stat.st_nlink == 1,
            _ => false,
        };
        if !ours || stat.st_uid != me {
            return Err(StoreError::Planted { path });
        }
    }
    Ok(())
}

fn refuse_other_use(root: &Path, dir: &OwnedFd) -> Result<(), StoreError> {
    if statat(dir, "state.json", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    let ours = |name: &str| {
        name == FRESH || DIRECTORIES.contains(&name) || FILES.iter().any(|file| name.starts_with(file))
    };
    for entry in fs::read_dir(root).map_err(io_error("list", root))? {
        let name = entry.map_err(io_error("list", root))?.file_name();
        if !name.to_str().is_some_and(ours) {
            return Err(StoreError::InOtherUse { path: root.to_owned(), name: name.into() });
        }
    }
    Ok(())
}

/// Refuses what is not of the kind, or not ours, and makes a directory private.
fn check(root: &Path, dir: &OwnedFd, name: &str, kind: FileType) -> Result<(), StoreError> {
    let path = root.join(name);
    let stat: Stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(io_error("look at", &path)(errno.into())),
    };
    let me = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_uid != me {
        return Err(StoreError::Planted { path });
    }
    if kind == FileType::Directory && stat.st_mode & 0o077 != 0 {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own =
            openat(dir, name, flags, Mode::empty()).map_err(|errno| io_error("open", &path)(errno.into()))?;
        if stat.st_mode & WRITABLE != 0 {
            refuse_planted(&path, &own)?;
        }
        private(&path, &own)?;
    }
    Ok(())
}

fn private(path: &Path, dir: &OwnedFd) -> Result<(), StoreError> {
    fchmod(dir, Mode::RWXU).map_err(|errno| io_error("make private", path)(io::Error::from(errno)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::Store;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn modes_are_mended_at_every_opening() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("s");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        drop(Store::open(&root).unwrap());
        assert_eq!(mode(&root), 0o700);
        for name in ["", "tmp", "locks", "blobs/sha256"] {
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        drop(Store::open(&root).unwrap());
        for name in ["", "tmp", "locks", "blobs/sha256"] {
            assert_eq!(mode(&root.join(name)), 0o700, "{name}");
        }
    }

    #[test]
    fn planted_links_are_refused() {
        for name in DIRECTORIES.iter().chain(&FILES) {
            let dir = tempfile::tempdir().unwrap();
            let (root, other) = (dir.path().join("s"), dir.path().join("other"));
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
            fs::create_dir(&other).unwrap();
            fs::write(other.join("kept"), "").unwrap();
            symlink(&other, root.join(name)).unwrap();
            let refused = Store::open(&root).map(drop).unwrap_err();
            assert!(matches!(refused, StoreError::Planted { .. }), "{name}: {refused}");
            assert!(other.join("kept").exists());
        }
    }

    #[test]
    fn planted_entries_are_refused() {
        for name in DIRECTORIES.iter().copied().chain([""]) {
            for kind in ["link", "dangling", "hard link", "pipe", "stuck", "file"] {
                let dir = tempfile::tempdir().unwrap();
                let (root, other) = (dir.path().join("s"), dir.path().join("other"));
                drop(Store::open(&root).unwrap());
                fs::write(&other, "kept").unwrap();
                let planted = root.join(name).join(if kind == "stuck" { "stuck-1" } else { "planted" });
                match kind {
                    "link" | "stuck" => symlink(&other, &planted).unwrap(),
                    "dangling" => symlink(dir.path().join("none"), &planted).unwrap(),
                    "hard link" => fs::hard_link(&other, &planted).unwrap(),
                    "pipe" => rustix::fs::mknodat(CWD, &planted, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                    _ => fs::write(&planted, "").unwrap(),
                }
                fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o777)).unwrap();
                let opened = Store::open(&root).map(drop);
                let refused = matches!(&opened, Err(StoreError::Planted { path }) if *path == planted);
                assert_eq!(refused, !matches!(kind, "stuck" | "file"), "{name}: {kind}: {opened:?}");
                assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
                assert!(!dir.path().join("none").exists());
            }
        }
    }

    #[test]
    fn a_directory_in_other_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("thesis"), "").unwrap();
        assert!(matches!(Store::open(dir.path()).map(drop), Err(StoreError::InOtherUse { .. })));
        assert_eq!((mode(dir.path()), fs::read_dir(dir.path()).unwrap().count()), (0o755, 1));
    }
}
