//! SSH agents as steps see them: a socket of the step's own, with the owner and mode that the mount asks for.
//!
//! The agent's socket is never mounted itself. So a step changes nothing of it, and several steps may want other owners.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use lapstrake_graph::SshMount;
use lapstrake_store::{Store, TempDir};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::OpsError;

/// A socket whose connections lead to an agent, until this is dropped.
pub(crate) struct AgentSocket {
    dir: TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl AgentSocket {
    /// A socket for `mount` in front of the agent at `agent`. With a single id, the owner is that id. Needs a runtime.
    ///
    /// # Errors
    /// The socket cannot be made, or the owner is not one of the ids that steps have.
    pub(crate) fn open(
        store: &Store,
        agent: PathBuf,
        mount: &SshMount,
        single_id: bool,
    ) -> Result<AgentSocket, OpsError> {
        let dir = store.temp_dir()?;
        let path = dir.path().join(NAME);
        let listener = bind_short(&path).map_err(OpsError::io("make the socket", &path))?;
        let mode = fs::Permissions::from_mode(mount.mode & 0o777);
        fs::set_permissions(&path, mode).map_err(OpsError::io("set the mode of", &path))?;
        if !single_id {
            std::os::unix::fs::lchown(&path, Some(mount.uid), Some(mount.gid))
                .map_err(OpsError::io("set the owner of", &path))?;
        }
        let listening = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = listening.map_err(OpsError::io("listen at", &path))?;
        Ok(AgentSocket { dir, accepting: tokio::spawn(accept(listener, agent)) })
    }

    /// The socket's path.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }
}

/// The socket's name in its directory.
const NAME: &str = "agent";

/// Joins each connection with one to the agent. All of them end with this.
async fn accept(listener: UnixListener, agent: PathBuf) {
    let mut joined = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut step, _)) = accepted else { return };
                let agent = agent.clone();
                joined.spawn(async move {
                    if let Ok(mut agent) = UnixStream::connect(&agent).await {
                        // An end that goes away ends both.
                        tokio::io::copy_bidirectional(&mut step, &mut agent).await.unwrap_or_default();
                    }
                });
            }
            Some(_) = joined.join_next() => {}
        }
    }
}

/// A listening socket at `path`, however long that is: addresses of sockets have room for 107 bytes.
///
/// # Errors
/// The directory cannot be opened, or something is there already.
pub fn bind_short(path: &Path) -> io::Result<StdUnixListener> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    StdUnixListener::bind(Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}
