//! References: what a client holds of a result, and their solved trees.

use std::sync::Arc;

use lapstrake_build::{Build, Planned};
use lapstrake_ops::SharedStack;
use tonic::Status;

use crate::jobs::Job;
use crate::shared::Shared;
use crate::thread::on_thread;

/// The tree of the reference `id`, which is solved first where that has not been done.
///
/// # Errors
/// There is no such reference, a step fails, or the build ends meanwhile.
pub(crate) async fn solved(shared: &Arc<Shared>, job: &Arc<Job>, id: &str) -> Result<SharedStack, Status> {
    if let Some(left) = job.held(id) {
        let (worker, job) = (shared.worker.clone(), job.clone());
        let stack = move || async move {
            left.stack(worker.store(), worker.single_id()).map_err(|error| job.status(&error.into()))
        };
        return on_thread(stack).await;
    }
    let (result, target) = job.split(id);
    let (prepared, target) = (job.result(result)?, target.to_owned());
    let (shared, job) = (shared.clone(), job.clone());
    let solved = on_thread(move || async move {
        let solving = async {
            let solved = {
                let planned = prepared.planned.lock().await;
                let planned =
                    planned.as_ref().ok_or_else(|| Status::not_found("the result was returned already"))?;
                let number = number(planned, &target)?;
                let client = &*prepared.caller;
                let this = Build { worker: &shared.worker, client, progress: job.progress() };
                planned.evaluate_target(&this, number).await
            };
            // An error tells of the graph, which is free now.
            solved.map_err(|report| job.status(&report))
        };
        tokio::select! {
            solved = solving => solved,
            () = job.canceled.cancelled() => Err(Status::cancelled("the build is over")),
        }
    });
    solved.await
}

/// The number of the target that is called `target`: its platform, or nothing for a result with one target.
///
/// # Errors
/// There is no such target.
pub(crate) fn number(planned: &Planned, target: &str) -> Result<usize, Status> {
    let targets = planned.plan().targets.iter();
    targets
        .map(|target| target.platform.to_string())
        .position(|platform| target.is_empty() || platform == target)
        .ok_or_else(|| Status::not_found(format!("the result has no platform {target}")))
}
