//! Staying with a container until it ends: its terminal, our signals.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lapstrake_runtime::{Exit, Running};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::{self, Raw};

/// So many requests to end kill a program that does not heed them: as the first process of its namespace it is
/// shielded from signals that it has no handler for.
const LAST_REQUEST: u32 = 3;

/// What a program whose terminal has gone gets to put its things in order.
const PARTING: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Waits for the end. Signals sent to us go on to the process; with a terminal, what is typed too if `interactive`.
pub(super) fn follow(mut running: Running, interactive: bool) -> anyhow::Result<Exit> {
    let process = Arc::new(running.pidfd().try_clone_to_owned()?);
    let master = running.terminal();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let waited = runtime.block_on(async {
        forward(&process)?;
        let Some(master) = master else {
            return Ok(tokio::task::spawn_blocking(move || running.wait()).await??);
        };
        follow_size(&master)?;
        // From here on no signal of those that are sent by hand ends us before the terminal is given back.
        let raw = if interactive { Raw::stdin()? } else { None };
        let end = |process: Arc<OwnedFd>| move || hang_up(&process);
        if interactive {
            terminal::type_into(master.try_clone()?, end(process.clone()));
        }
        let shown = terminal::show(master, end(process.clone()))?;
        let finished = tokio::task::spawn_blocking(move || {
            let finished = running.wait();
            // Everything that held the container's terminal is dead, so this ends, with the last of the output.
            drop(shown.join());
            finished
        });
        let finished = finished.await;
        drop(raw);
        Ok::<_, anyhow::Error>(finished??)
    });
    // A thread may be blocked in reading standard input: it ends with the process.
    runtime.shutdown_background();
    Ok(waited?.exit)
}

/// Passes signals on until the process ends.
fn forward(process: &Arc<OwnedFd>) -> anyhow::Result<()> {
    let requests = Arc::new(AtomicU32::new(0));
    for (kind, number) in [
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
    ] {
        let (mut stream, process, requests) = (signal(kind)?, process.clone(), requests.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                send(&process, number);
                let asks = number == Signal::INT || number == Signal::TERM;
                if asks && requests.fetch_add(1, Ordering::Relaxed) + 1 >= LAST_REQUEST {
                    send(&process, Signal::KILL);
                }
            }
        });
    }
    Ok(())
}

/// Keeps the container's terminal as large as ours.
fn follow_size(master: &OwnedFd) -> anyhow::Result<()> {
    let (mut changes, master) = (signal(SignalKind::window_change())?, master.try_clone()?);
    // It may have changed since the container was started.
    terminal::resize(&master);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            terminal::resize(&master);
        }
    });
    Ok(())
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
