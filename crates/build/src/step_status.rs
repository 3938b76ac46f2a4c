//! Reports of exporters as events of a step.

use std::sync::Arc;

use lapstrake_engine::Step;
use lapstrake_outputs::Status;

/// Reports to a step.
pub fn status(step: &Step) -> Status {
    let step = step.clone();
    Arc::new(move |what: &str, done, of, over| step.status(what, done, of, over))
}
