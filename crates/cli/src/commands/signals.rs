//! Ctrl-C and SIGTERM, also while an output waits for a pipe's reader.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use lapstrake_diag::{Outcome, Report};
use lapstrake_sys::outfile;
use tokio::signal::unix::{SignalKind, signal};

/// The signal that is to end this process; 0 while there is none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Waits for Ctrl-C or SIGTERM, notes which one came, and makes outputs fail from then on.
///
/// # Errors
/// The system refuses a handler.
pub(super) async fn received() -> std::io::Result<()> {
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (mut interrupted, mut terminated) = (signal(interrupt)?, signal(terminate)?);
    let kind = tokio::select! {
        _ = interrupted.recv() => interrupt,
        _ = terminated.recv() => terminate,
    };
    RECEIVED.store(kind.as_raw_value(), Ordering::Relaxed);
    outfile::cancel();
    Ok(())
}

/// Watches for signals on a thread of its own, for work that blocks the one that it runs on.
pub(super) fn watch() {
    static WATCHED: OnceLock<()> = OnceLock::new();
    WATCHED.get_or_init(|| {
        let watch = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(received())
        };
        // Without the thread a signal ends the process at once, unless it has a handler already.
        drop(std::thread::Builder::new().name("signals".to_owned()).spawn(watch));
    });
}

/// The same result, or that of a signal that ended the work early.
pub(super) fn or_canceled<T>(result: Outcome<T>) -> Outcome<T> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => result,
        signal => result.map_err(|_| Report::canceled(signal)),
    }
}
