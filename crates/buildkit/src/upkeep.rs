//! Garbage collection and memory of a server that runs for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapstrake_diag::{Outcome, Report};
use lapstrake_store::{Rule, Store};

/// The part of the build cache that a server keeps by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepPolicy {
    /// Everything, until a client asks for garbage collection.
    All,
    /// Everything that the default rules of the store leave, with this limit in bytes in place of the rules' own.
    Default(Option<u64>),
    /// Everything that these rules leave.
    Rules(Vec<Rule>),
}

/// Garbage collection after builds, one at a time.
pub(crate) struct Upkeep {
    policy: KeepPolicy,
    busy: AtomicBool,
}

/// Held while garbage is collected. A collection that panics ends, too.
struct Busy(Arc<Upkeep>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::SeqCst);
    }
}

impl Upkeep {
    pub(crate) fn new(policy: KeepPolicy) -> Upkeep {
        Upkeep { policy, busy: AtomicBool::new(false) }
    }

    /// Collects garbage if there is enough of it, on a thread that nobody waits for.
    pub(crate) fn start_if_needed(self: &Arc<Self>, store: &Arc<Store>) {
        if !self.is_needed(store) || self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let (this, store) = (self.clone(), store.clone());
        let busy = Busy(self.clone());
        let work = move || {
            let _busy = busy;
            // Builds come first. On Linux, the niceness is that of one thread. Where the thread may not be nice, it is quick.
            rustix::process::nice(19).unwrap_or_default();
            if let Err(report) = this.collect(&store) {
                tracing::warn!(error = %report, "garbage collection failed");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("collector".to_owned()).spawn(work) {
            tracing::warn!(%error, "garbage collection cannot start");
        }
    }

    fn is_needed(&self, store: &Store) -> bool {
        match &self.policy {
            KeepPolicy::All => store.log_is_very_long(),
            KeepPolicy::Default(most) => store.log_is_long() || store.wants_pruning(*most).unwrap_or(false),
            KeepPolicy::Rules(_) => store.log_is_long() || !store.was_collected_lately(),
        }
    }

    fn collect(&self, store: &Store) -> Outcome<()> {
        match &self.policy {
            KeepPolicy::All => store.shorten_log(),
            KeepPolicy::Default(most) => store.keep_within(*most),
            KeepPolicy::Rules(rules) => store.keep_by(rules),
        }
        .map_err(|error| Report::of(&error))
    }
}
