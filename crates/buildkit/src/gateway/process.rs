//! Processes in containers: `ExecProcess`, one stream for any number of processes of one client.
//!
//! A process ends with its stream: a client that has gone wants nothing of what it began.

pub(crate) mod io;
mod signals;

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_graph::{Exec, SecretEnv, SecurityMode};
use lapstrake_ops::{ProcessRequest, Streams};
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::moby::buildkit::v1::frontend::exec_message::Input;
use lapstrake_proto::pb;
use lapstrake_runtime::{Exit, Running, WindowSize};
use prost_types::Any;
use rustix::fd::OwnedFd;
use rustix::termios::Winsize;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::driver::Driver;
use crate::thread::on_thread;
use io::{null, pipe};

/// The search path of programs where the client gives none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The exit code of a process that never began, or whose end is not known.
const UNKNOWN: u32 = 255;
/// The messages that wait for a slow client, and the pieces of input that wait for a slow process.
const WAITING: usize = 32;
/// The processes that one stream may have at once.
const MOST_PROCESSES: usize = 100;
/// The processes that one stream may have one after the other.
const MOST_NAMES: usize = 10_000;
/// The name of the detail that has an exit code. Its value is JSON.
const EXIT: &str = "github.com/moby/buildkit/gatewayapi.ExitMessage+json";

/// The messages for the client.
type Outgoing = Sender<Result<api::ExecMessage, Status>>;

/// A process as the stream knows it; `None` once the process has ended. Later messages for it are dropped.
type Process = Option<Live>;

/// A process that runs.
struct Live {
    /// The way to standard input; `None` at its end, and for a process without it.
    stdin: Option<Sender<Vec<u8>>>,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    /// Is done when the process has ended.
    over: CancellationToken,
}

/// Serves one stream. The messages for the client come out of the receiver.
pub(crate) fn exec(
    driver: Arc<Driver>,
    incoming: Streaming<api::ExecMessage>,
) -> Receiver<Result<api::ExecMessage, Status>> {
    let (sender, receiver) = channel(WAITING);
    tokio::spawn(async move {
        let mut stream = Stream { driver, sender, processes: BTreeMap::new(), tasks: JoinSet::new() };
        let served = stream.serve(incoming).await;
        for process in stream.processes.values().flatten() {
            signals::kill(&process.pidfd);
        }
        if let Err(status) = served {
            // A client that has gone needs no answer.
            stream.sender.send(Err(status)).await.unwrap_or_default();
        }
        while stream.tasks.join_next().await.is_some() {}
    });
    receiver
}

struct Stream {
    driver: Arc<Driver>,
    sender: Outgoing,
    processes: BTreeMap<String, Process>,
    tasks: JoinSet<()>,
}

impl Stream {
    async fn serve(&mut self, mut incoming: Streaming<api::ExecMessage>) -> Result<(), Status> {
        let (canceled, sender) = (self.driver.over.clone(), self.sender.clone());
        let mut open = true;
        while open || !self.tasks.is_empty() {
            tokio::select! {
                () = canceled.cancelled() => return Err(Status::cancelled("the build is over")),
                () = sender.closed() => return Ok(()),
                Some(_) = self.tasks.join_next() => for process in self.processes.values_mut() {
                    process.take_if(|process| process.over.is_cancelled());
                },
                message = incoming.message(), if open => match message? {
                    Some(message) => self.take(message).await?,
                    None => {
                        open = false;
                        self.processes.values_mut().flatten().for_each(|process| process.stdin = None);
                    }
                },
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: api::ExecMessage) -> Result<(), Status> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("ProcessID required"));
        }
        if let Some(Input::Init(init)) = message.input {
            return self.begin(id, init).await;
        }
        let process = self.processes.get_mut(&id);
        let process = process.ok_or_else(|| Status::not_found(format!("IO for process {id:?} not found")))?;
        let Some(process) = process else { return Ok(()) };
        match message.input {
            Some(Input::File(piece)) => process.write(piece).await,
            Some(Input::Resize(size)) => {
                process.resize(&size);
                Ok(())
            }
            Some(Input::Signal(signal)) => signals::send(&process.pidfd, &signal.name),
            _ => Err(Status::invalid_argument("a message that only servers send")),
        }
    }

    /// Starts a process, and follows it in a task of its own.
    async fn begin(&mut self, id: String, init: api::InitMessage) -> Result<(), Status> {
        if self.processes.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {id} already exists")));
        }
        if self.tasks.len() >= MOST_PROCESSES || self.processes.len() >= MOST_NAMES {
            return Err(Status::resource_exhausted("the stream has too many processes"));
        }
        let held = self.driver.containers.get(&init.container_id);
        let alive = held.as_ref().and_then(|held| held.begin());
        let (Some(held), Some(alive)) = (held, alive) else {
            let text = format!("container {:?} previously released or not created", init.container_id);
            return Err(Status::not_found(text));
        };
        let (fds, canceled) = (init.fds.clone(), held.released.clone());
        let (streams, mut ours) = open(&fds, init.tty)?;
        let started = on_thread(move || async move {
            let request = request(init)?;
            let started = held.container.start(request, streams);
            started.map_err(|error| not_started(&error))
        });
        let follow = match started.await {
            Ok(mut running) => {
                let failed = |error: std::io::Error| Status::internal(error.to_string());
                let pidfd = running.pidfd().try_clone_to_owned().map_err(failed)?;
                let terminal = running.terminal();
                if let Some(terminal) = &terminal {
                    let again = || terminal.try_clone().map_err(failed);
                    ours.stdin = Some(io::Input::new(again()?)?);
                    ours.stdout = Some(io::Output::new(again()?)?);
                }
                let (input, stdin) = channel(WAITING);
                let stdin_wanted = fds.contains(&0);
                let over = CancellationToken::new();
                let stdin_way = stdin_wanted.then_some(input);
                let live = Live { stdin: stdin_way, pidfd, terminal, over: over.clone() };
                self.processes.insert(id.clone(), Some(live));
                Ok(Follow { running, ours, stdin, over })
            }
            Err(status) => {
                self.processes.insert(id.clone(), None);
                Err(status)
            }
        };
        let sender = self.sender.clone();
        let to = To { id, sender };
        self.tasks.spawn(async move {
            match follow {
                Ok(follow) => follow.run(&to, &fds, &canceled).await,
                Err(status) => {
                    to.send(Input::Started(api::StartedMessage {})).await;
                    to.send(Input::Exit(failed_exit(&status))).await;
                    to.send(Input::Done(api::DoneMessage {})).await;
                }
            }
            drop(alive);
        });
        Ok(())
    }
}

impl Live {
    /// Passes a piece of standard input on.
    async fn write(&mut self, piece: api::FdMessage) -> Result<(), Status> {
        let Some(stdin) = self.stdin.as_ref().filter(|_| piece.fd == 0) else {
            // What comes too late is of no use to anybody.
            let late = piece.fd == 0 && self.over.is_cancelled();
            let text = format!("fd {} unavailable to write", piece.fd);
            return if late { Ok(()) } else { Err(Status::out_of_range(text)) };
        };
        if !piece.data.is_empty() {
            tokio::select! {
                // A process that has closed its input reads no more of it.
                sent = stdin.send(piece.data) => sent.unwrap_or_default(),
                () = self.over.cancelled() => {}
            }
        }
        if piece.eof {
            self.stdin = None;
        }
        Ok(())
    }

    /// Sets the size of the terminal, if there is one.
    fn resize(&self, size: &api::ResizeMessage) {
        let side = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: side(size.rows), ws_col: side(size.cols), ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(terminal) = &self.terminal {
            // A terminal whose process has gone has no size.
            rustix::termios::tcsetwinsize(terminal, size).unwrap_or_default();
        }
    }
}

/// A client as one process sees it.
struct To {
    id: String,
    sender: Outgoing,
}

impl To {
    /// Sends a message; whether somebody takes it.
    async fn send(&self, input: Input) -> bool {
        let message = api::ExecMessage { process_id: self.id.clone(), input: Some(input) };
        self.sender.send(Ok(message)).await.is_ok()
    }

    /// Sends the output of `from` until its end, or until the process is over and all of its output was read.
    async fn output(&self, fd: u32, from: Option<&io::Output>, over: &CancellationToken) {
        while let Some(pipe) = from {
            let Some(data) = pipe.read(over).await else { break };
            if !self.send(Input::File(api::FdMessage { fd, eof: false, data })).await {
                return;
            }
        }
        self.send(Input::File(api::FdMessage { fd, eof: true, data: Vec::new() })).await;
    }
}

/// A process that has been started, with our ends of its streams.
struct Follow {
    running: Running,
    ours: Ours,
    stdin: Receiver<Vec<u8>>,
    over: CancellationToken,
}

impl Follow {
    async fn run(self, to: &To, fds: &[u32], canceled: &CancellationToken) {
        let Follow { running, ours, stdin, over } = self;
        let (over, Ours { stdin: input, stdout, stderr }) = (&over, ours);
        to.send(Input::Started(api::StartedMessage {})).await;
        // The wait blocks, and nobody can take it back: who kills the process ends it.
        let waiting = tokio::task::spawn_blocking(move || running.wait());
        let feed = async {
            tokio::select! {
                () = feed(input, stdin) => {}
                () = over.cancelled() => {}
            }
        };
        let output = async {
            let of = |fd: u32, pipe| async move {
                if fds.contains(&fd) {
                    to.output(fd, pipe, over).await;
                }
            };
            tokio::join!(of(1, stdout.as_ref()), of(2, stderr.as_ref()));
        };
        let end = async {
            let finished = waiting.await;
            over.cancel();
            let exit = match finished {
                Ok(Ok(finished)) => exit(finished.exit, canceled.is_cancelled() || to.sender.is_closed()),
                Ok(Err(error)) => failed_exit(&Status::unknown(error.to_string())),
                Err(_) => failed_exit(&Status::internal("the end of the process is not known")),
            };
            to.send(Input::Exit(exit)).await;
        };
        tokio::join!(feed, output, end);
        to.send(Input::Done(api::DoneMessage {})).await;
    }
}

/// Our ends of a process's streams.
#[derive(Default)]
struct Ours {
    stdin: Option<io::Input>,
    stdout: Option<io::Output>,
    stderr: Option<io::Output>,
}

/// Writes the messages for standard input, and closes standard input at their end. A terminal has no end.
async fn feed(stdin: Option<io::Input>, mut pieces: Receiver<Vec<u8>>) {
    while let Some(piece) = pieces.recv().await {
        let Some(stdin) = &stdin else { continue };
        if stdin.write(&piece).await.is_err() {
            break;
        }
    }
}

/// The streams of a process, and our ends of those that the client wants.
fn open(fds: &[u32], terminal: bool) -> Result<(Streams, Ours), Status> {
    let mut ours = Ours::default();
    let wanted = |fd: u32| fds.contains(&fd) && !terminal;
    let mut streams = Streams { stdin: null()?, stdout: null()?, stderr: null()? };
    if wanted(0) {
        let (theirs, our) = pipe()?;
        streams.stdin = theirs;
        ours.stdin = Some(io::Input::new(our)?);
    }
    if wanted(1) {
        let (our, theirs) = pipe()?;
        streams.stdout = theirs;
        ours.stdout = Some(io::Output::new(our)?);
    }
    if wanted(2) {
        let (our, theirs) = pipe()?;
        streams.stderr = theirs;
        ours.stderr = Some(io::Output::new(our)?);
    }
    Ok((streams, ours))
}

/// The environment `env` with the usual search path, where it has none.
pub(crate) fn with_path(env: Vec<String>) -> Vec<String> {
    with(env, "PATH", PATH)
}

/// The environment `env` with a variable, where it has none of that name.
fn with(mut env: Vec<String>, name: &str, value: &str) -> Vec<String> {
    if !env.iter().any(|pair| pair.split('=').next() == Some(name)) {
        env.push(format!("{name}={value}"));
    }
    env
}

/// The process that a client asks for.
fn request(init: api::InitMessage) -> Result<ProcessRequest, Status> {
    let meta = init.meta.ok_or_else(|| Status::invalid_argument("the process has no arguments"))?;
    if meta.args.is_empty() {
        return Err(Status::invalid_argument("the process has no arguments"));
    }
    let security = match pb::SecurityMode::try_from(init.security) {
        Ok(pb::SecurityMode::Sandbox) => SecurityMode::Sandbox,
        Ok(pb::SecurityMode::Insecure) => SecurityMode::Insecure,
        Err(_) => {
            return Err(Status::invalid_argument(format!("invalid security mode {}", init.security)));
        }
    };
    let mut env = with_path(meta.env);
    if init.tty {
        env = with(env, "TERM", "xterm");
    }
    let secret = |secret: pb::SecretEnv| {
        let text = || format!("secret ID missing for {:?} environment variable", secret.name);
        if secret.id.is_empty() {
            return Err(Status::invalid_argument(text()));
        }
        Ok(SecretEnv { id: secret.id, name: secret.name, required: !secret.optional })
    };
    let exec = Exec {
        args: meta.args,
        env,
        cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd },
        user: meta.user,
        security,
        secret_env: init.secretenv.into_iter().map(secret).collect::<Result<_, _>>()?,
        ..Exec::default()
    };
    Ok(ProcessRequest { exec, terminal: init.tty.then(WindowSize::default) })
}

/// The status of a process that could not be started.
fn not_started(error: &lapstrake_ops::OpsError) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::unknown(text)
}

/// The end of a process that the client waits for.
fn exit(exit: Exit, canceled: bool) -> api::ExitMessage {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    let code = u32::try_from(code).unwrap_or(UNKNOWN);
    if code == 0 {
        return api::ExitMessage { code, error: None };
    }
    let (mut message, mut kind) = (format!("exit code: {code}"), Code::Unknown);
    if canceled {
        message.push_str(": context canceled");
        kind = Code::Cancelled;
    }
    let detail = Any { type_url: EXIT.to_owned(), value: json!({ "Code": code }).to_string().into_bytes() };
    let error = rpc::Status { code: kind.into(), message, details: vec![detail] };
    api::ExitMessage { code, error: Some(error) }
}

/// The end of a process that never began.
fn failed_exit(status: &Status) -> api::ExitMessage {
    let error =
        rpc::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() };
    api::ExitMessage { code: UNKNOWN, error: Some(error) }
}
