//! The one seam to the caller of a build: directories, secrets, agents, credentials, standard input and outputs.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lapstrake_diag::Outcome;
use lapstrake_oci::Digest;
use lapstrake_ops::{Debug, ImageRules, LocalContext, Secret};
use lapstrake_outputs::Containerd;
use lapstrake_registry::Registries;
use lapstrake_tree::ignore::Patterns;

/// The caller of a build, wherever it is. This process is one; a session of BuildKit's API is to be another.
///
/// Each method may block, and may be called on any thread and more than once at a time. The build calls
/// [`directory`](Client::directory), [`secret`](Client::secret) and [`ssh_agent`](Client::ssh_agent) on threads that may
/// block, or within [`tokio::task::block_in_place`], so that an implementation may wait for a future by the runtime's handle.
pub trait Client: Send + Sync {
    /// The place on this machine of a directory that the caller names: a context, or the directory of the Dockerfile. The
    /// same name means the same place until the build ends.
    ///
    /// # Errors
    /// The caller has no such directory.
    fn directory(&self, named: &Path) -> Outcome<PathBuf>;

    /// The patterns of the ignore file of the context `name`, which is the directory `named`, if the context comes later: when a
    /// step needs it, [`context`](Client::context) gives the directory. `None` if the directory is here, or comes as a whole.
    ///
    /// # Errors
    /// The ignore file cannot be read.
    fn ignored(&self, name: &str, named: &Path) -> Outcome<Option<Patterns>> {
        tracing::debug!(name, ?named, "the context is here as a whole");
        Ok(None)
    }

    /// A context by its name in the graph that is not here yet; `None` if the caller has no such context. It is asked for when
    /// a step needs it.
    ///
    /// # Errors
    /// The caller has the context, and cannot bring it here.
    fn context(&self, name: &str) -> Outcome<Option<LocalContext>> {
        tracing::debug!(name, "a step asks for a context that was not named before");
        Ok(None)
    }

    /// The bytes of a file that the caller names outside of a context: the Dockerfile, or its ignore file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] for a file that is not there or out of reach; others for one that cannot be read.
    fn file(&self, named: &Path) -> io::Result<Vec<u8>>;

    /// The value of the secret `id`; `None` if the caller has no such secret. Each step asks anew.
    ///
    /// # Errors
    /// The caller has the secret, and cannot give it.
    fn secret(&self, id: &str) -> Outcome<Option<Secret>>;

    /// A socket on this machine that leads to the SSH agent `id`; `None` if the caller has no such agent. The socket stays
    /// until the build ends.
    ///
    /// # Errors
    /// The caller has the agent, and cannot connect to it.
    fn ssh_agent(&self, id: &str) -> Outcome<Option<PathBuf>>;

    /// How registries are reached, and with which credentials.
    fn registries(&self) -> Registries;

    /// The rules that images are looked up by; `None` if the caller has none.
    fn image_rules(&self) -> Option<ImageRules> {
        None
    }

    /// The environment of `git`: search path, certificates and proxies.
    fn git_environment(&self) -> Vec<(OsString, OsString)>;

    /// Standard input, from where it is now.
    fn stdin(&self) -> Box<dyn Read + Send>;

    /// Writes an output: to the file `dest`, or to standard output.
    ///
    /// # Errors
    /// The output cannot be opened, or `write` fails.
    fn output(&self, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()>;

    /// Writes an output of many files: calls `write` once with a directory on this machine, whose files are the output `dest`.
    ///
    /// # Errors
    /// The directory cannot be made, `write` fails, or the files cannot be brought to the caller.
    fn output_directory(&self, dest: &Path, write: &mut WritingFiles<'_>) -> Outcome<()>;

    /// The place on this machine of an OCI layout that the caller names. `digest` is the image or the cache that is read there;
    /// without one the layout is written.
    ///
    /// # Errors
    /// The caller has no such layout, or the image is not in it.
    fn layout(&self, named: &Path, digest: Option<&Digest>) -> Outcome<PathBuf> {
        tracing::debug!(?digest, "the layout `{}` is used where it is", named.display());
        Ok(named.to_owned())
    }

    /// The layout `named`, whose place [`Client::layout`] gave, has been written.
    ///
    /// # Errors
    /// The layout cannot be brought to the caller.
    fn layout_written(&self, named: &Path) -> Outcome<()> {
        tracing::debug!("the layout `{}` is written", named.display());
        Ok(())
    }

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

/// Writes the files of an output into a directory.
pub type WritingFiles<'w> = dyn FnMut(&Path) -> Outcome<()> + 'w;

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
