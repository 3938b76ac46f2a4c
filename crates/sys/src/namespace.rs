//! `unshare(2)` for namespaces.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Moves the calling thread into fresh namespaces of the kinds in `flags`.
///
/// # Errors
/// What `unshare(2)` says; also `EINVAL` for a flag that is not a namespace.
pub fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    let namespaces = UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWTIME
        | UnshareFlags::NEWUSER
        | UnshareFlags::NEWUTS;
    if !namespaces.contains(flags) {
        return Err(Errno::INVAL);
    }
    // SAFETY: `FILES`, the flag that could take descriptors away from other threads, has been refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
