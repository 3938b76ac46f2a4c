//! Takes apart what containers leave, beside the path of those who wait for their ends.
//!
//! A mount namespace goes with the last who holds it. Were that the container's first process, its end could not be told
//! before some forty mounts are gone and every processor has noticed. So the zygote holds it too, and hands it over here:
//! to a process whose only work is to let go. It ends with the zygote, as does everything it holds.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use lapstrake_sys::process::{self, Child, Turns};
use lapstrake_sys::{SingleThreaded, fd};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::spec::MAX_FDS;
use crate::wire;

/// Who lets go of descriptors.
pub(crate) struct Reaper {
    channel: OwnedFd,
    _process: Child,
    /// Processes that wait for the children of ended processes.
    outliving: RefCell<Vec<Child>>,
}

impl Reaper {
    pub(crate) fn start(token: &SingleThreaded) -> Result<Self, Errno> {
        let (channel, theirs) = wire::pair()?;
        let process = process::spawn(token, UnshareFlags::empty(), || {
            if fd::close_others(token, &[theirs.as_raw_fd()]).is_err() {
                return 1;
            }
            process::take_turns(Turns::Plain);
            // What came is dropped when the next comes: that is the work.
            let mut held = Vec::new();
            while let Ok(Some((_, fds))) = wire::receive_bytes(&theirs) {
                drop(std::mem::replace(&mut held, fds));
            }
            0
        })?;
        Ok(Self { channel, _process: process, outliving: RefCell::default() })
    }

    /// Takes the exit of `child` when it comes.
    pub(crate) fn outlive(&self, child: Child) {
        self.outliving.borrow_mut().push(child);
    }

    /// Takes the exits that have come.
    pub(crate) fn reap(&self) {
        self.outliving.borrow_mut().retain(|child| matches!(process::wait(&child.pidfd, false), Ok(None)));
    }

    /// Lets go of something, some time.
    pub(crate) fn release(&self, what: Vec<OwnedFd>) {
        for some in what.chunks(MAX_FDS) {
            let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            // Where it cannot be handed over, it goes here and now.
            let _ = wire::send_bytes(&self.channel, b"hold", &some);
        }
        // Ours first: it is the last who lets go that has to wait.
        drop(what);
        let _ = wire::send_bytes(&self.channel, b"let go", &[]);
    }
}
