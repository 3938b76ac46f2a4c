//! Definitions (LLB) as results of a build.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures_util::future::try_join_all;
use lapstrake_build::{Build, Client, Planned, Resolved, Subject, Tools, Trace};
use lapstrake_diag::{Fault, Outcome, Report, SourceFile};
use lapstrake_graph::{Graph, ImageDraft, ImageStore, Op, Plan, Source, Target, VertexMeta};
use lapstrake_llb::{Answers, Definition, ImageQuestion, LlbError, Nested, Replacement, ResolveMode};
use lapstrake_oci::{Digest, ImageConfig, Platform, Reference};
use lapstrake_ops::{LocatedImage, context_parts};
use lapstrake_proto::moby::buildkit::v1::Exporter;
use lapstrake_proto::moby::buildkit::v1::frontend::{CacheOptionsEntry, ReadFileRequest};
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::Policy;
use lapstrake_proto::pb;
use lapstrake_request::BuildRequest;
use prost::Message as _;

use crate::caller::{Names, SessionCaller};
use crate::gateway::files::Files;
use crate::jobs::{Definitions, Job, Prepared};
use crate::layouts::layout_of;
use crate::policy::Judge;
use crate::shared::Shared;
use crate::translate;
use crate::uploads::Uploads;

/// The nested definitions that one definition may have, those in nested ones included.
const MOST_NESTED: usize = 100;

impl Definitions {
    /// Those of the build `job`.
    ///
    /// # Errors
    /// The build has no session, or an output or a cache that cannot be.
    pub(crate) async fn of(
        shared: &Shared,
        job: &Job,
        imports: &[CacheOptionsEntry],
    ) -> Outcome<Arc<Definitions>> {
        let mut definitions = job.definitions.lock().await;
        if let Some(definitions) = &*definitions {
            return Ok(definitions.clone());
        }
        if job.canceled.is_cancelled() {
            return Err(Report::canceled(2));
        }
        Ok(definitions.insert(Arc::new(Definitions::new(shared, job, imports)?)).clone())
    }

    fn new(shared: &Shared, job: &Job, imports: &[CacheOptionsEntry]) -> Outcome<Definitions> {
        let session = job.session.clone().ok_or_else(|| Report::new("the build has no session"))?;
        let names = Names {
            dockerfile: "dockerfile".to_owned(),
            file: "Dockerfile".to_owned(),
            sessions: std::collections::BTreeMap::new(),
        };
        let mut request =
            translate::definition(&job.request, imports).map_err(|status| translate::report(&status))?;
        // A definition names its directories itself.
        request.context = PathBuf::from("-");
        shared.host.allow(&request.steps.allowed)?;
        request.steps.cdi_dirs = shared.host.cdi_dirs();
        let caller = Arc::new(SessionCaller::new(session, shared.of_caller(), (names, job.reports()), None));
        let client: Arc<dyn Client> = caller.clone();
        let mut resolved = Resolved::without_results(&request, &client)?;
        resolved.settings.failed = job.failures();
        let tools = Tools::new(&shared.worker, &*caller, &mut resolved, false);
        Ok(Definitions { tools, caller, request, uploads: Uploads::default() })
    }

    /// The tools for an export of results to `exporters`, and the outputs. `results` says whether the results are an index, and the name that
    /// they give to their image.
    ///
    /// # Errors
    /// As [`Definitions::of`].
    pub(crate) fn for_export(
        &self,
        exporters: &[Exporter],
        (is_index, name): (bool, Option<&str>),
    ) -> Outcome<(Tools, Resolved)> {
        let client: Arc<dyn Client> = self.caller.clone();
        let outputs = translate::outputs(exporters).map_err(|status| translate::report(&status))?;
        let request = BuildRequest { outputs, ..self.request.clone() };
        let resolved = Resolved::without_results(&request, &client)?;
        Ok((self.tools.clone(), resolved.of_results(is_index, name)?.with_manifests()))
    }

    /// The tools for a part of the build. The outputs are not checked, since the results are not known yet.
    fn for_solving(&self, job: &Job) -> Outcome<(Tools, Resolved)> {
        let client: Arc<dyn Client> = self.caller.clone();
        let mut resolved = Resolved::without_results(&self.request, &client)?;
        resolved.more_secrets = job.secrets();
        Ok((self.tools.clone(), resolved.with_manifests()))
    }

    /// The caller.
    pub(crate) fn caller(&self) -> Arc<SessionCaller> {
        self.caller.clone()
    }
}

/// The result that `definition` is. Nothing is solved yet.
///
/// # Errors
/// The definition is broken or has parts that are not built yet, or an image cannot be found.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    definition: Option<&pb::Definition>,
    (imports, policies): (&[CacheOptionsEntry], &[Policy]),
) -> Outcome<Arc<Prepared>> {
    let definitions = Definitions::of(shared, job, imports).await?;
    let judge = Judge::of(shared, job, policies).map_err(|status| job.refused(&status))?;
    let definition = match definition {
        Some(definition) => decoded(job, definition, judge.as_ref()).await?,
        None => None,
    };
    let (plan, file) = match definition {
        Some(definition) => {
            let whole = expanded(shared, job, &definitions, (definition, judge.as_ref())).await?;
            plan(job, &definitions, &whole).await?
        }
        None => (scratch()?, Arc::new(SourceFile::new("", String::new()))),
    };
    let (tools, resolved) = definitions.for_solving(job)?;
    let subject = job.told.get().cloned().unwrap_or_else(subject);
    let record = job.new_record(subject, &resolved);
    let planned = Planned::of_graph(tools, resolved, file, plan);
    let trace = Trace { build: job.id.clone(), ..Trace::default() };
    let prepared = Prepared {
        planned: tokio::sync::Mutex::new(Some(planned)),
        caller: definitions.caller(),
        trace: trace.into(),
        record,
        described: OnceLock::new(),
        definitions: OnceLock::new(),
    };
    let prepared = Arc::new(prepared);
    job.tell_of(&prepared);
    Ok(prepared)
}

/// The definition that `bytes` are, with the sources that the rules put into it.
async fn decoded(
    job: &Job,
    definition: &pb::Definition,
    judge: Option<&Judge>,
) -> Outcome<Option<Definition>> {
    let decoded = Definition::decode(definition).map_err(|error| report(&error))?;
    match (decoded, judge) {
        (Some(decoded), Some(judge)) => {
            judge.change(decoded).await.map(Some).map_err(|status| job.refused(&status))
        }
        (decoded, _) => Ok(decoded),
    }
}

/// `definition` with the contents of its nested definitions. The trees that have these are solved first.
async fn expanded(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    definitions: &Definitions,
    (mut definition, judge): (Definition, Option<&Judge>),
) -> Outcome<Definition> {
    for _ in 0..MOST_NESTED {
        let Some(Nested { op, tree, file }) = definition.nested().map_err(|error| report(&error))? else {
            return Ok(definition);
        };
        let (plan, text) = plan(job, definitions, &tree).await?;
        let (tools, resolved) = definitions.for_solving(job)?;
        let planned = Planned::of_graph(tools, resolved, text, plan);
        let caller = definitions.caller();
        let this = Build { worker: &shared.worker, client: &*caller, progress: job.progress() };
        let stack = planned.evaluate_target(&this, 0).await?;
        let view = stack.open(shared.worker.store(), shared.worker.single_id())?;
        let wanted = ReadFileRequest { file_path: file.clone(), ..ReadFileRequest::default() };
        let bytes = Files::of_root(view.as_fd()).read(&wanted);
        let bytes = bytes.map_err(|status| Report::new(status.message().to_owned()))?;
        let bad =
            |error: prost::DecodeError| Report::new(format!("{file}: {error}")).with_fault(Fault::Usage);
        let nested = pb::Definition::decode(bytes.as_slice()).map_err(bad)?;
        let nested = decoded(job, &nested, judge).await?;
        let nested = nested.ok_or_else(|| Report::new(format!("{file}: the definition is empty")))?;
        let others = [(op, Replacement::Definition(Box::new(nested)))].into();
        definition = definition.replaced(&others).map_err(|error| report(&error))?;
    }
    Err(Report::new(format!("more than {MOST_NESTED} nested definitions")).with_fault(Fault::Usage))
}

/// The subject of a build without a Dockerfile.
fn subject() -> Subject {
    Subject { context: "LLB".to_owned(), dockerfile: String::new(), target: None, platform: None }
}

fn report(error: &LlbError) -> Report {
    Report::new(error.to_string()).with_fault(Fault::Usage)
}

/// The graph of a definition, and the text that its lines are in.
async fn plan(
    job: &Arc<Job>,
    definitions: &Definitions,
    definition: &Definition,
) -> Outcome<(Plan, Arc<SourceFile>)> {
    let answers = Answers {
        platform: None,
        session: job.session.as_ref().map(|session| session.id().to_owned()).unwrap_or_default(),
        images: images(definitions, definition).await?,
    };
    for (digest, group) in definition.progress_groups() {
        job.log.group(digest, group);
    }
    job.add_text(definition.source_map());
    let mut graph = Graph::new();
    let lowered = definition.lower(&answers, &mut graph).map_err(|error| report(&error))?;
    definitions.caller.add_locals(lowered.locals);
    let (store, caller) = (&definitions.tools.store, &definitions.caller);
    let (graph, edge) = definitions.uploads.put_into((graph, lowered.edge), store, caller).await?;
    definitions.caller.read(context_parts(&graph, &[edge])).await;
    let host = Platform::host();
    let config = translate::config_of(&job.request.exporters).map(image_config).transpose()?;
    let image = match config {
        Some(config) => ImageDraft { config, ..empty_image(&host) },
        None => empty_image(&host),
    };
    let target = Target { edge, platform: host, image };
    let text = definition.text();
    let file = text.map_or_else(
        || SourceFile::new("", String::new()),
        |text| SourceFile::from_bytes(text.filename.clone(), &text.data),
    );
    Ok((Plan { graph, targets: vec![target] }, Arc::new(file)))
}

/// The empty tree as a result.
fn scratch() -> Outcome<Plan> {
    let mut graph = Graph::new();
    let edge = graph.add(Op::Source(Source::Scratch), Vec::new(), VertexMeta::default());
    let edge = edge.map_err(|error| Report::of(&error))?.into();
    let platform = Platform::host();
    let image = empty_image(&platform);
    Ok(Plan { graph, targets: vec![Target { edge, platform, image }] })
}

/// The config of an image that nobody has said anything about.
pub(crate) fn empty_image(platform: &Platform) -> ImageDraft {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    "/".clone_into(&mut config.config.working_dir);
    config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    ImageDraft { config, is_complete: true, history: Vec::new(), epoch: None }
}

/// The config of an image as the client has written it.
///
/// # Errors
/// It is no config, or has no platform.
pub(crate) fn image_config(bytes: &[u8]) -> Outcome<ImageConfig> {
    let config: Option<ImageConfig> = serde_json::from_slice(bytes)
        .map_err(|error| Report::new(format!("failed to parse image config for export: {error}")))?;
    let config = config.ok_or_else(|| Report::new("invalid null image config for export"))?;
    match (config.os.is_empty(), config.architecture.is_empty()) {
        (false, false) => Ok(config),
        (true, true) => Err(Report::new("invalid image config for export: missing os")),
        _ => Err(Report::new("invalid image config: os and architecture must be specified together")),
    }
}

/// The sources that the images of a definition are. All are asked for at once.
async fn images(definitions: &Definitions, definition: &Definition) -> Outcome<BTreeMap<Digest, Source>> {
    let questions = definition.images().map_err(|error| report(&error))?;
    let asked = questions.iter().map(|question| async move {
        let source = image(definitions, question).await?;
        Ok::<_, Report>((question.op.clone(), source))
    });
    Ok(try_join_all(asked).await?.into_iter().collect())
}

async fn image(definitions: &Definitions, question: &ImageQuestion) -> Outcome<Source> {
    let bad = |why: String| {
        Report::new(format!("invalid reference `{}`: {why}", question.reference)).with_fault(Fault::Usage)
    };
    let reference: Reference = question.reference.parse().map_err(|error| bad(format!("{error}")))?;
    let platform = question.platform.clone().unwrap_or_else(Platform::host);
    let images = &definitions.tools.images;
    let place = match &question.layout {
        Some(layout) => Some(layout_of(definitions, layout, &reference).await?),
        None => None,
    };
    let mut found: LocatedImage = match question.mode {
        _ if let Some(place) = &place => images.resolve(&reference, place, &platform).await?,
        ResolveMode::Pull => match images.resolve_in_registry(&reference, &platform).await {
            Ok(found) => found,
            Err(_) => images.resolve(&reference, &ImageStore::Registry, &platform).await?,
        },
        ResolveMode::Default => images.resolve(&reference, &ImageStore::Registry, &platform).await?,
    };
    let differs = |found: &LocatedImage| {
        !question.checksum.is_empty() && found.digest().to_string() != question.checksum
    };
    if differs(&found) && place.is_none() {
        // An image that was made here may have another manifest in its registry.
        found = images.resolve_in_registry(&reference, &platform).await.unwrap_or(found);
    }
    if differs(&found) {
        return Err(Report::new(format!(
            "image digest {} for {} does not match expected checksum {}",
            found.digest(),
            question.reference,
            question.checksum
        )));
    }
    if found.config.rootfs.diff_ids.is_empty() {
        return Ok(Source::Scratch);
    }
    Ok(Source::Image {
        reference: reference.to_string(),
        manifest: found.manifest,
        platform,
        store: match question.layer_limit {
            0 => place.unwrap_or(ImageStore::Registry),
            limit => ImageStore::LowestLayers(limit),
        },
    })
}
