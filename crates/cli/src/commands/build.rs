//! `lapstrake build`

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lapstrake_diag::{SourceFile, excerpt, render};
use lapstrake_dockerfile::{Checks, Parsed, check_syntax, parse_as};
use lapstrake_engine::{Progress, Solver, StepFailed, StepId};
use lapstrake_graph::Plan;
use lapstrake_lower::{
    ImageRequest, ImageResolver, LowerError, ResolveFailure, ResolvedImage, Scope, lower_checked,
    required_images,
};
use lapstrake_oci::Digest;
use lapstrake_ops::{Cache, Images, Known, Ops, OpsError, Stack};

use super::call::call;
use super::check;
use super::export::Export;
use super::wanted::{Wanted, read_dockerfile};
use crate::args::Build;
use crate::exit::{self, Told, style};
use crate::progress::{self, Failure};
use crate::session::{self, Session};

/// Builds.
pub(crate) fn build(args: &Build) -> anyhow::Result<ExitCode> {
    if let Some(told) = call(args)? {
        return Ok(told);
    }
    let wanted = Wanted::parse(args)?;
    let (dockerfile, parsed) = read(args, &wanted)?;
    let checks = Checks::new(check::options(&dockerfile, &wanted.inputs)?);
    check_syntax(&parsed, &checks);
    let session = session::open()?;
    let quiet = matches!(wanted.mode, progress::Mode::Quiet | progress::Mode::Rawjson);
    let (progress, display) = progress::start(wanted.mode);
    let result = super::block_on(run(args, wanted, (&dockerfile, &parsed, &checks), &session, progress));
    let failures = display.finish();
    if let Some(summary) = check::summary(&checks.findings(), &dockerfile).filter(|_| !quiet) {
        tell!("{summary}\n");
    }
    let id = result.map_err(|error| {
        if error.is::<StepFailed>() {
            print_failures(&failures);
        }
        told(error, &dockerfile, &session)
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

async fn run(
    args: &Build,
    mut wanted: Wanted,
    read: (&SourceFile, &Parsed, &Checks),
    session: &Session,
    progress: Progress,
) -> anyhow::Result<Option<Digest>> {
    let store = &session.store;
    let images = Arc::new(Images::new(store.clone(), session.single_id, args.pull, session::credentials()));
    let plan = plan(&wanted, read, &images, &progress).await?;
    let mut settings = std::mem::take(&mut wanted.settings);
    settings.single_id = session.single_id;
    let ops = Ops::new(store.clone(), images.clone(), settings);
    let cache = Cache::new(store.clone());
    let target = plan.targets.first().context("nothing to build")?;
    let solver = Solver::new(&plan.graph, &ops, &cache, progress.clone());
    let solved = solver.solve(target.edge).await;
    // A failed build has looked at the same files.
    ops.finish();
    let solved = solved?;
    let stack = Stack::parse(&solved.result)?;
    let export = Export { args, wanted: &wanted, store, images: &images, target, stack: &stack };
    tokio::task::block_in_place(|| export.run(&progress))
}

/// The Dockerfile, read and parsed.
pub(super) fn read(args: &Build, wanted: &Wanted) -> anyhow::Result<(SourceFile, Parsed)> {
    let (file, dialect) = read_dockerfile(args, &wanted.inputs)?;
    let parsed = parse_as(&file, dialect);
    Ok((file, parsed))
}

/// Whether there is something to build; all errors are told at once.
pub(super) fn usable(parsed: &Parsed, file: &SourceFile) -> anyhow::Result<()> {
    let errors: Vec<String> = parsed
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|error| render(error, file, style()))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let text = format!("the Dockerfile cannot be used\n{}", errors.join("\n"));
    Err(Told { text, hint: None, status: 1 }.into())
}

async fn plan(
    wanted: &Wanted,
    (file, parsed, checks): (&SourceFile, &Parsed, &Checks),
    images: &Arc<Images>,
    progress: &Progress,
) -> anyhow::Result<Plan> {
    usable(parsed, file)?;
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

struct Resolver {
    known: Vec<(ImageRequest, Result<Known, Arc<OpsError>>)>,
    images: Arc<Images>,
    handle: tokio::runtime::Handle,
}

impl ImageResolver for Resolver {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let known = match self.known.iter().find(|(asked, _)| asked == request) {
            Some((_, Ok(known))) => known.clone(),
            Some((_, Err(error))) => return Err(Box::new(error.clone())),
            // Only a trigger of a base image brings in one that nobody knew of.
            None => self.handle.block_on(self.images.resolve(
                &request.reference,
                &request.store,
                &request.platform,
            ))?,
        };
        Ok(ResolvedImage { manifest: known.manifest, config: known.config, guessed: false })
    }
}

/// How long a registry may think about a base when nothing is built.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Knows images as a build does, and guesses what it cannot find out: for what is told without building.
pub(super) struct Guessing {
    images: Images,
    handle: tokio::runtime::Handle,
}

impl Guessing {
    /// Must be called on a runtime.
    pub(super) fn new(session: &Session, pull: bool) -> Guessing {
        let images = Images::new(session.store.clone(), session.single_id, pull, session::credentials());
        Guessing { images, handle: tokio::runtime::Handle::current() }
    }
}

impl ImageResolver for Guessing {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let asked = self.images.resolve(&request.reference, &request.store, &request.platform);
        let known = self.handle.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        let (manifest, config, guessed) = match known {
            Ok(Ok(known)) => (known.manifest, known.config, false),
            Ok(Err(_)) | Err(_) => {
                tell!(
                    "{} could not be looked at: variables that come with it are not checked",
                    request.reference
                );
                let config = lapstrake_oci::ImageConfig {
                    architecture: request.platform.architecture.clone(),
                    os: request.platform.os.clone(),
                    variant: request.platform.variant.clone(),
                    ..lapstrake_oci::ImageConfig::default()
                };
                (Digest::sha256(request.reference.to_string().as_bytes()), config, true)
            }
        };
        Ok(ResolvedImage { manifest, config, guessed })
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

fn status_of(error: &(dyn std::error::Error + 'static)) -> u8 {
    if exit::chain(error).any(exit::is_environment) { 3 } else { 1 }
}

/// An error of lowering with its place in the Dockerfile; any other error as it is.
pub(super) fn placed(error: anyhow::Error, file: &SourceFile) -> anyhow::Error {
    let Some(lowering) = error.downcast_ref::<LowerError>() else { return error };
    let Some(diagnostic) = lowering.diagnostic() else { return error };
    let text = render(&diagnostic, file, style());
    let hint = exit::chain(lowering).find_map(exit::hint_of);
    Told { text, hint, status: status_of(lowering) }.into()
}

/// An error with the place in the Dockerfile, and what can be done.
fn told(error: anyhow::Error, file: &SourceFile, session: &Session) -> anyhow::Error {
    let error = placed(error, file);
    let Some(failed) = error.downcast_ref::<StepFailed>() else { return error };
    let source = &*failed.source;
    if let Some(lines) = failed.lines {
        tell!("{}", excerpt(file, lines.first, lines.last).trim_end());
    }
    let text = format!("failed to solve: {}", exit::text(exit::chain(source)));
    let hint = exit::chain(source).find_map(exit::hint_of).or_else(|| one_id(session, source));
    Told { text, hint, status: status_of(source) }.into()
}

/// Programs do not say that they failed for want of other users' ids: what is missing is told to whoever lacks it.
fn one_id(session: &Session, source: &(dyn std::error::Error + 'static)) -> Option<String> {
    let lack = session.lack.as_ref()?;
    let of_process = |cause| {
        use lapstrake_runtime::RuntimeError::Setup;
        matches!(exit::ops_error(cause), Some(OpsError::ExitCode { .. } | OpsError::Runtime(Setup { .. })))
    };
    let text = format!("if it needs other users than root: {lack} ({})", lack.hint());
    exit::chain(source).any(of_process).then_some(text)
}
