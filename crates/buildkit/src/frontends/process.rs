//! The process of a frontend, from its start to its end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use lapstrake_engine::{Step, StepId, Stream};
use lapstrake_graph::{Exec, NetworkMode};
use lapstrake_oci::Digest;
use lapstrake_ops::{Container, OpsError, ProcessRequest, Streams};
use lapstrake_proto::moby::buildkit::v1::frontend::ReturnRequest;
use lapstrake_runtime::{Exit, Finished, Running, RuntimeError};
use prost::Message as _;
use rustix::fd::OwnedFd;
use tokio::sync::oneshot::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Options;
use super::image::{FrontendImage, variables};
use super::stdio::serve;
use crate::driven::{Called, Driven};
use crate::gateway::containers;
use crate::gateway::process::io::{Output, pipe};
use crate::gateway::process::with_path;
use crate::held::Held;
use crate::shared::Shared;
use crate::thread::on_thread;
use crate::worker;

/// The file with the definition of the frontend's own image.
const METADATA: &str = "/run/config/buildkit/metadata/frontend.bin";
/// The time that a frontend has to end after it has returned its result or closed its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the frontend in `image` until its process ends. `answer` gets what the frontend returns.
///
/// # Errors
/// The process cannot be started, fails, breaks its connection, or ends without a result.
pub(super) async fn run(
    shared: &Arc<Shared>,
    called: &Called,
    (image, opt): (FrontendImage, &Options),
    answer: Receiver<ReturnRequest>,
) -> Result<ReturnRequest, Status> {
    let driven = called.driven();
    let name = image.name.clone();
    let request = request(shared, driven, (&image, opt));
    let held = container(shared, driven, image).await?;
    driven.driver.containers.hold(&held).map_err(|status| named(&name, &status))?;
    let alive = held.begin();
    let (stdin, input) = pipe()?;
    let (output, stdout) = pipe()?;
    let (errors, stderr) = pipe()?;
    let failed = |error: std::io::Error| Status::internal(format!("frontend {name}: {error}"));
    let ended = serve(shared, driven, (input, output)).map_err(failed)?;
    let starter = (held.clone(), driven.job.clone(), name.clone());
    let running = on_thread(move || async move {
        let (held, job, name) = starter;
        let started = held.container.start(request, Streams { stdin, stdout, stderr });
        started.map_err(|error| named(&name, &job.status(&error.into())))
    });
    let process = Process {
        waiting: wait(running.await?),
        answer,
        ended,
        log: tokio::spawn(log(driven.clone(), name.clone(), errors)),
    };
    let result = process.end(&held, &name).await;
    drop(alive);
    if driven.driver.over.is_cancelled() {
        return Err(Status::cancelled("the build is over"));
    }
    result
}

/// The container that the frontend runs in. All that it writes is thrown away.
async fn container(shared: &Arc<Shared>, driven: &Driven, image: FrontendImage) -> Result<Arc<Held>, Status> {
    let job = driven.job.clone();
    let steps = containers::steps(shared, &job).await?;
    let network = if image.has_no_network() { NetworkMode::None } else { NetworkMode::Default };
    on_thread(move || async move {
        let exec = Exec { network, ..Exec::default() };
        let made = Container::new(&steps, exec, &[image.tree]);
        let made = made.map_err(|error: OpsError| named(&image.name, &job.status(&error.into())))?;
        let made = made.with_file(METADATA, image.definition.encode_to_vec());
        Ok(Arc::new(Held::new(made, Vec::new())))
    })
    .await
}

/// The process that the config of the image describes.
fn request(shared: &Shared, driven: &Driven, (image, opt): (&FrontendImage, &Options)) -> ProcessRequest {
    let session = driven.job.session.as_ref().map(|session| session.id().to_owned()).unwrap_or_default();
    let mut env = image.environment();
    env.extend(variables(opt));
    env.push(format!("BUILDKIT_SESSION_ID={session}"));
    env.push(format!("BUILDKIT_WORKERS={}", worker::as_json(&shared.host)));
    env.push("BUILDKIT_EXPORTEDPRODUCT=".to_owned());
    let exec =
        Exec { args: image.arguments(), env: with_path(env), cwd: image.directory(), ..Exec::default() };
    ProcessRequest { exec, terminal: None }
}

/// `status`, which says that the frontend `name` failed.
fn named(name: &str, status: &Status) -> Status {
    crate::error::prefixed(status, &format!("frontend {name}"))
}

type Waiting = JoinHandle<Result<Finished, RuntimeError>>;

/// Waits for the end on a thread that may block. Killing the process ends the wait.
fn wait(running: Running) -> Waiting {
    tokio::task::spawn_blocking(move || running.wait())
}

/// A frontend that runs.
struct Process {
    waiting: Waiting,
    answer: Receiver<ReturnRequest>,
    /// Is done when the connection has ended.
    ended: CancellationToken,
    /// Brings standard error to the log.
    log: JoinHandle<Option<Step>>,
}

impl Process {
    /// Waits for the end.
    async fn end(mut self, held: &Held, name: &str) -> Result<ReturnRequest, Status> {
        let (mut answer, mut closed, mut killed) = (None, false, false);
        let mut until: Option<Instant> = None;
        let finished = loop {
            let patience = async {
                match until {
                    Some(until) if !killed => sleep_until(until).await,
                    _ => pending().await,
                }
            };
            tokio::select! {
                biased;
                finished = &mut self.waiting => break finished,
                got = &mut self.answer, if answer.is_none() => {
                    answer = got.ok();
                    until.get_or_insert(Instant::now() + PATIENCE);
                }
                () = self.ended.cancelled(), if !closed => {
                    closed = true;
                    until.get_or_insert(Instant::now() + PATIENCE);
                }
                () = patience => {
                    killed = true;
                    held.container.kill();
                }
            }
        };
        // The process may have ended right after its last call.
        let answer = answer.or_else(|| self.answer.try_recv().ok());
        let error = failure(finished, (answer.is_some(), killed));
        if let Ok(Some(step)) = self.log.await {
            step.complete(false, error.clone());
        }
        match (answer, error) {
            // What the frontend says is wrong is told before how it ended.
            (Some(answer), _) if answer.error.is_some() => Ok(answer),
            (_, Some(error)) => Err(Status::unknown(format!("frontend {name}: {error}"))),
            (Some(answer), None) => Ok(answer),
            (None, None) => Err(Status::unknown(format!("frontend {name}: it ended without a result"))),
        }
    }
}

/// The reason for which the end of a process is a failure.
fn failure(
    finished: Result<Result<Finished, RuntimeError>, tokio::task::JoinError>,
    (answered, killed): (bool, bool),
) -> Option<String> {
    match finished {
        _ if killed && answered => None,
        _ if killed => Some("frontend grpc server closed unexpectedly".to_owned()),
        Ok(Ok(finished)) => match finished.exit {
            Exit::Code(0) => None,
            Exit::Code(code) => Some(format!("exit code: {code}")),
            Exit::Signal(signal) => Some(format!("exit code: {}", 128 + signal)),
        },
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the end of its process is not known".to_owned()),
    }
}

/// Brings what the frontend writes to standard error to the log of the build. The step begins with the first bytes.
async fn log(driven: Driven, name: String, errors: OwnedFd) -> Option<Step> {
    let pipe = Output::new(errors).ok()?;
    let over = driven.driver.over.clone();
    let mut step = None;
    while let Some(data) = pipe.read(&over).await {
        let begin = || {
            let id = Digest::sha256(format!("frontend {name} of {}", driven.job.id).as_bytes()).to_string();
            driven.job.progress().start(StepId(id), &format!("[frontend] {name}"))
        };
        step.get_or_insert_with(begin).log(Stream::Stderr, data);
    }
    step
}
