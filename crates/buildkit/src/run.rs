//! A build from a call to its outputs and its record.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use lapstrake_build::{
    Build, BuildRecord, Client, Delivered, Loaded, Part, Place, Resolved, Subject, Trace, finish,
    plan_loaded, without_secrets,
};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_graph::Plan;
use lapstrake_ops::context_parts;
use lapstrake_proto::moby::buildkit::v1::SolveResponse;
use lapstrake_proto::moby::buildkit::v1::frontend::{CacheOptionsEntry, ReturnRequest};
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::Policy;
use lapstrake_proto::pb;
use lapstrake_request::BuildRequest;
use prost::Message as _;
use tokio::sync::oneshot::Receiver;
use tonic::{Code, Status};

use crate::caller::SessionCaller;
use crate::definitions;
use crate::driven::Driven;
use crate::error;
use crate::frontends::{self, Frontend, Named};
use crate::history::Parent;
use crate::inputs;
use crate::jobs::{Job, Prepared};
use crate::policy::Judge;
use crate::records;
use crate::results::{self, Results};
use crate::shared::Shared;
use crate::translate::{self, Translated};

/// Does all of `job`, whichever way its call asks for.
///
/// # Errors
/// The build fails or is canceled.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    answer: Receiver<ReturnRequest>,
) -> Result<SolveResponse, Status> {
    let gone = async {
        match &job.session {
            Some(session) => session.gone().await,
            None => std::future::pending().await,
        }
    };
    // What the build finds stays until the build is over, also if a client prunes meanwhile.
    let in_use = shared.worker.store().begin_use().map_err(|error| job.status(&Report::of(&error)))?;
    let result = tokio::select! {
        result = drive(shared, job, answer) => result,
        () = job.canceled.cancelled() => Err(Report::canceled(2)),
        () = gone => Err(Report::new("the client's session is over").with_fault(Fault::Canceled(2))),
    };
    let delivered = result.as_ref().ok().and_then(Option::as_ref);
    let mut exporter_response = delivered.map(response).unwrap_or_default();
    exporter_response.extend(job.take_answer());
    let failure = |report: &Report| job.failure().unwrap_or_else(|| job.status(report));
    let ended = match &result {
        Ok(delivered) => Ok(delivered.as_ref()),
        Err(report) => Err((report, failure(report))),
    };
    record(shared, job, &ended, &exporter_response).await;
    drop(in_use);
    match ended {
        Ok(_) => {
            results::finalize_export(job, &exporter_response).await?;
            Ok(SolveResponse { exporter_response })
        }
        Err((_, status)) => Err(status),
    }
}

async fn drive(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    answer: Receiver<ReturnRequest>,
) -> Outcome<Option<Delivered>> {
    let request = &job.request;
    let definition = request.definition.as_ref();
    let has_ops = definition.is_some_and(|definition| !definition.def.is_empty());
    match (request.frontend.as_str(), has_ops) {
        // A definition without ops is the empty tree. A call without a definition waits for what the client returns.
        ("", _) if definition.is_some() => {
            let prepared = definitions::begin(shared, job, definition, (&[], &[])).await?;
            deliver(shared, job, &prepared).await.map(Some)
        }
        (_, true) => Err(Report::new("a build has a definition or a frontend, not both")),
        ("", false) => {
            let answer = answer.await.map_err(|_| Report::canceled(2))?;
            returned(shared, job, answer).await
        }
        (frontend, false) => by_frontend(shared, job, frontend).await,
    }
}

/// Lets the frontend `name` build, and delivers its result.
async fn by_frontend(shared: &Arc<Shared>, job: &Arc<Job>, name: &str) -> Outcome<Option<Delivered>> {
    let driven = Driven { job: job.clone(), driver: job.client.clone() };
    let (opt, inputs) = (&job.request.frontend_attrs, &job.request.frontend_inputs);
    let result = match frontends::find(&shared.host, name, opt)? {
        Frontend::Image(source) => {
            frontends::call(shared, &driven, &source, (opt.clone(), inputs.clone())).await
        }
        Frontend::Dockerfile => {
            let (prepared, parts) = begin(shared, job, (opt, inputs), (&[], &[])).await?;
            let loaded = load(shared, job, &prepared, parts).await?;
            match Named::of(&shared.host, opt, &loaded)? {
                Some(named) => {
                    frontends::forward(shared, &driven, named, (opt.clone(), inputs.clone())).await
                }
                None => {
                    plan(shared, job, &prepared, (loaded, &[])).await?;
                    return deliver(shared, job, &prepared).await.map(Some);
                }
            }
        }
    };
    let answer = match result {
        Ok(result) => ReturnRequest { result: Some(result), error: None },
        Err(status) => ReturnRequest { result: None, error: Some(error::to_rpc(&status)) },
    };
    returned(shared, job, answer).await
}

/// What a result is made from.
pub(crate) type Parts = (BuildRequest, Resolved);

/// Reads the options of a Dockerfile build.
///
/// # Errors
/// An option that cannot be, or a directory that the client does not have.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    (opt, definitions): (&BTreeMap<String, String>, &BTreeMap<String, pb::Definition>),
    (imports, policies): (&[CacheOptionsEntry], &[Policy]),
) -> Outcome<(Arc<Prepared>, Parts)> {
    let session = job.session.clone().ok_or_else(|| Report::new("the build has no session"))?;
    let Translated { mut request, names, upload } =
        translate::dockerfile(&job.request, opt, imports).map_err(|status| translate::report(&status))?;
    job.name(&names);
    shared.host.allow(&request.steps.allowed)?;
    request.steps.cdi_dirs = shared.host.cdi_dirs();
    let inputs = inputs::solve(shared, job, (opt, definitions), &names).await?;
    let caller = SessionCaller::new(session, shared.of_caller(), (names.clone(), job.reports()), upload);
    if let Some(files) = &inputs.dockerfile {
        caller.put(&names.dockerfile, files).await?;
    }
    if inputs.main.is_some() {
        caller.put(&request.context.to_string_lossy(), &BTreeMap::new()).await?;
    }
    let judge = Judge::of(shared, job, policies).map_err(|status| job.refused(&status))?.map(Arc::new);
    let caller = Arc::new(caller.with_rules(judge.clone().map(Judge::for_images)));
    let client: Arc<dyn Client> = caller.clone();
    let mut resolved = Resolved::parse(&request, &client)?.with_manifests();
    resolved.settings.failed = job.failures();
    if let Some(judge) = &judge
        && let Place::Remote(source) = &resolved.place
        && let Some(other) = judge.other(source).await?
    {
        resolved.inputs.main = Some(other.clone());
        resolved.place = Place::Remote(other);
    }
    if let Some(main) = inputs.main {
        resolved.inputs.main = Some(main.as_source());
    }
    resolved.inputs.contexts.extend(inputs.named);
    show_warnings(job, &resolved);
    resolved.more_secrets = job.secrets();
    let record = job.new_record(subject(&request, opt), &resolved);
    let trace = Trace { build: job.id.clone(), ..Trace::default() };
    let prepared = Prepared {
        planned: tokio::sync::Mutex::default(),
        caller,
        trace: trace.into(),
        record,
        described: OnceLock::new(),
        definitions: OnceLock::new(),
    };
    let prepared = Arc::new(prepared);
    job.tell_of(&prepared);
    Ok((prepared, (request, resolved)))
}

/// Shows what is doubtful in the options.
fn show_warnings(job: &Job, resolved: &Resolved) {
    for text in &resolved.warnings {
        job.warn(text.trim_start_matches("warning: ").to_owned());
    }
}

/// The subject of a build: the directory that the client says it builds, else the name of the context.
fn subject(request: &BuildRequest, opt: &BTreeMap<String, String>) -> Subject {
    let local = opt.get("vcs:localdir:context").cloned();
    let context = local.unwrap_or_else(|| without_secrets(&request.context.to_string_lossy()));
    let file = opt.get("filename").map_or("Dockerfile", String::as_str);
    Subject {
        context,
        dockerfile: without_secrets(file),
        target: request.target.clone(),
        platform: request.platforms.clone(),
    }
}

/// Reads the Dockerfile of a result.
///
/// # Errors
/// The Dockerfile cannot be read.
pub(crate) async fn load(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    prepared: &Prepared,
    (request, resolved): Parts,
) -> Outcome<Loaded> {
    let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
    lapstrake_build::load(&this, &request, resolved, &mut *prepared.trace.lock().await).await
}

/// Makes the graph of a result.
///
/// # Errors
/// The Dockerfile cannot be built.
pub(crate) async fn plan(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    prepared: &Prepared,
    (loaded, policies): (Loaded, &[Policy]),
) -> Outcome<()> {
    let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
    let mut trace = prepared.trace.lock().await;
    let mut planned = plan_loaded(&this, loaded, &mut trace).await?;
    if let Some(judge) = Judge::of(shared, job, policies).map_err(|status| job.refused(&status))? {
        let others = judge.change_graph(&planned.plan().graph).await?;
        if !others.is_empty() {
            planned = planned.with_sources(&others)?;
        }
    }
    let Plan { graph, targets } = planned.plan();
    let targets: Vec<_> = targets.iter().map(|target| target.edge).collect();
    prepared.caller.read(context_parts(graph, &targets)).await;
    *prepared.planned.lock().await = Some(planned);
    Ok(())
}

/// Solves a result without an output.
///
/// # Errors
/// A step fails.
pub(crate) async fn evaluate(shared: &Arc<Shared>, job: &Arc<Job>, prepared: &Prepared) -> Outcome<()> {
    let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
    match &*prepared.planned.lock().await {
        Some(planned) => planned.evaluate(&this).await.map(drop),
        None => Ok(()),
    }
}

/// Solves a result, and brings it to the outputs.
///
/// # Errors
/// A step fails, an output cannot be written, or another call has taken the result.
async fn deliver(shared: &Arc<Shared>, job: &Arc<Job>, prepared: &Arc<Prepared>) -> Outcome<Delivered> {
    job.tell_of(prepared);
    let planned = prepared.planned.lock().await.take();
    let planned = planned.ok_or_else(|| Report::new("the result was returned already"))?;
    let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
    let mut trace = prepared.trace.lock().await;
    let delivered = finish(&this, planned, &mut trace).await;
    job.answer(prepared.caller.take_answers());
    delivered
}

/// What the client returned is the result of the build.
async fn returned(shared: &Arc<Shared>, job: &Arc<Job>, answer: ReturnRequest) -> Outcome<Option<Delivered>> {
    if let Some(error) = answer.error {
        let canceled = error.code == i32::from(Code::Cancelled);
        let report = Report::new(error.message.clone());
        job.fail_with(error);
        return Err(if canceled { report.with_fault(Fault::Canceled(2)) } else { report });
    }
    let Some(result) = answer.result else { return Ok(None) };
    let returned = Results::of(result)?;
    job.answer(returned.answer());
    if returned.is_empty() {
        return Ok(None);
    }
    match returned.one_result(job)? {
        Some(prepared) => deliver(shared, job, &prepared).await.map(Some),
        None => returned.deliver(shared, job).await.map(Some),
    }
}

/// What exporters tell the client: texts as they are, objects as base64 of their JSON.
fn response(delivered: &Delivered) -> BTreeMap<String, String> {
    use base64::Engine as _;
    let document = delivered.metadata.document();
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&document).unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => base64::engine::general_purpose::STANDARD.encode(other.to_string()),
    };
    // The client knows the build by its own id.
    let values = values.into_iter().filter(|(key, _)| key != "buildx.build.ref");
    values.map(|(key, value)| (key, text(value))).collect()
}

/// Keeps a record of the build. A build does not fail for want of it.
async fn record(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    result: &Result<Option<&Delivered>, (&Report, Status)>,
    response: &BTreeMap<String, String>,
) {
    let (prepared, mut journal) = job.close().await;
    let Some(prepared) = prepared.filter(|_| !job.request.internal) else { return };
    let (mut record, secrets) = (prepared.record.clone(), job.secrets());
    record.steps = std::mem::take(&mut prepared.trace.lock().await.steps);
    record.end(result.as_ref().map(|delivered| *delivered).map_err(|(report, _)| *report));
    record.call = Some(records::call(job, response.clone()));
    record.hide(&secrets);
    journal.hide(&secrets);
    let failure = result.as_ref().err().map(|(_, status)| error::hidden(status, &secrets).encode_to_vec());
    let store = shared.worker.store().clone();
    let (upkeep, history) = (shared.upkeep.clone(), shared.history.clone());
    if let Some(parent) = job.traceparent.as_deref().and_then(Parent::parse) {
        history.wait_for_spans(&record.id, parent, secrets.clone());
    }
    let kept = tokio::task::spawn_blocking(move || {
        let id = record.id.clone();
        let mut kept = record.keep(&store, &journal);
        if let Some(failure) = failure.filter(|_| kept.is_ok()) {
            kept = BuildRecord::put_part(&store, &id, Part::Error, &failure);
        }
        if history.is_heard()
            && let Ok(Some(row)) = records::row(&store, &id)
            && let Ok(event) = history.event(&row)
        {
            history.tell(event);
        }
        upkeep.start_if_needed(&store);
        kept
    });
    let kept = kept.await;
    if let Ok(Err(report)) = kept {
        shared.host.warn(&format!("the record of build {} could not be kept: {report}", job.id));
    }
}
