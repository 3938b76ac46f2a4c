//! What belongs to the machine, and is the same for all jobs.

pub(crate) mod single_flight;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lapstrake_runtime::Sandbox;
use lapstrake_store::Store;
use tokio::sync::Semaphore;

use crate::error::OpsError;
use crate::stack::StackResult;
use crate::worker::single_flight::SingleFlight;

/// How many layers are fetched side by side, by all jobs together.
const DOWNLOADS: usize = 4;

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
    sandbox: OnceLock<Sandbox>,
    starting: Mutex<()>,
}

impl Worker {
    /// A worker over `store`. With `single_id`, only one user id is mapped: owners are recorded, not set.
    pub fn new(store: Arc<Store>, single_id: bool) -> Worker {
        Worker {
            store,
            single_id,
            downloads: Semaphore::new(DOWNLOADS),
            steps: Arc::default(),
            fetches: Arc::default(),
            sandbox: OnceLock::new(),
            starting: Mutex::new(()),
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

    /// The sandbox, started when a step first needs it; `with_network` if that step will want a network of its own.
    pub(crate) fn sandbox(&self, with_network: bool) -> Result<&Sandbox, OpsError> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sandbox.get().is_none() {
            // Nobody else sets it while we hold the lock.
            let sandbox = if with_network { Sandbox::start_with_network()? } else { Sandbox::start()? };
            self.sandbox.set(sandbox).unwrap_or_default();
        }
        drop(starting);
        self.sandbox.get().ok_or(OpsError::Worker)
    }
}

#[cfg(test)]
mod tests;
