//! The one seam to the caller of a build: directories, secrets, agents, credentials, standard input and outputs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lapstrake_diag::Outcome;
use lapstrake_ops::{Debug, Secret};
use lapstrake_outputs::Containerd;
use lapstrake_registry::Registries;

/// The caller of a build, wherever it is. This process is one; a session of BuildKit's API is to be another.
pub trait Client: Send + Sync {
    /// The place on this machine of a directory that the caller names.
    ///
    /// # Errors
    /// The caller has no such directory.
    fn directory(&self, named: &Path) -> Outcome<PathBuf>;

    /// Secrets for steps by their ids.
    fn secrets(&self) -> BTreeMap<String, Secret>;

    /// Sockets of SSH agents for steps by their ids.
    fn agents(&self) -> BTreeMap<String, PathBuf>;

    /// How registries are reached, and with which credentials.
    fn registries(&self) -> Registries;

    /// The environment of `git`: search path, certificates and proxies.
    fn git_environment(&self) -> Vec<(OsString, OsString)>;

    /// Standard input, from where it is now.
    fn stdin(&self) -> Box<dyn Read + Send>;

    /// Writes an output: to the file `dest`, or to standard output.
    ///
    /// # Errors
    /// The output cannot be opened, or `write` fails.
    fn output(&self, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()>;

    /// The engine that `--load` means.
    ///
    /// # Errors
    /// The caller names an engine that nothing can be loaded into.
    fn engine(&self) -> Outcome<Addressee>;

    /// The debugger that opens a shell where a step fails; nothing where the caller has none.
    fn debugger(&self) -> Option<Debug>;
}

/// Writes the bytes of an output.
pub type Writing<'w> = dyn FnMut(&mut dyn Write) -> Outcome<()> + 'w;

/// An engine that can be given an image.
#[derive(Debug)]
pub enum Engine {
    /// The Docker at this socket.
    Docker(PathBuf),
    /// This containerd.
    Containerd(Containerd),
}

/// The engine that `--load` means.
#[derive(Debug)]
pub struct Addressee {
    /// The engine.
    pub engine: Engine,
    /// Whether the caller names it, so that it has to be there.
    pub named: bool,
}

/// Writes an output of `client`, and gives what `write` gives.
///
/// # Errors
/// As [`Client::output`].
pub(crate) fn write_output<T>(
    client: &dyn Client,
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> Outcome<T>,
) -> Outcome<T> {
    let (mut write, mut given) = (Some(write), None);
    client.output(dest, &mut |out| {
        if let Some(write) = write.take() {
            given = Some(write(out)?);
        }
        Ok(())
    })?;
    given.ok_or_else(|| io::Error::other("the output was not written").into())
}
