//! A server over an empty state, with a client that drives a build.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lapstrake_buildkit::{Address, Devices, Host, KeepPolicy, Server};
use lapstrake_ops::Worker;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend::exec_message::Input;
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::moby::buildkit::v1::frontend::{self};
use lapstrake_proto::pb;
use lapstrake_store::Store;
use lapstrake_testkit::Mode;
use lapstrake_testkit::buildkit::{Open, Shelf, Tree, bridge, connect, control, entry, of_build, session};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// The build that the client drives.
pub(crate) const BUILD: &str = "b";
/// The first process of a container that waits.
pub(crate) const WAIT: &str = "echo ready; exec sleep 1000";

/// Runs `test` with a server.
pub(crate) fn with<F: Future<Output = ()>>(mode: Mode, shelf: Shelf, test: impl FnOnce(Place) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let place = Place::new(mode, shelf).await;
        tokio::time::timeout(Duration::from_secs(120), test(place)).await.expect("the test takes too long");
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// A server, and a client whose build waits to be driven.
pub(crate) struct Place {
    pub(crate) top: tempfile::TempDir,
    pub(crate) channel: Channel,
    pub(crate) bridge: LlbBridgeClient<Channel>,
    pub(crate) session: Open,
    pub(crate) build: tokio::task::JoinHandle<Result<(), Status>>,
}

impl Place {
    async fn new(mode: Mode, shelf: Shelf) -> Place {
        let top = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&top.path().join("state")).unwrap());
        let worker = Arc::new(Worker::new(store.clone(), mode == Mode::Oneid));
        let host = Host {
            state: top.path().to_owned(),
            registries: lapstrake_registry::Registries::default(),
            git_environment: Vec::new(),
            platforms: vec![lapstrake_oci::Platform::host()],
            labels: BTreeMap::new(),
            entitlements: vec!["security.insecure".to_owned()],
            dockerfile_images: false,
            frontend_images: None,
            warn: Box::new(|_| {}),
            devices: Devices::Usual,
            keep: KeepPolicy::All,
        };
        let socket = top.path().join("socket");
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let addresses = [Address::Unix(socket.clone())];
        tokio::spawn(async move {
            let ready = || ready.send(()).unwrap();
            let never = (std::future::pending(), std::future::pending());
            Server::new(host, worker).run(&addresses, None, ready, never).await.unwrap();
        });
        is_ready.await.unwrap();
        let channel = connect(&socket).await;
        let session = session(&channel, "session-b", &Arc::new(shelf)).await;
        let build = begin(&channel);
        let mut bridge = bridge(&channel);
        bridge.ping(of_build(BUILD, frontend::PingRequest {})).await.unwrap();
        Place { top, channel, bridge, session, build }
    }

    /// The reference of the Dockerfile's result.
    pub(crate) async fn solve(&mut self) -> String {
        let request = frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..frontend::SolveRequest::default()
        };
        let answer = self.bridge.solve(of_build(BUILD, request)).await.unwrap().into_inner();
        match answer.result.unwrap().result.unwrap() {
            Value::Ref(reference) => reference.id,
            other => panic!("{other:?}"),
        }
    }

    /// Makes the container `id` with the Dockerfile's result for a root.
    pub(crate) async fn container(&mut self, id: &str, more: Vec<pb::Mount>) -> Result<(), Status> {
        let root = self.solve().await;
        let mut mounts = vec![pb::Mount { dest: "/".to_owned(), result_id: root, ..pb::Mount::default() }];
        mounts.extend(more);
        let request = frontend::NewContainerRequest {
            container_id: id.to_owned(),
            mounts,
            ..frontend::NewContainerRequest::default()
        };
        self.bridge.new_container(of_build(BUILD, request)).await.map(drop)
    }

    /// Opens a stream for processes.
    pub(crate) async fn stream(&mut self) -> Processes {
        let (sender, receiver) = unbounded_channel();
        let request = of_build(BUILD, UnboundedReceiverStream::new(receiver));
        let incoming = self.bridge.exec_process(request).await.unwrap().into_inner();
        Processes { sender, incoming, ended: BTreeMap::new() }
    }
}

/// Begins the build `b`.
fn begin(channel: &Channel) -> tokio::task::JoinHandle<Result<(), Status>> {
    let mut control = control(channel);
    let request = api::SolveRequest {
        r#ref: BUILD.to_owned(),
        session: "session-b".to_owned(),
        ..api::SolveRequest::default()
    };
    tokio::spawn(async move { control.solve(request).await.map(drop) })
}

/// A context with a static busybox and its shell, and `more`.
pub(crate) fn tree(more: Tree) -> Tree {
    let mut busybox = entry("busybox", "");
    busybox.1 = std::fs::read("/bin/busybox")
        .expect("these tests need a static busybox in /bin (Debian: busybox-static)");
    (busybox.0.mode, busybox.0.size) = (0o755, i64::try_from(busybox.1.len()).unwrap());
    let mut all = more;
    all.push(busybox);
    all.sort_by(|a, b| a.0.path.split('/').cmp(b.0.path.split('/')));
    all
}

/// A Dockerfile with a shell in its image.
pub(crate) const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n";

/// The processes of one stream.
pub(crate) struct Processes {
    pub(crate) sender: UnboundedSender<frontend::ExecMessage>,
    pub(crate) incoming: Streaming<frontend::ExecMessage>,
    ended: BTreeMap<String, Ended>,
}

/// What a process said and how it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Option<frontend::ExitMessage>,
    started: bool,
    done: bool,
}

impl Ended {
    pub(crate) fn code(&self) -> u32 {
        self.exit.as_ref().unwrap().code
    }

    pub(crate) fn error(&self) -> String {
        self.exit.as_ref().unwrap().error.as_ref().map_or_else(String::new, |error| error.message.clone())
    }
}

/// A shell in a container, with all of its streams.
pub(crate) fn shell(container: &str, script: &str) -> frontend::InitMessage {
    frontend::InitMessage {
        container_id: container.to_owned(),
        meta: Some(pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..pb::Meta::default()
        }),
        fds: vec![0, 1, 2],
        ..frontend::InitMessage::default()
    }
}

impl Processes {
    pub(crate) fn send(&self, id: &str, input: Input) {
        let message = frontend::ExecMessage { process_id: id.to_owned(), input: Some(input) };
        self.sender.send(message).unwrap();
    }

    pub(crate) fn write(&self, id: &str, data: &str, eof: bool) {
        self.send(id, Input::File(frontend::FdMessage { fd: 0, eof, data: data.as_bytes().to_vec() }));
    }

    pub(crate) fn signal(&self, id: &str, name: &str) {
        self.send(id, Input::Signal(frontend::SignalMessage { name: name.to_owned() }));
    }

    /// Takes messages until one process is as `is` says, and gives what is known of it.
    pub(crate) async fn until(&mut self, id: &str, is: impl Fn(&Ended) -> bool) -> Result<Ended, Status> {
        loop {
            if let Some(known) = self.ended.get(id)
                && is(known)
            {
                return Ok(known.clone());
            }
            let Some(message) = self.incoming.message().await? else {
                return Err(Status::aborted("the stream has ended"));
            };
            let known = self.ended.entry(message.process_id).or_default();
            assert!(!known.done, "nothing comes after the end");
            match message.input.unwrap() {
                Input::Started(_) => known.started = true,
                Input::File(piece) => {
                    assert!(known.started);
                    let text = String::from_utf8_lossy(&piece.data).into_owned();
                    if piece.fd == 1 { known.stdout += &text } else { known.stderr += &text }
                }
                Input::Exit(exit) => known.exit = Some(exit),
                Input::Done(_) => known.done = true,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Starts a process, and waits until it has said `word`.
    pub(crate) async fn begin(&mut self, id: &str, init: frontend::InitMessage, word: &str) {
        self.send(id, Input::Init(init));
        self.until(id, |known| known.stdout.contains(word)).await.unwrap();
    }

    /// The end of a process that was begun.
    pub(crate) async fn end(&mut self, id: &str) -> Ended {
        self.until(id, |known| known.done).await.unwrap()
    }

    /// Runs a process without input.
    pub(crate) async fn run(&mut self, id: &str, init: frontend::InitMessage) -> Ended {
        self.send(id, Input::Init(init));
        self.write(id, "", true);
        self.end(id).await
    }
}
