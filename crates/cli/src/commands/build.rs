//! `lapstrake build`

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lapstrake_diag::{SourceFile, excerpt};
use lapstrake_dockerfile::{Checks, Finding, Parsed, check_syntax};
use lapstrake_engine::{Progress, Solver, StepFailed, StepId};
use lapstrake_graph::Plan;
use lapstrake_lower::{Scope, epoch_source, lower_checked, required_images};
use lapstrake_oci::Digest;
use lapstrake_ops::{Cache, Images, Stack};

use super::call::call;
use super::check;
use super::export::Export;
use super::read::{Tools, placed, read, status_of, usable};
use super::resolve::Resolver;
use super::sweeper;
use super::wanted::Wanted;
use crate::args::Build;
use crate::exit::{self, Told};
use crate::progress::{self, Failure};
use crate::session::{self, Session};

/// Builds.
pub(crate) fn build(args: &Build) -> anyhow::Result<ExitCode> {
    if let Some(told) = call(args)? {
        return Ok(told);
    }
    let wanted = Wanted::parse(args)?;
    let session = session::open()?;
    let quiet = matches!(wanted.mode, progress::Mode::Quiet | progress::Mode::Rawjson);
    let (progress, display) = progress::start(wanted.mode);
    let mut checked = None;
    let result = super::block_on(run(args, wanted, &session, progress, &mut checked));
    let failures = display.finish();
    if let Some((file, findings)) = &checked
        && let Some(summary) = check::summary(findings, file).filter(|_| !quiet)
    {
        tell!("{summary}\n");
    }
    sweeper::start_if_needed(&session.store);
    let id = result.map_err(|error| {
        if error.is::<StepFailed>() {
            print_failures(&failures);
        }
        match &checked {
            Some((file, _)) => told(error, file),
            None => error,
        }
    })?;
    if let Some(id) = id {
        if args.quiet {
            say!("{id}");
        }
        if let Some(path) = &args.iidfile {
            fs::write(path, id.to_string()).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds, and leaves behind the Dockerfile with what was found in it.
async fn run(
    args: &Build,
    mut wanted: Wanted,
    session: &Session,
    progress: Progress,
    checked: &mut Option<(SourceFile, Vec<Finding>)>,
) -> anyhow::Result<Option<Digest>> {
    let tools = Tools::new(session, &mut wanted, args.pull);
    let (file, parsed) = read(args, &mut wanted, &tools, &progress).await?;
    let checks = Checks::new(check::options(&file, &wanted.inputs)?);
    check_syntax(&parsed, &checks);
    let plan = match ask_time(&mut wanted, (&file, &parsed), &tools, &progress).await {
        Ok(()) => plan(&wanted, (&parsed, &checks), &tools.images, &progress).await,
        Err(error) => Err(error),
    };
    let findings = checks.findings();
    findings.iter().for_each(|finding| progress.warn(check::warning(finding, &file)));
    *checked = Some((file, findings));
    let plan = plan?;
    let cache = Cache::new(tools.store.clone());
    let target = plan.targets.first().context("nothing to build")?;
    let solver = Solver::new(&plan.graph, &tools.ops, &cache, progress.clone());
    let solved = solver.solve(target.edge).await;
    // A failed build has looked at the same files.
    let finished = tools.ops.finish().and_then(|()| cache.finish());
    let solved = solved?;
    finished?;
    let stack = Stack::parse(&solved.result)?;
    let (store, images) = (&tools.store, &*tools.images);
    let export = Export { args, wanted: &wanted, store, images, target, stack: &stack };
    tokio::task::block_in_place(|| export.run(&progress))
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
        let step = progress
            .start(StepId("internal:epoch".to_owned()), "[internal] resolve the time of SOURCE_DATE_EPOCH");
        let time = tools.ops.time_of(&source, &step).await;
        step.complete(false, time.as_ref().err().map(ToString::to_string));
        wanted.inputs.source_epoch = time?;
    }
    Ok(())
}

async fn plan(
    wanted: &Wanted,
    (parsed, checks): (&Parsed, &Checks),
    images: &Arc<Images>,
    progress: &Progress,
) -> anyhow::Result<Plan> {
    let requests = required_images(&parsed.dockerfile, &wanted.inputs)?;
    let answers = requests.into_iter().map(|request| async {
        let name = format!("[internal] load metadata for {}", request.reference);
        let step = progress.start(StepId(format!("internal:{}", request.reference)), &name);
        let found = images.resolve(&request.reference, &request.store, &request.platform).await;
        step.complete(false, found.as_ref().err().map(ToString::to_string));
        // Lowering asks again, with the place in the Dockerfile, and reports what failed.
        (request, found.map_err(Arc::new))
    });
    let known = futures_util::future::join_all(answers).await;
    let resolver = Resolver { known, images: images.clone(), handle: tokio::runtime::Handle::current() };
    let plan = tokio::task::block_in_place(|| {
        lower_checked(&parsed.dockerfile, &wanted.inputs, &resolver, checks, Scope::Target)
    })?;
    match checks.error() {
        Some(text) => Err(Told { text, hint: Some(CHECK_HINT.to_owned()), status: 1 }.into()),
        None => Ok(plan),
    }
}

fn print_failures(failures: &[Failure]) {
    for failure in failures.iter().filter(|failure| !failure.lines.is_empty()) {
        tell!("------\n > {}:", failure.name);
        for (at, line) in &failure.lines {
            tell!("{:.3} {line}", at.as_secs_f64());
        }
        tell!("------");
    }
}

/// What can be done about `error=true`.
const CHECK_HINT: &str = "the Dockerfile makes warnings errors: mend it, or skip a rule with `# check=skip=RULE` above the instruction";

/// An error with the place in the Dockerfile, and what can be done.
fn told(error: anyhow::Error, file: &SourceFile) -> anyhow::Error {
    let error = placed(error, file);
    let Some(failed) = error.downcast_ref::<StepFailed>() else { return error };
    let source = &*failed.source;
    if let Some(lines) = failed.lines {
        tell!("{}", excerpt(file, lines.first, lines.last).trim_end());
    }
    let text = format!("failed to solve: {}", exit::text(exit::chain(source)));
    let hint = exit::chain(source).find_map(exit::hint_of);
    Told { text, hint, status: status_of(source) }.into()
}
