//! What belongs to the machine, and is the same for all jobs.

pub(crate) mod single_flight;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_runtime::{DnsSettings, Sandbox};
use lapstrake_store::Store;
use tokio::sync::Semaphore;

use crate::error::OpsError;
use crate::stack::StackResult;
use crate::worker::single_flight::SingleFlight;

/// How many layers are fetched side by side, by all jobs together.
const DOWNLOADS: usize = 4;

/// Settings of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSettings {
    /// The steps that all jobs together do at once; without one there is no limit.
    pub most_steps: Option<NonZeroUsize>,
    /// The name servers of steps, in place of the host's.
    pub dns: DnsSettings,
}

/// The store, the sandbox and the work in progress. A process has one, and any number of jobs use it at once. Equal steps
/// of two jobs run once.
pub struct Worker {
    store: Arc<Store>,
    single_id: bool,
    pub(crate) downloads: Semaphore,
    /// The steps that jobs do at present, by their content keys.
    pub(crate) steps: Arc<SingleFlight<StackResult>>,
    /// What jobs fetch from elsewhere at present.
    pub(crate) fetches: Arc<SingleFlight<()>>,
    /// Lets steps begin, where their number is limited.
    pub(crate) room: Option<Semaphore>,
    /// The name servers of steps, in place of the host's.
    pub(crate) dns: DnsSettings,
    sandbox: Mutex<Option<Arc<Sandbox>>>,
}

impl Worker {
    /// A worker over `store`. With `single_id`, only one user id is mapped: owners are recorded, not set.
    pub fn new(store: Arc<Store>, single_id: bool) -> Worker {
        Worker::with_settings(store, single_id, WorkerSettings::default())
    }

    /// As [`Worker::new`], with other settings.
    pub fn with_settings(store: Arc<Store>, single_id: bool, settings: WorkerSettings) -> Worker {
        Worker {
            store,
            single_id,
            downloads: Semaphore::new(DOWNLOADS),
            steps: Arc::default(),
            fetches: Arc::default(),
            room: settings.most_steps.map(|most| Semaphore::new(most.get().min(Semaphore::MAX_PERMITS))),
            dns: settings.dns,
            sandbox: Mutex::default(),
        }
    }

    /// The state directory.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether only one user id is mapped.
    pub fn single_id(&self) -> bool {
        self.single_id
    }

    /// The sandbox, started when a step first needs it; `with_network` if that step will want a network of its own. A
    /// sandbox whose process was killed is replaced.
    pub(crate) fn sandbox(&self, with_network: bool) -> Result<Arc<Sandbox>, OpsError> {
        let mut known = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = known.as_ref().filter(|sandbox| sandbox.is_alive()) {
            return Ok(sandbox.clone());
        }
        let dns = self.dns.clone();
        let sandbox = Arc::new(if with_network {
            Sandbox::start_with_network(dns)?
        } else {
            Sandbox::start_with_dns(dns)?
        });
        *known = Some(sandbox.clone());
        Ok(sandbox)
    }
}

#[cfg(test)]
mod tests;
