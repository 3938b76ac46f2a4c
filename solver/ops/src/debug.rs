//! A shell where a step stands: before it, or where it failed.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;

use lapstrake_graph::Exec;
use lapstrake_runtime::{Mount, MountSource, RunFds, RunSpec, Running, Sandbox, WindowSize};
use lapstrake_snapshot::Active;

use crate::error::OpsError;
use crate::mounts::Mounts;

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
    pub turn: Mutex<()>,
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

/// Where the step's command is, as a script.
const SCRIPT: &str = "/dev/step";

/// Runs a shell on `active` with everything that the step of `spec` has: mounts, environment, user, directory.
pub(crate) fn shell(
    sandbox: &Sandbox,
    debug: &Debug,
    what: &str,
    exec: &Exec,
    active: &Active,
    (mut spec, mut mounts): (RunSpec, Mounts),
) -> Result<(), OpsError> {
    let turn = debug.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
    let told = format!("{what}: this is a shell in its place; `sh {SCRIPT}` runs the step, `exit` leaves");
    let looked = (debug.hand_over)(&told, running);
    drop(turn);
    looked.map_err(OpsError::io("use", Path::new("/dev/tty")))
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
