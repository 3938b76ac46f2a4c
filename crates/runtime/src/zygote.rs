//! The process that makes containers.
//!
//! ```text
//! caller ── keeper            waits for the caller's end; one thread, so that a death signal is tied to a process
//!             └── zygote      first process of a pid namespace, dies with the keeper, and everything with it
//!                   ├── reaper  lets go of what containers leave
//!                   ├── forker     forks containers
//!                   ├── container
//!                   └── blank       the next container
//! ```

mod enter;
mod prefork;
mod serve;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use lapstrake_sys::process::{self, Turns, exit_now};
use lapstrake_sys::{SingleThreaded, fd};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::launch::NAME;
use crate::wire::{self, Hello};
use crate::zygote_root::{self, start_error};

/// The program was started as a zygote, and not by a [`crate::Sandbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{NAME} is a part of lapstrake and nothing to run by hand")]
pub struct ByHand;

/// Runs the zygote, and never returns, where this process was started as one; returns at once otherwise.
///
/// The first thing that `main` of a program with a [`crate::Sandbox`] calls, with the program's arguments.
///
/// # Errors
/// [`ByHand`]: the program can only print that and end with status 2.
pub fn zygote_main_if_asked(mut args: impl Iterator<Item = OsString>) -> Result<(), ByHand> {
    if args.next().is_none_or(|name| name.as_bytes() != NAME.as_bytes()) {
        return Ok(());
    }
    let limit = args.next().and_then(|limit| limit.to_str()?.parse().ok());
    if let Some(limit) = limit {
        process::restore_file_limit(limit);
    }
    let control = control().map_err(|_| ByHand)?;
    exit_now(keep(&control));
}

/// Takes the socket out of standard input, and closes what else the caller's process had open.
fn control() -> Result<OwnedFd, Errno> {
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(&stdin)?;
    let token = SingleThreaded::check().ok_or(Errno::BUSY)?;
    fd::close_others(&token, &[])?;
    let control = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

/// The keeper: starts the zygote and ends with whoever ends first, the zygote or the caller.
fn keep(control: &OwnedFd) -> i32 {
    let _ = rustix::process::chdir(c"/");
    let zygote = SingleThreaded::check().ok_or(Errno::BUSY).and_then(|token| {
        process::reset_signals(&token);
        let namespaces = UnshareFlags::NEWPID | UnshareFlags::NEWNS;
        process::spawn(&token, namespaces, || zygote(control))
    });
    let zygote = match zygote {
        Ok(zygote) => zygote,
        Err(errno) => {
            let start_error = start_error("make the zygote's namespaces")(errno);
            let _ = wire::send(control, &Hello::Failed(start_error), &[]);
            return 1;
        }
    };
    loop {
        let mut fds = [PollFd::new(control, PollFlags::empty()), PollFd::new(&zygote.pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        if fds.iter().any(|fd| !fd.revents().is_empty()) {
            break;
        }
    }
    let _ = rustix::process::pidfd_send_signal(&zygote.pidfd, Signal::KILL);
    let _ = process::wait(&zygote.pidfd, true);
    0
}

fn zygote(control: &OwnedFd) -> i32 {
    let started = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(start_error("tie the zygote to its keeper"))
        .and_then(|()| zygote_root::shrink());
    match started {
        Ok(zygote_root) => {
            // Everything that waits for a container waits for this process, and for the set-up that it becomes.
            process::take_turns(Turns::Short);
            let Some(token) = SingleThreaded::check() else { return 1 };
            if wire::send(control, &Hello::Ready, &[]).is_err() {
                return 1;
            }
            serve::serve(&token, &zygote_root, control.as_fd())
        }
        Err(start_error) => {
            let _ = wire::send(control, &Hello::Failed(start_error), &[]);
            1
        }
    }
}
