//! A person at a terminal: a pty with a shell's commands on it, keys to type, and what has been shown so far.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::place::{Mode, script_through};

/// Nothing here takes as long, even on a machine that is busy.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Commands that run on a terminal of their own. Dropping it hangs up.
pub(super) struct Pty {
    master: File,
    child: Child,
    shown: String,
    /// Up to where [`Pty::until`] has looked.
    seen: usize,
}

impl Pty {
    /// Runs `commands` as [`super::place::script`] does, on a terminal of 77 columns and 33 lines.
    pub(super) fn start(mode: &Mode, commands: &str) -> Result<Self, String> {
        let (master, slave) = pair().map_err(|errno| format!("no terminal to be had: {errno}"))?;
        let stream = || slave.try_clone().map_err(|error| error.to_string());
        let (stdin, stdout) = (stream()?, stream()?);
        let child = script_through(&["setsid", "--ctty", "--wait"], mode, commands)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(slave)
            .spawn()
            .map_err(|error| format!("cannot run setsid: {error}"))?;
        let pty = Self { master: File::from(master), child, shown: String::new(), seen: 0 };
        Ok(pty)
    }

    /// Waits until `word` is shown, after what was waited for before; gives what was shown up to its end.
    pub(super) fn until(&mut self, word: &str) -> Result<String, String> {
        loop {
            if let Some(at) = self.shown[self.seen..].find(word) {
                let from = self.seen;
                self.seen += at + word.len();
                return Ok(self.shown[from..self.seen].to_owned());
            }
            if !self.read()? {
                return Err(format!("`{word}` is not in: {}", self.shown));
            }
        }
    }

    pub(super) fn keys(&mut self, keys: &[u8]) -> Result<(), String> {
        self.master.write_all(keys).map_err(|error| error.to_string())
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        tcsetwinsize(&self.master, window(rows, columns)).map_err(|errno| errno.to_string())
    }

    /// All that was shown, when the commands have ended with this exit status.
    pub(super) fn end(mut self, status: i32) -> Result<String, String> {
        while self.read()? {}
        let ended = self.child.wait().map_err(|error| error.to_string())?;
        let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
        let shown = std::mem::take(&mut self.shown);
        if code == Some(status) { Ok(shown) } else { Err(format!("{ended}, not {status}: {shown}")) }
    }

    /// Takes in what comes next; `false` where nothing will.
    fn read(&mut self) -> Result<bool, String> {
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        if rustix::event::poll(&mut ready, Some(&PATIENCE)) == Ok(0) {
            return Err(format!("nothing happens any more after: {}", self.shown));
        }
        let mut chunk = [0; 4096];
        // A master says EIO when nobody has the other side any more.
        let count = self.master.read(&mut chunk).unwrap_or(0);
        self.shown.push_str(&String::from_utf8_lossy(&chunk[..count]));
        Ok(count > 0)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A test that failed leaves it running: it has nobody to talk to any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&slave, window(33, 77))?;
    Ok((master, slave))
}
