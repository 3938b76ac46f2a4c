//! The user's terminal while a container has one of its own: raw, as large, and copied to and fro.
//!
//! Invariant: a terminal that was made raw is given back as it was when its [`Raw`] goes, on errors and panics too.
//! Signals that would end the process are forwarded while there is one (see [`super::follow`]), so they never skip it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use lapstrake_runtime::WindowSize;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// As much as a terminal's driver passes at once.
const CHUNK: usize = 4096;

/// The size of the terminal we are on: all three streams may be it, or none.
pub(super) fn size() -> WindowSize {
    let [stdin, stdout, stderr] =
        [tcgetwinsize(io::stdin()), tcgetwinsize(io::stdout()), tcgetwinsize(io::stderr())];
    let found = stdout.or(stdin).or(stderr);
    found.map_or(WindowSize::default(), |size| WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Makes the container's terminal as large as ours.
pub(super) fn resize(master: impl AsFd) {
    let WindowSize { rows, columns } = size();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // The container may be gone, and its terminal with it.
    tcsetwinsize(master, size).unwrap_or_default();
}

/// Standard input in raw mode: keys go to the container as they are typed, Ctrl-C too.
pub(super) struct Raw(Termios);

impl Raw {
    /// `None` where standard input is no terminal.
    pub(super) fn stdin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has hung up has no mode to go back to.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).unwrap_or_default();
    }
}

/// Passes what is typed on to the container, on a thread that ends with the process; `gone` is called when our
/// terminal has hung up.
pub(super) fn type_into(master: OwnedFd, gone: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let mut master = File::from(master);
        copy(&mut io::stdin().lock(), &mut master).unwrap_or_default();
        gone();
    });
}

/// Shows what the container writes until nobody is left there to write; `gone` is called when nobody reads here.
pub(super) fn show(master: OwnedFd, gone: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // Past the buffer of `Stdout`, which would keep a prompt back for the sake of its missing line end.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(std::thread::spawn(move || {
        if copy(&mut File::from(master), &mut out).is_err() {
            gone();
        }
    }))
}

/// Copies until there is no more to read, which for a terminal is an error as often as an end; fails when writing does.
pub(super) fn copy(from: &mut impl io::Read, to: &mut File) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}
