//! Why a step fails.

use lapstrake_diag::{Code, Fault, Report, Reported};
use std::io;
use std::path::PathBuf;

use lapstrake_images::ImagesError;
use lapstrake_registry::RegistryError;
use lapstrake_remote::RemoteError;
use lapstrake_runtime::RuntimeError;
use lapstrake_snapshot::SnapshotError;
use lapstrake_store::{Store, StoreError, is_disk_full};
use lapstrake_tree::TreeError;

/// Why a step fails.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum OpsError {
    /// A layout cannot be read.
    #[error(transparent)]
    Layout(ImagesError),
    /// A cache of others is none.
    #[error(transparent)]
    Cache(#[from] lapstrake_assemble::BadCache),
    /// The user's command said no.
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    ExitCode {
        /// The command line, joined by spaces.
        command: String,
        /// Its exit code; 128 and the signal's number if a signal ended it.
        code: i32,
        /// A service of the machine's loopback interface that it may have wanted, and did not reach.
        unreached: Option<String>,
    },
    /// The user's command needed more memory than it may have.
    #[error("process {command:?} did not complete successfully: exit code: {code}: cannot allocate memory")]
    OutOfMemory {
        /// The command line, joined by spaces.
        command: String,
        /// Its exit code.
        code: i32,
        /// How many bytes it may have.
        limit: u64,
    },
    /// The user's command had as many processes as it may have, and wanted more.
    #[error("process {command:?} did not complete successfully: exit code: {code}: too many processes")]
    TooManyProcesses {
        /// The command line, joined by spaces.
        command: String,
        /// Its exit code.
        code: i32,
        /// How many it may have.
        limit: u64,
    },
    /// The user's command filled its shared memory.
    #[error(
        "process {command:?} did not complete successfully: exit code: {code}: no space left on /dev/shm"
    )]
    SharedMemory {
        /// The command line, joined by spaces.
        command: String,
        /// Its exit code.
        code: i32,
        /// How many bytes there may be.
        limit: u64,
    },
    /// The user's command took longer than it may.
    #[error("process {command:?} did not end within {limit:?}")]
    TimedOut {
        /// The command line, joined by spaces.
        command: String,
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// A program of another platform.
    #[error(
        "cannot run {program}: it is a program for {processor}, and nothing on this {host} machine emulates that"
    )]
    Foreign {
        /// The program as it was given.
        program: String,
        /// What it is for, in Go's names.
        processor: String,
        /// What this machine is.
        host: String,
    },
    /// A text that is to be run as it is.
    #[error("cannot run {program}: it is a text that does not say by which program it is to be run")]
    NoInterpreter {
        /// The file as it was given.
        program: String,
    },
    /// There is no room for what a step writes.
    #[error("the disk of the state directory `{}` is full", path.display())]
    DiskFull {
        /// The state directory.
        path: PathBuf,
        /// What could not be done.
        #[source]
        source: Box<OpsError>,
    },
    /// A source of a COPY.
    #[error("failed to compute cache key: failed to calculate checksum of ref {of}: {source}")]
    Checksum {
        /// What has no such source: a context's name, or the id of a layer.
        of: String,
        /// What is wrong.
        source: Box<TreeError>,
    },
    /// A secret that nobody gave.
    #[error("secret {id}: not found")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// An SSH agent that nobody gave.
    #[error("no SSH key \"{id}\" forwarded from the client")]
    NoSsh {
        /// Its id.
        id: String,
    },
    /// The caller of the build could not give a secret or an agent.
    #[error("{0}")]
    Client(Report),
    /// A process was asked for in a container that never began.
    #[error("the container does not run: its first process could not be started")]
    NoContainer,
    /// Something that the command line must allow.
    #[error("{entitlement} is not allowed")]
    NotAllowed {
        /// `network.host` or `security.insecure`.
        entitlement: &'static str,
    },
    /// A device that no spec file tells of.
    #[error("required device {name:?} is not registered")]
    NoDevice {
        /// Its CDI name, or part of one.
        name: String,
        /// Spec files that cannot be read, with the reason.
        unreadable: Vec<String>,
    },
    /// Devices that the command line must allow.
    #[error("{}", devices_not_allowed(names))]
    DevicesNotAllowed {
        /// Their CDI names.
        names: Vec<String>,
    },
    /// A context that the command line does not have.
    #[error("no build context named `{name}`")]
    NoContext {
        /// Its name.
        name: String,
    },
    /// Layers of an earlier result were removed meanwhile.
    #[error("layers of an earlier result are gone")]
    ResultGone,
    /// A result that makes no sense here.
    #[error("{what}")]
    Unsupported {
        /// What cannot be done.
        what: String,
    },
    /// The caller's rules forbid an image.
    #[error("{0}")]
    Rules(String),
    /// An image that was resolved by somebody else.
    #[error("image `{reference}` was not resolved before it was used")]
    Unresolved {
        /// Its name.
        reference: String,
    },
    /// A file of the host.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A document of an image that cannot be read.
    #[error("{what} cannot be read")]
    Malformed {
        /// The document.
        what: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A file of the web that is not the one that was wanted.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    DigestMismatch {
        /// Where it is.
        url: String,
        /// What it has.
        found: String,
        /// What it must have.
        expected: String,
    },
    /// A directory that a repository does not have.
    #[error("invalid subdir {subdir}: {source}")]
    Subdir {
        /// The directory as it was asked for.
        subdir: String,
        /// Why not.
        source: Box<TreeError>,
    },
    /// Something elsewhere cannot be brought.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A worker thread is gone.
    #[error("a worker thread ended early")]
    Worker,
    /// A tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A snapshot refused.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The sandbox refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An image cannot be had from its registry, and the one here is for another platform.
    #[error("it is here for {}, not for {}", platforms.0, platforms.1)]
    OtherPlatform {
        /// What it is for, and what was asked for.
        platforms: Box<(String, String)>,
        /// What the registry says.
        source: RegistryError,
    },
}

/// Which language a file is in that asks for devices.
const OF_LABS: &str = "`RUN --device` belongs to docker/dockerfile:1-labs, which is the language that is built in; \
                       BuildKit's stable frontend refuses this flag";

/// Where a base comes from if no registry can be reached.
const FIRST_BASE: &str = "without a network, a first base comes from an archive (`lapstrake load -i FILE`), from a root file \
                          system's tar (`lapstrake import ROOT.tar NAME`), or from this machine (`--build-context \
                          NAME=rootfs:///`)";

impl OpsError {
    /// Whether it is about what the command did: another try may go better.
    pub(crate) fn is_of_command(&self) -> bool {
        use OpsError::{ExitCode, OutOfMemory, SharedMemory, TimedOut, TooManyProcesses};
        matches!(
            self,
            ExitCode { .. }
                | OutOfMemory { .. }
                | SharedMemory { .. }
                | TimedOut { .. }
                | TooManyProcesses { .. }
        )
    }

    /// A source that cannot be had.
    /// A document that cannot be read.
    pub(crate) fn malformed(what: &str) -> impl FnOnce(serde_json::Error) -> OpsError {
        let what = what.to_owned();
        move |source| OpsError::Malformed { what, source }
    }

    /// Whether a file was not what was known of it.
    pub(crate) fn is_of_change(&self) -> bool {
        match self {
            OpsError::Tree(TreeError::Changed { .. }) => true,
            OpsError::Checksum { source, .. } => matches!(**source, TreeError::Changed { .. }),
            _ => false,
        }
    }

    /// Steps write to the state directory only: if there was no room, it is its disk that is full.
    pub(crate) fn blame_disk(self, store: &Store) -> OpsError {
        let known = matches!(self, OpsError::DiskFull { .. });
        if known || !is_disk_full(&self) { self } else { self.on_full_disk(store) }
    }

    pub(crate) fn on_full_disk(self, store: &Store) -> OpsError {
        OpsError::DiskFull { path: store.root().to_owned(), source: Box::new(self) }
    }

    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(io::Error) -> OpsError + 'a {
        move |source| OpsError::Io { action, path: path.to_owned(), source }
    }
}

impl From<ImagesError> for OpsError {
    fn from(error: ImagesError) -> OpsError {
        match error {
            ImagesError::Read { path, source } => OpsError::Io { action: "read", path, source },
            ImagesError::Malformed { what, source } => OpsError::Malformed { what, source },
            ImagesError::Damaged { expected, found, .. } => {
                StoreError::WrongDigest { expected, found }.into()
            }
            ImagesError::Choice(error) => error.into(),
            ImagesError::Digest(error) => OpsError::Unsupported { what: error.to_string() },
            other => OpsError::Layout(other),
        }
    }
}

fn of_loopback(service: &str) -> String {
    format!(
        "the step has a network of its own, where `{service}` is not the machine's: \
         `--network host --allow network.host` (or LAPSTRAKE_NETWORK=host) gives it the machine's"
    )
}

fn devices_not_allowed(names: &[String]) -> String {
    match names {
        [name] => format!("device {name} is requested by the build but not allowed"),
        names => format!("devices {} are requested by the build but not allowed", names.join(", ")),
    }
}

/// Whether somebody meant the JSON form: no command and no path begins like this.
fn is_broken_json(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| rest.starts_with('"'))
}

impl Reported for OpsError {
    fn code(&self) -> Code {
        match self {
            OpsError::Client(report) => report.code(),
            OpsError::Cache(error) => error.code(),
            OpsError::Remote(error) => error.code(),
            OpsError::Tree(error) => error.code(),
            OpsError::Store(error) => error.code(),
            OpsError::Snapshot(error) => error.code(),
            OpsError::Runtime(error) => error.code(),
            OpsError::Registry(error) => error.code(),
            _ => Code::new("step", self.into()),
        }
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            OpsError::Cache(error) => Some(error),
            OpsError::DiskFull { source, .. } => Some(&**source),
            OpsError::Checksum { source, .. } | OpsError::Subdir { source, .. } => Some(&**source),
            OpsError::Remote(error) => Some(error),
            OpsError::Tree(error) => Some(error),
            OpsError::Store(error) => Some(error),
            OpsError::Snapshot(error) => Some(error),
            OpsError::Runtime(error) => Some(error),
            OpsError::Registry(error) => Some(error),
            OpsError::OtherPlatform { source, .. } => Some(source),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            OpsError::DiskFull { .. } => Fault::Environment,
            OpsError::Client(report) => report.fault(),
            _ => self.inner().map_or(Fault::Build, Reported::fault),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            OpsError::DiskFull { .. } => {
                Some("free space, or set LAPSTRAKE_ROOT to a directory on another disk".to_owned())
            }
            OpsError::ExitCode { unreached: Some(service), .. } => Some(of_loopback(service)),
            OpsError::ExitCode { command, .. } => command
                .split_once(" -c ")
                .is_some_and(|(_, text)| is_broken_json(text))
                .then(|| "the command is not valid JSON, so it was given to a shell".to_owned()),
            OpsError::OutOfMemory { limit, .. } => {
                Some(format!("it reached the limit of {limit} bytes: raise it with `--memory`"))
            }
            OpsError::TooManyProcesses { limit, .. } => {
                Some(format!("it reached the limit of {limit} processes: raise it with `--pids-limit`"))
            }
            OpsError::SharedMemory { limit, .. } => {
                Some(format!("it reached the limit of {limit} bytes: raise it with `--shm-size`"))
            }
            OpsError::Registry(RegistryError::Unreachable { absent: true, .. }) => {
                Some(FIRST_BASE.to_owned())
            }
            OpsError::Client(report) => report.hint().map(str::to_owned),
            OpsError::NoSecret { id } => Some(format!("give it with `--secret id={id},src=FILE`")),
            OpsError::Foreign { processor, .. } => Some(format!(
                "install an emulator for {processor} (qemu-user, registered as binfmt_misc), or do this in a stage \
                 `FROM --platform=$BUILDPLATFORM` and copy the result"
            )),
            OpsError::NoInterpreter { .. } => Some("begin it with `#!/bin/sh`".to_owned()),
            OpsError::NoSsh { id } => Some(format!("give it with `--ssh {id}`")),
            OpsError::NotAllowed { entitlement } => Some(format!("allow it with `--allow {entitlement}`")),
            OpsError::NoDevice { unreadable, .. } => {
                unreadable.first().map(|why| format!("cannot be read: {why}"))
            }
            OpsError::DevicesNotAllowed { names } => {
                let flags: Vec<String> = names.iter().map(|name| format!("--allow device={name}")).collect();
                let flags = flags.join(" ");
                Some(format!("allow it with `{flags}`; {OF_LABS}"))
            }
            OpsError::ResultGone => Some("build it again: it was removed by `prune` meanwhile".to_owned()),
            OpsError::NoContext { name } => Some(format!("name it with `--build-context {name}=PATH`")),
            OpsError::Checksum { source, .. } => match &**source {
                TreeError::NotFound { hidden_by: Some((pattern, line)), .. } => {
                    Some(format!("it exists, but line {line} of the ignore file hides it: `{pattern}`"))
                }
                TreeError::NotFound { nearest, .. } => {
                    Some(format!("the nearest existing path is `{nearest}`"))
                }
                TreeError::Pattern { pattern, line: 0, .. }
                    if pattern.trim_start_matches('/').starts_with('[') =>
                {
                    Some("if this is meant to be the JSON form, it is not valid JSON".to_owned())
                }
                _ => source.hint(),
            },
            _ => self.inner().and_then(Reported::hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_told() {
        let ran =
            |command: &str| OpsError::ExitCode { command: command.to_owned(), code: 127, unreached: None };
        assert!(ran("/bin/sh -c [\"echo\" \"x\"]").hint().is_some_and(|hint| hint.contains("JSON")));
        assert_eq!(ran("/bin/sh -c [ \"$A\" = b ]").hint(), None);
    }
}
