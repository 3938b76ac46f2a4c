//! A build request whose values have been read.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_diag::{Outcome, Usage};
use lapstrake_engine::Secrets;
use lapstrake_graph::{Http, NetworkMode, Source};
use lapstrake_lower::{BuildInputs, NamedContext, NoCache};
use lapstrake_oci::Reference;
use lapstrake_ops::{Ask, CacheFrom, LocalContext, Settings};
use lapstrake_request::BuildRequest;
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::{Root, open_host_dir};

use crate::cache::{self, Target};
use crate::client::Client;
use crate::context_source::{Place, place, remote};
use crate::include::load_bytes;
use crate::output::{self, ImageOutput, Output, PushTo};
use crate::{attrs, platforms, unsupported};

/// A request whose values have been read: the source, the way and the outputs of a build.
pub struct Resolved {
    /// For the frontend.
    pub inputs: BuildInputs,
    /// For the steps.
    pub settings: Settings,
    /// The main context.
    pub place: Place,
    /// The destinations of the result.
    pub outputs: Vec<Output>,
    /// Whether it is an index of images, one for each platform.
    pub as_index: bool,
    /// The caches to import.
    pub cache_from: Vec<CacheFrom>,
    /// The caches to export.
    pub cache_to: Vec<Target>,
    /// The image's names.
    pub names: Vec<Reference>,
    /// Warnings for the user: values that are ignored.
    pub warnings: Vec<String>,
    /// Values that are not to be stored, besides those of arguments.
    pub more_secrets: Secrets,
}

impl Resolved {
    /// Values that are not to be stored: those of arguments, and what else the caller knows.
    pub fn secrets(&self) -> Secrets {
        let args = self.inputs.build_args.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Secrets::among(args).and(&self.more_secrets)
    }

    /// Reads the request of a build.
    ///
    /// # Errors
    /// A value that cannot be, or a directory that `client` does not have.
    pub fn parse(request: &BuildRequest, client: &Arc<dyn Client>) -> Outcome<Resolved> {
        let mut resolved = Resolved::read(request, client)?;
        let unnamed = |image: &mut ImageOutput| image.named_by_result;
        if resolved.outputs.iter_mut().filter_map(Output::image_mut).any(unnamed) {
            let text = "a Dockerfile does not name its image: give a name in place of `name=*`";
            return Err(Usage(text.to_owned()).into());
        }
        let asked = resolved.inputs.build_args.get("BUILDKIT_MULTI_PLATFORM");
        resolved.as_index =
            platforms::as_index(&resolved.inputs.platforms, asked.map(String::as_str), &resolved.outputs)?;
        if resolved.outputs.iter().any(|output| resolved.names.is_empty() && output.needs_name()) {
            return Err(Usage("pushing needs an image name: give one with `-t`".to_owned()).into());
        }
        Ok(resolved)
    }

    /// Makes the manifest of each image that is exported, as BuildKit does: callers of its API ask for the digest.
    pub fn with_manifests(mut self) -> Resolved {
        for output in &mut self.outputs {
            if let Output::Image { image, .. } = output {
                image.needs_manifest = true;
            }
        }
        self
    }

    /// Reads a request whose results the caller brings itself. [`Resolved::of_results`] adds the facts about these results.
    ///
    /// # Errors
    /// As [`Resolved::parse`].
    pub fn without_results(request: &BuildRequest, client: &Arc<dyn Client>) -> Outcome<Resolved> {
        Resolved::read(request, client)
    }

    /// The results are an index, or one image that the caller calls `name` where an output is to be called `*`.
    ///
    /// # Errors
    /// An output cannot take such results.
    pub fn of_results(mut self, is_index: bool, name: Option<&str>) -> Outcome<Resolved> {
        self.as_index = is_index;
        platforms::check_outputs(is_index, &self.outputs)?;
        for image in
            self.outputs.iter_mut().filter_map(Output::image_mut).filter(|image| image.named_by_result)
        {
            let name =
                name.ok_or_else(|| Usage("the result does not say the name of the image".to_owned()))?;
            for name in name.split(',') {
                let parsed = Reference::new_name(name);
                image.names.push(parsed.map_err(|error| Usage(format!("invalid name `{name}`: {error}")))?);
            }
        }
        if self.outputs.iter().any(|output| self.names.is_empty() && output.needs_name()) {
            return Err(Usage("pushing needs an image name: give one with `-t`".to_owned()).into());
        }
        Ok(self)
    }

    /// Reads a request about a Dockerfile that builds nothing: of several platforms, the first one counts.
    ///
    /// # Errors
    /// As [`Resolved::parse`].
    pub fn to_tell(request: &BuildRequest, client: &Arc<dyn Client>) -> Outcome<Resolved> {
        let mut resolved = Resolved::read(request, client)?;
        resolved.inputs.platforms.truncate(1);
        Ok(resolved)
    }

    fn read(request: &BuildRequest, client: &Arc<dyn Client>) -> Outcome<Resolved> {
        let BuildRequest { cache, steps, pins, .. } = request;
        let mut warnings = Vec::new();
        let mut inputs = BuildInputs::new();
        inputs.target.clone_from(&request.target);
        if let Some(platforms) = &request.platforms {
            inputs.platforms = platforms::platforms(platforms, &inputs.build_platform)?;
        }
        inputs.build_args.clone_from(&request.build_args);
        inputs.labels.clone_from(&request.labels);
        inputs.no_cache = match (cache.disabled, cache.disabled_stages.is_empty()) {
            (true, _) => NoCache::All,
            (false, false) => NoCache::Stages(cache.disabled_stages.iter().cloned().collect()),
            (false, true) => NoCache::No,
        };
        let network = attrs::network(&steps.network, steps.default_network.as_deref())?;
        inputs.network = if pins.hermetic { NetworkMode::None } else { network.0 };
        inputs.extra_hosts = collect(&steps.hosts, attrs::host)?;
        inputs.main_subdir = request.context_subdir.clone().unwrap_or_default();
        inputs.hostname = steps.hostname.clone().unwrap_or_default();
        inputs.ulimits = collect(&steps.ulimits, attrs::ulimit)?;
        inputs.shm_size = steps.shm_size.as_deref().map_or(Ok(0), attrs::size)?;
        let mut settings = step_settings(request, client)?;
        settings.network = network.1;
        let supported = unsupported::leave_out(request, &mut warnings)?;
        let place = add_contexts(request, &**client, (&mut inputs, &mut settings), &mut warnings)?;
        settings.git_hosts = git_hosts(&inputs);
        let outputs = outputs(request, &mut warnings)?;
        let name = |text: &String| {
            Reference::new_name(text).map_err(|e| Usage(format!("invalid tag `{text}`: {e}")))
        };
        let names = collect(&request.tags, name)?;
        let cache_from = supported.cache_from.into_iter().map(cache::from).collect::<Result<_, _>>()?;
        let to = |text| cache::to(text, &mut warnings);
        let cache_to = supported.cache_to.into_iter().map(to).collect::<Result<_, _>>()?;
        Ok(Resolved {
            inputs,
            settings,
            place,
            outputs,
            as_index: false,
            cache_from,
            cache_to,
            names,
            warnings,
            more_secrets: Secrets::default(),
        })
    }
}

/// The settings of steps, which ask the caller for secrets and agents.
fn step_settings(request: &BuildRequest, client: &Arc<dyn Client>) -> Result<Settings, Usage> {
    let BuildRequest { cache, steps, .. } = request;
    let mut limits = steps.limits.clone();
    attrs::resources(&mut limits, &steps.resources)?;
    let mut cdi_dirs = steps.cdi_dirs.clone();
    if cdi_dirs.is_empty() {
        cdi_dirs = lapstrake_ops::USUAL_DIRS.map(PathBuf::from).to_vec();
    }
    let (of_contexts, of_secrets, of_agents) = (client.clone(), client.clone(), client.clone());
    Ok(Settings {
        allowed: collect(&steps.allowed, attrs::entitlement)?.into_iter().collect(),
        cdi_dirs,
        distrust_times: cache.read_all_files,
        more_contexts: Ask::new(move |name| of_contexts.context(name)),
        secrets: Ask::new(move |id| {
            tracing::debug!(id, "a step asks for a secret");
            of_secrets.secret(id)
        }),
        ssh: Ask::new(move |id| {
            tracing::debug!(id, "a step asks for an SSH agent");
            of_agents.ssh_agent(id)
        }),
        output_limit: steps.output_limit,
        limits: attrs::limits(&limits)?,
        no_new_privs: attrs::no_new_privs(&steps.limits)?,
        debug: client.debugger(),
        git_environment: client.git_environment(),
        ..Settings::default()
    })
}

/// The hosts of repositories that are contexts.
fn git_hosts(inputs: &BuildInputs) -> BTreeSet<String> {
    let named = inputs.contexts.values().filter_map(|context| match context {
        NamedContext::Remote(source) => Some(source),
        _ => None,
    });
    let hosts = inputs.main.iter().chain(named).filter_map(|source| match source {
        Source::Git(git) => Some(lapstrake_ops::host_of(&git.remote).to_owned()),
        _ => None,
    });
    hosts.collect()
}

/// The destinations of the result, from `-o`, `--push`, `--load` and `--annotation` together.
fn outputs(request: &BuildRequest, warnings: &mut Vec<String>) -> Result<Vec<Output>, Usage> {
    let parse = |text| output::output(text, warnings);
    let mut outputs = request.outputs.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let plain = ImageOutput::default;
    if request.push {
        let mut images = 0;
        for output in &mut outputs {
            if let Output::Image { push, .. } = output {
                images += 1;
                push.get_or_insert(PushTo::Tags);
            }
        }
        if images == 0 {
            outputs.push(Output::Image { image: plain(), push: Some(PushTo::Tags) });
        }
    }
    if request.load {
        outputs.push(Output::Engine { image: plain() });
    }
    if outputs.is_empty() {
        outputs.push(Output::Image { image: plain(), push: None });
    }
    let annotations = output::annotations(&request.annotations)?;
    for output in &mut outputs {
        match output {
            Output::Image { image, .. }
            | Output::Archive { image, .. }
            | Output::Layout { image, .. }
            | Output::Engine { image } => image.annotate(&annotations),
            Output::Tar { .. } | Output::Local { .. } | Output::Cache => {}
        }
    }
    let files = |output: &Output| matches!(output, Output::Tar { .. } | Output::Local { .. });
    if request.needs_id && outputs.iter().any(files) {
        return Err(Usage("local and tar exporters are incompatible with image ID file".to_owned()));
    }
    Ok(outputs)
}

fn collect<T>(list: &[String], parse: impl Fn(&String) -> Result<T, Usage>) -> Result<Vec<T>, Usage> {
    list.iter().map(parse).collect()
}

fn add_contexts(
    request: &BuildRequest,
    client: &dyn Client,
    (inputs, settings): (&mut BuildInputs, &mut Settings),
    warnings: &mut Vec<String>,
) -> Outcome<Place> {
    let keep_git_dir = inputs.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    let keep_git_dir = keep_git_dir.is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let commit_times = inputs.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty());
    let place = place(&request.context.to_string_lossy(), keep_git_dir, commit_times)?;
    let place = add_main(place, request, client, (inputs, settings), warnings)?;
    for text in &request.contexts {
        let bad = |why: String| Usage(format!("--build-context {text}: {why}"));
        let (name, value) = text.split_once('=').ok_or_else(|| bad("not NAME=VALUE".to_owned()))?;
        let context = match value.split_once("://") {
            // An empty tree, as in FROM.
            Some(("docker-image", "scratch")) => NamedContext::Remote(Source::Scratch),
            Some(("docker-image", reference)) => {
                let parsed = reference.parse::<Reference>();
                NamedContext::Image(parsed.map_err(|e| bad(e.to_string()))?)
            }
            Some(("oci-layout", place)) => {
                layout(client, place).map_err(|e| e.context(format!("--build-context {text}")))?
            }
            Some(("rootfs", dir)) => {
                let path = attrs::absolute(Path::new(if dir.is_empty() { "/" } else { dir }))?;
                if !path.is_dir() {
                    return Err(bad(format!("`{}` is not a directory", path.display())).into());
                }
                NamedContext::Rootfs { path: path.to_string_lossy().into_owned() }
            }
            _ if let Some(source) = remote(value, keep_git_dir, commit_times)? => {
                NamedContext::Remote(packed(source))
            }
            Some((scheme, _)) => {
                return Err(bad(format!("unsupported context source {scheme} for {name}")).into());
            }
            None => match value.strip_prefix("target:") {
                Some("") => return Err(bad("`target:` needs the name of a stage".to_owned()).into()),
                Some(stage) => NamedContext::Target(stage.to_owned()),
                None => {
                    if client.ignored(name, Path::new(value))?.is_none() {
                        let context = local_context(client, Path::new(value), None, warnings)?;
                        settings.contexts.insert(name.to_owned(), context);
                    }
                    NamedContext::Local
                }
            },
        };
        inputs.contexts.insert(name.to_owned(), context);
    }
    Ok(place)
}

/// Adds the main context.
fn add_main(
    place: Place,
    request: &BuildRequest,
    client: &dyn Client,
    (inputs, settings): (&mut BuildInputs, &mut Settings),
    warnings: &mut Vec<String>,
) -> Outcome<Place> {
    match place {
        Place::Directory => {
            if let Some(ignore) = client.ignored("context", &request.context)? {
                inputs.ignore = ignore;
                return Ok(Place::Later);
            }
            let own = local_context(client, &request.context, request.dockerfile.as_deref(), warnings)?;
            inputs.ignore.clone_from(&own.ignore);
            settings.contexts.insert("context".to_owned(), own);
        }
        Place::Remote(ref source) => inputs.main = Some(source.clone()),
        Place::Later | Place::Stdin => {}
    }
    Ok(place)
}

/// A file of the web is a file in a named context, though it were an archive: only the main one is unpacked.
fn packed(source: Source) -> Source {
    match source {
        Source::Http(http) => Source::Http(Http { unpack: false, ..http }),
        other => other,
    }
}

fn layout(client: &dyn Client, place: &str) -> Outcome<NamedContext> {
    let (dir, suffix) = match (place.split_once('@'), place.rsplit_once(':')) {
        (Some((dir, digest)), _) => (dir, format!("@{digest}")),
        (None, Some((dir, tag))) if !tag.contains('/') => (dir, format!(":{tag}")),
        (None, _) => (place, ":latest".to_owned()),
    };
    let reference = format!("layout{suffix}").parse::<Reference>().map_err(|e| Usage(e.to_string()))?;
    let path = client.layout(&attrs::absolute(Path::new(dir))?, reference.digest())?;
    Ok(NamedContext::Layout { path: path.to_string_lossy().into_owned(), reference })
}

/// The directory `named` of `client` with its ignore file: the Dockerfile's own, else `.dockerignore`.
///
/// # Errors
/// The directory does not exist, or its ignore file cannot be read.
pub fn local_context(
    client: &dyn Client,
    named: &Path,
    dockerfile: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Outcome<LocalContext> {
    let path = client.directory(named)?;
    let root = open_host_dir(&path).map_err(|error| Usage(error.to_string()))?;
    let mut own = dockerfile.unwrap_or(Path::new("Dockerfile")).as_os_str().to_owned();
    own.push(".dockerignore");
    let own = PathBuf::from(own);
    let (beside, below) = match dockerfile {
        None => (None, own),
        // A directory that the user named, if it is not in the context.
        Some(_) => match place_in(&own, &path) {
            Some(below) => (None, below),
            None => (Some(own), PathBuf::new()),
        },
    };
    let read = |candidate: &Path, found: Result<Vec<u8>, String>| -> Outcome<LocalContext> {
        let file = candidate.display().to_string();
        let text = found.and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        let text = text.map_err(|why| Usage(format!("cannot read `{file}`: {why}")))?;
        let ignore = Patterns::of_file(&file, &text).map_err(|e| Usage(e.to_string()))?;
        Ok(LocalContext { path: path.clone(), ignore })
    };
    if let Some(beside) = beside {
        match client.file(&beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return read(&beside, found.map_err(|error| error.to_string())),
        }
    }
    for below in [below, PathBuf::from(".dockerignore")].iter().filter(|below| !below.as_os_str().is_empty())
    {
        let candidate = path.join(below);
        if Root::new(&root).stat(below.as_os_str().as_encoded_bytes(), true).is_ok() {
            return read(&candidate, load_bytes(&root, below));
        }
        if candidate.is_symlink() {
            warnings.push(format!(
                "warning: `{}` is a link that leads out of the context, and is not read",
                candidate.display()
            ));
        }
    }
    Ok(LocalContext { path, ignore: Patterns::default() })
}

/// The path in the context of a file whose directory is there.
fn place_in(file: &Path, context: &Path) -> Option<PathBuf> {
    let here = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let below = here.canonicalize().ok()?.strip_prefix(context.canonicalize().ok()?).ok()?.to_owned();
    Some(below.join(file.file_name()?))
}
