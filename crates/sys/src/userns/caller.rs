//! Being the caller again, for programs of the caller's own.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::CALLER;
use crate::namespace;

/// Has what `command` starts take itself for who called this program, also after [`super::enter`] made that root. Daemons
/// outside see who somebody really is, and some (D-Bus) turn away who says that he is root and is not.
///
/// The program is in one more user namespace, whose only id is the caller's. Where the machine refuses that, it runs as
/// root of ours.
pub fn as_caller(command: &mut Command) {
    let Some((uid, gid)) = CALLER.get() else { return };
    let map = |id: u32| format!("{id} 0 1");
    let (uids, gids) = (map(uid.as_raw()), map(gid.as_raw()));
    let become_caller = move || {
        if namespace::unshare(UnshareFlags::NEWUSER).is_err() {
            return Ok(());
        }
        // Whoever maps ids of his own alone has to give up the right to leave groups.
        write(c"/proc/self/setgroups", b"deny")?;
        write(c"/proc/self/gid_map", gids.as_bytes())?;
        write(c"/proc/self/uid_map", uids.as_bytes())
    };
    // SAFETY: runs in a child of a process with threads, and does nothing but system calls on memory that was there
    // before: none is allocated, no lock is taken.
    unsafe { command.pre_exec(become_caller) };
}

fn write(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}
