//! Further processes of containers that run.
//!
//! Only a process that is born in a pid namespace belongs to it. So the zygote says for one fork that its children are born
//! in the container's, and the child moves into the other namespaces by itself.

use std::os::fd::{AsFd as _, OwnedFd};

use lapstrake_sys::SingleThreaded;
use lapstrake_sys::process::{self, Child};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use crate::seccomp::{Machine, Programs};
use crate::setup::{self, EntryRequest};
use crate::wire::{self, Failure, Update};

/// A further process of a container, whose set-up is under way.
pub(super) struct Entered {
    pub(super) pidfd: OwnedFd,
    /// To the asker.
    pub(super) run: OwnedFd,
    /// From set-up.
    pub(super) channel: OwnedFd,
    /// Counts 1 once it is about to become its program.
    pub(super) leap: OwnedFd,
}

/// Makes the process that a request asks for; none where it could not be made, which the asker is told.
///
/// # Errors
/// The zygote cannot get back to its own pid namespace: it must not fork any more.
pub(super) fn enter(token: &SingleThreaded, fds: Vec<OwnedFd>) -> Result<Option<Entered>, Errno> {
    let Ok([run, stdin, stdout, stderr, container]) = <[OwnedFd; 5]>::try_from(fds) else { return Ok(None) };
    match make(token, &run, [stdin, stdout, stderr], container) {
        Ok(made) => Ok(Some(made)),
        Err(Refused::Here(errno)) => {
            // Nobody is born in a namespace whose first process has gone.
            let errno = if errno == Errno::NOMEM { Errno::SRCH } else { errno };
            let failure = Failure { op: 0, errno: errno.raw_os_error(), path: "the container".to_owned() };
            wire::skip(&run);
            // An asker that has gone needs no answer.
            let _ = wire::send(&run, &Update::Failed(failure), &[]);
            Ok(None)
        }
        Err(Refused::Back(errno)) => Err(errno),
    }
}

/// Why there is no process.
enum Refused {
    /// It could not be made.
    Here(Errno),
    /// The zygote's own namespace could not be chosen again.
    Back(Errno),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Here(errno)
    }
}

fn make(
    token: &SingleThreaded,
    run: &OwnedFd,
    stdio: [OwnedFd; 3],
    container: OwnedFd,
) -> Result<Entered, Refused> {
    let ours = rustix::fs::open(c"/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (channel, theirs) = wire::pair()?;
    let leap = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let its = rustix::io::fcntl_dupfd_cloexec(&leap, 3)?;
    let (asked, told) = (rustix::io::fcntl_dupfd_cloexec(run, 3)?, rustix::io::fcntl_dupfd_cloexec(run, 3)?);
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
    let made = process::spawn(token, UnshareFlags::empty(), move || {
        let filters = Machine::here().map(Programs::new);
        let filters = filters.as_ref();
        let job = EntryRequest { run: asked, stdio, container, channel: theirs, leap: its, filters };
        setup::enter(token, job)
    });
    rustix::thread::move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .map_err(Refused::Back)?;
    let Child { pidfd, .. } = made?;
    Ok(Entered { pidfd, run: told, channel, leap })
}
