//! From a parsed Dockerfile to the graph of what is to be done.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapstrake_diag::{Outcome, Report, SourceFile};
use lapstrake_dockerfile::{Checks, Parsed};
use lapstrake_engine::{Progress, Step, StepId, Stream};
use lapstrake_graph::{Plan, Source};
use lapstrake_lower::{RequiredImage, Scope, epoch_source, lower_checked, required_images, source_title};
use lapstrake_ops::{Images, OpsError};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::lock::Lock;
use crate::resolve::{PATIENCE, Resolver};
use crate::resolved::Resolved;
use crate::source::{Tools, placed, usable};

/// The hint for `error=true`.
const CHECK_HINT: &str = "the Dockerfile makes warnings errors: mend it, or skip a rule with `# check=skip=RULE` above the instruction";

/// Asks what the base images are, all at once, and lowers.
pub async fn plan(
    resolved: &mut Resolved,
    (file, parsed, checks): (&Arc<SourceFile>, &Parsed, &Checks),
    tools: &Tools,
    (progress, lock): (&Progress, Option<&Lock>),
) -> Outcome<Plan> {
    ask_time(resolved, (file, parsed), tools, progress).await?;
    let images = &tools.images;
    let required = match required_images(&parsed.dockerfile, &resolved.inputs) {
        Ok(required) => required,
        Err(error) => {
            find_until_error(resolved, parsed, checks, images);
            return Err(placed(&error, file));
        }
    };
    let resolver = ask_images(required, images, progress, lock).await;
    let plan = tokio::task::block_in_place(|| {
        lower_checked(&parsed.dockerfile, &resolved.inputs, &resolver, checks, Scope::Target)
    });
    if let (Err(_), Some(lock)) = (&plan, lock) {
        let failed = resolver.known.iter().filter(|(_, found)| found.is_err());
        failed.filter_map(|(request, _)| lock.told(request)).for_each(|told| tools.notes.add(told));
    }
    let plan = plan.map_err(|error| placed(&error, file))?;
    nothing_found(checks)?;
    lock.map_or(Ok(()), |lock| lock.hold(&plan))?;
    Ok(plan)
}

/// Reports the findings in front of an error that keeps a Dockerfile from being lowered. No image is looked for.
fn find_until_error(resolved: &Resolved, parsed: &Parsed, checks: &Checks, images: &Arc<Images>) {
    let (images, handle) = (images.clone(), Handle::current());
    let resolver = Resolver { known: Vec::new(), given_up: true, images, handle };
    // The error is known already.
    drop(lower_checked(&parsed.dockerfile, &resolved.inputs, &resolver, checks, Scope::Target));
}

/// Fails if what was found is an error.
pub(crate) fn nothing_found(checks: &Checks) -> Outcome<()> {
    match checks.error() {
        Some(text) => Err(Report::new(text).with_hint(CHECK_HINT)),
        None => Ok(()),
    }
}

/// How long an image may be looked for until it is said that its name looks like that of a stage.
const SOON: Duration = Duration::from_millis(500);
/// The further wait for other images once one cannot be had, so that the error is of the first one in the file.
const GRACE: Duration = Duration::from_millis(200);

/// Asks what the images are, until all answers are there or one of them is no.
async fn ask_images(
    required: Vec<RequiredImage>,
    images: &Arc<Images>,
    progress: &Progress,
    lock: Option<&Lock>,
) -> Resolver {
    let started: Vec<Step> = required
        .iter()
        .map(|RequiredImage { request, .. }| {
            let name = format!("[internal] load metadata for {}", request.reference);
            let id = StepId(format!("internal:{}:{}", request.reference, request.platform));
            progress.start(id, &name)
        })
        .collect();
    let ask = |(number, image): (usize, &RequiredImage)| {
        let (image, step) = (image.clone(), started[number].clone());
        async move {
            let RequiredImage { request, hint } = image;
            let reference = lock.map_or_else(|| request.reference.clone(), |lock| lock.pinned(&request));
            let looking = images.resolve(&reference, &request.store, &request.platform);
            let mut looking = pin!(looking);
            let found = match timeout(SOON, looking.as_mut()).await {
                Ok(found) => found,
                Err(_) => {
                    if !hint.is_empty() {
                        let name = reference.familiar_name();
                        let text = format!("no stage is called `{name}`{hint}: looking for an image\n");
                        step.log(Stream::Stderr, text.into_bytes());
                    }
                    looking.await
                }
            };
            // Lowering asks again, with the place in the Dockerfile, and reports what failed.
            (number, (request.clone(), found.map_err(Arc::new)))
        }
    };
    let mut asking: FuturesUnordered<_> = required.iter().enumerate().map(ask).collect();
    let (mut known, mut until) = (Vec::new(), None);
    loop {
        let next = match until {
            None => asking.next().await,
            Some(until) => timeout_at(until, asking.next()).await.ok().flatten(),
        };
        let Some((number, answer)) = next else { break };
        let failed = answer.1.as_ref().err().map(ToString::to_string);
        if failed.is_some() {
            until.get_or_insert_with(|| Instant::now() + GRACE);
        }
        started[number].clone().complete(false, failed);
        known.push((number, answer));
    }
    for (number, step) in started.into_iter().enumerate() {
        if !known.iter().any(|(known, _)| *known == number) {
            step.complete(false, Some("stopped: another image cannot be resolved".to_owned()));
        }
    }
    known.sort_by_key(|(number, _)| *number);
    let known = known.into_iter().map(|(_, answer)| answer).collect();
    Resolver { known, given_up: until.is_some(), images: images.clone(), handle: Handle::current() }
}

/// Resolves a `SOURCE_DATE_EPOCH` that names a source to the time of this source.
async fn ask_time(
    resolved: &mut Resolved,
    (file, parsed): (&Arc<SourceFile>, &Parsed),
    tools: &Tools,
    progress: &Progress,
) -> Outcome<()> {
    usable(parsed, file)?;
    let source = epoch_source(&parsed.dockerfile, &resolved.inputs).map_err(|error| placed(&error, file))?;
    if let Some(source) = source {
        resolved.inputs.source_epoch = time_of(&source, tools, progress).await?;
    }
    Ok(())
}

async fn time_of(source: &Source, tools: &Tools, progress: &Progress) -> Result<Option<i64>, OpsError> {
    let title = "[internal] resolve the time of SOURCE_DATE_EPOCH";
    let step = progress.start(StepId("internal:epoch".to_owned()), title);
    let time = tools.job.time_of(source, &step).await;
    step.complete(false, time.as_ref().err().map(ToString::to_string));
    time
}

/// As [`ask_time`], for what is told without building: a source that does not answer is no reason to tell nothing, and what is
/// wrong with the Dockerfile is found when it is lowered.
pub(crate) async fn guess_time(resolved: &mut Resolved, parsed: &Parsed, tools: &Tools) {
    let Ok(Some(source)) = epoch_source(&parsed.dockerfile, &resolved.inputs) else { return };
    match tokio::time::timeout(PATIENCE, time_of(&source, tools, &Progress::none())).await {
        Ok(Ok(time)) => resolved.inputs.source_epoch = time,
        Ok(Err(_)) | Err(_) => {
            tools.notes.add(format!("cannot inspect {}: its time is unknown", source_title(&source)));
        }
    }
}
