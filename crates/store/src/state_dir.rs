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
/// Directories with a directory for each layer or cache. What is in those is searched, too.
const NESTED: [&str; 2] = ["layers", "mounts"];
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
    let search = || {
        for name in DIRECTORIES {
            check(root, &dir, name, FileType::Directory)?;
        }
        for name in FILES {
            check(root, &dir, name, FileType::RegularFile)?;
        }
        if stat.st_mode & WRITABLE != 0 { refuse_planted(root, &dir, Directories::Ours) } else { Ok(()) }
    };
    if open_to_others { make_private(root, &dir, &stat, search) } else { search() }
}

/// Makes a directory private and then searches it, so that nothing can be planted after the search. If the search refuses,
/// the directory gets its mode back, and the next opening searches again.
fn make_private(
    path: &Path,
    dir: &OwnedFd,
    stat: &Stat,
    search: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let set =
        |mode| fchmod(dir, mode).map_err(|errno| io_error("make private", path)(io::Error::from(errno)));
    set(Mode::RWXU)?;
    search().inspect_err(|_| {
        // The refusal is what the user needs to know of.
        set(Mode::from_raw_mode(stat.st_mode)).unwrap_or_default();
    })
}

/// Whose directories may be in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directories {
    Ours,
    /// Roots of trees have the owner that a step or a mount gave them.
    OfAnyOwner,
}

/// Refuses what others may have put into a directory: links, what is theirs, and further names of files elsewhere. Nothing of
/// ours is a link.
fn refuse_planted(path: &Path, dir: &OwnedFd, directories: Directories) -> Result<(), StoreError> {
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
            FileType::Directory => stat.st_uid == me || directories == Directories::OfAnyOwner,
            FileType::RegularFile => stat.st_nlink == 1 && stat.st_uid == me,
            _ => false,
        };
        if !ours {
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
        make_private(&path, &own, &stat, || {
            if stat.st_mode & WRITABLE != 0 {
                refuse_planted(&path, &own, Directories::Ours)?;
            }
            if NESTED.contains(&name) { refuse_planted_below(&path, &own) } else { Ok(()) }
        })?;
    }
    Ok(())
}

/// As [`refuse_planted`], for each directory in `dir` that others could write to. Trees of steps lie deeper: they have files
/// of any kind, and are only reached by descriptors.
fn refuse_planted_below(path: &Path, dir: &OwnedFd) -> Result<(), StoreError> {
    for entry in Dir::read_from(dir).map_err(|errno| io_error("list", path)(errno.into()))? {
        let entry = entry.map_err(|errno| io_error("list", path)(errno.into()))?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes())
            || name.to_bytes().starts_with(UNDELETABLE.as_bytes())
        {
            continue;
        }
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = match openat(dir, name, flags, Mode::empty()) {
            Ok(own) => own,
            // A file, which its own directory's search is about.
            Err(Errno::NOTDIR | Errno::NOENT) => continue,
            Err(Errno::LOOP) => return Err(StoreError::Planted { path }),
            Err(errno) => return Err(io_error("open", &path)(errno.into())),
        };
        let stat = fstat(&own).map_err(|errno| io_error("look at", &path)(errno.into()))?;
        if stat.st_mode & WRITABLE != 0 {
            make_private(&path, &own, &stat, || refuse_planted(&path, &own, Directories::OfAnyOwner))?;
        }
    }
    Ok(())
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

    /// As after `chmod -R 777`: links in the directories of layers and caches are found, and the refusal is for good.
    #[test]
    fn planted_entries_deeper_down_are_refused() {
        for name in ["layers/x/tree", "layers/x/fs", "layers/x/base", "mounts/y/lock", "mounts/y/data"] {
            let dir = tempfile::tempdir().unwrap();
            let (root, other) = (dir.path().join("s"), dir.path().join("other"));
            drop(Store::open(&root).unwrap());
            fs::create_dir(&other).unwrap();
            let planted = root.join(name);
            let own = planted.parent().unwrap().to_owned();
            fs::create_dir(&own).unwrap();
            fs::create_dir(own.join("patch")).unwrap();
            fs::write(own.join("note"), "").unwrap();
            symlink(&other, &planted).unwrap();
            for open in [own.as_path(), own.parent().unwrap(), &root] {
                fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
            }
            for _ in 0..2 {
                let opened = Store::open(&root).map(drop);
                assert!(
                    matches!(&opened, Err(StoreError::Planted { path }) if *path == planted),
                    "{name}: {opened:?}"
                );
                assert_eq!(mode(&root), 0o777);
            }
            fs::remove_file(&planted).unwrap();
            drop(Store::open(&root).unwrap());
            assert_eq!((mode(&root), mode(&own)), (0o700, 0o700), "{name}");
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
