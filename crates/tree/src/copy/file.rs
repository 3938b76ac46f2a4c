//! Copying of one file's content: by reflink where the file system has that, else by hand, which is as fast as the
//! kernel's own way as every byte has to be looked at anyway.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs;
use rustix::io::{self, Errno};

use crate::entry::ContentDigest;
use crate::scan::hash::{LARGE, hash_file, hash_large};

/// Below this the extra call for a reflink costs more than copying.
const SMALL: u64 = 64 << 10;
const BUFFER: usize = 128 << 10;

thread_local! {
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether reflinks still seem to work between one source and one destination.
#[derive(Debug)]
pub(super) struct CopyMethods {
    reflink: AtomicBool,
}

impl CopyMethods {
    pub(super) fn new() -> Self {
        Self { reflink: true.into() }
    }

    /// Copies the first `size` bytes of `from` to the empty `to`, and says how many there were and what they are. A clone
    /// is all of the file, whatever its size is.
    pub(super) fn copy(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        size: u64,
    ) -> Result<(u64, ContentDigest), Errno> {
        if size >= SMALL && self.reflink.load(Ordering::Relaxed) {
            match fs::ioctl_ficlone(to, from) {
                // The clone is ours alone: what it is read as is what it stays.
                Ok(()) => return hash_file(&to, u64::MAX - 1),
                Err(_) => self.reflink.store(false, Ordering::Relaxed),
            }
        }
        by_hand(from, to, size)
    }
}

/// Copies the first `limit` bytes. What is written behind them meanwhile does not count.
pub(super) fn by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    limit: u64,
) -> Result<(u64, ContentDigest), Errno> {
    if limit >= LARGE {
        return hash_large(&from, limit, |piece| write_all(to, piece));
    }
    COPY.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER, 0);
        let mut hasher = blake3::Hasher::new();
        let mut total = 0u64;
        while total < limit {
            let most = usize::try_from(limit - total).unwrap_or(BUFFER).min(BUFFER);
            let got = match io::read(from.as_fd(), &mut buffer[..most]) {
                Ok(0) => break,
                Err(Errno::INTR) => continue,
                got => got?,
            };
            hasher.update(&buffer[..got]);
            total += got as u64;
            write_all(to, &buffer[..got])?;
        }
        Ok((total, ContentDigest(*hasher.finalize().as_bytes())))
    })
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match io::write(to, bytes) {
            Err(Errno::INTR) => {}
            sent => bytes = &bytes[sent?..],
        }
    }
    Ok(())
}
