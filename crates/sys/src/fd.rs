//! Descriptor tables: closing ranges of them, and taking those that the process was started with.
//!
//! Not for single descriptors, which have an owner.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::{SingleThreaded, check};

/// Marks every descriptor from `first` upwards close-on-exec.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn cloexec_from(first: RawFd) -> Result<(), Errno> {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from 3 upwards that is not in `keep`.
///
/// Meant for a process that has just been made and has to get rid of what its maker had open: whatever still
/// believes to own one of the closed descriptors must never be used or dropped afterwards.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_others(_: &SingleThreaded, keep: &[RawFd]) -> Result<(), Errno> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX, 0)
}

/// The first of `count` sockets that a service manager has opened for this process (`sd_listen_fds(3)`): descriptor 3. `None`
/// where there is none, and on each call but the first.
pub fn activated(count: usize) -> Option<OwnedFd> {
    const FIRST: RawFd = 3;
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: The descriptor is only looked at. A number that is not open gives an error.
    let there = count > 0 && unsafe { libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    if !there || TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: The service manager opened the descriptor for this process before there was any of our code, and says so by
    // `count`. Nothing else here owns the number: the flag lets one caller have it.
    Some(unsafe { OwnedFd::from_raw_fd(FIRST) })
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: three integers, no memory. That nobody uses the closed descriptors is the callers' contract.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}
