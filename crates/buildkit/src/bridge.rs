//! The service `LLBBridge`: the client of a build, or a frontend in an image, drives the build through it.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use lapstrake_build::Planned;
use lapstrake_diag::Outcome;
use lapstrake_engine::{OwnWarning, Warning};
use lapstrake_graph::Target;
use lapstrake_llb::{LocalSource, encode};
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge as Service;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::pb;
use lapstrake_snapshot::View;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::definitions;
use crate::driven::Driven;
use crate::frontends::{self, Frontend, Named};
use crate::gateway::files::Files;
use crate::gateway::{containers, meta, process};
use crate::jobs::{Definitions, Job};
use crate::run::{Parts, begin, evaluate, load, plan};
use crate::shared::Shared;
use crate::thread::on_thread;
use crate::{reference, subrequest, worker};

/// The header that says which build a call belongs to.
const BUILD: &str = "buildkit-controlapi-buildid";

/// The service.
pub(crate) struct Bridge {
    shared: Arc<Shared>,
    /// The frontend that all calls come from; `None` if calls name their builds.
    frontend: Option<Driven>,
}

impl Bridge {
    pub(crate) fn new(shared: Arc<Shared>) -> Bridge {
        Bridge { shared, frontend: None }
    }

    /// The bridge for a frontend alone.
    pub(crate) fn of_frontend(shared: Arc<Shared>, driven: Driven) -> Bridge {
        Bridge { shared, frontend: Some(driven) }
    }

    /// The build that `request` belongs to, with its driver.
    async fn driven<T>(&self, request: &Request<T>) -> Result<Driven, Status> {
        if let Some(driven) = &self.frontend {
            return Ok(driven.clone());
        }
        let id = request.metadata().get(BUILD).and_then(|value| value.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("no buildid found in context"))?;
        let job = self.shared.jobs.get(id).await?;
        Ok(Driven { driver: job.client.clone(), job })
    }

    /// The build that `request` belongs to.
    async fn job<T>(&self, request: &Request<T>) -> Result<Arc<Job>, Status> {
        Ok(self.driven(request).await?.job)
    }
}

impl Bridge {
    /// The tree of the reference `id`, for reading.
    async fn files(&self, job: &Arc<Job>, id: &str) -> Result<View, Status> {
        let stack = reference::solved(&self.shared, job, id).await?;
        let definitions = Definitions::of(&self.shared, job, &[]).await.map_err(|e| job.status(&e))?;
        let (worker, job) = (self.shared.worker.clone(), job.clone());
        let open = move || async move {
            let layers = definitions.tools.job.as_layers(stack);
            let opened = layers.and_then(|stack| stack.open(worker.store(), worker.single_id()));
            opened.map_err(|error| job.status(&error.into()))
        };
        on_thread(open).await
    }
}

#[tonic::async_trait]
impl Service for Bridge {
    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<api::ExecMessage, Status>> + Send>>;

    async fn ping(&self, request: Request<api::PingRequest>) -> Result<Response<api::PongResponse>, Status> {
        self.job(&request).await?;
        let (frontend_api_caps, llb_caps) = worker::capabilities();
        let workers = vec![worker::record(&self.shared.host)];
        Ok(Response::new(api::PongResponse { frontend_api_caps, llb_caps, workers }))
    }

    async fn solve(
        &self,
        request: Request<api::SolveRequest>,
    ) -> Result<Response<api::SolveResponse>, Status> {
        let driven = self.driven(&request).await?;
        let request = request.into_inner();
        let shared = self.shared.clone();
        let result = on_thread(move || async move {
            let canceled = driven.driver.over.clone();
            tokio::select! {
                result = solve(&shared, &driven, request) => result,
                () = canceled.cancelled() => Err(Status::cancelled("the build is over")),
            }
        });
        Ok(Response::new(result.await?))
    }

    async fn evaluate(
        &self,
        request: Request<api::EvaluateRequest>,
    ) -> Result<Response<api::EvaluateResponse>, Status> {
        let job = self.job(&request).await?;
        reference::solved(&self.shared, &job, &request.get_ref().r#ref).await?;
        Ok(Response::new(api::EvaluateResponse {}))
    }

    async fn r#return(
        &self,
        request: Request<api::ReturnRequest>,
    ) -> Result<Response<api::ReturnResponse>, Status> {
        self.driven(&request).await?.driver.end(request.into_inner())?;
        Ok(Response::new(api::ReturnResponse {}))
    }

    async fn warn(&self, request: Request<api::WarnRequest>) -> Result<Response<api::WarnResponse>, Status> {
        let job = self.job(&request).await?;
        let warning = request.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |position: &lapstrake_proto::pb::Position| u32::try_from(position.line).unwrap_or(0);
        let range = warning.ranges.first();
        let first = range.and_then(|range| range.start.as_ref()).map_or(0, line);
        let last = range.and_then(|range| range.end.as_ref()).map_or(first, line);
        job.progress().warn(Warning {
            short: text(&warning.short),
            detail: warning.detail.iter().map(|detail| text(detail)).collect::<Vec<_>>().join("\n"),
            url: Some(warning.url).filter(|url| !url.is_empty()),
            own: Some(Box::new(OwnWarning {
                step: warning.digest,
                level: i32::try_from(warning.level).unwrap_or(i32::MAX),
                text: warning.info.as_ref().map_or_else(String::new, |info| text(&info.data)),
            })),
            file: warning.info.map_or_else(String::new, |info| info.filename),
            lines: (first, last),
        });
        Ok(Response::new(api::WarnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<api::InputsRequest>,
    ) -> Result<Response<api::InputsResponse>, Status> {
        let definitions = self.driven(&request).await?.driver.inputs.clone();
        Ok(Response::new(api::InputsResponse { definitions }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<api::ResolveImageConfigRequest>,
    ) -> Result<Response<api::ResolveImageConfigResponse>, Status> {
        let job = self.job(&request).await?;
        Ok(Response::new(meta::config(&self.shared, &job, request.into_inner()).await?))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<api::ResolveSourceMetaRequest>,
    ) -> Result<Response<api::ResolveSourceMetaResponse>, Status> {
        let job = self.job(&request).await?;
        Ok(Response::new(meta::source(&self.shared, &job, request.into_inner()).await?))
    }

    async fn read_file(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = self.files(&job, &request.r#ref).await?;
        let data = on_thread(move || async move { Files::of_root(root.as_fd()).read(&request) }).await?;
        Ok(Response::new(api::ReadFileResponse { data }))
    }

    async fn read_dir(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = self.files(&job, &request.r#ref).await?;
        let entries = on_thread(move || async move {
            Files::of_root(root.as_fd()).list(&request.dir_path, &request.include_pattern)
        });
        Ok(Response::new(api::ReadDirResponse { entries: entries.await? }))
    }

    async fn stat_file(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = self.files(&job, &request.r#ref).await?;
        let stat = on_thread(move || async move { Files::of_root(root.as_fd()).stat(&request.path) }).await?;
        Ok(Response::new(api::StatFileResponse { stat: Some(stat) }))
    }

    async fn new_container(
        &self,
        request: Request<api::NewContainerRequest>,
    ) -> Result<Response<api::NewContainerResponse>, Status> {
        let driven = self.driven(&request).await?;
        containers::new(&self.shared, &driven, request.into_inner()).await?;
        Ok(Response::new(api::NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<api::ReleaseContainerRequest>,
    ) -> Result<Response<api::ReleaseContainerResponse>, Status> {
        let driver = self.driven(&request).await?.driver;
        containers::release(&driver, &request.get_ref().container_id).await?;
        Ok(Response::new(api::ReleaseContainerResponse {}))
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<api::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let driver = self.driven(&request).await?.driver;
        let messages = process::exec(driver, request.into_inner());
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn read_file_container(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        let driver = self.driven(&request).await?.driver;
        let request = request.into_inner();
        let place = (request.r#ref.clone(), request.mount_index);
        let look = move |files: Files<'_>| files.read(&request);
        let data = containers::look(&driver, (&place.0, place.1), look).await?;
        Ok(Response::new(api::ReadFileResponse { data }))
    }

    async fn read_dir_container(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        let driver = self.driven(&request).await?.driver;
        let request = request.into_inner();
        let place = (request.r#ref.clone(), request.mount_index);
        let look = move |files: Files<'_>| files.list(&request.dir_path, &request.include_pattern);
        let entries = containers::look(&driver, (&place.0, place.1), look).await?;
        Ok(Response::new(api::ReadDirResponse { entries }))
    }

    async fn stat_file_container(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        let driver = self.driven(&request).await?.driver;
        let request = request.into_inner();
        let place = (request.r#ref.clone(), request.mount_index);
        let look = move |files: Files<'_>| files.stat(&request.path);
        let stat = containers::look(&driver, (&place.0, place.1), look).await?;
        Ok(Response::new(api::StatFileResponse { stat: Some(stat) }))
    }
}

/// Makes a result, and gives it to the driver.
async fn solve(
    shared: &Arc<Shared>,
    driven: &Driven,
    request: api::SolveRequest,
) -> Result<api::SolveResponse, Status> {
    let job = &driven.job;
    job.learn(&request.frontend_opt);
    if request.frontend.is_empty() {
        return solve_definition(shared, job, request).await;
    }
    let found = frontends::find(&shared.host, &request.frontend, &request.frontend_opt);
    match found.map_err(|report| job.status(&report))? {
        Frontend::Dockerfile => solve_dockerfile(shared, driven, request).await,
        Frontend::Image(source) => {
            let parts = (request.frontend_opt, request.frontend_inputs);
            let result = frontends::call(shared, driven, &source, parts).await?;
            by_frontend(shared, job, result, request.evaluate).await
        }
    }
}

/// The answer with the result of a frontend in an image.
async fn by_frontend(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    result: api::Result,
    evaluate: bool,
) -> Result<api::SolveResponse, Status> {
    if evaluate {
        let ids: Vec<&String> = match &result.result {
            Some(Value::Ref(one)) => vec![&one.id],
            Some(Value::Refs(all)) => all.refs.values().map(|one| &one.id).collect(),
            _ => Vec::new(),
        };
        for id in ids.into_iter().filter(|id| !id.is_empty()) {
            reference::solved(shared, job, id).await?;
        }
    }
    Ok(api::SolveResponse { result: Some(result), ..api::SolveResponse::default() })
}

/// Makes the result of a Dockerfile.
async fn solve_dockerfile(
    shared: &Arc<Shared>,
    driven: &Driven,
    request: api::SolveRequest,
) -> Result<api::SolveResponse, Status> {
    let job = &driven.job;
    let failed = |report: lapstrake_diag::Report| job.status(&report);
    let (opt, inputs) = (request.frontend_opt, request.frontend_inputs);
    check_caps(&opt)?;
    let (prepared, parts) =
        begin(shared, job, (&opt, &inputs), (&request.cache_imports, &request.source_policies))
            .await
            .map_err(failed)?;
    let locals = directories(job, &parts);
    let loaded = load(shared, job, &prepared, parts).await.map_err(failed)?;
    if let Some(named) = Named::of(&shared.host, &opt, &loaded).map_err(failed)? {
        let result = frontends::forward(shared, driven, named, (opt, inputs)).await?;
        return by_frontend(shared, job, result, request.evaluate).await;
    }
    if let Some(id) = opt.get("requestid").filter(|id| !id.is_empty()) {
        let metadata = subrequest::answer(job, id, loaded).await?;
        let result = api::Result { metadata, ..api::Result::default() };
        return Ok(api::SolveResponse { result: Some(result), ..api::SolveResponse::default() });
    }
    plan(shared, job, &prepared, (loaded, &request.source_policies)).await.map_err(failed)?;
    if request.evaluate {
        evaluate(shared, job, &prepared).await.map_err(failed)?;
    }
    let id = job.keep(&prepared)?;
    let later = prepared.caller.later().await;
    let locals = move |name: &str| later.get(name).or_else(|| locals.get(name)).cloned();
    let planned = prepared.planned.lock().await;
    let planned = planned.as_ref().ok_or_else(|| Status::internal("the result is gone"))?;
    let result = described(planned, &id, &locals).map_err(failed)?;
    // Kept once: nobody else describes this result.
    prepared.described.get_or_init(|| result.metadata.clone().into_iter().collect());
    prepared.definitions.get_or_init(|| definitions_of(&result));
    Ok(api::SolveResponse { result: Some(result), ..api::SolveResponse::default() })
}

/// The definitions of the references of a result, by the names of the targets.
fn definitions_of(result: &api::Result) -> BTreeMap<String, pb::Definition> {
    let one = |name: &str, reference: &api::Ref| Some((name.to_owned(), reference.def.clone()?));
    match &result.result {
        Some(Value::Ref(reference)) => one("", reference).into_iter().collect(),
        Some(Value::Refs(all)) => all.refs.iter().filter_map(|(name, all)| one(name, all)).collect(),
        _ => BTreeMap::new(),
    }
}

/// Makes a result of a definition.
async fn solve_definition(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    request: api::SolveRequest,
) -> Result<api::SolveResponse, Status> {
    let failed = |report: lapstrake_diag::Report| job.status(&report);
    let mut result = api::Result::default();
    if let Some(definition) = request.definition.as_ref().filter(|definition| !definition.def.is_empty()) {
        let begun = definitions::begin(
            shared,
            job,
            Some(definition),
            (&request.cache_imports, &request.source_policies),
        )
        .await;
        let prepared = begun.map_err(failed)?;
        // An error of a step tells of the op.
        prepared.definitions.get_or_init(|| BTreeMap::from([(String::new(), definition.clone())]));
        if request.evaluate {
            evaluate(shared, job, &prepared).await.map_err(failed)?;
        }
        let id = format!("{}/", job.keep(&prepared)?);
        result.result = Some(Value::Ref(api::Ref { id, def: Some(definition.clone()) }));
    } else {
        // The empty tree is no reference.
        result.result = Some(Value::Ref(api::Ref::default()));
    }
    Ok(api::SolveResponse { result: Some(result), ..api::SolveResponse::default() })
}

/// Refuses capabilities of frontends that this one does not have.
fn check_caps(opt: &BTreeMap<String, String>) -> Result<(), Status> {
    const KNOWN: [&str; 3] = [
        "moby.buildkit.frontend.subrequests",
        "moby.buildkit.frontend.contexts",
        "moby.buildkit.frontend.subrequests+forward",
    ];
    let asked = opt.get("frontend.caps").map_or("", String::as_str);
    match asked.split(',').find(|cap| !cap.is_empty() && !KNOWN.contains(cap)) {
        Some(cap) => Err(Status::unimplemented(format!("unsupported frontend capability {cap}"))),
        None => Ok(()),
    }
}

/// The directories that are here already by their names in the graph, for definitions of the result.
fn directories(job: &Job, (request, resolved): &Parts) -> BTreeMap<String, LocalSource> {
    let named = request.contexts.iter().filter_map(|text| text.split_once('='));
    let main = request.context.to_string_lossy().into_owned();
    let names: BTreeMap<&str, &str> = named.chain([("context", main.as_str())]).collect();
    let session = job.session.as_ref().map(|session| session.id().to_owned()).unwrap_or_default();
    let contexts = resolved.settings.contexts.iter();
    let one = contexts.filter_map(|(name, context)| {
        let local = LocalSource {
            name: (*names.get(name.as_str())?).to_owned(),
            session: session.clone(),
            exclude: context.ignore.cleaned(),
            shared_key: name.clone(),
            ..LocalSource::default()
        };
        Some((name.clone(), local))
    });
    one.collect()
}

/// The result as the client sees it: a reference for each platform, and the images' configs.
fn described(
    planned: &Planned,
    id: &str,
    locals: &dyn Fn(&str) -> Option<LocalSource>,
) -> Outcome<api::Result> {
    let targets = &planned.plan().targets;
    let mut result = api::Result::default();
    // A result that no definition can say has none. A client that asks for the definition is told so.
    let definition = |target: &Target| encode(&planned.plan().graph, target.edge, locals).ok();
    let reference =
        |target: &Target, name: &str| api::Ref { id: format!("{id}/{name}"), def: definition(target) };
    let config = |target: &Target| lapstrake_go::to_json(&target.image.complete());
    let epoch = targets.first().and_then(|target| target.image.epoch);
    if let Some(epoch) = epoch {
        result.metadata.insert("source.date.epoch".to_owned(), epoch.to_string().into_bytes());
    }
    if !planned.as_index()
        && let [target] = targets.as_slice()
    {
        result.result = Some(Value::Ref(reference(target, "")));
        result.metadata.insert("containerimage.config".to_owned(), config(target));
        return Ok(result);
    }
    let (mut refs, mut platforms) = (BTreeMap::new(), Vec::new());
    for target in targets {
        let name = target.platform.to_string();
        refs.insert(name.clone(), reference(target, &name));
        result.metadata.insert(format!("containerimage.config/{name}"), config(target));
        platforms.push(json!({ "ID": name, "Platform": target.platform }));
    }
    result.result = Some(Value::Refs(api::RefMap { refs }));
    let platforms = json!({ "Platforms": platforms }).to_string().into_bytes();
    result.metadata.insert("refs.platforms".to_owned(), platforms);
    Ok(result)
}
