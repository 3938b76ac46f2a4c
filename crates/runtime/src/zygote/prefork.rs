//! Containers that are made before they are asked for.
//!
//! A build runs step after step of the same kind. So when one has been asked for, the next is put together while that
//! one runs: its namespaces, and all of its mounts that need nothing of the caller's.
//!
//! They are forked by a process of its own, the forker, and are children of the zygote all the same. So the zygote is
//! never in the middle of a fork when a program ends, and shares no memory that it would have to copy.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use lapstrake_sys::process::{self, Child, Turns};
use lapstrake_sys::{SingleThreaded, fd};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::seccomp::{Machine, Programs};
use crate::setup::{self, SetupRequest};
use crate::wire::{self, Kind};
use crate::zygote_root::ZygoteRoot;

/// How many kinds are kept ready: builds mix two, with a network and without.
const MAX: usize = 2;

/// A container that waits for what it is to run.
pub(super) struct Preforked {
    /// What it can become: a [`Kind`] as it is sent.
    kind: Vec<u8>,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: OwnedFd,
    /// Counts 1 once it is about to become its program.
    pub(super) leap: OwnedFd,
    /// Its mount namespace.
    pub(super) mounts: OwnedFd,
}

/// The blanks that are ready, and those that the forker has still to make.
pub(super) struct PreforkPool {
    forker: OwnedFd,
    _process: Child,
    ready: Vec<Preforked>,
    ordered: VecDeque<Vec<u8>>,
}

impl PreforkPool {
    /// Starts the forker.
    pub(super) fn start(token: &SingleThreaded, zygote_root: &ZygoteRoot) -> Result<Self, Errno> {
        let (forker, theirs) = wire::pair()?;
        let process = process::spawn(token, UnshareFlags::empty(), || {
            if fd::close_others(token, &[theirs.as_raw_fd()]).is_err() {
                return 1;
            }
            process::take_turns(Turns::Plain);
            let filters = Machine::here().map(Programs::new);
            while let Ok(Some((kind, _))) = wire::receive_bytes(&theirs) {
                let (errno, fds) = match bear(token, zygote_root, filters.as_ref(), &kind) {
                    Ok(fds) => (0, fds),
                    Err((errno, fds)) => (errno.raw_os_error(), fds),
                };
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                if wire::send(&theirs, &errno, &fds).is_err() {
                    return 1;
                }
            }
            0
        })?;
        Ok(Self { forker, _process: process, ready: Vec::new(), ordered: VecDeque::new() })
    }

    /// Readable when one has been made.
    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.forker.as_fd()
    }

    /// Has one of this kind made, if none is ready or on the way.
    pub(super) fn order(&mut self, kind: Vec<u8>) -> Result<(), Errno> {
        if self.ready.iter().any(|prefork| prefork.kind == kind) || self.ordered.contains(&kind) {
            return Ok(());
        }
        wire::send_bytes(&self.forker, &kind, &[])?;
        self.ordered.push_back(kind);
        Ok(())
    }

    /// Takes in one that has been made. One that could not be made is asked for again when it is needed, and then it is
    /// said why not.
    pub(super) fn admit(&mut self) -> Result<(), Errno> {
        if let (_, Ok(prefork)) = self.next()? {
            self.keep(prefork);
        }
        Ok(())
    }

    /// One of this kind, made now where none is ready.
    pub(super) fn take(&mut self, kind: &[u8]) -> Result<Preforked, Errno> {
        while let Some(at) = self.ready.iter().position(|prefork| prefork.kind == kind) {
            let prefork = self.ready.remove(at);
            if prefork.is_alive() {
                return Ok(prefork);
            }
            end(&prefork.pidfd);
        }
        self.order(kind.to_vec())?;
        loop {
            match self.next()? {
                // It may have failed by now: then it has left word why.
                (made, prefork) if made == kind => return prefork,
                (_, Ok(prefork)) => self.keep(prefork),
                (_, Err(_)) => {}
            }
        }
    }

    /// Waits for the next that the forker has to say, and of which kind that is; fails where there is no forker.
    fn next(&mut self) -> Result<(Vec<u8>, Result<Preforked, Errno>), Errno> {
        let (errno, fds): (i32, _) = wire::receive(&self.forker)?.ok_or(Errno::SRCH)?;
        let kind = self.ordered.pop_front().ok_or(Errno::SRCH)?;
        let prefork = match <[OwnedFd; 4]>::try_from(fds) {
            Ok([pidfd, channel, leap, mounts]) => {
                Ok(Preforked { kind: kind.clone(), pidfd, channel, leap, mounts })
            }
            Err(half) => {
                half.iter().for_each(end);
                Err(Errno::from_raw_os_error(errno))
            }
        };
        Ok((kind, prefork))
    }

    fn keep(&mut self, prefork: Preforked) {
        if self.ready.len() == MAX {
            end(&self.ready.remove(0).pidfd);
        }
        self.ready.push(prefork);
    }
}

impl Preforked {
    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&Timespec::default())) == Ok(0)
    }
}

fn end(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let _ = process::wait(pidfd, true);
}

/// Makes a blank for our parent: its process, channel, leap and mount namespace, or its process alone where it is of no
/// use.
fn bear(
    token: &SingleThreaded,
    zygote_root: &ZygoteRoot,
    filters: Option<&Programs>,
    kind: &[u8],
) -> Result<Vec<OwnedFd>, (Errno, Vec<OwnedFd>)> {
    let nobody = |errno| (errno, Vec::new());
    let kind: Kind = wire::from_bytes(kind).map_err(nobody)?;
    let mut namespaces = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    if kind.private_network {
        namespaces |= UnshareFlags::NEWNET;
    }
    let (channel, theirs) = wire::pair().map_err(nobody)?;
    let leap = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(nobody)?;
    let its = rustix::io::fcntl_dupfd_cloexec(&leap, 3).map_err(nobody)?;
    let job = SetupRequest { kind, channel: theirs, leap: its, filters, zygote_root };
    // The parent's copy of the job, and with it the other end of the channel, goes away with the closure.
    let child = process::spawn_sibling(token, namespaces, move || setup::run(token, job)).map_err(nobody)?;
    let path = format!("/proc/{}/ns/mnt", child.pid.as_raw_nonzero());
    match rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(mounts) => Ok(vec![child.pidfd, channel, leap, mounts]),
        Err(errno) => Err((errno, vec![child.pidfd])),
    }
}
