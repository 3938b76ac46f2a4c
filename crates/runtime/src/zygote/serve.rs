//! The zygote's loop: requests in, containers made, ends reported.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use lapstrake_sys::process::{self, Ended};
use lapstrake_sys::{SingleThreaded, fd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use super::blank::{Blank, Blanks};
use crate::ids;
use crate::seccomp::{Machine, Programs};
use crate::stub::{Stub, remove_all};
use crate::undertaker::Undertaker;
use crate::wire::{self, Failure, Report, Update};
use crate::world::World;

/// A container of ours.
struct Container {
    pidfd: OwnedFd,
    /// To whoever asked for it; hanging up means that nobody wants it any more.
    run: OwnedFd,
    phase: Phase,
    stubs: Vec<Stub>,
    /// Who answers its calls about owners, and where that one writes down what it cannot keep on disk.
    supervisor: Option<(process::Child, OwnedFd)>,
    /// Its mount namespace.
    mounts: OwnedFd,
}

/// How far a container has come.
enum Phase {
    /// Set-up is under way and talks through this.
    Setup { channel: OwnedFd, terminal: Option<OwnedFd>, execs: bool, failure: Option<Failure> },
    /// The program runs.
    Running,
    /// Set-up has failed; the process is about to end, and what it has left has to go before that is told.
    Failed(Failure),
}

/// How long a container has to run before the next blank is made: most of what is shorter waits for its end to be told.
const BREATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };

/// Serves until the control socket ends.
pub(super) fn serve(token: &SingleThreaded, world: &World, control: BorrowedFd<'_>) -> i32 {
    let filters = Machine::here().map(Programs::new);
    let Ok(undertaker) = Undertaker::start(token) else { return 1 };
    let mut blanks = Blanks::new(world, filters.as_ref());
    let mut containers: Vec<Container> = Vec::new();
    loop {
        let pause = pause(&blanks, &containers);
        let ready = match wait(control, &containers, pause.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(_) => return 1,
        };
        let (first, events) =
            ready.split_first().expect("the control socket is always among what is waited for");
        if pause.is_some() && ready.iter().all(PollFlags::is_empty) {
            blanks.refill(token);
            continue;
        }
        let mut alive = Vec::with_capacity(containers.len() + 1);
        for (container, events) in containers.into_iter().zip(events.chunks_exact(3)) {
            alive.extend(attend(token, &undertaker, container, events[0], events[1], events[2]));
        }
        containers = alive;
        if !first.is_empty() {
            let Ok(Some((kind, fds))) = wire::receive_bytes(control) else { return 0 };
            containers.extend(make(token, &mut blanks, kind, fds));
        }
    }
}

/// When there is time for the next blank; `None` where none is wanted, or not now.
fn pause(blanks: &Blanks<'_>, containers: &[Container]) -> Option<Timespec> {
    let busy = |container: &Container| matches!(container.phase, Phase::Setup { .. });
    if !blanks.are_wanted() || containers.iter().any(busy) {
        return None;
    }
    Some(if containers.is_empty() { Timespec::default() } else { BREATH })
}

/// What has happened, per descriptor: control, then set-up channel, run channel and process of each container.
fn wait(
    control: BorrowedFd<'_>,
    containers: &[Container],
    pause: Option<&Timespec>,
) -> Result<Vec<PollFlags>, Errno> {
    let mut fds = vec![PollFd::from_borrowed_fd(control, PollFlags::IN)];
    for container in containers {
        match &container.phase {
            Phase::Setup { channel, .. } => fds.push(PollFd::new(channel, PollFlags::IN)),
            // Nothing left to hear: stands in so that there are three per container.
            Phase::Running | Phase::Failed(_) => fds.push(PollFd::new(&container.run, PollFlags::empty())),
        }
        fds.push(PollFd::new(&container.run, PollFlags::empty()));
        fds.push(PollFd::new(&container.pidfd, PollFlags::IN));
    }
    rustix::event::poll(&mut fds, pause)?;
    Ok(fds.iter().map(PollFd::revents).collect())
}

/// Does what the events ask for; `None` when the container is no more.
fn attend(
    token: &SingleThreaded,
    undertaker: &Undertaker,
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
    if process.is_empty() { Some(container) } else { bury(token, undertaker, container) }
}

/// Takes one report from a container under construction.
fn hear(token: &SingleThreaded, container: &mut Container) {
    let Phase::Setup { channel, terminal, execs, failure } = &mut container.phase else { return };
    match wire::receive::<Report>(&*channel) {
        Ok(Some((Report::Stub { name, directory, ino }, fds))) => {
            if let (Some(parent), Ok(name)) = (fds.into_iter().next(), CString::new(name)) {
                container.stubs.push(Stub { parent, name, directory, ino });
            }
        }
        Ok(Some((Report::Terminal, fds))) => *terminal = fds.into_iter().next(),
        Ok(Some((Report::Listener, fds))) => {
            let listener = fds.into_iter().next();
            // Without one the calls fail, and say so.
            container.supervisor =
                listener.and_then(|listener| supervise(token, &container.pidfd, &listener).ok());
        }
        Ok(Some((Report::Exec, _))) => *execs = true,
        Ok(Some((Report::Failed(what), _))) => *failure = Some(what),
        Ok(None) | Err(_) => {
            let failure = failure.take().or_else(|| {
                // Killed on the way, as by the out-of-memory killer.
                let died =
                    || Failure { op: usize::MAX, errno: Errno::SRCH.raw_os_error(), path: String::new() };
                (!*execs).then(died)
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
fn bury(token: &SingleThreaded, undertaker: &Undertaker, mut container: Container) -> Option<Container> {
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
        // Nobody is left to ask it, so it ends.
        process::wait(&supervisor.pidfd, true).is_ok().then_some(list)
    });
    let mut left = Vec::new();
    if container.stubs.is_empty() {
        left.push(container.mounts);
    } else {
        // What is covered cannot be removed without a wait for each of them; so they are uncovered at once.
        drop(container.mounts);
        remove_all(&container.stubs);
        left.extend(container.stubs.drain(..).map(|stub| stub.parent));
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
            Update::Exited { signal, status, user_us, system_us, max_rss, read, written }
        }
    };
    let fds: Vec<BorrowedFd<'_>> = owners.iter().map(AsFd::as_fd).collect();
    let _ = wire::send(&container.run, &update, &fds);
    // Last: the undertaker would take the processor that the caller is to be woken on.
    left.into_iter().for_each(|what| undertaker.bury(what));
    None
}

/// Makes the container that a request asks for.
fn make(
    token: &SingleThreaded,
    blanks: &mut Blanks<'_>,
    kind: Vec<u8>,
    fds: Vec<OwnedFd>,
) -> Option<Container> {
    let mut fds = fds.into_iter();
    let run = fds.next()?;
    match blanks.take(token, kind) {
        Ok(Blank { pidfd, channel, mounts, .. }) => {
            let fds: Vec<OwnedFd> = fds.collect();
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            // One that has failed by now has left word why, or is seen to be dead.
            let _ = wire::send_bytes(&channel, b"go", &fds);
            let phase = Phase::Setup { channel, terminal: None, execs: false, failure: None };
            Some(Container { pidfd, run, mounts, phase, stubs: Vec::new(), supervisor: None })
        }
        Err(errno) => {
            let failure = Failure { op: usize::MAX, errno: errno.raw_os_error(), path: String::new() };
            let _ = wire::send(&run, &Update::Failed(failure), &[]);
            None
        }
    }
}
