//! A shell where a step stands: before it, or where it failed.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};

use lapstrake_graph::Exec;
use lapstrake_runtime::{Mount, MountSource, RunFds, RunSpec, Running, Sandbox, WindowSize};
use lapstrake_snapshot::Active;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::error::OpsError;
use crate::exec::mounts::Mounts;

/// Gives a terminal's container to the person at ours until it ends.
pub type HandOver = dyn Fn(&str, Running) -> std::io::Result<()> + Send + Sync;

/// Where to stop, and for whom.
pub struct Debug {
    /// A part of the name of the steps to stop before; empty for none. Failed steps always stop.
    pub before: String,
    /// How large the shell's terminal is.
    pub size: WindowSize,
    /// Who looks.
    pub hand_over: Box<HandOver>,
    /// One at a time.
    pub turn: Mutex<Turn>,
}

/// What has been looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// The build goes on.
    #[default]
    Open,
    /// A shell in a failed step has ended, and the build with it: there are no more.
    Over,
}

/// Why there is a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion<'a> {
    /// The step is about to run.
    Before(&'a str),
    /// The step has failed.
    Failed(&'a str),
}

impl fmt::Display for Occasion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(name) => write!(f, "before {name}"),
            Self::Failed(name) => write!(f, "{name} failed"),
        }
    }
}

/// Whether nobody wants a step any more.
pub(crate) fn is_canceled(cancel: &Receiver<()>) -> bool {
    cancel.try_recv() == Err(TryRecvError::Disconnected)
}

impl fmt::Debug for Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debug").field("before", &self.before).finish_non_exhaustive()
    }
}

impl Debug {
    /// Whether to stop before the step of this name.
    pub(crate) fn stops_before(&self, name: &str) -> bool {
        !self.before.is_empty() && name.contains(&self.before)
    }
}

/// How soon a shell notices that its step is canceled.
const TENTH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Where the step's command is, as a script.
const SCRIPT: &str = "/dev/step";

/// Runs a shell on `active` with everything that the step has: mounts, environment, user, directory. None for a step that
/// nobody wants any more; it ends when that becomes so.
pub(crate) fn shell(
    (sandbox, debug): (&Sandbox, &Debug),
    occasion: Occasion<'_>,
    exec: &Exec,
    active: &Active,
    prepare: impl FnOnce() -> Result<(RunSpec, Mounts), OpsError>,
    cancel: &Receiver<()>,
) -> Result<(), OpsError> {
    let mut turn = debug.turn.lock().unwrap_or_else(PoisonError::into_inner);
    if *turn == Turn::Over || is_canceled(cancel) {
        return Ok(());
    }
    let (mut spec, mut mounts) = prepare()?;
    spec.args = vec!["/bin/sh".to_owned()];
    spec.terminal = Some(debug.size);
    spec.env.retain(|pair| !pair.starts_with("TERM="));
    spec.env.push("TERM=xterm".to_owned());
    let script = MountSource::Bytes { data: script(&exec.args).into_bytes(), mode: 0o444, uid: 0, gid: 0 };
    spec.mounts.push(Mount { target: SCRIPT.to_owned(), source: script, readonly: true });
    let null = || -> Result<OwnedFd, OpsError> {
        let path = Path::new("/dev/null");
        let file = File::options().read(true).write(true).open(path).map_err(OpsError::io("open", path))?;
        Ok(file.into())
    };
    let root = active.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
    let fds = RunFds {
        root,
        mounts: std::mem::take(&mut mounts.fds),
        stdin: null()?,
        stdout: null()?,
        stderr: null()?,
    };
    let running = sandbox.run(&spec, fds)?;
    let told =
        format!("{occasion}: this is a shell in its place; `sh {SCRIPT}` runs the step, `exit` leaves");
    let looked = hand_over(debug, &told, running, cancel);
    if matches!(occasion, Occasion::Failed(_)) {
        *turn = Turn::Over;
    }
    drop(turn);
    looked
}

/// Gives `running` to the person at our terminal until it ends, and ends it if the step is canceled.
fn hand_over(debug: &Debug, told: &str, running: Running, cancel: &Receiver<()>) -> Result<(), OpsError> {
    let pidfd =
        running.pidfd().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/proc")))?;
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| (debug.hand_over)(told, running));
        while !looker.is_finished() {
            let mut wait = [PollFd::new(&pidfd, PollFlags::IN)];
            let gone = rustix::event::poll(&mut wait, Some(&TENTH)).is_ok_and(|ready| ready > 0);
            if gone {
                break;
            }
            if is_canceled(cancel) {
                // It may have ended this very moment.
                rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).unwrap_or_default();
            }
        }
        looker.join().map_err(|_| OpsError::Worker)?.map_err(OpsError::io("use", Path::new("/dev/tty")))
    })
}

/// The command for a shell.
fn script(args: &[String]) -> String {
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect();
    format!("exec {}\n", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        let args = ["/bin/sh", "-c", "echo 'it''s' $HOME"].map(str::to_owned);
        assert_eq!(script(&args), "exec '/bin/sh' '-c' 'echo '\\''it'\\'''\\''s'\\'' $HOME'\n");
    }
}
