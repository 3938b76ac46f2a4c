//! The zygote's loop: requests in, containers made, ends reported.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use lapstrake_sys::process::{self, Ended};
use lapstrake_sys::{SingleThreaded, fd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use super::enter::{self, Entered};
use super::prefork::{PreforkPool, Preforked};
use crate::ids;
use crate::mountpoint::{Mountpoint, remove_all};
use crate::reaper::Reaper;
use crate::wire::{self, Failure, Report, Update};
use crate::zygote_root::ZygoteRoot;

/// A container of ours, or a further process of one.
struct Container {
    pidfd: OwnedFd,
    /// To whoever asked for it; hanging up means that nobody wants it any more.
    run: OwnedFd,
    phase: Phase,
    mountpoints: Vec<Mountpoint>,
    /// Who answers its calls about owners, and where that one writes down what it cannot keep on disk.
    supervisor: Option<(process::Child, OwnedFd)>,
    /// Its mount namespace; `None` for a further process of a container.
    mounts: Option<OwnedFd>,
    /// Its `/dev/shm`.
    shm: Option<OwnedFd>,
}

impl From<Entered> for Container {
    fn from(Entered { pidfd, run, channel, leap }: Entered) -> Self {
        let phase = Phase::Setup { channel, leap, terminal: None, failure: None };
        Self { pidfd, run, phase, mountpoints: Vec::new(), supervisor: None, mounts: None, shm: None }
    }
}

/// How far a container has come.
enum Phase {
    /// Set-up is under way and talks through this.
    Setup { channel: OwnedFd, leap: OwnedFd, terminal: Option<OwnedFd>, failure: Option<Failure> },
    /// The program runs.
    Running,
    /// Set-up has failed; the process is about to end, and what it has left has to go before that is told.
    Failed(Failure),
}

/// Serves until the control socket ends.
pub(super) fn serve(token: &SingleThreaded, zygote_root: &ZygoteRoot, control: BorrowedFd<'_>) -> i32 {
    let Ok(reaper) = Reaper::start(token) else { return 1 };
    let Ok(mut prefork_pool) = PreforkPool::start(token, zygote_root) else { return 1 };
    let mut containers: Vec<Container> = Vec::new();
    loop {
        let ready = match wait(control, prefork_pool.channel(), &containers) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(_) => return 1,
        };
        let [asked, born, events @ ..] = &ready[..] else { return 1 };
        reaper.reap();
        let mut alive = Vec::with_capacity(containers.len() + 1);
        for (container, events) in containers.into_iter().zip(events.chunks_exact(3)) {
            alive.extend(attend(token, &reaper, container, events[0], events[1], events[2]));
        }
        containers = alive;
        // Without the forker nothing can be made any more.
        if !born.is_empty() && prefork_pool.admit().is_err() {
            return 1;
        }
        if !asked.is_empty() {
            let Ok(Some((kind, fds))) = wire::receive_bytes(control) else { return 0 };
            if kind != wire::ENTER {
                containers.extend(make(&mut prefork_pool, kind, &fds));
                continue;
            }
            match enter::enter(token, fds) {
                Ok(entered) => containers.extend(entered.map(Container::from)),
                // What is made from now on would land in that container.
                Err(_) => return 1,
            }
        }
    }
}

/// What has happened, per descriptor: control, the forker, then set-up channel, run channel and process of each
/// container.
fn wait(
    control: BorrowedFd<'_>,
    forker: BorrowedFd<'_>,
    containers: &[Container],
) -> Result<Vec<PollFlags>, Errno> {
    let mut fds = [control, forker].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).to_vec();
    for container in containers {
        match &container.phase {
            Phase::Setup { channel, .. } => fds.push(PollFd::new(channel, PollFlags::IN)),
            // Nothing left to hear: stands in so that there are three per container.
            Phase::Running | Phase::Failed(_) => fds.push(PollFd::new(&container.run, PollFlags::empty())),
        }
        fds.push(PollFd::new(&container.run, PollFlags::empty()));
        fds.push(PollFd::new(&container.pidfd, PollFlags::IN));
    }
    rustix::event::poll(&mut fds, None)?;
    Ok(fds.iter().map(PollFd::revents).collect())
}

/// Does what the events ask for; `None` when the container is no more.
fn attend(
    token: &SingleThreaded,
    reaper: &Reaper,
    mut container: Container,
    setup: PollFlags,
    run: PollFlags,
    process: PollFlags,
) -> Option<Container> {
    if !setup.is_empty() && matches!(container.phase, Phase::Setup { .. }) {
        hear(token, &mut container);
    }
    if run.intersects(PollFlags::HUP | PollFlags::ERR) {
        let _ = rustix::process::pidfd_send_signal(&container.pidfd, Signal::KILL);
    }
    if process.is_empty() { Some(container) } else { release(token, reaper, container) }
}

/// Takes one report from a container under construction.
fn hear(token: &SingleThreaded, container: &mut Container) {
    let Phase::Setup { channel, leap, terminal, failure } = &mut container.phase else { return };
    match wire::receive::<Report>(&*channel) {
        Ok(Some((Report::Mountpoint { name, directory, ino }, fds))) => {
            if let (Some(parent), Ok(name)) = (fds.into_iter().next(), CString::new(name)) {
                container.mountpoints.push(Mountpoint { parent, name, directory, ino });
            }
        }
        Ok(Some((Report::Shm, fds))) => container.shm = fds.into_iter().next(),
        Ok(Some((Report::Terminal, fds))) => *terminal = fds.into_iter().next(),
        Ok(Some((Report::Listener, fds))) => {
            let listener = fds.into_iter().next();
            // Without one the calls fail, and say so.
            container.supervisor =
                listener.and_then(|listener| supervise(token, &container.pidfd, &listener).ok());
        }
        Ok(Some((Report::Failed(what), _))) => *failure = Some(what),
        Ok(None) | Err(_) => {
            let failure = failure.take().or_else(|| {
                let leapt = rustix::io::read(&*leap, &mut [0; 8]).is_ok();
                // Killed on the way, as by the out-of-memory killer.
                let died =
                    || Failure { op: usize::MAX, errno: Errno::SRCH.raw_os_error(), path: String::new() };
                (!leapt).then(died)
            });
            let terminal = terminal.take();
            container.phase = settle(container, failure, terminal.as_ref());
        }
    }
}

/// Starts who answers a container's calls about owners.
fn supervise(
    token: &SingleThreaded,
    container: &OwnedFd,
    listener: &OwnedFd,
) -> Result<(process::Child, OwnedFd), Errno> {
    let list = rustix::fs::memfd_create(c"owners", rustix::fs::MemfdFlags::CLOEXEC)?;
    let theirs = list.try_clone().map_err(|_| Errno::MFILE)?;
    let child = process::spawn(token, UnshareFlags::empty(), || {
        let keep = [container, listener, &theirs].map(AsRawFd::as_raw_fd);
        match fd::close_others(token, &keep) {
            Ok(()) => ids::supervise(listener, container, theirs),
            Err(_) => 1,
        }
    })?;
    Ok((child, list))
}

/// Tells the caller that the program has been started, if it has.
fn settle(container: &Container, failure: Option<Failure>, terminal: Option<&OwnedFd>) -> Phase {
    if let Some(failure) = failure {
        return Phase::Failed(failure);
    }
    let mut fds = vec![container.pidfd.as_fd()];
    fds.extend(terminal.map(AsFd::as_fd));
    let started = Update::Started { terminal: terminal.is_some() };
    // A caller that has gone is noticed by the hang-up.
    let _ = wire::send(&container.run, &started, &fds);
    Phase::Running
}

/// Takes the exit of a container that has ended.
fn release(token: &SingleThreaded, reaper: &Reaper, mut container: Container) -> Option<Container> {
    let (ended, usage) = match process::wait(&container.pidfd, false) {
        Ok(Some(end)) => end,
        Ok(None) => return Some(container),
        Err(_) => return None,
    };
    // What it said before it died is still to be heard.
    while matches!(container.phase, Phase::Setup { .. }) {
        hear(token, &mut container);
    }
    let owners = container.supervisor.take().and_then(|(supervisor, list)| {
        if container.mounts.is_none() {
            // What a further process leaves behind goes on in its container, and may still ask.
            reaper.outlive(supervisor);
            return None;
        }
        // Nobody is left to ask it, so it ends.
        process::wait(&supervisor.pidfd, true).is_ok().then_some(list)
    });
    let shm_full = container.shm.as_ref().is_some_and(is_full);
    let mut left: Vec<OwnedFd> = container.shm.take().into_iter().collect();
    if container.mountpoints.is_empty() {
        left.extend(container.mounts);
    } else {
        // What is covered cannot be removed without a wait for each of them; so they are uncovered at once.
        drop(container.mounts);
        remove_all(&container.mountpoints);
        left.extend(container.mountpoints.drain(..).map(|mountpoint| mountpoint.parent));
    }
    let update = match container.phase {
        Phase::Failed(failure) => Update::Failed(failure),
        Phase::Running | Phase::Setup { .. } => {
            let (signal, status) = match ended {
                Ended::Exited(status) => (false, status),
                Ended::Killed(signal) => (true, signal),
            };
            let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let (user_us, system_us) = (micros(usage.user), micros(usage.system));
            let process::Usage { max_rss, read, written, .. } = usage;
            Update::Exited { signal, status, user_us, system_us, max_rss, read, written, shm_full }
        }
    };
    let fds: Vec<BorrowedFd<'_>> = owners.iter().map(AsFd::as_fd).collect();
    let _ = wire::send(&container.run, &update, &fds);
    // The caller is woken on this processor, as whoever wakes is expected to sleep.
    rustix::thread::sched_yield();
    // Last: the reaper would take that processor as well.
    reaper.release(left);
    None
}

/// Whether the file system that `fd` is on has no room left, or can have no more files.
fn is_full(fd: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|room| room.f_bavail == 0 || room.f_favail == 0)
}

/// Makes the container that a request asks for.
fn make(prefork_pool: &mut PreforkPool, kind: Vec<u8>, fds: &[OwnedFd]) -> Option<Container> {
    let run = fds.first().and_then(|run| rustix::io::fcntl_dupfd_cloexec(run, 3).ok())?;
    match prefork_pool.take(&kind) {
        Ok(Preforked { pidfd, channel, leap, mounts, .. }) => {
            let all: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            // One that has failed by now has left word why, or is seen to be dead.
            let _ = wire::send_bytes(&channel, b"go", &all);
            // One that cannot be ordered now is ordered when it is asked for.
            let _ = prefork_pool.order(kind);
            let phase = Phase::Setup { channel, leap, terminal: None, failure: None };
            Some(Container {
                pidfd,
                run,
                mounts: Some(mounts),
                phase,
                mountpoints: Vec::new(),
                supervisor: None,
                shm: None,
            })
        }
        Err(errno) => {
            let failure = Failure { op: usize::MAX, errno: errno.raw_os_error(), path: String::new() };
            wire::skip(&run);
            let _ = wire::send(&run, &Update::Failed(failure), &[]);
            None
        }
    }
}
