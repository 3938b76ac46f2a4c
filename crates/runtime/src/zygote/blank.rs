//! Containers that are made before they are asked for.
//!
//! A build runs step after step of the same kind. So when one has been asked for, the next is put together while that
//! one runs: its namespaces, and all of its mounts that need nothing of the caller's.

use std::os::fd::{AsFd as _, OwnedFd};

use lapstrake_sys::SingleThreaded;
use lapstrake_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::seccomp::Programs;
use crate::setup::{self, Job};
use crate::wire::{self, Kind};
use crate::world::World;

/// How many kinds are kept ready: builds mix two, with a network and without.
const MAX: usize = 2;

/// A container that waits for what it is to run.
pub(super) struct Blank {
    /// What it can become: a [`Kind`] as it is sent.
    kind: Vec<u8>,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: OwnedFd,
    /// Its mount namespace.
    pub(super) mounts: OwnedFd,
}

/// The blanks that are ready.
pub(super) struct Blanks<'a> {
    world: &'a World,
    filters: Option<&'a Programs>,
    ready: Vec<Blank>,
    /// What the next one is to be.
    wanted: Option<Vec<u8>>,
}

impl<'a> Blanks<'a> {
    pub(super) fn new(world: &'a World, filters: Option<&'a Programs>) -> Self {
        Self { world, filters, ready: Vec::new(), wanted: None }
    }

    /// One of this kind, made now where none is ready.
    pub(super) fn take(&mut self, token: &SingleThreaded, kind: Vec<u8>) -> Result<Blank, Errno> {
        while let Some(at) = self.ready.iter().position(|blank| blank.kind == kind) {
            let blank = self.ready.remove(at);
            if blank.is_alive() {
                self.wanted = Some(kind);
                return Ok(blank);
            }
            blank.end();
        }
        let blank = self.make(token, kind)?;
        self.wanted = Some(blank.kind.clone());
        Ok(blank)
    }

    /// Whether there is something to do when there is time.
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Makes the next one.
    pub(super) fn refill(&mut self, token: &SingleThreaded) {
        let Some(kind) = self.wanted.take() else { return };
        if self.ready.iter().any(|blank| blank.kind == kind) {
            return;
        }
        if self.ready.len() == MAX {
            self.ready.remove(0).end();
        }
        // One that cannot be made now is made when it is asked for, and then it is said why not.
        if let Ok(blank) = self.make(token, kind) {
            self.ready.push(blank);
        }
    }

    fn make(&self, token: &SingleThreaded, bytes: Vec<u8>) -> Result<Blank, Errno> {
        let kind: Kind = wire::from_bytes(&bytes)?;
        let mut namespaces = UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        if kind.private_network {
            namespaces |= UnshareFlags::NEWNET;
        }
        let (channel, theirs) = wire::pair()?;
        let job = Job { kind, channel: theirs, filters: self.filters, world: self.world };
        // The parent's copy of the job, and with it the other end of the channel, goes away with the closure.
        let child = process::spawn(token, namespaces, move || setup::run(token, job))?;
        let path = format!("/proc/{}/ns/mnt", child.pid.as_raw_nonzero());
        let mounts = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        match mounts {
            Ok(mounts) => Ok(Blank { kind: bytes, pidfd: child.pidfd, channel, mounts }),
            Err(errno) => {
                end(&child.pidfd);
                Err(errno)
            }
        }
    }
}

impl Blank {
    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&Timespec::default())) == Ok(0)
    }

    fn end(self) {
        end(&self.pidfd);
    }
}

fn end(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
    let _ = process::wait(pidfd, true);
}
