//! From a parsed Dockerfile to the graph of what is to be done.

use std::sync::Arc;

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{Checks, Parsed};
use lapstrake_engine::{Progress, StepId};
use lapstrake_graph::{Plan, Source};
use lapstrake_lower::{Scope, epoch_source, lower_checked, required_images, source_title};
use lapstrake_ops::OpsError;

use super::lock::Lock;
use super::read::{Tools, usable};
use super::resolve::{PATIENCE, Resolver};
use super::wanted::Wanted;
use crate::exit::Told;

/// What can be done about `error=true`.
const CHECK_HINT: &str = "the Dockerfile makes warnings errors: mend it, or skip a rule with `# check=skip=RULE` above the instruction";

/// Asks what the base images are, all at once, and lowers.
pub(super) async fn plan(
    wanted: &mut Wanted,
    (file, parsed, checks): (&SourceFile, &Parsed, &Checks),
    tools: &Tools,
    (progress, lock): (&Progress, Option<&Lock>),
) -> anyhow::Result<Plan> {
    ask_time(wanted, (file, parsed), tools, progress).await?;
    let images = &tools.images;
    let requests = required_images(&parsed.dockerfile, &wanted.inputs)?;
    let answers = requests.into_iter().map(|request| async {
        let name = format!("[internal] load metadata for {}", request.reference);
        let step = progress.start(StepId(format!("internal:{}", request.reference)), &name);
        let reference = lock.map_or_else(|| request.reference.clone(), |lock| lock.pinned(&request));
        let found = images.resolve(&reference, &request.store, &request.platform).await;
        step.complete(false, found.as_ref().err().map(ToString::to_string));
        // Lowering asks again, with the place in the Dockerfile, and reports what failed.
        (request, found.map_err(Arc::new))
    });
    let known = futures_util::future::join_all(answers).await;
    let resolver = Resolver { known, images: images.clone(), handle: tokio::runtime::Handle::current() };
    let plan = tokio::task::block_in_place(|| {
        lower_checked(&parsed.dockerfile, &wanted.inputs, &resolver, checks, Scope::Target)
    });
    if let (Err(_), Some(lock)) = (&plan, lock) {
        let failed = resolver.known.iter().filter(|(_, found)| found.is_err());
        failed.filter_map(|(request, _)| lock.told(request)).for_each(|told| tell!("{told}"));
    }
    let plan = plan?;
    if let Some(text) = checks.error() {
        return Err(Told { text, hint: Some(CHECK_HINT.to_owned()), status: 1 }.into());
    }
    lock.map_or(Ok(()), |lock| lock.hold(&plan))?;
    Ok(plan)
}

/// Where `SOURCE_DATE_EPOCH` names a source, finds out when that is from.
async fn ask_time(
    wanted: &mut Wanted,
    (file, parsed): (&SourceFile, &Parsed),
    tools: &Tools,
    progress: &Progress,
) -> anyhow::Result<()> {
    usable(parsed, file)?;
    if let Some(source) = epoch_source(&parsed.dockerfile, &wanted.inputs)? {
        wanted.inputs.source_epoch = time_of(&source, tools, progress).await?;
    }
    Ok(())
}

async fn time_of(source: &Source, tools: &Tools, progress: &Progress) -> Result<Option<i64>, OpsError> {
    let title = "[internal] resolve the time of SOURCE_DATE_EPOCH";
    let step = progress.start(StepId("internal:epoch".to_owned()), title);
    let time = tools.ops.time_of(source, &step).await;
    step.complete(false, time.as_ref().err().map(ToString::to_string));
    time
}

/// As [`ask_time`], for what is told without building: a source that does not answer is no reason to tell nothing, and what is
/// wrong with the Dockerfile is found when it is lowered.
pub(super) async fn guess_time(wanted: &mut Wanted, parsed: &Parsed, tools: &Tools) {
    let Ok(Some(source)) = epoch_source(&parsed.dockerfile, &wanted.inputs) else { return };
    match tokio::time::timeout(PATIENCE, time_of(&source, tools, &Progress::none())).await {
        Ok(Ok(time)) => wanted.inputs.source_epoch = time,
        Ok(Err(_)) | Err(_) => {
            tell!("{} could not be looked at: its time is not known", source_title(&source));
        }
    }
}
