//! The sink of a build's events, until the build is over.

use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_engine::Progress;

/// The place to which the parts of one build report. Cheap to clone. A clone does not keep the messages of the build from ending.
#[derive(Clone)]
pub(crate) struct Reports(Arc<Mutex<Option<Progress>>>);

impl Reports {
    /// Reports go to `progress`.
    pub(crate) fn new(progress: Progress) -> Reports {
        Reports(Arc::new(Mutex::new(Some(progress))))
    }

    /// The sink of events. Events of a build that is over go nowhere.
    pub(crate) fn progress(&self) -> Progress {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.clone().unwrap_or_else(Progress::none)
    }

    /// The build is over.
    pub(crate) fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
