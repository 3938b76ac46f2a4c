//! From errors to words and exit statuses: 1 the build failed, 2 usage, 3 the environment.

use std::process::ExitCode;

use lapstrake_diag::Style;
use lapstrake_ops::OpsError;
use lapstrake_outputs::OutputError;
use lapstrake_registry::RegistryError;
use lapstrake_remote::RemoteError;
use lapstrake_runtime::RuntimeError;
use lapstrake_snapshot::SnapshotError;
use lapstrake_store::{StoreError, is_disk_full};
use lapstrake_sys::userns::UsernsError;
use lapstrake_tree::TreeError;

use crate::env;

/// What `run` ends with where the fault is ours or the caller's, and not that of the program in the container: the
/// status of `docker run`.
pub(crate) const OF_RUN: u8 = 125;

/// Something the user typed that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// A failure whose text is complete already.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Told {
    /// What is printed.
    pub(crate) text: String,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// The exit status.
    pub(crate) status: u8,
}

impl Told {
    /// What a signal has ended: the status is that of a shell for a program that it killed.
    pub(crate) fn canceled(signal: i32) -> Told {
        let status = u8::try_from(128 + signal).unwrap_or(u8::MAX);
        Told { text: "canceled".to_owned(), hint: None, status }
    }

    /// Whether it is of [`Told::canceled`].
    pub(crate) fn is_canceled(&self) -> bool {
        self.status > 128
    }
}

/// Whether messages are coloured.
pub(crate) fn style() -> Style {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    if terminal && !env::no_color() { Style::Coloured } else { Style::Plain }
}

/// Prints the error with its causes and hints, and gives the exit status.
///
/// Whoever reads the result may leave early (`lapstrake images | head`): then there is nothing to say, and the status is
/// that of a program that the kernel ended for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    if io.or(json) == Some(std::io::ErrorKind::BrokenPipe) {
        return ExitCode::from(141);
    }
    tell!("ERROR: {}", text(error.chain()));
    for hint in hints(error) {
        tell!("hint: {hint}");
    }
    ExitCode::from(status(error))
}

fn hints(error: &anyhow::Error) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        hints.extend(hint_of(cause));
    }
    if hints.is_empty() && is_disk_full(error.as_ref()) {
        hints.push("free space, or set LAPSTRAKE_ROOT to a directory on another disk".to_owned());
    }
    hints
}

/// Whether something in the state directory is not what was put there.
fn is_damage(cause: &(dyn std::error::Error + 'static)) -> bool {
    let tree = |error: &TreeError| matches!(error, TreeError::Corrupt { .. });
    let snapshot = |error: &SnapshotError| match error {
        SnapshotError::Tree(error) => tree(error),
        SnapshotError::Store(error) => error.is_damage(),
        _ => false,
    };
    // Errors that only pass on another one hide it from the chain.
    if let Some(error) = cause.downcast_ref::<OutputError>() {
        return match error {
            OutputError::Tree(error) => tree(error),
            OutputError::Snapshot(error) => snapshot(error),
            OutputError::Store(error) => error.is_damage(),
            _ => false,
        };
    }
    match ops_error(cause) {
        Some(OpsError::Tree(error)) => tree(error),
        Some(OpsError::Snapshot(error)) => snapshot(error),
        Some(OpsError::Store(error)) => error.is_damage(),
        _ => cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_damage),
    }
}

/// Where a base comes from if no registry can be reached.
const FIRST_BASE: &str = "without a network, a first base comes from an archive (`lapstrake load -i FILE`), from a root file \
                          system's tar (`lapstrake import ROOT.tar NAME`), or from this machine (`--build-context \
                          NAME=rootfs:///`)";

/// What can be done about one cause.
pub(crate) fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(told) = cause.downcast_ref::<Told>() {
        return told.hint.clone();
    }
    if let Some(OpsError::Registry(RegistryError::Unreachable { absent: true, .. })) = ops_error(cause) {
        return Some(FIRST_BASE.to_owned());
    }
    if let Some(error) = registry_error(cause) {
        return error.hint();
    }
    if is_damage(cause) {
        return Some("`lapstrake doctor --repair` drops what is damaged in the state directory".to_owned());
    }
    if is_no_such_id(cause) {
        return Some(OTHER_IDS.to_owned());
    }
    if let Some(ops) = ops_error(cause) {
        return ops.hint();
    }
    if let Some(SnapshotError::NoStacking { .. }) = cause.downcast_ref() {
        return Some(OTHER_STATE.to_owned());
    }
    if let Some(OutputError::NoEngine { .. }) = cause.downcast_ref() {
        let text = "the image is in lapstrake's own store; `lapstrake save` writes an archive for any engine";
        return Some(text.to_owned());
    }
    if let Some(error) = cause.downcast_ref::<RuntimeError>() {
        return error.hint();
    }
    cause.downcast_ref::<UsernsError>().and_then(UsernsError::hint).map(str::to_owned)
}

/// How files get owners that a user has no ids for.
const OTHER_IDS: &str = "give this user a range with that id in /etc/subuid and /etc/subgid, or set LAPSTRAKE_IDS=one with a \
                         LAPSTRAKE_ROOT of its own: with one id files can have any owner";

/// Whether a file is to have an owner that does not exist here.
fn is_no_such_id(cause: &(dyn std::error::Error + 'static)) -> bool {
    let tree = |error: &TreeError| matches!(error, TreeError::NoSuchId { .. });
    let snapshot = |error: &SnapshotError| matches!(error, SnapshotError::Tree(error) if tree(error));
    match ops_error(cause) {
        Some(OpsError::Tree(error)) => tree(error),
        Some(OpsError::Snapshot(error)) => snapshot(error),
        // Errors that only pass on another one hide it from the chain.
        _ => match cause.downcast_ref::<OutputError>() {
            Some(OutputError::Tree(error)) => tree(error),
            Some(OutputError::Snapshot(error)) => snapshot(error),
            _ => {
                cause.downcast_ref::<SnapshotError>().is_some_and(snapshot)
                    || cause.downcast_ref::<TreeError>().is_some_and(tree)
            }
        },
    }
}

/// Where layers can be stacked.
pub(crate) const OTHER_STATE: &str = "set LAPSTRAKE_ROOT to a directory on ext4, xfs, btrfs or tmpfs: in a container a volume, or /dev/shm for what fits in memory";

fn status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(told) = cause.downcast_ref::<Told>() {
            return told.status;
        }
        if cause.is::<Usage>() {
            return 2;
        }
        if is_environment(cause) {
            return 3;
        }
    }
    if is_disk_full(error.as_ref()) { 3 } else { 1 }
}

/// Whether the machine is to blame, not the Dockerfile.
pub(crate) fn is_environment(cause: &(dyn std::error::Error + 'static)) -> bool {
    // Transparent errors leave what they wrap out of the chain: it is looked at here.
    match ops_error(cause) {
        Some(OpsError::DiskFull { .. }) => return true,
        Some(OpsError::Runtime(error)) => return is_kernel(error),
        Some(OpsError::Remote(error)) => return is_web_down(error),
        _ => {}
    }
    cause.is::<UsernsError>()
        || matches!(cause.downcast_ref(), Some(OutputError::NoEngine { .. }))
        || is_disk_full(cause)
        || is_without_overlay(cause)
        || registry_error(cause).is_some_and(is_registry_down)
        || cause.downcast_ref::<RuntimeError>().is_some_and(is_kernel)
}

/// Whether the kernel stacks no layers for us.
fn is_without_overlay(cause: &(dyn std::error::Error + 'static)) -> bool {
    let snapshot = match ops_error(cause) {
        Some(OpsError::Snapshot(error)) => Some(error),
        _ => cause.downcast_ref(),
    };
    matches!(snapshot, Some(SnapshotError::NoStacking { .. } | SnapshotError::Mount { .. }))
}

/// What a registry said, whoever asked.
fn registry_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e RegistryError> {
    match (ops_error(cause), cause.downcast_ref::<OutputError>()) {
        (Some(OpsError::Registry(error)), _) | (_, Some(OutputError::Registry(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

fn is_registry_down(error: &RegistryError) -> bool {
    use RegistryError::{Settings, Setup, Unreachable};
    matches!(error, Unreachable { .. } | Setup { .. } | Settings { .. })
}

fn is_web_down(error: &RemoteError) -> bool {
    use RemoteError::{NoGit, Setup, Unreachable};
    matches!(error, NoGit { .. } | Setup { .. } | Unreachable { .. })
}

fn is_kernel(error: &RuntimeError) -> bool {
    use RuntimeError::{Kernel, Limit, Network, NullDevice, Start};
    matches!(error, Kernel { .. } | NullDevice { .. } | Start { .. } | Limit { .. } | Network { .. })
}

/// The error of a step or of a base image; the latter are shared.
pub(crate) fn ops_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a OpsError> {
    cause
        .downcast_ref::<OpsError>()
        .or_else(|| cause.downcast_ref::<std::sync::Arc<OpsError>>().map(|shared| &**shared))
}

/// An error and its causes, outermost first.
pub(crate) fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The texts of an error and its causes. Transparent errors repeat their cause: once is enough.
pub(crate) fn text<'a>(causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
