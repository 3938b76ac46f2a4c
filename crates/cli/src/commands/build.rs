//! `lapstrake build`

use std::process::ExitCode;
use std::sync::Arc;

use futures_util::future::try_join_all;
use lapstrake_diag::{Context as _, Fault, Outcome, SourceFile, Usage};
use lapstrake_dockerfile::{Checks, Finding, check_syntax};
use lapstrake_engine::{CacheIndex, Executor, Progress, Solver};
use lapstrake_graph::{Edge, Target};
use lapstrake_oci::Reference;
use lapstrake_ops::{Cache, SharedStack, Stack, StackReport};
use lapstrake_outputs::Elsewhere;
use lapstrake_runtime::Chosen;
use lapstrake_store::{Stacking, Store};
use lapstrake_sys::outfile::{clear_output, remove_cleared};

use super::caches;
use super::call::call;
use super::check;
use super::export::{Built, Delivered, Export, check_engine};
use super::file::put;
use super::lock::Lock;
use super::options;
use super::output::Output;
use super::place::Place;
use super::plan::plan;
use super::platforms;
use super::read::{Tools, read, step_failed};
use super::staying::Staying;
use super::sweeper;
use super::timeline;
use super::wanted::Wanted;
use crate::args::Build;
use crate::progress::{self, Failure, Journal};
use crate::record::{BuildRecord, Status, Subject, without_secrets};
use crate::session::{self, Session};
use lapstrake_snapshot::OTHER_STATE;

/// Builds.
pub(crate) fn build(args: &Build) -> Outcome<ExitCode> {
    if let Some(told) = call(args)? {
        return Ok(told);
    }
    let wanted = Wanted::parse(args)?;
    check_engine(&wanted)?;
    if let Some(path) = &args.iidfile {
        clear_output(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let done = build_wanted(args, wanted);
    if let Some(path) = &args.iidfile {
        remove_cleared(path);
    }
    done
}

fn build_wanted(args: &Build, wanted: Wanted) -> Outcome<ExitCode> {
    let session = session::open()?;
    let quiet = matches!(wanted.mode, progress::Mode::Quiet | progress::Mode::Rawjson);
    let stacking = lapstrake_snapshot::stacking(&session.store)?;
    if !quiet {
        tell_stacking(&session.store, &stacking);
    }
    let mut record = BuildRecord::begin(subject(args, &wanted)?);
    record.names = wanted.names.iter().map(Reference::familiar).collect();
    let secrets = wanted.secrets();
    let (progress, display) = progress::start(wanted.mode, progress::Work::Build);
    let mut trace = Trace { build: record.id.clone(), ..Trace::default() };
    let result = super::block_on(run(args, wanted, &session, progress, &mut trace));
    let (failures, mut journal) = display.finish();
    let Trace { checked, steps, network, .. } = trace;
    record.steps = steps;
    note_end(&mut record, &result);
    record.hide(&secrets);
    journal.hide(&secrets);
    keep(args, record, &session, &journal)?;
    if let Some((file, findings)) = &checked
        && let Some(summary) = check::summary(findings, file).filter(|_| !quiet)
    {
        tell!("{summary}\n");
    }
    if let Some(chosen) = &network {
        super::run::tell_network(chosen);
    }
    // The kernel may have refused an overlay where none had to be tried.
    if let Some(found) = session.store.stacking().filter(|found| *found != stacking && !quiet) {
        tell_stacking(&session.store, &found);
    }
    sweeper::start_if_needed(&session.store);
    let delivered = result.inspect_err(|report| {
        if !matches!(report.fault(), Fault::Canceled(_)) {
            print_failures(&failures);
        }
    })?;
    let Delivered { id, notes } = delivered;
    notes.iter().for_each(|note| tell!("{note}"));
    if let Some(id) = id {
        if args.quiet {
            say!("{id}");
        }
        if let Some(path) = &args.iidfile {
            put(path, id.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that builds are slower than they could be, and what helps.
fn tell_stacking(store: &Store, stacking: &Stacking) {
    if let Stacking::Copy { why } = stacking {
        let place = store.root().display();
        tell!(
            "lapstrake: builds are slower here: layers are copied in the state directory `{place}`, as {why}"
        );
        tell!("hint: {OTHER_STATE}");
    }
}

/// What a build leaves behind, however it ends.
#[derive(Default)]
struct Trace {
    /// The build's id, known from the beginning.
    build: String,
    /// The Dockerfile, and what was found in it.
    checked: Option<(Arc<SourceFile>, Vec<Finding>)>,
    /// What became of each step.
    steps: Vec<StackReport>,
    /// What network steps had that did not say.
    network: Option<Chosen>,
}

fn subject(args: &Build, wanted: &Wanted) -> Result<Subject, Usage> {
    let context = match &wanted.place {
        Place::Directory => options::absolute(&args.context)?.to_string_lossy().into_owned(),
        Place::Remote(_) | Place::Stdin => without_secrets(&args.context.to_string_lossy()),
    };
    let file = args.file.as_ref().map_or("Dockerfile".into(), |file| file.to_string_lossy());
    let (target, platform) = (args.target.clone(), platforms::asked(args));
    Ok(Subject { context, dockerfile: without_secrets(&file), target, platform })
}

fn note_end(record: &mut BuildRecord, result: &Outcome<Delivered>) {
    record.end();
    match result {
        Ok(delivered) => record.image = delivered.id.as_ref().map(ToString::to_string),
        Err(error) => {
            let canceled = matches!(error.fault(), Fault::Canceled(_));
            record.status = if canceled { Status::Canceled } else { Status::Failed };
            record.error = Some(error.to_string());
        }
    }
}

/// Keeps the record. A build does not fail for want of it.
fn keep(args: &Build, record: BuildRecord, session: &Session, journal: &Journal) -> Outcome<()> {
    if let Some(path) = &args.timeline {
        let page = timeline::page(&record, journal);
        put(path, page)?;
    }
    if let Err(error) = record.keep(&session.store, journal) {
        tell!("the record of this build could not be kept: {}", error);
    }
    Ok(())
}

/// Builds, and leaves behind a trace.
async fn run(
    args: &Build,
    mut wanted: Wanted,
    session: &Session,
    progress: Progress,
    trace: &mut Trace,
) -> Outcome<Delivered> {
    let tools = Tools::new(session, &mut wanted, args.pull);
    let (file, parsed) = read(args, &mut wanted, &tools, &progress).await?;
    let checks = Checks::new(check::options(&file, &wanted.inputs)?);
    check_syntax(&parsed, &checks);
    let lock = Lock::open(args)?;
    let plan = plan(&mut wanted, (&file, &parsed, &checks), &tools, (&progress, lock.as_ref())).await;
    let findings = checks.findings();
    findings.iter().for_each(|finding| progress.warn(check::warning(finding, &file)));
    trace.checked = Some((file.clone(), findings));
    let plan = plan?;
    let mut cache = Cache::new(tools.worker.clone());
    if let Some(imports) = caches::imports(&wanted.cache_from, &tools.images, &progress).await {
        cache = cache.with(imports);
    }
    if !wanted.outputs.iter().any(Output::takes_files) {
        tools.job.expect(&plan.graph);
    }
    let staying = |target| Staying::find(&wanted, &tools, (&plan.graph, target));
    let staying = plan.targets.iter().map(staying).collect::<Outcome<Vec<_>>>()?;
    let solver = Solver::new(&plan.graph, &tools.job, &cache, progress.clone()).hiding(wanted.secrets());
    let edges: Vec<Edge> = plan.targets.iter().map(|target| target.edge).collect();
    // Dropped half-way if the build is canceled: what became of the steps is told then, too.
    let report = AtEnd { value: &mut trace.steps, make: || solver.report(&edges) };
    let solving = edges.iter().zip(staying);
    let solving = solving.map(|(edge, staying)| solved(&solver, *edge, staying, (&wanted, &tools), &file));
    let solved = try_join_all(solving).await;
    drop(report);
    trace.network = tools.job.network().cloned();
    // A failed build has looked at the same files.
    let finished = tools.job.finish().and_then(|()| cache.finish());
    let solved = solved?;
    finished?;
    deliver(args, &wanted, &tools, (&plan.targets, solved), trace, &progress).await
}

/// The result, and the layers below it that stay where they are.
async fn solved<E: Executor<Output = SharedStack>, C: CacheIndex<Output = SharedStack>>(
    solver: &Solver<'_, E, C>,
    edge: Edge,
    staying: Option<Staying<'_>>,
    asked: (&Wanted, &Tools),
    file: &Arc<SourceFile>,
) -> Outcome<(SharedStack, Vec<Elsewhere>)> {
    if let Some(staying) = staying
        && let Some(found) = staying.solve(solver, edge, asked, file).await?
    {
        return Ok(found);
    }
    let solved = solver.solve(edge).await.map_err(|failed| step_failed(&failed, file))?;
    Ok((solved.result.value, Vec::new()))
}

/// Sets a value when it goes, however that comes.
struct AtEnd<'a, T, F: Fn() -> T> {
    value: &'a mut T,
    make: F,
}

impl<T, F: Fn() -> T> Drop for AtEnd<'_, T, F> {
    fn drop(&mut self) {
        *self.value = (self.make)();
    }
}

/// Brings the result, and the cache, to where they are wanted.
async fn deliver(
    args: &Build,
    wanted: &Wanted,
    tools: &Tools,
    (targets, solved): (&[Target], Vec<(SharedStack, Vec<Elsewhere>)>),
    trace: &Trace,
    progress: &Progress,
) -> Outcome<Delivered> {
    let (store, images, build) = (&tools.store, &*tools.images, trace.build.as_str());
    let inline = wanted.cache_to.contains(&caches::Target::Inline);
    let built = |(number, (target, (stack, below)))| {
        let target: &Target = target;
        let platform = wanted.inputs.platforms.get(number).unwrap_or(&target.platform);
        let shared =
            |stack: &SharedStack| caches::shared(store, &trace.steps, &[&**stack], caches::Scope::Result);
        let inline = inline.then(|| shared(&stack));
        Built { target, platform, below, stack, inline }
    };
    let results: Vec<Built<'_>> = targets.iter().zip(solved).enumerate().map(built).collect();
    let export = Export { args, wanted, build, store, images, results: &results };
    let delivered = tokio::task::block_in_place(|| export.run(progress))?;
    let stacks: Vec<&Stack> = results.iter().map(|built| &*built.stack).collect();
    caches::export(&wanted.cache_to, (store, images), (&trace.steps, &stacks), progress).await?;
    Ok(delivered)
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
