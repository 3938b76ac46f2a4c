//! What a build was asked for: the command line as data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::Usage;
use lapstrake_engine::Secrets;
use lapstrake_graph::{Http, NetworkMode, Source};
use lapstrake_lower::{BuildInputs, NamedContext, NoCache};
use lapstrake_oci::Reference;
use lapstrake_ops::{CacheFrom, LocalContext, Settings};
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::{Root, open_host_dir};

use super::caches::{self, Target};
use super::include::load_bytes;
use super::options;
use super::output::{self, ImageOutput, Output, PushTo};
use super::place::{Place, place, remote};
use super::platforms;
use super::unsupported;
use crate::args::{Build, Checksum};
use crate::env;
use crate::progress::Mode;

/// What was asked for.
pub(crate) struct Wanted {
    /// For the frontend.
    pub(crate) inputs: BuildInputs,
    /// For the steps.
    pub(crate) settings: Settings,
    /// Where the main context is.
    pub(crate) place: Place,
    /// Where the result goes.
    pub(crate) outputs: Vec<Output>,
    /// Whether it is an index of images, one for each platform.
    pub(crate) as_index: bool,
    /// Where results of steps may come from.
    pub(crate) cache_from: Vec<CacheFrom>,
    /// Where results of steps are left.
    pub(crate) cache_to: Vec<Target>,
    /// The image's names.
    pub(crate) names: Vec<Reference>,
    /// How progress is shown.
    pub(crate) mode: Mode,
}

impl Wanted {
    /// Values of arguments that are not to be stored.
    pub(super) fn secrets(&self) -> Secrets {
        Secrets::among(self.inputs.build_args.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Reads the command line of a build.
    pub(crate) fn parse(args: &Build) -> Result<Wanted, Usage> {
        let mut wanted = Wanted::read(args)?;
        let asked = wanted.inputs.build_args.get("BUILDKIT_MULTI_PLATFORM");
        wanted.as_index =
            platforms::as_index(&wanted.inputs.platforms, asked.map(String::as_str), &wanted.outputs)?;
        if wanted.outputs.iter().any(|output| wanted.names.is_empty() && output.needs_name()) {
            return Err(Usage("there is no name to push the image to: give one with `-t`".to_owned()));
        }
        Ok(wanted)
    }

    /// Reads the command line of something that only tells: of several platforms, it tells of the first.
    pub(super) fn to_tell(args: &Build) -> Result<Wanted, Usage> {
        let mut wanted = Wanted::read(args)?;
        wanted.inputs.platforms.truncate(1);
        Ok(wanted)
    }

    fn read(args: &Build) -> Result<Wanted, Usage> {
        let mut inputs = BuildInputs::new();
        let mut settings = Settings::default();
        inputs.target.clone_from(&args.target);
        if let Some(platforms) = platforms::asked(args) {
            inputs.platforms = platforms::platforms(&platforms, &inputs.build_platform)?;
        }
        if let Some(epoch) = env::source_date_epoch() {
            inputs.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
        }
        inputs.build_args.extend(options::build_args(&args.build_arg, &args.build_arg_file)?);
        inputs.labels = options::pairs(&args.label);
        inputs.no_cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
            (true, _) => NoCache::All,
            (false, false) => NoCache::Stages(args.no_cache_filter.iter().cloned().collect()),
            (false, true) => NoCache::No,
        };
        (inputs.network, settings.network) = options::network(&args.network)?;
        if args.hermetic {
            inputs.network = NetworkMode::None;
        }
        inputs.extra_hosts = collect(&args.add_host, options::host)?;
        inputs.ulimits = collect(&args.ulimit, options::ulimit)?;
        inputs.shm_size = args.shm_size.as_deref().map_or(Ok(0), options::size)?;
        settings.allowed = collect(&args.allow, options::entitlement)?.into_iter().collect();
        settings.cdi_dirs.clone_from(&args.cdi_spec_dir);
        if settings.cdi_dirs.is_empty() {
            settings.cdi_dirs = ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec();
        }
        settings.distrust_times = args.checksum == Checksum::Always;
        settings.secrets = collect(&args.secret, options::secret)?.into_iter().collect();
        settings.ssh = collect(&args.ssh, options::ssh)?.into_iter().collect();
        settings.output_limit = env::log_limit();
        let supported = unsupported::leave_out(args)?;
        let mut hold = args.hold.clone();
        options::resources(&mut hold, &args.resource)?;
        settings.limits = options::limits(&hold)?;
        settings.no_new_privs = options::no_new_privs(&args.hold)?;
        settings.debug = args.debug.as_deref().map(super::run::debug).transpose()?;
        let place = add_contexts(args, &mut inputs, &mut settings)?;
        settings.git_hosts = git_hosts(&inputs);
        settings.git_environment = env::of_git();
        let outputs = outputs(args)?;
        let name = |text: &String| {
            Reference::new_name(text).map_err(|e| Usage(format!("invalid tag `{text}`: {e}")))
        };
        let names = collect(&args.tag, name)?;
        let from_env = env::progress().and_then(|text| <Mode as clap::ValueEnum>::from_str(&text, true).ok());
        let mode = if args.debug.is_some() {
            // Nothing may be redrawn over the shell.
            Mode::Plain
        } else if args.quiet {
            Mode::Quiet
        } else {
            args.progress.or(from_env).unwrap_or(Mode::Auto)
        };
        let cache_from = supported.cache_from.into_iter().map(caches::from).collect::<Result<_, _>>()?;
        let cache_to = supported.cache_to.into_iter().map(caches::to).collect::<Result<_, _>>()?;
        Ok(Wanted { inputs, settings, place, outputs, as_index: false, cache_from, cache_to, names, mode })
    }
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

/// Where the result goes: what `-o`, `--push`, `--load` and `--annotation` say together.
fn outputs(args: &Build) -> Result<Vec<Output>, Usage> {
    let mut outputs = collect(&args.output, output::output)?;
    let plain = ImageOutput::default;
    if args.push {
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
    if args.load {
        outputs.push(Output::Engine { image: plain() });
    }
    if outputs.is_empty() {
        outputs.push(Output::Image { image: plain(), push: None });
    }
    let annotations = output::annotations(&args.annotation)?;
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
    if args.iidfile.is_some() && outputs.iter().any(files) {
        return Err(Usage("local and tar exporters are incompatible with image ID file".to_owned()));
    }
    Ok(outputs)
}

fn collect<T>(list: &[String], parse: impl Fn(&String) -> Result<T, Usage>) -> Result<Vec<T>, Usage> {
    list.iter().map(parse).collect()
}

fn add_contexts(args: &Build, inputs: &mut BuildInputs, settings: &mut Settings) -> Result<Place, Usage> {
    let keep_git_dir = inputs.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    let keep_git_dir = keep_git_dir.is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let commit_times = inputs.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty());
    let place = place(&args.context.to_string_lossy(), keep_git_dir, commit_times)?;
    match &place {
        Place::Directory => {
            let own = local_context(&args.context, args.file.as_deref())?;
            inputs.ignore.clone_from(&own.ignore);
            settings.contexts.insert("context".to_owned(), own);
        }
        Place::Remote(source) => inputs.main = Some(source.clone()),
        Place::Stdin => {}
    }
    for text in &args.build_context {
        let bad = |why: String| Usage(format!("--build-context {text}: {why}"));
        let (name, value) = text.split_once('=').ok_or_else(|| bad("not NAME=VALUE".to_owned()))?;
        let context = match value.split_once("://") {
            // An empty tree, as in FROM.
            Some(("docker-image", "scratch")) => NamedContext::Remote(Source::Scratch),
            Some(("docker-image", reference)) => {
                let parsed = reference.parse::<Reference>();
                NamedContext::Image(parsed.map_err(|e| bad(e.to_string()))?)
            }
            Some(("oci-layout", place)) => layout(place).map_err(|e| bad(e.0))?,
            Some(("rootfs", dir)) => {
                let path = options::absolute(Path::new(if dir.is_empty() { "/" } else { dir }))?;
                if !path.is_dir() {
                    return Err(bad(format!("`{}` is not a directory", path.display())));
                }
                NamedContext::Rootfs { path: path.to_string_lossy().into_owned() }
            }
            _ if let Some(source) = remote(value, keep_git_dir, commit_times)? => {
                NamedContext::Remote(packed(source))
            }
            Some((scheme, _)) => return Err(bad(format!("unsupported context source {scheme} for {name}"))),
            None => match value.strip_prefix("target:") {
                Some("") => return Err(bad("`target:` needs the name of a stage".to_owned())),
                Some(stage) => NamedContext::Target(stage.to_owned()),
                None => {
                    settings.contexts.insert(name.to_owned(), local_context(Path::new(value), None)?);
                    NamedContext::Local
                }
            },
        };
        inputs.contexts.insert(name.to_owned(), context);
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

fn layout(place: &str) -> Result<NamedContext, Usage> {
    let (dir, suffix) = match (place.split_once('@'), place.rsplit_once(':')) {
        (Some((dir, digest)), _) => (dir, format!("@{digest}")),
        (None, Some((dir, tag))) if !tag.contains('/') => (dir, format!(":{tag}")),
        (None, _) => (place, ":latest".to_owned()),
    };
    let path = options::absolute(Path::new(dir))?;
    let reference = format!("layout{suffix}").parse::<Reference>().map_err(|e| Usage(e.to_string()))?;
    Ok(NamedContext::Layout { path: path.to_string_lossy().into_owned(), reference })
}

/// A directory with its ignore file: the Dockerfile's own, else `.dockerignore`.
pub(super) fn local_context(dir: &Path, dockerfile: Option<&Path>) -> Result<LocalContext, Usage> {
    let path = options::absolute(dir)?;
    if !path.is_dir() {
        return Err(Usage(format!(
            "unable to prepare context: path {:?} not found",
            dir.display().to_string()
        )));
    }
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
    let read = |candidate: &Path, found: Result<Vec<u8>, String>| {
        let file = candidate.display().to_string();
        let text = found.and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        let text = text.map_err(|why| Usage(format!("cannot read `{file}`: {why}")))?;
        let ignore = Patterns::of_file(&file, &text).map_err(|e| Usage(e.to_string()))?;
        Ok(LocalContext { path: path.clone(), ignore })
    };
    if let Some(beside) = beside.filter(|beside| beside.exists()) {
        return read(&beside, fs::read(&beside).map_err(|error| error.to_string()));
    }
    for below in [below, PathBuf::from(".dockerignore")].iter().filter(|below| !below.as_os_str().is_empty())
    {
        let candidate = path.join(below);
        if Root::new(&root).stat(below.as_os_str().as_encoded_bytes(), true).is_ok() {
            return read(&candidate, load_bytes(&root, below));
        }
        if candidate.is_symlink() {
            tell!(
                "warning: `{}` is a link that leads out of the context, and is not read",
                candidate.display()
            );
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
