//! Pipes and terminals of processes.

use std::fs::File;
use std::io;

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The bytes of one message.
const PIECE: usize = 32 << 10;

/// The end of a pipe, or of a terminal, that output is read from.
pub(crate) struct Output(Receiver);

/// The end of a pipe, or of a terminal, that input is written to.
pub(crate) struct Input(Sender);

/// `fd`, whose calls do not wait from now on.
fn without_waits(fd: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd.into())
}

fn no_pipe(error: &io::Error) -> Status {
    Status::internal(format!("a pipe cannot be made: {error}"))
}

impl Output {
    /// Reads from `fd`, which can be waited for.
    ///
    /// # Errors
    /// The system has no more of what this needs.
    pub(crate) fn new(fd: OwnedFd) -> Result<Output, Status> {
        without_waits(fd).and_then(Receiver::from_file_unchecked).map(Output).map_err(|error| no_pipe(&error))
    }

    /// The next bytes; `None` at the end. Once `over` is done, nothing comes behind the bytes that are written already.
    pub(crate) async fn read(&self, over: &CancellationToken) -> Option<Vec<u8>> {
        let mut data = vec![0; PIECE];
        loop {
            let last = over.is_cancelled();
            // Without asking the runtime, which may not have heard of the last bytes yet.
            match rustix::io::read(&self.0, &mut data[..]) {
                Ok(count) if count > 0 => {
                    data.truncate(count);
                    return Some(data);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if last => return None,
                Err(Errno::AGAIN) => {
                    tokio::select! {
                        ready = self.0.readable() => ready.ok()?,
                        () = over.cancelled() => continue,
                    }
                    // Tells the runtime to wait for the next bytes, if these were not there after all.
                    match self.0.try_read(&mut data) {
                        Ok(count) if count > 0 => {
                            data.truncate(count);
                            return Some(data);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        _ => return None,
                    }
                }
                // The other end of a terminal that nobody has open says EIO.
                _ => return None,
            }
        }
    }
}

impl Input {
    /// Writes to `fd`, which can be waited for.
    ///
    /// # Errors
    /// The system has no more of what this needs.
    pub(crate) fn new(fd: OwnedFd) -> Result<Input, Status> {
        without_waits(fd).and_then(Sender::from_file_unchecked).map(Input).map_err(|error| no_pipe(&error))
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(crate) async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(data) {
                Ok(count) => data = &data[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Both ends of a pipe: the one to read from, and the one to write to.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Status> {
    let failed = |errno: Errno| Status::internal(format!("a pipe cannot be made: {errno}"));
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)
}

/// A stream with nothing in it, which takes everything.
pub(crate) fn null() -> Result<OwnedFd, Status> {
    let failed = |error: io::Error| Status::internal(format!("/dev/null cannot be opened: {error}"));
    Ok(File::options().read(true).write(true).open("/dev/null").map_err(failed)?.into())
}
