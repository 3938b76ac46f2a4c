//! A frontend: this test program in an image, with the bridge on its standard input and output.
//!
//! The option `do` says what the frontend does.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use hyper_util::rt::TokioIo;
use lapstrake_oci::Digest;
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1::frontend::exec_message::Input;
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::moby::buildkit::v1::frontend::{self};
use lapstrake_proto::pb;
use prost::Message as _;
use tokio::net::unix::pipe::{Receiver, Sender};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// The variable that only frontends have.
const MARK: &str = "BUILDKIT_EXPORTEDPRODUCT";

/// The options of the frontend.
type Options = BTreeMap<String, String>;

/// Does the work of a frontend, if this program is one.
pub(crate) fn main_if_asked() -> Option<ExitCode> {
    std::env::var_os(MARK)?;
    let pairs = std::env::vars().filter(|(key, _)| key.starts_with("BUILDKIT_FRONTEND_OPT_"));
    let pairs = pairs.filter_map(|(_, pair)| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())));
    let opt: Options = pairs.collect();
    match opt.get("do").map_or("build", String::as_str) {
        "crash" => {
            eprintln!("what the frontend says: {opt:?}");
            return Some(ExitCode::from(7));
        }
        "garbage" => {
            std::io::stdout().write_all(b"this is no HTTP/2\n").unwrap();
            std::io::stdout().flush().unwrap();
            std::thread::sleep(std::time::Duration::from_secs(1000));
        }
        "hang" => {
            eprintln!("the frontend hangs");
            std::thread::sleep(std::time::Duration::from_secs(1000));
        }
        "nothing" => return Some(ExitCode::SUCCESS),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bridge = connect().await;
        let answer = match work(&mut bridge, &opt).await {
            Ok(result) => frontend::ReturnRequest { result: Some(result), error: None },
            Err(status) => {
                let whole = rpc::Status::decode(status.details()).unwrap_or_default();
                let message = format!("of the frontend: {}", status.message());
                let error = rpc::Status { code: status.code().into(), message, details: whole.details };
                frontend::ReturnRequest { result: None, error: Some(error) }
            }
        };
        bridge.r#return(answer).await.unwrap();
    });
    let stays = opt.get("do").is_some_and(|what| what == "stays");
    let fails = opt.get("do").is_some_and(|what| what == "fails-late");
    if stays {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
    Some(if fails { ExitCode::from(9) } else { ExitCode::SUCCESS })
}

async fn connect() -> LlbBridgeClient<Channel> {
    let connector = tower::service_fn(|_: Uri| async {
        let read = Receiver::from_owned_fd(rustix::io::dup(std::io::stdin())?)?;
        let write = Sender::from_owned_fd(rustix::io::dup(std::io::stdout())?)?;
        Ok::<_, std::io::Error>(TokioIo::new(tokio::io::join(read, write)))
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    LlbBridgeClient::new(channel)
}

async fn work(bridge: &mut LlbBridgeClient<Channel>, opt: &Options) -> Result<frontend::Result, Status> {
    let pong = bridge.ping(frontend::PingRequest {}).await?.into_inner();
    if let Some(id) = opt.get("requestid") {
        let metadata = [("result.txt".to_owned(), format!("answer to {id}").into_bytes())].into();
        return Ok(frontend::Result { metadata, ..frontend::Result::default() });
    }
    match opt.get("do").map_or("build", String::as_str) {
        "error" => {
            let detail = prost_types::Any { type_url: "test/detail".to_owned(), value: b"{}".to_vec() };
            let message = "no such thing".to_owned();
            let whole = rpc::Status { code: 5, message: message.clone(), details: vec![detail] };
            Err(Status::with_details(Code::NotFound, message, whole.encode_to_vec().into()))
        }
        "call" => called(bridge, opt).await,
        "exec" => exec(bridge).await,
        _ => built(bridge, opt, &pong).await,
    }
}

/// A tree with what the frontend knows, as files.
async fn built(
    bridge: &mut LlbBridgeClient<Channel>,
    opt: &Options,
    pong: &frontend::PongResponse,
) -> Result<frontend::Result, Status> {
    let inputs = bridge.inputs(frontend::InputsRequest {}).await?.into_inner().definitions;
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let mut metadata = Vec::new();
    let file = std::fs::File::open("/run/config/buildkit/metadata/frontend.bin").unwrap();
    file.take(1 << 20).read_to_end(&mut metadata).unwrap();
    let own = pb::Definition::decode(metadata.as_slice()).unwrap();
    let text = [
        format!("opt={opt:?}"),
        format!("session={}", env("BUILDKIT_SESSION_ID")),
        format!("workers={}", env("BUILDKIT_WORKERS")),
        format!("own={}", env("OWN")),
        format!("cwd={}", std::env::current_dir().unwrap().display()),
        format!("inputs={:?}", inputs.keys().collect::<Vec<_>>()),
        format!("workers here={}", pong.workers.len()),
        format!("ops of its image={}", own.def.len()),
        format!("network={}", std::fs::read_dir("/sys/class/net").map_or(0, Iterator::count)),
    ];
    let made = definition("/made", &text.join("\n"));
    let request = frontend::SolveRequest {
        definition: Some(made),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..frontend::SolveRequest::default()
    };
    let answer = bridge.solve(request).await?.into_inner();
    let Some(Value::Ref(reference)) = answer.result.and_then(|result| result.result) else {
        return Err(Status::internal("no reference"));
    };
    let read = frontend::ReadFileRequest {
        r#ref: reference.id.clone(),
        file_path: "/made".to_owned(),
        ..frontend::ReadFileRequest::default()
    };
    let read = bridge.read_file(read).await?.into_inner().data;
    assert!(String::from_utf8_lossy(&read).starts_with("opt="));
    let config = r#"{"architecture":"amd64","os":"linux","config":{"Labels":{"by":"frontend"}}}"#;
    let metadata = [
        ("containerimage.config".to_owned(), config.as_bytes().to_vec()),
        ("frontend.told".to_owned(), b"yes".to_vec()),
    ];
    Ok(frontend::Result {
        result: Some(Value::Ref(reference)),
        metadata: metadata.into(),
        ..frontend::Result::default()
    })
}

/// A file as a definition.
fn definition(path: &str, text: &str) -> pb::Definition {
    let file = pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(file)),
    };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let op = pb::Op { op: Some(op), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::sha256(&op).to_string(), index: 0 };
    let last = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    pb::Definition { def: vec![op, last], ..pb::Definition::default() }
}

/// The result of another frontend, which the options name with the prefix `next-`.
async fn called(bridge: &mut LlbBridgeClient<Channel>, opt: &Options) -> Result<frontend::Result, Status> {
    let next = |key: &str| opt.get(&format!("next-{key}")).cloned();
    let mut frontend_opt: BTreeMap<String, String> = opt
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("next-")?.to_owned(), value.clone())))
        .collect();
    if next("do").is_some_and(|what| what == "call") {
        // The next one calls just the same.
        frontend_opt = opt.clone();
    }
    let request = frontend::SolveRequest {
        frontend: next("frontend").unwrap_or_default(),
        frontend_opt: frontend_opt.into_iter().collect(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..frontend::SolveRequest::default()
    };
    let answer = bridge.solve(request).await?.into_inner();
    answer.result.ok_or_else(|| Status::internal("no result"))
}

/// Runs a process that the build is not allowed.
async fn exec(bridge: &mut LlbBridgeClient<Channel>) -> Result<frontend::Result, Status> {
    let request = frontend::SolveRequest {
        definition: Some(definition("/x", "")),
        ..frontend::SolveRequest::default()
    };
    let answer = bridge.solve(request).await?.into_inner();
    let Some(Value::Ref(reference)) = answer.result.and_then(|result| result.result) else {
        return Err(Status::internal("no reference"));
    };
    let root = pb::Mount { dest: "/".to_owned(), result_id: reference.id, ..pb::Mount::default() };
    let request = frontend::NewContainerRequest {
        container_id: "c".to_owned(),
        mounts: vec![root],
        ..frontend::NewContainerRequest::default()
    };
    bridge.new_container(request).await?;
    let meta = pb::Meta { args: vec!["/x".to_owned()], ..pb::Meta::default() };
    let init = frontend::InitMessage {
        container_id: "c".to_owned(),
        meta: Some(meta),
        security: pb::SecurityMode::Insecure.into(),
        ..frontend::InitMessage::default()
    };
    let message = frontend::ExecMessage { process_id: "p".to_owned(), input: Some(Input::Init(init)) };
    let mut incoming = bridge.exec_process(tokio_stream::once(message)).await?.into_inner();
    while let Some(message) = incoming.message().await? {
        if let Some(Input::Exit(exit)) = message.input {
            let error = exit.error.unwrap_or_default();
            return Err(Status::permission_denied(error.message));
        }
    }
    Err(Status::internal("the process has no end"))
}
