//! Staying with a container until it ends: its terminal, our signals.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lapstrake_diag::Outcome;
use lapstrake_runtime::{Finished, Running};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::{self, Raw};

/// So many requests to end kill a program that does not heed them: as the first process of its namespace it is
/// shielded from signals that it has no handler for.
const LAST_REQUEST: u32 = 3;

/// The grace period of a program whose terminal has gone.
const PARTING: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The signals that go on to the container, caught from before it is started: one that came in between would end us.
pub(super) struct Signals {
    runtime: Runtime,
    caught: Vec<(Signal, tokio::signal::unix::Signal)>,
    resized: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they are kept.
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let context = runtime.enter();
        let mut caught = Vec::new();
        for (kind, number) in [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ] {
            caught.push((number, signal(kind)?));
        }
        let resized = signal(SignalKind::window_change())?;
        drop(context);
        Ok(Self { runtime, caught, resized })
    }
}

/// Waits for the end. Signals sent to us go on to the process; with a terminal, what is typed too if `interactive`.
pub(super) fn follow(signals: Signals, mut running: Running, interactive: bool) -> Outcome<Finished> {
    let Signals { runtime, caught, resized } = signals;
    let process = Arc::new(running.pidfd().try_clone_to_owned()?);
    let requests = Arc::new(AtomicU32::new(0));
    for (number, stream) in caught {
        runtime.spawn(forward(number, stream, process.clone(), requests.clone()));
    }
    let finished = match running.terminal() {
        None => running.wait(),
        Some(master) => {
            // Our terminal is given back when this goes, after the last of the output.
            let _raw = if interactive { Raw::stdin()? } else { None };
            // It may have changed while the container was started.
            terminal::resize(&master);
            runtime.spawn(follow_size(resized, master.try_clone()?));
            let end = |process: Arc<OwnedFd>| move || hang_up(&process);
            if interactive {
                terminal::type_into(master.try_clone()?, end(process.clone()));
            }
            let shown = terminal::show(master, end(process))?;
            let finished = running.wait();
            // Everything that held the container's terminal is dead, so this ends.
            drop(shown.join());
            finished
        }
    };
    runtime.shutdown_background();
    Ok(finished?)
}

/// Passes a signal on until the process ends.
async fn forward(
    number: Signal,
    mut stream: tokio::signal::unix::Signal,
    process: Arc<OwnedFd>,
    requests: Arc<AtomicU32>,
) {
    while stream.recv().await.is_some() {
        send(&process, number);
        let asks = number == Signal::INT || number == Signal::TERM;
        if asks && requests.fetch_add(1, Ordering::Relaxed) + 1 >= LAST_REQUEST {
            send(&process, Signal::KILL);
        }
    }
}

/// Keeps the container's terminal as large as ours.
async fn follow_size(mut changes: tokio::signal::unix::Signal, master: OwnedFd) {
    while changes.recv().await.is_some() {
        terminal::resize(&master);
    }
}

/// Ends a container that nobody is left to see, as the end of a terminal ends what runs on it.
fn hang_up(process: &OwnedFd) {
    send(process, Signal::HUP);
    let ended =
        rustix::event::poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&PARTING));
    if ended != Ok(1) {
        send(process, Signal::KILL);
    }
}

fn send(process: &OwnedFd, signal: Signal) {
    // It may be gone already.
    pidfd_send_signal(process, signal).unwrap_or_default();
}
