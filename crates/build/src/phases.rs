//! A build from its request to its outputs: [`Loaded`], [`Planned`], [`Solved`], [`Delivered`]. Each phase is made from the
//! one before, which is gone then.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use lapstrake_diag::{Outcome, Report, SourceFile};
use lapstrake_dockerfile::{Checks, Finding, Parsed, check_syntax};
use lapstrake_engine::{CacheIndex, Executor, Progress, Solver};
use lapstrake_graph::{Edge, Plan, Source, VertexId};
use lapstrake_ops::{Cache, SharedStack, Stack, StackReport, Worker};
use lapstrake_outputs::Elsewhere;
use lapstrake_request::BuildRequest;
use lapstrake_runtime::ChosenNetwork;

use crate::cache;
use crate::check;
use crate::client::Client;
use crate::deliver::{Built, Delivered, Export};
use crate::described::Described;
use crate::lock::Lock;
use crate::output::Output;
use crate::plan::plan;
use crate::remote_base::RemoteBase;
use crate::resolved::Resolved;
use crate::source::{Tools, read, step_failed};

/// The trace that a build leaves behind, however it ends.
#[derive(Default)]
pub struct Trace {
    /// The build's id, known from the beginning.
    pub build: String,
    /// The Dockerfile, and what was found in it.
    pub checked: Option<(Arc<SourceFile>, Vec<Finding>)>,
    /// The report of each step.
    pub steps: Vec<StackReport>,
    /// The network of steps that name none.
    pub network: Option<ChosenNetwork>,
    /// Sentences for the user, to be said once the build is over.
    pub notes: Vec<String>,
}

/// One build: the worker that does it, its caller, and the sink of its events.
pub struct Build<'a> {
    /// The worker, which any number of builds share.
    pub worker: &'a Arc<Worker>,
    /// The caller.
    pub client: &'a dyn Client,
    /// The sink of events.
    pub progress: Progress,
}

/// Builds `request`, whose values are in `resolved`.
///
/// # Errors
/// A report of what went wrong. `trace` has everything that was done until then.
pub async fn build(
    this: Build<'_>,
    request: &BuildRequest,
    resolved: Resolved,
    trace: &mut Trace,
) -> Outcome<Delivered> {
    let planned = prepare(&this, request, resolved, trace).await?;
    finish(&this, planned, trace).await
}

/// Makes the graph of `request`, whose values are in `resolved`, and solves nothing yet.
///
/// # Errors
/// The Dockerfile cannot be read or built. `trace` has the findings.
pub async fn prepare(
    this: &Build<'_>,
    request: &BuildRequest,
    resolved: Resolved,
    trace: &mut Trace,
) -> Outcome<Planned> {
    let loaded = load(this, request, resolved, trace).await?;
    plan_loaded(this, loaded, trace).await
}

/// Reads the Dockerfile of `request`, whose values are in `resolved`.
///
/// # Errors
/// The Dockerfile cannot be read.
pub async fn load(
    this: &Build<'_>,
    request: &BuildRequest,
    resolved: Resolved,
    trace: &mut Trace,
) -> Outcome<Loaded> {
    let notes = crate::Notes::default();
    // Taken out however the phase ends, also if the build is dropped half-way.
    let said = Said { notes: notes.clone(), to: &mut trace.notes };
    let loaded = Loaded::load(this, request, resolved, notes).await;
    drop(said);
    loaded
}

/// Makes the graph of a Dockerfile that was read.
///
/// # Errors
/// The Dockerfile cannot be built. `trace` has the findings.
pub async fn plan_loaded(this: &Build<'_>, loaded: Loaded, trace: &mut Trace) -> Outcome<Planned> {
    let said = Said { notes: loaded.tools.notes.clone(), to: &mut trace.notes };
    let planned = loaded.plan(this, &mut trace.checked).await;
    drop(said);
    planned
}

/// Solves the targets of `planned`, and brings the results to the outputs of its request.
///
/// # Errors
/// A step fails, or an output cannot be written. `trace` has everything that was done until then.
pub async fn finish(this: &Build<'_>, planned: Planned, trace: &mut Trace) -> Outcome<Delivered> {
    let said = Said { notes: planned.tools.notes.clone(), to: &mut trace.notes };
    let mut parts = Parts { steps: &mut trace.steps, network: &mut trace.network };
    let solved = planned.solve(this, &mut parts).await?;
    let delivered = solved.deliver(this, parts.steps, &trace.build).await;
    drop(said);
    delivered
}

/// Brings results that were solved one by one to the outputs of `request`, each with its target.
///
/// # Errors
/// An output cannot be written. `trace` has everything that was done until then.
pub async fn export(
    this: &Build<'_>,
    (tools, request): (Tools, Resolved),
    results: Vec<(Described, SharedStack)>,
    trace: &mut Trace,
) -> Outcome<Delivered> {
    let said = Said { notes: tools.notes.clone(), to: &mut trace.notes };
    trace.network = tools.job.network().cloned();
    let (images, results) = results.into_iter().map(|(image, stack)| (image, (stack, Vec::new()))).unzip();
    let solved = Solved { tools, request, images, results };
    let delivered = solved.deliver(this, &trace.steps, &trace.build).await;
    drop(said);
    delivered
}

/// Adds the sentences of a phase to those of the build when the phase ends.
struct Said<'t> {
    notes: crate::Notes,
    to: &'t mut Vec<String>,
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        self.to.extend(self.notes.take());
    }
}

/// The parts of a trace that phases write.
struct Parts<'t> {
    steps: &'t mut Vec<StackReport>,
    network: &'t mut Option<ChosenNetwork>,
}

/// A request whose Dockerfile has been read and parsed.
pub struct Loaded {
    tools: Tools,
    request: Resolved,
    lock: Option<Lock>,
    file: Arc<SourceFile>,
    parsed: Parsed,
}

/// A request that is a graph of steps.
pub struct Planned {
    tools: Tools,
    request: Resolved,
    file: Arc<SourceFile>,
    plan: Plan,
}

/// A graph whose targets have results.
pub struct Solved {
    tools: Tools,
    request: Resolved,
    images: Vec<Described>,
    results: Vec<(SharedStack, Vec<Elsewhere>)>,
}

impl Loaded {
    /// Reads the Dockerfile of `request`, whose values are in `resolved`.
    ///
    /// # Errors
    /// The Dockerfile cannot be read.
    pub async fn load(
        this: &Build<'_>,
        request: &BuildRequest,
        mut resolved: Resolved,
        notes: crate::Notes,
    ) -> Outcome<Loaded> {
        let mut tools = Tools::new(this.worker, this.client, &mut resolved, request.pull);
        tools.notes = notes;
        let (file, parsed) = read((request, this.client), &mut resolved, &tools, &this.progress).await?;
        Ok(Loaded { tools, request: resolved, lock: Lock::open(request)?, file, parsed })
    }

    /// The text of the Dockerfile.
    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// The tools and the values of the build, with the Dockerfile and what it means.
    pub fn into_parts(self) -> (Tools, Resolved, Arc<SourceFile>, Parsed) {
        (self.tools, self.request, self.file, self.parsed)
    }

    /// Makes the graph, and checks the Dockerfile on the way; `checked` gets the findings.
    ///
    /// # Errors
    /// The Dockerfile cannot be built.
    pub async fn plan(
        self,
        this: &Build<'_>,
        checked: &mut Option<(Arc<SourceFile>, Vec<Finding>)>,
    ) -> Outcome<Planned> {
        let Loaded { tools, mut request, lock, file, parsed } = self;
        let checks = Checks::new(check::options(&file, &request.inputs)?);
        check_syntax(&parsed, &checks);
        let plan =
            plan(&mut request, (&file, &parsed, &checks), &tools, (&this.progress, lock.as_ref())).await;
        let findings = checks.findings();
        findings.iter().for_each(|finding| this.progress.warn(check::warning(finding, &file)));
        *checked = Some((file.clone(), findings));
        Ok(Planned { tools, request, file, plan: plan? })
    }
}

impl Planned {
    /// A graph that no Dockerfile describes. `file` is the text that the lines of its steps are in.
    pub fn of_graph(tools: Tools, request: Resolved, file: Arc<SourceFile>, plan: Plan) -> Planned {
        Planned { tools, request, file, plan }
    }

    /// Whether the result is an index of images, one for each platform.
    pub fn as_index(&self) -> bool {
        self.request.as_index
    }

    /// This graph with other sources in the places of some.
    ///
    /// # Errors
    /// The graph would be none.
    pub fn with_sources(self, others: &BTreeMap<VertexId, Source>) -> Outcome<Planned> {
        let Plan { graph, mut targets } = self.plan;
        let (graph, made) = graph.with_sources(others).map_err(|error| Report::of(&error))?;
        for target in &mut targets {
            target.edge.vertex = made.get(&target.edge.vertex).copied().unwrap_or(target.edge.vertex);
        }
        Ok(Planned { plan: Plan { graph, targets }, ..self })
    }

    /// The graph and its targets.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Solves all targets and keeps the results in the cache only, so that [`finish`] finds them there. The stacks are in
    /// the order of the targets.
    ///
    /// # Errors
    /// A step fails, or the state cannot be written.
    pub async fn evaluate(&self, this: &Build<'_>) -> Outcome<Vec<SharedStack>> {
        self.evaluate_edges(this, self.plan.targets.iter().map(|target| target.edge), &mut Vec::new()).await
    }

    /// As [`Planned::evaluate`], the target of this number alone.
    ///
    /// # Errors
    /// As [`Planned::evaluate`]; there is no such target.
    pub async fn evaluate_target(&self, this: &Build<'_>, number: usize) -> Outcome<SharedStack> {
        let target = self.plan.targets.get(number).map(|target| target.edge);
        let solved = self.evaluate_edges(this, target.into_iter(), &mut Vec::new()).await?;
        solved.into_iter().next().ok_or_else(|| Report::new(format!("the build has no target {number}")))
    }

    /// As [`Planned::evaluate_target`]. `steps` gets the reports of its steps, however the build ends.
    ///
    /// # Errors
    /// As [`Planned::evaluate_target`].
    pub async fn solve_target(
        &self,
        this: &Build<'_>,
        number: usize,
        steps: &mut Vec<StackReport>,
    ) -> Outcome<SharedStack> {
        let target = self.plan.targets.get(number).map(|target| target.edge);
        let solved = self.evaluate_edges(this, target.into_iter(), steps).await?;
        solved.into_iter().next().ok_or_else(|| Report::new(format!("the build has no target {number}")))
    }

    async fn evaluate_edges(
        &self,
        this: &Build<'_>,
        edges: impl Iterator<Item = Edge>,
        steps: &mut Vec<StackReport>,
    ) -> Outcome<Vec<SharedStack>> {
        let mut cache = Cache::new(self.tools.worker.clone());
        if let Some(imports) =
            cache::imports(&self.request.cache_from, &self.tools.images, (this.client, &this.progress)).await
        {
            cache = cache.with(imports);
        }
        let solver = Solver::new(&self.plan.graph, &self.tools.job, &cache, this.progress.clone())
            .hiding(self.request.secrets());
        let edges: Vec<Edge> = edges.collect();
        let report = AtEnd { value: steps, make: || solver.report(&edges) };
        let solving = edges.iter().map(|edge| solver.solve(*edge));
        let solved = try_join_all(solving)
            .await
            .map_err(|failed| step_failed(&failed, &self.file, &self.request.secrets()));
        drop(report);
        self.tools.job.finish()?;
        cache.finish()?;
        Ok(solved?.into_iter().map(|solved| solved.result.value).collect())
    }

    /// The tools of the build, and the graph.
    pub fn into_parts(self) -> (Tools, Plan) {
        (self.tools, self.plan)
    }

    /// Solves all targets.
    ///
    /// # Errors
    /// A step fails, or the state cannot be written.
    async fn solve(self, this: &Build<'_>, trace: &mut Parts<'_>) -> Outcome<Solved> {
        let Planned { tools, request, file, plan } = self;
        let mut cache = Cache::new(tools.worker.clone());
        if let Some(imports) =
            cache::imports(&request.cache_from, &tools.images, (this.client, &this.progress)).await
        {
            cache = cache.with(imports);
        }
        if !request.outputs.iter().any(Output::takes_files) {
            tools.job.inspect_graph(&plan.graph);
        }
        let base = |target| RemoteBase::find(&request, &tools, (&plan.graph, target));
        let bases = plan.targets.iter().map(base).collect::<Outcome<Vec<_>>>()?;
        let solver =
            Solver::new(&plan.graph, &tools.job, &cache, this.progress.clone()).hiding(request.secrets());
        let edges: Vec<Edge> = plan.targets.iter().map(|target| target.edge).collect();
        // Dropped half-way if the build is canceled: the reports of steps are kept then, too.
        let report = AtEnd { value: trace.steps, make: || solver.report(&edges) };
        let solving = edges.iter().zip(bases);
        let solving = solving.map(|(edge, base)| solved(&solver, *edge, base, (&request, &tools), &file));
        let results = try_join_all(solving).await;
        drop(report);
        *trace.network = tools.job.network().cloned();
        // A failed build has looked at the same files.
        let finished = tools.job.finish().and_then(|()| cache.finish());
        let results = results?;
        finished?;
        let images = plan.targets.into_iter().map(Described::from).collect();
        Ok(Solved { tools, request, images, results })
    }
}

/// The result, and the layers below it that stay where they are.
async fn solved<E: Executor<Output = SharedStack>, C: CacheIndex<Output = SharedStack>>(
    solver: &Solver<'_, E, C>,
    edge: Edge,
    base: Option<RemoteBase<'_>>,
    request: (&Resolved, &Tools),
    file: &Arc<SourceFile>,
) -> Outcome<(SharedStack, Vec<Elsewhere>)> {
    if let Some(base) = base
        && let Some(found) = base.solve(solver, edge, request, file).await?
    {
        return Ok(found);
    }
    let solved =
        solver.solve(edge).await.map_err(|failed| step_failed(&failed, file, &request.0.secrets()))?;
    Ok((solved.result.value, Vec::new()))
}

impl Solved {
    /// Brings the results, and the cache, to where they are resolved.
    ///
    /// # Errors
    /// An output or a cache cannot be written.
    async fn deliver(self, this: &Build<'_>, steps: &[StackReport], build: &str) -> Outcome<Delivered> {
        let Solved { tools, request, images: described, results } = self;
        let (store, images) = (&tools.store, &*tools.images);
        let inline = request.cache_to.contains(&cache::Target::Inline);
        let built = |(number, (target, (stack, below)))| {
            let target: &Described = target;
            let platform = request.inputs.platforms.get(number).unwrap_or(&target.platform);
            let shared = |stack: &Stack| cache::shared(store, steps, &[stack], cache::Scope::Result);
            let stack: SharedStack = stack;
            let inline = inline.then(|| shared(&stack));
            Built { target, platform, below, stack, inline }
        };
        let results: Vec<Built<'_>> = described.iter().zip(results).enumerate().map(built).collect();
        let (request, notes, client) = (&request, &tools.notes, this.client);
        let export = Export { request, client, notes, build, store, images, results: &results };
        let delivered = tokio::task::block_in_place(|| export.run(&this.progress))?;
        let stacks: Vec<&Stack> = results.iter().map(|built| &*built.stack).collect();
        cache::export(&request.cache_to, (store, images), (steps, &stacks), (client, &this.progress)).await?;
        Ok(delivered)
    }
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
