//! What the services share: the machine, and the builds and sessions on it.

use std::sync::Arc;

use lapstrake_ops::Worker;
use lapstrake_store::Store;

use crate::history::History;
use crate::host::Host;
use crate::jobs::Jobs;
use crate::session::Sessions;
use crate::upkeep::Upkeep;

/// The state that all services share.
pub(crate) struct Shared {
    pub(crate) host: Arc<Host>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) history: Arc<History>,
}

impl Shared {
    /// The parts that the caller of a build needs.
    pub(crate) fn of_caller(&self) -> (Arc<Host>, Arc<Store>, Arc<Sessions>) {
        (self.host.clone(), self.worker.store().clone(), self.sessions.clone())
    }
}
