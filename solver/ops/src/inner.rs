//! What all ops of a build have at hand.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lapstrake_runtime::Sandbox;
use lapstrake_store::Store;

use crate::brought::Remotes;
use crate::error::OpsError;
use crate::images::Images;
use crate::origin::Origins;
use crate::settings::Settings;

/// The store, what is allowed, and what is shared between steps.
pub(crate) struct Inner {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) images: Arc<Images>,
    pub(crate) origins: Origins,
    pub(crate) remotes: Remotes,
    sandbox: OnceLock<Sandbox>,
    starting: Mutex<()>,
}

impl Inner {
    pub(crate) fn new(store: Arc<Store>, images: Arc<Images>, settings: Settings) -> Inner {
        let settings = Arc::new(settings);
        let origins = Origins::new(store.clone(), settings.clone());
        Inner {
            store,
            settings,
            images,
            origins,
            remotes: Remotes::default(),
            sandbox: OnceLock::new(),
            starting: Mutex::new(()),
        }
    }

    /// The sandbox, started when a step first needs it.
    pub(crate) fn sandbox(&self) -> Result<&Sandbox, OpsError> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sandbox.get().is_none() {
            // Nobody else sets it while we hold the lock.
            self.sandbox.set(Sandbox::start()?).unwrap_or_default();
        }
        drop(starting);
        self.sandbox.get().ok_or(OpsError::Worker)
    }
}
