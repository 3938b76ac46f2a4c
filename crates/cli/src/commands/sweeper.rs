//! The build cache kept within its limits and quick to open, by a process of its own that nobody waits for.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use lapstrake_build::Machine;
use lapstrake_build::attrs;
use lapstrake_buildkit::KeepPolicy;
use lapstrake_diag::Outcome;
use lapstrake_store::Store;

use crate::env;
use attrs::size;

/// How much the cache may take, as the environment says it.
pub(super) enum Keep {
    /// The default rules.
    Default,
    /// So many bytes.
    Most(u64),
    /// Nothing is removed unless somebody asks.
    Off,
}

impl Keep {
    /// Reads the environment. What cannot be understood is told, and then the default holds.
    pub(super) fn from_env() -> Keep {
        match env::keep_storage().as_deref() {
            None => Keep::Default,
            Some("off") => Keep::Off,
            Some(text) => size(text).map_or_else(
                |error| {
                    tell!("LAPSTRAKE_KEEP_STORAGE: {error}");
                    Keep::Default
                },
                Keep::Most,
            ),
        }
    }

    /// The policy of a server.
    pub(super) fn policy(&self) -> KeepPolicy {
        match self {
            Keep::Default => KeepPolicy::Default(None),
            Keep::Most(bytes) => KeepPolicy::Default(Some(*bytes)),
            Keep::Off => KeepPolicy::All,
        }
    }

    fn most(&self) -> Option<Option<u64>> {
        match self {
            Keep::Default => Some(None),
            Keep::Most(bytes) => Some(Some(*bytes)),
            Keep::Off => None,
        }
    }
}

/// Starts the sweeper if there is more than there should be, if something condemned is still there, or if the database's
/// log has become long. A build does not fail for want of it: the next one tries again.
pub(super) fn start_if_needed(store: &Store) {
    let Some(most) = Keep::from_env().most() else {
        // Nobody else is to work here. One build waits for the disk, where each of them would read more and more.
        if store.log_is_very_long() {
            store.shorten_log().unwrap_or_default();
        }
        return;
    };
    if !store.log_is_long() && !store.wants_pruning(most).unwrap_or(false) {
        return;
    }
    let started = Command::new("/proc/self/exe")
        .args(["prune", "--background"])
        .env(env::STATE_ROOT, store.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not for the terminal's signals: whoever ends the next build does not mean it.
        .process_group(0)
        .spawn();
    match started {
        // Nobody waits for it: it outlives us, and init takes it.
        Ok(sweeper) => tracing::info!(process = sweeper.id(), "the sweeper is started"),
        Err(error) => tracing::warn!(%error, "the sweeper cannot be started"),
    }
}

/// The sweeper's work.
pub(super) fn sweep(session: &Machine) -> Outcome<()> {
    let Some(most) = Keep::from_env().most() else { return Ok(()) };
    // If it may not be nice, it is quick.
    rustix::process::nice(19).unwrap_or_default();
    Ok(session.store.keep_within(most)?)
}
