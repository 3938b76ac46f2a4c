//! Files that a user names as outputs: one function opens every destination.
//!
//! A regular file is replaced atomically, and keeps its owner, mode and access list. Links are followed to their target.
//! Devices, pipes and inherited descriptors (`/dev/stdout`, `/dev/fd/N`, a shell's `>(command)`) are written through.
//! Nothing is ever renamed over what is not a regular file.

mod place;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use self::place::{Place, find};
use crate::persist::New;

/// The id by which a user namespace shows owners that it has no name for.
const OVERFLOW: u32 = 65534;
/// The access list of a file, an extended attribute.
const ACL: &str = "system.posix_acl_access";
/// How often a pipe without a reader is tried again.
const READER_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// Whether outputs are to stop: a pipe's reader may never come.
static CANCELED: AtomicBool = AtomicBool::new(false);

/// Makes all outputs of this process fail from now on, also those that wait for a reader.
pub fn cancel() {
    CANCELED.store(true, Ordering::Relaxed);
}

/// Whether [`cancel`] was called.
pub fn is_canceled() -> bool {
    CANCELED.load(Ordering::Relaxed)
}

/// The mode of an output that does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewMode {
    /// Whatever the process's mask leaves of 0666.
    Masked,
    /// 0600.
    Private,
}

/// Writes an output by `write`. Regular files have the whole content afterwards, or stay as they were if `write` fails.
///
/// # Errors
/// Those of `write`, and what the system says of the destination.
pub fn write_output<T, E: From<io::Error>>(
    path: &Path,
    mode: NewMode,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let output = Output::open(path, mode)?;
    let result = {
        let mut buffer = BufWriter::with_capacity(BUFFER, Through(&output.file));
        let result = write(&mut buffer)?;
        buffer.flush()?;
        // What was flushed is all there was: the buffer goes without another try.
        drop(buffer.into_parts());
        result
    };
    output.finish()?;
    Ok(result)
}

/// Empties the regular file that an output will replace, so that a failed run leaves no old content. Other kinds of
/// destinations are left alone.
///
/// # Errors
/// What the system says of the destination.
pub fn clear_output(path: &Path) -> io::Result<()> {
    let Place::Regular { dir, name, .. } = find(path)? else { return Ok(()) };
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let emptied =
        rustix::fs::openat(&dir, &name, flags, Mode::empty()).and_then(|file| rustix::fs::ftruncate(file, 0));
    match emptied {
        Ok(()) => Ok(()),
        Err(_) => Ok(rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?),
    }
}

/// Removes the regular file at an output's destination if it is empty: what [`clear_output`] left after a failure.
pub fn remove_cleared(path: &Path) {
    if let Ok(Place::Regular { dir, name, stat }) = find(path)
        && stat.st_size == 0
    {
        // The failure that led here is the one to report.
        rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).unwrap_or_default();
    }
}

/// An output that is being written.
struct Output {
    file: File,
    kind: Kind,
}

enum Kind {
    /// Written in place: devices, pipes, descriptors.
    Through,
    /// A regular file that cannot be replaced, written in place.
    InPlace,
    /// A new file, which gets its name at the end.
    New {
        /// The file.
        new: New,
        /// Whether there is a file to replace.
        replaces: bool,
    },
}

impl Output {
    fn open(path: &Path, mode: NewMode) -> io::Result<Output> {
        match find(path)? {
            Place::Descriptor(number) => Ok(Output { file: inherited(number)?, kind: Kind::Through }),
            Place::Special(path) => Ok(Output { file: special(&path)?, kind: Kind::Through }),
            Place::Missing { dir, name } => {
                let mode = match mode {
                    NewMode::Masked => Mode::from_raw_mode(0o666),
                    NewMode::Private => Mode::from_raw_mode(0o600),
                };
                let (file, new) = New::begin(dir, name, mode)?;
                Ok(Output { file, kind: Kind::New { new, replaces: false } })
            }
            Place::Regular { dir, name, stat } => {
                match replacement(&dir, &name, &stat) {
                    Ok((file, new)) => Ok(Output { file, kind: Kind::New { new, replaces: true } }),
                    // Not ours to replace: a directory that may not be written, an owner that cannot be kept.
                    Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::INVAL | Errno::NOTSUP) => {
                        let file = in_place(&dir, &name)?;
                        rustix::fs::ftruncate(&file, 0)?;
                        Ok(Output { file, kind: Kind::InPlace })
                    }
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        let Output { mut file, kind } = self;
        if is_canceled() {
            return Err(io::Error::other("canceled"));
        }
        match kind {
            Kind::Through => Ok(()),
            Kind::InPlace => file.sync_all(),
            Kind::New { mut new, replaces } => {
                file.sync_all()?;
                match new.name_it(&file) {
                    // The name is a mount of its own, or nobody's to replace: the content goes into the file that is there.
                    Err(Errno::BUSY | Errno::PERM | Errno::ACCESS | Errno::XDEV) if replaces => {
                        let mut there = in_place(&new.dir, &new.name)?;
                        there.set_len(0)?;
                        file.rewind()?;
                        io::copy(&mut file, &mut there)?;
                        there.sync_all()
                    }
                    done => Ok(done?),
                }
            }
        }
    }
}

/// A new file with the owner, the mode and the access list of the one at `name`.
fn replacement(dir: &OwnedFd, name: &OsString, stat: &Stat) -> Result<(File, New), Errno> {
    // Removed again unless all of it can be kept.
    let (file, new) = New::begin(dir.try_clone().map_err(errno)?, name.clone(), Mode::from_raw_mode(0o600))?;
    let own = rustix::fs::fstat(&file)?;
    if (own.st_uid, own.st_gid) != (stat.st_uid, stat.st_gid) {
        if stat.st_uid == OVERFLOW || stat.st_gid == OVERFLOW {
            return Err(Errno::PERM);
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", there.as_raw_fd());
    let mut acl = vec![0; 64 << 10];
    if let Ok(length) = rustix::fs::getxattr(&link, ACL, &mut acl) {
        rustix::fs::fsetxattr(&file, ACL, &acl[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok((file, new))
}

fn in_place(dir: &OwnedFd, name: &OsString) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// A device or a pipe, open for writing. A pipe is waited for until somebody reads it.
fn special(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::metadata(path)?.file_type().is_fifo();
    if !is_fifo {
        return File::options().write(true).custom_flags(libc::O_NOCTTY).open(path);
    }
    loop {
        match File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
            // `write` waits where the pipe is full.
            Ok(file) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && !is_canceled() => {
                std::thread::sleep(READER_PAUSE);
            }
            Err(_) if is_canceled() => return Err(io::Error::other("canceled")),
            Err(error) => return Err(error),
        }
    }
}

/// A descriptor that the process was started with.
fn inherited(number: i32) -> io::Result<File> {
    // SAFETY: an integer goes in and one comes out; a number that is no descriptor gives an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What this process opened itself is close-on-exec; what it was given cannot be.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        let text = format!("descriptor {number} is not open: the caller did not pass it on");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    // SAFETY: the descriptor is open, as seen above, and nobody in this process closes inherited ones; the borrow
    // ends with this function.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 0)?.into())
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Writes to a file that may be a pipe in non-blocking mode, until outputs are canceled.
struct Through<'a>(&'a File);

impl Write for Through<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if is_canceled() {
                return Err(io::Error::other("canceled"));
            }
            match (&mut &*self.0).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::OUT)];
                    let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    match poll(&mut ready, Some(&pause)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
