//! References: what a client holds of a result, and their solved trees.

use std::sync::Arc;

use lapstrake_build::Build;
use lapstrake_ops::SharedStack;
use tonic::Status;

use crate::host::Shared;
use crate::jobs::Job;
use crate::run::on_thread;

/// The result and the target that the reference `id` of `job` names: `RESULT/TARGET`. The target is a platform, or empty for
/// a result with one target. Ids of builds may have slashes, too, and platforms do.
pub(crate) fn split<'i>(job: &Job, id: &'i str) -> (&'i str, &'i str) {
    let own = id.strip_prefix(&*job.id).map_or(0, |_| job.id.len());
    match id[own..].split_once('/') {
        Some((number, target)) => (&id[..own + number.len()], target),
        None => (id, ""),
    }
}

/// The tree of the reference `id`, which is solved first where that has not been done.
///
/// # Errors
/// There is no such reference, a step fails, or the build ends meanwhile.
pub(crate) async fn solved(shared: &Arc<Shared>, job: &Arc<Job>, id: &str) -> Result<SharedStack, Status> {
    let (result, target) = split(job, id);
    let (prepared, target) = (job.result(result)?, target.to_owned());
    let (shared, job) = (shared.clone(), job.clone());
    let solved = on_thread(move || async move {
        let solving = async {
            let planned = prepared.planned.lock().await;
            let planned =
                planned.as_ref().ok_or_else(|| Status::not_found("the result was returned already"))?;
            let targets = planned.plan().targets.iter();
            let number = targets
                .map(|target| target.platform.to_string())
                .position(|platform| target.is_empty() || platform == target)
                .ok_or_else(|| Status::not_found(format!("the result has no platform {target}")))?;
            let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
            planned.evaluate_target(&this, number).await.map_err(|report| job.status(&report))
        };
        tokio::select! {
            solved = solving => solved,
            () = job.canceled.cancelled() => Err(Status::cancelled("the build is over")),
        }
    });
    solved.await
}

#[cfg(test)]
mod tests {
    use lapstrake_proto::moby::buildkit::v1::SolveRequest;

    use super::*;

    #[tokio::test]
    async fn platforms_and_ids_have_slashes() {
        let (job, _) = Job::new(SolveRequest { r#ref: "a/b".to_owned(), ..SolveRequest::default() }, None);
        assert_eq!(split(&job, "a/b:0/linux/arm64/v8"), ("a/b:0", "linux/arm64/v8"));
        assert_eq!(split(&job, "a/b:0/"), ("a/b:0", ""));
        assert_eq!(split(&job, "other/x"), ("other", "x"));
        assert_eq!(split(&job, "a/b"), ("a/b", ""));
    }
}
