//! `mount_setattr(2)`, which rustix lacks. The rest of the mount API is rustix's.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::check;

/// Whether a change reaches the mounts below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The mount itself only.
    One,
    /// The mount and everything mounted beneath it.
    Tree,
}

/// `struct mount_attr`, which the libc crate does not have.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets the attributes `set` on the mount that `fd` is the root of, and makes it private.
///
/// # Errors
/// What `mount_setattr(2)` says: `ENOSYS` before Linux 5.12, `EPERM` without `CAP_SYS_ADMIN` or for a locked
/// attribute, `EINVAL` where `fd` is not the root of a mount.
pub fn restrict(fd: impl AsFd, set: MountAttrFlags, reach: Reach) -> Result<(), Errno> {
    change(fd, set, MountAttrFlags::empty(), reach)
}

/// As [`restrict`], and clears the attributes `clear` first.
///
/// # Errors
/// As [`restrict`].
pub fn change(fd: impl AsFd, set: MountAttrFlags, clear: MountAttrFlags, reach: Reach) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    const EMPTY: &CStr = c"";
    let flags = match reach {
        Reach::One => libc::AT_EMPTY_PATH,
        Reach::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: `EMPTY` is a C string, `attr` is a live `struct mount_attr` whose size is passed along.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
