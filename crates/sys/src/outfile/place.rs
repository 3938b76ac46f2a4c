//! What a path of an output leads to.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, Stat};

/// How many links are followed: as many as the kernel follows.
const LINKS: usize = 40;

/// Where an output goes.
pub(super) enum Place {
    /// Nothing is there yet.
    Missing { dir: OwnedFd, name: OsString },
    /// A regular file.
    Regular { dir: OwnedFd, name: OsString, stat: Box<Stat> },
    /// A device, a pipe, or another process's open file.
    Special(PathBuf),
    /// A descriptor of this process.
    Descriptor(i32),
}

/// Follows the links of a path, also where the last one's target does not exist.
pub(super) fn find(path: &Path) -> io::Result<Place> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(name) = name_of(&path) else { return Err(is_directory()) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent)?;
        let own = parent.join(name);
        if rustix::fs::statfs(&parent)?.f_type == PROC_SUPER_MAGIC
            && let Some(place) = of_process(&parent, &own, name)?
        {
            return Ok(place);
        }
        let found = match fs::symlink_metadata(&own) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Place::Missing { dir: directory(&parent)?, name: name.to_owned() });
            }
            Err(error) => return Err(error),
        };
        let kind = found.file_type();
        if kind.is_symlink() {
            path = parent.join(fs::read_link(&own)?);
        } else if kind.is_dir() {
            return Err(is_directory());
        } else if kind.is_file() {
            let dir = directory(&parent)?;
            let stat = rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(Place::Regular { dir, name: name.to_owned(), stat: Box::new(stat) });
        } else if kind.is_socket() {
            return Err(io::Error::other("it is a socket, which cannot be opened as a file"));
        } else {
            return Ok(Place::Special(own));
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// The last name of a path that may be a file's. A path that ends in `/`, `.` or `..` means a directory.
fn name_of(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"." {
        return None;
    }
    path.file_name()
}

/// What a link in `/proc` stands for: the kernel follows those to the file itself, and not to its name.
fn of_process(parent: &Path, link: &Path, name: &OsStr) -> io::Result<Option<Place>> {
    let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
    let Some(number) = number.filter(|_| parent.ends_with("fd")) else { return Ok(None) };
    let process = fs::canonicalize("/proc/self")?;
    // `/proc/PID/fd`, or `/proc/PID/task/TID/fd`.
    if parent.starts_with(&process) {
        return Ok(Some(Place::Descriptor(number)));
    }
    // Another process's: a new opening of the same file, whatever its name is by now.
    let found = fs::metadata(link)?;
    if found.is_dir() {
        return Err(is_directory());
    }
    Ok(Some(Place::Special(link.to_owned())))
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn is_directory() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")
}
