//! One mapped id that looks like all of them: for an ordinary user without subordinate ids.
//!
//! ```text
//! program ── chown, setuid, stat, … ──► kernel ──► supervisor ── does what it can, remembers the wish
//!                                         ◄─────── answer
//! ```
//! The supervisor is a process of the zygote's pid namespace, in the container's mount namespace: the program cannot see
//! it. It does nothing that the program could not do itself, but on the program's behalf: paths are those of the
//! program's own root, and whatever it cannot make out it leaves to the kernel. So none of this is a wall; the walls are
//! the namespaces.
//!
//! | wish | where it is kept |
//! |---|---|
//! | owner of a file or directory | its attribute [`OWNER`]: it moves with renames, hard links and copy-up |
//! | a device node | an empty file with the attribute [`NODE`] |
//! | owner of a link, pipe or socket, which have no such attributes | a list by inode, given back at the end |
//! | ids of a process | a table; the row's number is a mark ([`lapstrake_sys::notify::mark`]) that children inherit |
//!
//! Permissions are not enforced between these users: to the kernel they are all the same one.

mod answers;
mod credentials;
mod files;

use std::os::fd::{AsFd, OwnedFd};

use lapstrake_sys::notify::{self, Answer};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::seccomp::{Machine, native_arch};
use answers::Supervisor;

/// The attribute that says whom a file belongs to: `UID:GID`.
pub(crate) const OWNER: &std::ffi::CStr = c"user.lapstrake.owner";
/// The attribute that says which device a file stands for: `c:MAJOR:MINOR` or `b:MAJOR:MINOR`.
pub(crate) const NODE: &std::ffi::CStr = c"user.lapstrake.node";

/// Something without attributes that belongs to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedInode {
    /// Device number of its file system.
    pub dev: u64,
    /// Its inode there.
    pub ino: u64,
    /// Whose it is.
    pub uid: u32,
    /// Whose group's.
    pub gid: u32,
}

/// Answers until nobody is left to ask, then writes the list of [`OwnedInode`] to `list`. The status of a process.
pub(crate) fn supervise(listener: &OwnedFd, container: &OwnedFd, list: OwnedFd) -> i32 {
    match answer_all(listener, container) {
        Ok(owned) => {
            let written = serde_json::to_writer(std::fs::File::from(list), &owned);
            i32::from(written.is_err())
        }
        Err(_) => 1,
    }
}

fn answer_all(listener: &OwnedFd, container: &OwnedFd) -> Result<Vec<OwnedInode>, Errno> {
    let machine = Machine::here().ok_or(Errno::OPNOTSUPP)?;
    let proc = rustix::fs::open(c"/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), ThreadNameSpaceType::MOUNT)?;
    // Attributes are reached as `self/fd/N` from here: the container's own /proc does not know us.
    rustix::process::fchdir(&proc)?;
    rustix::process::umask(Mode::empty());
    notify::take_turns(listener);
    let native = native_arch(machine);
    let mut supervisor = Supervisor::new(machine, proc, listener.try_clone().map_err(|_| Errno::MFILE)?)?;
    loop {
        let mut wait = [PollFd::new(listener, PollFlags::IN)];
        match rustix::event::poll(&mut wait, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let ready = wait[0].revents();
        if ready.contains(PollFlags::IN) {
            let Some(call) = notify::receive(listener)? else { continue };
            let answer = if call.arch == native { supervisor.answer(&call) } else { Some(Answer::Continue) };
            if let Some(answer) = answer {
                notify::answer(listener, &call, answer)?;
            }
        } else if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(supervisor.into_owned());
        }
    }
}
