//! The Dockerfile: where it is, what it includes, and what is wrong with it.

use std::io::ErrorKind::NotFound;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_diag::{Excerpt, Outcome, Report, SourceFile, Usage};
use lapstrake_dockerfile::{Parsed, Phase, parse_as};
use lapstrake_engine::{Progress, Secrets, StepFailed, StepId};
use lapstrake_graph::{Http, Source};
use lapstrake_lower::LowerError;
use lapstrake_ops::{Images, Job, Worker};
use lapstrake_request::BuildRequest;
use lapstrake_store::Store;
use lapstrake_tree::archive::is_archive;
use lapstrake_tree::inroot::{Root, open_host_dir};

use crate::attrs;
use crate::client::Client;
use crate::context_source::Place;
use crate::include::{included, load, reason, root_of};
use crate::notes::Notes;
use crate::resolved::Resolved;

/// The name that people expect.
const NAME: &str = "Dockerfile";
/// No Dockerfile is longer, in bytes.
const LONGEST: u64 = 64 << 20;

/// The part of this machine that builds use: its state, and its way of making containers.
pub struct Machine {
    /// The state directory.
    pub store: Arc<Store>,
    /// Whether only one user id is mapped.
    pub single_id: bool,
}

/// The tools of one build: all that fetch files and images, and run steps.
#[derive(Clone)]
pub struct Tools {
    /// The state directory.
    pub store: Arc<Store>,
    /// The sources of images.
    pub images: Arc<Images>,
    /// The worker, which builds of this machine share.
    pub worker: Arc<Worker>,
    /// The steps of this build.
    pub job: Job,
    /// Sentences for the user once the build is over.
    pub notes: Notes,
}

impl Tools {
    /// Takes the settings of `resolved`.
    pub fn new(worker: &Arc<Worker>, client: &dyn Client, resolved: &mut Resolved, pull: bool) -> Tools {
        let store = worker.store().clone();
        let images =
            Arc::new(Images::new(worker.clone(), pull, client.registries()).with_rules(client.image_rules()));
        let job = Job::new(worker.clone(), images.clone(), std::mem::take(&mut resolved.settings));
        Tools { store, images, worker: worker.clone(), job, notes: Notes::default() }
    }
}

/// A text with its place: a root, and the directory in it.
type Found = (SourceFile, Option<(OwnedFd, PathBuf)>);

/// Reads and parses the Dockerfile. The bytes on standard input decide about the main context.
pub async fn read(
    (request, client): (&BuildRequest, &dyn Client),
    resolved: &mut Resolved,
    tools: &Tools,
    progress: &Progress,
) -> Outcome<(Arc<SourceFile>, Parsed)> {
    let (file, place) = find((request, client), resolved, tools, progress).await?;
    let dialect = attrs::dialect(&file, request.syntax.as_deref(), &resolved.inputs.build_args);
    let file = match place {
        Some((root, below)) => included(file, dialect, &root, &below)?,
        None => file,
    };
    let parsed = parse_as(&file, dialect);
    Ok((Arc::new(file), parsed))
}

async fn find(
    (request, client): (&BuildRequest, &dyn Client),
    resolved: &mut Resolved,
    tools: &Tools,
    progress: &Progress,
) -> Outcome<Found> {
    let asked = request.dockerfile.as_deref().map(|path| path.to_string_lossy().into_owned());
    match asked.as_deref() {
        Some("-") if resolved.place == Place::Stdin => {
            let text = "can't use stdin for both build context and dockerfile";
            return Err(Usage(text.to_owned()).into());
        }
        Some("-") => return Ok((from_stdin(client)?, here((request, client), resolved)?)),
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            let http = Http { url: url.to_owned(), name: NAME.to_owned(), checksum: None, ..Http::default() };
            let root = fetch(tools, &Source::Http(http), progress).await?;
            let file = load(&root, Path::new(NAME)).map_err(|why| unreadable(url, &why))?;
            return Ok((file, here((request, client), resolved)?));
        }
        _ => {}
    }
    let local = request.dockerfile.as_ref().filter(|_| request.local_dockerfile);
    match resolved.place.clone() {
        Place::Directory => tokio::task::block_in_place(|| on_disk(request, client)),
        Place::Later => {
            let named = request.dockerfile.clone().unwrap_or_else(|| PathBuf::from(NAME));
            tokio::task::block_in_place(|| of_client(&named, client))
        }
        Place::Remote(source) => match local {
            Some(path) => tokio::task::block_in_place(|| of_client(path, client)),
            None => elsewhere(request, tools, &source, progress).await,
        },
        Place::Stdin => match upload(tools, client)? {
            Upload::Archive(source) => {
                resolved.inputs.main = Some(source.clone());
                match local {
                    Some(path) => tokio::task::block_in_place(|| of_client(path, client)),
                    None => elsewhere(request, tools, &source, progress).await,
                }
            }
            Upload::Text(_) if request.dockerfile.is_some() => {
                let text = "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles";
                Err(Usage(text.to_owned()).into())
            }
            Upload::Text(file) => {
                resolved.inputs.main = Some(Source::Scratch);
                Ok((file, None))
            }
        },
    }
}

/// The root for includes of a Dockerfile that is not a file: the context, if the context is a directory.
fn here(
    (request, client): (&BuildRequest, &dyn Client),
    resolved: &Resolved,
) -> Outcome<Option<(OwnedFd, PathBuf)>> {
    match resolved.place {
        Place::Directory => Ok(Some((open_host_dir(&client.directory(&request.context)?)?, PathBuf::new()))),
        Place::Later | Place::Remote(_) | Place::Stdin => Ok(None),
    }
}

fn from_stdin(client: &dyn Client) -> Outcome<SourceFile> {
    let mut bytes = Vec::new();
    client.stdin().take(LONGEST).read_to_end(&mut bytes)?;
    Ok(SourceFile::from_bytes(NAME, &bytes))
}

fn unreadable(path: &str, why: &str) -> Report {
    Report::new(format!("failed to read dockerfile: open {path}: {why}")).with_hint("name it with `-f FILE`")
}

/// The Dockerfile of a directory. A file that the user names is read by the client. The file with the usual name is looked for as `COPY` does it, so that a link leads nowhere else.
fn on_disk(request: &BuildRequest, client: &dyn Client) -> Outcome<Found> {
    let context = client.directory(&request.context)?;
    let lower = |path: &Path| path.with_file_name("dockerfile");
    let Some(asked) = &request.dockerfile else {
        let root = open_host_dir(&context)?;
        let inside = |path: &Path| Root::new(&root).stat(path.as_os_str().as_encoded_bytes(), true).is_ok();
        let usual = Path::new(NAME).to_owned();
        let path = if !inside(&usual) && inside(&lower(&usual)) { lower(&usual) } else { usual };
        let shown = request.context.join(&path);
        let file = load(&root, &path).map_err(|why| unreadable(&shown.display().to_string(), &why))?;
        return Ok((file, Some((root, PathBuf::new()))));
    };
    let (file, beside) = named(asked, client)?;
    Ok((file, Some(root_of(&client.directory(&beside)?, &context)?)))
}

/// A Dockerfile of the client's for a context that is elsewhere. Included files stand beside the Dockerfile.
fn of_client(asked: &Path, client: &dyn Client) -> Outcome<Found> {
    let (file, beside) = named(asked, client)?;
    Ok((file, Some((open_host_dir(&client.directory(&beside)?)?, PathBuf::new()))))
}

/// The file that the user names, and its directory.
fn named(asked: &Path, client: &dyn Client) -> Outcome<(SourceFile, PathBuf)> {
    let (mut path, mut read) = (asked.to_owned(), client.file(asked));
    let absent = |read: &io::Result<_>| read.as_ref().is_err_and(|error| error.kind() == NotFound);
    let lower = path.with_file_name("dockerfile");
    if absent(&read) && path.file_name().is_some_and(|name| name == NAME) {
        let other = client.file(&lower);
        if !absent(&other) {
            (path, read) = (lower, other);
        }
    }
    let bytes = read.map_err(|error| unreadable(&path.display().to_string(), &reason(&error)))?;
    let name = path.file_name().map_or_else(|| NAME.into(), |name| name.to_string_lossy());
    let file = SourceFile::from_bytes(name, &bytes);
    let beside = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((file, beside.to_owned()))
}

/// A Dockerfile in a context that is elsewhere. A context that is one file is the Dockerfile.
async fn elsewhere(
    request: &BuildRequest,
    tools: &Tools,
    source: &Source,
    progress: &Progress,
) -> Outcome<Found> {
    let root = fetch(tools, source, progress).await?;
    let inside = Root::new(&root);
    let mut path = request.dockerfile.clone().unwrap_or_else(|| PathBuf::from(NAME));
    let missing = |path: &Path| !inside.exists(path.as_os_str().as_encoded_bytes());
    let lower = path.with_file_name("dockerfile");
    if matches!(source, Source::Http(_)) && missing(&path) && !missing(Path::new("context")) {
        path = PathBuf::from("context");
    } else if path.file_name().is_some_and(|name| name == NAME) && missing(&path) && !missing(&lower) {
        path = lower;
    }
    let file = load(&root, &path).map_err(|why| unreadable(&path.display().to_string(), &why))?;
    let name = path.file_name().map_or_else(|| NAME.into(), |name| name.to_string_lossy());
    let below = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok((SourceFile::new(name, file.text()), Some((root, below))))
}

/// The tree of a source that is elsewhere.
async fn fetch(tools: &Tools, source: &Source, progress: &Progress) -> Outcome<OwnedFd> {
    let name = lapstrake_lower::source_title(source);
    let step = progress.start(StepId(format!("internal:{name}")), &name);
    let brought = tools.job.fetch(source, &step).await;
    step.complete(false, brought.as_ref().err().map(ToString::to_string));
    // One layer, which needs no copy to be shown.
    let (root, _) = brought?.open(&tools.store, tools.images.single_id())?.into_parts();
    Ok(root)
}

/// The kind of bytes on standard input.
enum Upload {
    Archive(Source),
    Text(SourceFile),
}

fn upload(tools: &Tools, client: &dyn Client) -> Outcome<Upload> {
    let (blob, size) = tools.store.copy_blob(client.stdin(), None)?;
    let mut file = tools.store.open_blob(&blob)?;
    if is_archive(&mut file)? {
        return Ok(Upload::Archive(Source::Archive { blob }));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST.min(size)).read_to_end(&mut bytes)?;
    Ok(Upload::Text(SourceFile::from_bytes(NAME, &bytes)))
}

/// The most errors of one file that are shown: a file with more is no Dockerfile.
const MOST_SHOWN: usize = 50;

/// Whether there is something to build. The report has all errors, and the text that BuildKit has for the first.
pub fn usable(parsed: &Parsed, file: &Arc<SourceFile>) -> Outcome<()> {
    let Some((message, _)) = first_error(parsed, file) else { return Ok(()) };
    let errors = || parsed.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let hint = match errors().count() {
        1 => None,
        count if count <= MOST_SHOWN => Some(format!("all {count} errors of the file are shown above")),
        count => Some(format!("the first {MOST_SHOWN} of {count} errors are shown above")),
    };
    let report = Report::new(format!("failed to solve: {message}"));
    let report = report.at(file, Excerpt::Findings(errors().take(MOST_SHOWN).cloned().collect()));
    Err(match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    })
}

/// BuildKit's text for a file that cannot be parsed, and the lines that it shows.
pub fn first_error(parsed: &Parsed, file: &SourceFile) -> Option<(String, Option<(u32, u32)>)> {
    let (error, fault) = parsed.diagnostics.iter().zip(&parsed.faults).next()?;
    let lines = Some(fault.lines).filter(|lines| lines.0 > 0);
    Some(match (fault.phase, lines) {
        (Phase::Instruction, Some((first, _))) => {
            let line = file.origin(first).line;
            (format!("dockerfile parse error on line {line}: {}", error.message), lines)
        }
        _ => (error.message.clone(), lines),
    })
}

/// An error of lowering, with its place in the Dockerfile if it has one.
pub(crate) fn placed(error: &LowerError, file: &Arc<SourceFile>) -> Report {
    let report = Report::of(error);
    match error.diagnostic() {
        Some(diagnostic) => {
            let message = format!("failed to solve: {}", diagnostic.message);
            report.with_message(message).at(file, Excerpt::Findings(vec![diagnostic]))
        }
        None => report.context("failed to solve"),
    }
}

/// A failed step with its lines in the Dockerfile.
pub(crate) fn step_failed(failed: &StepFailed, file: &Arc<SourceFile>, secrets: &Secrets) -> Report {
    let report = Report::of(&*failed.source).context("failed to solve").of_step(&failed.digest);
    let report = if secrets.is_empty() { report } else { report.map_texts(|text| secrets.hide(text)) };
    match failed.lines {
        Some(lines) => report.at(file, Excerpt::Lines(lines.first, lines.last)),
        None => report,
    }
}
