//! Mount points that set-up had to make, and their removal after the exit.
//!
//! The program may have put anything in their place. So only a name in a directory that is held by descriptor is ever
//! removed, only if it is what was made (same inode, same type), and only if it is empty.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// A directory or file that exists only to be mounted over.
#[derive(Debug)]
pub(crate) struct Mountpoint {
    /// The directory it was made in.
    pub(crate) parent: OwnedFd,
    pub(crate) name: CString,
    pub(crate) directory: bool,
    pub(crate) ino: u64,
}

/// Removes what is left of them, the last one first, and leaves the times of their directories as they are.
pub(crate) fn remove_all(mountpoints: &[Mountpoint]) {
    for mountpoint in mountpoints.iter().rev() {
        // One that cannot be removed is an empty directory in a layer, no reason to fail a step that succeeded.
        let _ = remove(mountpoint);
    }
}

fn remove(mountpoint: &Mountpoint) -> Result<(), Errno> {
    let found = rustix::fs::statat(&mountpoint.parent, &mountpoint.name, AtFlags::SYMLINK_NOFOLLOW)?;
    let same_type = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => mountpoint.directory,
        FileType::RegularFile => !mountpoint.directory && found.st_size == 0 && found.st_nlink == 1,
        _ => false,
    };
    if !same_type || found.st_ino != mountpoint.ino {
        return Ok(());
    }
    let times = times(&rustix::fs::statat(&mountpoint.parent, c"", AtFlags::EMPTY_PATH)?);
    let flags = if mountpoint.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(&mountpoint.parent, &mountpoint.name, flags)?;
    rustix::fs::utimensat(&mountpoint.parent, c"", &times, AtFlags::EMPTY_PATH)
}

/// The times of a directory, to be given back to it.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use super::*;

    fn mountpoint(parent: &Path, name: &str, directory: bool) -> Mountpoint {
        Mountpoint {
            parent: fs::File::open(parent).unwrap().into(),
            name: CString::new(name).unwrap(),
            directory,
            ino: fs::symlink_metadata(parent.join(name)).unwrap().ino(),
        }
    }

    #[test]
    fn empty_ones_go_and_times_stay() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("run/secrets")).unwrap();
        fs::write(at("run/secrets/a"), "").unwrap();
        let mountpoints = vec![
            mountpoint(root.path(), "run", true),
            mountpoint(&at("run"), "secrets", true),
            mountpoint(&at("run/secrets"), "a", false),
        ];
        let before = fs::metadata(root.path()).unwrap().modified().unwrap();
        remove_all(&mountpoints);
        assert!(!at("run").exists());
        assert_eq!(fs::metadata(root.path()).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn what_is_used_or_swapped_stays() {
        let root = tempfile::tempdir().unwrap();
        let canary = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["full", "link", "other"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("written"), "").unwrap();
        let mountpoints = vec![
            mountpoint(root.path(), "full", true),
            mountpoint(root.path(), "link", true),
            mountpoint(root.path(), "other", true),
            mountpoint(root.path(), "written", false),
        ];
        fs::write(at("full/file"), "x").unwrap();
        fs::write(at("written"), "x").unwrap();
        fs::remove_dir(at("link")).unwrap();
        symlink(canary.path(), at("link")).unwrap();
        fs::rename(at("other"), at("moved")).unwrap();
        fs::create_dir(at("other")).unwrap();
        remove_all(&mountpoints);
        for name in ["full/file", "link", "other", "moved", "written"] {
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
        assert!(canary.path().exists());
    }
}
