//! The owner of the terminal: the display, or a program that borrows the terminal. Events wait meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock of the one terminal.
static TERMINAL: Mutex<()> = Mutex::new(());

/// The terminal, as long as this lives.
pub(crate) struct Held(#[expect(dead_code, reason = "held for its lock")] MutexGuard<'static, ()>);

/// Waits for the terminal and takes it. A live display draws again and again over what others write: it is not shown where
/// a program is to be given the terminal.
pub(crate) fn hold() -> Held {
    Held(TERMINAL.lock().unwrap_or_else(PoisonError::into_inner))
}
