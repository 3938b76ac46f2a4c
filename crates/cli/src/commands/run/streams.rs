//! The standard streams of a container that has no terminal of its own.
//!
//! Whoever has a file open can change its owner and permissions through the descriptor. So files, terminals and named
//! pipes of ours are not handed over: the container has pipes, and threads copy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::pipe::{PipeFlags, pipe_with};

use super::terminal::copy;

/// File systems of what has no name: pipes and sockets.
const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;

/// The standard streams of a container, and the threads that copy them.
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) copies: Copies,
}

/// Threads that carry what a container writes to our own streams.
pub(super) struct Copies(Vec<JoinHandle<()>>);

impl Copies {
    /// Waits for the last of the output. The container has to be gone.
    pub(super) fn finish(self) {
        for thread in self.0 {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

impl Streams {
    /// None of ours: a container with a terminal uses none.
    pub(super) fn unused() -> io::Result<Self> {
        Ok(Self { stdin: null()?, stdout: null()?, stderr: null()?, copies: Copies(Vec::new()) })
    }

    /// Ours; standard input only if `interactive`.
    pub(super) fn ours(interactive: bool) -> io::Result<Self> {
        let stdin = if interactive { input(io::stdin().as_fd().try_clone_to_owned()?)? } else { null()? };
        let mut copies = Vec::new();
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        let err = io::stderr().as_fd().try_clone_to_owned()?;
        let one = is_same(&out, &err)?;
        let stdout = output(out, &mut copies)?;
        // In the order in which they were written, where both go to one file.
        let stderr = if one { stdout.try_clone()? } else { output(err, &mut copies)? };
        Ok(Self { stdin, stdout, stderr, copies: Copies(copies) })
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Whether a container may have it: nobody else can come to it, or the sandbox gives it another one.
fn can_be_given(stream: &OwnedFd) -> io::Result<bool> {
    let stat = fstat(stream)?;
    let null = rustix::fs::makedev(1, 3);
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == null;
    let kind = fstatfs(stream)?.f_type as u64;
    Ok(is_null || kind == PIPEFS || kind == SOCKFS)
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn output(to: OwnedFd, copies: &mut Vec<JoinHandle<()>>) -> io::Result<OwnedFd> {
    if can_be_given(&to)? {
        return Ok(to);
    }
    let (from, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    let thread = std::thread::Builder::new().spawn(move || {
        // Whoever reads has gone, or the disk is full: the container hears of it when the pipe goes.
        copy(&mut File::from(from), &mut File::from(to)).unwrap_or_default();
    })?;
    copies.push(thread);
    Ok(ours)
}

/// Nobody waits for this thread: it may stay in a read that nothing ends.
fn input(from: OwnedFd) -> io::Result<OwnedFd> {
    if can_be_given(&from)? {
        return Ok(from);
    }
    let (theirs, to) = pipe_with(PipeFlags::CLOEXEC)?;
    std::thread::Builder::new().spawn(move || {
        // The program need not read to the end.
        copy(&mut File::from(from), &mut File::from(to)).unwrap_or_default();
    })?;
    Ok(theirs)
}
