//! Network namespaces, held by a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::link::Links;

/// A network namespace. It is gone when nobody holds it and nobody is in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
    pub(crate) links: Links,
}

impl Namespace {
    /// A new one, with a loopback interface that is on.
    pub(crate) fn new() -> Result<Self, Errno> {
        on_a_thread(|| {
            lapstrake_sys::namespace::unshare(UnshareFlags::NEWNET)?;
            lapstrake_sys::net::loopback_up()?;
            let path = c"/proc/thread-self/ns/net";
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Self { fd, links: Links::here()? })
        })
    }

    /// Does something in it. Sockets that are opened there stay there.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
        on_a_thread(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Namespaces are a thread's, and this one's are nobody else's.
fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, act).map_err(|_| Errno::AGAIN)?;
        thread.join().map_err(|_| Errno::IO)?
    })
}
