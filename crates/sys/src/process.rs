//! Processes: making one with namespaces of its own, becoming another program, waiting with resource usage.
//!
//! Signals go through rustix (`pidfd_send_signal`).

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::UnshareFlags;

use crate::{check, last_errno};

/// Proof that the process had one thread when it was asked.
///
/// Whoever holds it starts no thread; a child made from a process with several of them would find locks that
/// nobody ever releases.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads; `None` where there are several, or where `/proc` does not tell.
    pub fn check() -> Option<Self> {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?;
        (tasks.count() == 1).then_some(Self(PhantomData))
    }
}

/// How many files a process of ours may have open, at most: no limit needs to be higher than this.
const MOST_FILES: u64 = 1 << 16;
/// The soft limit of open files that this process was started with.
static FILES_BEFORE: std::sync::OnceLock<Option<u64>> = std::sync::OnceLock::new();

/// Raises the soft limit of open files as far as the hard one allows. The former limit is kept for processes
/// that must not notice: see [`file_limit_before`].
pub fn raise_file_limit() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    FILES_BEFORE.get_or_init(|| now.current);
    let wanted = now.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    if now.current.is_some_and(|current| current < wanted) {
        // With the old limit less can be done at once, and nothing else changes.
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..now })
            .unwrap_or_default();
    }
}

/// The soft limit of open files from before [`raise_file_limit`]; `None` where nothing was raised or there was no limit.
pub fn file_limit_before() -> Option<u64> {
    FILES_BEFORE.get().copied().flatten()
}

/// Sets the soft limit of open files to what it was.
pub fn restore_file_limit(before: u64) {
    let now = rustix::process::getrlimit(Resource::Nofile);
    // Lowering a soft limit is always allowed.
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(before), ..now }).unwrap_or_default();
}

/// A process made by [`spawn`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: Pid,
    /// A handle that never means another process.
    pub pidfd: OwnedFd,
}

/// Makes a child with a copy of this process's memory in fresh `namespaces`, in which `body` runs.
///
/// The child ends with the status that `body` returns, 101 where it panics. It never returns into the caller's code,
/// and runs no destructors of the caller's values.
///
/// # Errors
/// What `clone3(2)` says.
pub fn spawn(
    token: &SingleThreaded,
    namespaces: UnshareFlags,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    fork(token, u64::from(namespaces.bits()), libc::SIGCHLD, body)
}

/// As [`spawn`], but the new process is a child of this one's parent, who waits for it and is told of its end as of ours.
///
/// # Errors
/// What `clone3(2)` says.
pub fn spawn_sibling(
    token: &SingleThreaded,
    namespaces: UnshareFlags,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    fork(token, u64::from(namespaces.bits()) | libc::CLONE_PARENT as u64, 0, body)
}

fn fork(
    _: &SingleThreaded,
    flags: u64,
    exit_signal: i32,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    let mut pidfd: RawFd = -1;
    let args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: exit_signal as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without `CLONE_VM` and with no stack given this is a fork: the child goes on with a copy of the memory.
    // The process has a single thread (the token), so that no lock of the allocator or of std is held by a thread
    // that the child lacks. `args` and `pidfd` outlive the call.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
        exit_now(status);
    }
    // SAFETY: the kernel stored a fresh, close-on-exec descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
    Ok(Child { pid, pidfd })
}

/// Ends the process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Becomes the program at `path`; comes back only to say why not.
///
/// # Errors
/// What `execve(2)` says.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> Result<Infallible, Errno> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and point to C strings that the caller keeps alive.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(last_errno())
}

/// Has what `command` starts killed when the thread that starts it ends, be it with the whole process.
pub fn dies_with_thread(command: &mut Command) {
    let us = rustix::process::getpid();
    let tie = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // Too late for a parent that has gone already.
        if rustix::process::getppid() == Some(us) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: runs in a child of a process with threads, and does nothing but two system calls: no memory is allocated,
    // no lock is taken.
    unsafe { command.pre_exec(tie) };
}

/// How a process takes turns with others on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Short ones, which come sooner: for one that does little and that others wait for.
    Short,
    /// As any process.
    Plain,
}

/// `struct sched_attr` as its first version had it.
#[repr(C)]
#[derive(Default)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets how this thread takes turns; its share stays the same. Before Linux 6.12 it makes no difference, and where it is
/// refused none has to be made: so nothing is said.
pub fn take_turns(turns: Turns) {
    let mut attr = Scheduling::default();
    let size = size_of::<Scheduling>();
    // SAFETY: the kernel writes as many bytes as it is told that there are, all of which may have any value.
    let got = check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) });
    if got.is_err() || attr.policy != libc::SCHED_OTHER as u32 {
        return;
    }
    // The shortest that the kernel gives, in nanoseconds.
    attr.runtime = if turns == Turns::Short { 100_000 } else { 0 };
    // SAFETY: the kernel reads as many bytes as the structure itself says that it has.
    let _ = check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) });
}

/// Gives every signal its default action and unblocks all, so that a program started from here finds the signals as
/// a fresh process does (Rust's runtime ignores `SIGPIPE`).
pub fn reset_signals(_: &SingleThreaded) {
    // The C library keeps 32 and 33 to itself and refuses them, hence the call below it. An all-zero `struct sigaction`
    // of the kernel's means `SIG_DFL`, and its size is 32 bytes on every 64-bit machine.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads 32 bytes that are there, and `SIG_DFL` runs no code of ours; `SIGKILL` and `SIGSTOP`
        // are refused without effect.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8_usize);
        }
    }
    // SAFETY: an all-zero `sigset_t` is valid storage, and `sigemptyset` initialises it before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

/// What a process and the children it waited for have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Time in user mode.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// The largest resident set of one process, in bytes.
    pub max_rss: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// Takes the exit of a child of this process; `None` while it lives and `block` is off.
///
/// # Errors
/// `ECHILD` where it is not a child, or has been waited for already.
pub fn wait(pidfd: impl AsFd, block: bool) -> Result<Option<(Ended, Usage)>, Errno> {
    // SAFETY: all-zero is a valid value of both structures.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `info` and `usage` are live and of the layout that the kernel writes.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_fd().as_raw_fd(),
                &raw mut info,
                flags,
                &raw mut usage,
            )
        });
        match result {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: `waitid` filled the structure in as for `SIGCHLD`, or left it zero where nothing has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let ended = if info.si_code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Killed(status) };
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        read: u64::try_from(usage.ru_inblock).unwrap_or(0) * 512,
        written: u64::try_from(usage.ru_oublock).unwrap_or(0) * 512,
    };
    Ok(Some((ended, usage)))
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test harness has threads, so a token cannot be had honestly; the child below allocates nothing before it exits.
    fn token() -> SingleThreaded {
        SingleThreaded(PhantomData)
    }

    #[test]
    fn exit_and_signal_come_back() {
        let child = spawn(&token(), UnshareFlags::empty(), || 7).unwrap();
        let (ended, _) = wait(&child.pidfd, true).unwrap().unwrap();
        assert_eq!(ended, Ended::Exited(7));

        let child = spawn(&token(), UnshareFlags::empty(), || {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
            0
        })
        .unwrap();
        assert_eq!(wait(&child.pidfd, false), Ok(None));
        rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL).unwrap();
        let (ended, _) = wait(&child.pidfd, true).unwrap().unwrap();
        assert_eq!(ended, Ended::Killed(libc::SIGKILL));
        assert_eq!(wait(&child.pidfd, true), Err(Errno::CHILD));
    }

    #[test]
    fn a_missing_program_is_said_to_be_missing() {
        assert_eq!(exec(c"/no/such/program", &[], &[]).unwrap_err(), Errno::NOENT);
    }
}
