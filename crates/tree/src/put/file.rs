//! Copying of one file's content: reflink, else in the kernel, else by hand.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs;
use rustix::io::{self, Errno};

/// Below this the extra calls of the clever ways cost more than copying.
const SMALL: u64 = 64 << 10;
const BUFFER: usize = 128 << 10;

thread_local! {
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which clever ways still seem to work between one source and one destination.
#[derive(Debug)]
pub(super) struct Ways {
    reflink: AtomicBool,
    in_kernel: AtomicBool,
}

impl Ways {
    pub(super) fn new() -> Self {
        Self { reflink: true.into(), in_kernel: true.into() }
    }

    /// Copies everything from `from` to the empty `to`; `size` is a hint.
    pub(super) fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
        if size >= SMALL {
            if self.reflink.load(Ordering::Relaxed) {
                match fs::ioctl_ficlone(to, from) {
                    Ok(()) => return Ok(()),
                    Err(_) => self.reflink.store(false, Ordering::Relaxed),
                }
            }
            if self.in_kernel.load(Ordering::Relaxed) && self.by_kernel(from, to)? {
                return Ok(());
            }
        }
        by_hand(from, to)
    }

    /// False when nothing was copied because the kernel cannot between these two.
    fn by_kernel(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Errno> {
        let mut any = false;
        loop {
            match fs::copy_file_range(from, None, to, None, 1 << 30) {
                Ok(0) => return Ok(any),
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                Err(
                    Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF,
                ) if !any => {
                    self.in_kernel.store(false, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

fn by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    COPY.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER, 0);
        loop {
            let got = match io::read(from.as_fd(), &mut buffer[..]) {
                Ok(0) => return Ok(()),
                Err(Errno::INTR) => continue,
                got => got?,
            };
            let mut rest = &buffer[..got];
            while !rest.is_empty() {
                match io::write(to.as_fd(), rest) {
                    Err(Errno::INTR) => {}
                    sent => rest = &rest[sent?..],
                }
            }
        }
    })
}
