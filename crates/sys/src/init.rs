//! The first process of a pid namespace that runs a program for somebody: signals go on to the program, and processes
//! whose parents have gone are taken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::process::exit_now;
use crate::{SingleThreaded, check};

/// A set of all signals.
fn all() -> libc::sigset_t {
    // SAFETY: an all-zero `sigset_t` is valid storage, which `sigfillset` writes and nobody else knows.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    }
}

/// Has all signals wait for [`serve`]. A child made from here finds them blocked.
pub fn block_signals(_: &SingleThreaded) {
    let all = all();
    // SAFETY: the C library reads a set that lives, and writes none back.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()) };
}

/// Makes a child with a copy of this process's memory, in which `body` runs. It works behind a filter that refuses
/// `clone3(2)`.
///
/// # Errors
/// What `fork(2)` says.
pub fn fork(_: &SingleThreaded, body: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: the process has a single thread (the token), so that the child finds no lock held by a thread that it lacks.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    if pid == 0 {
        exit_now(catch_unwind(AssertUnwindSafe(body)).unwrap_or(101));
    }
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)
}

/// Leads a process group, and puts that into the foreground of the terminal if there is one: keys that mean a signal then
/// mean the program, and not its init. Signals must be blocked.
pub fn lead_group() {
    if rustix::process::setpgid(None, None).is_err() {
        return;
    }
    let own = rustix::process::getpid();
    // Without a terminal there is no foreground.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own);
}

/// Passes signals on to `child` and takes exits, until that of `child`, whose status is given: 128 and the number of a
/// signal that killed it. Signals must be blocked.
pub fn serve(_: &SingleThreaded, child: Pid) -> i32 {
    let all = all();
    // Programs of the same user find nothing of ours in `/proc`.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    loop {
        // SAFETY: the set lives, and what came with the signal is not asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, ptr::null_mut()) };
        if signal == libc::SIGCHLD {
            if let Some(status) = take_exits(child) {
                return status;
            }
        } else if signal > 0 && !matches!(signal, libc::SIGTTIN | libc::SIGTTOU) {
            // SAFETY: touches no memory. The number means the child until its exit is taken, which nobody else does.
            unsafe { libc::kill(child.as_raw_nonzero().get(), signal) };
        }
    }
}

/// Takes the exits of all processes that have ended; the status of `child` if it is among them.
fn take_exits(child: Pid) -> Option<i32> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` lives and is of the kind that the kernel writes.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == child.as_raw_nonzero().get() {
            found = Some(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            });
        }
    }
}
