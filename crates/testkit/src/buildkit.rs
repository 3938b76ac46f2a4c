//! A client of BuildKit's API with everything in memory: directories, secrets, and the outputs that come back.
//!
//! Each failure is a panic, since a test is the caller.

#![expect(clippy::unwrap_used, reason = "only tests use this")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::stream::{Stream, once, unfold};
use hyper_util::rt::TokioIo;
use lapstrake_proto::containerd::services::content::v1 as content;
use lapstrake_proto::containerd::services::content::v1::content_server::{Content, ContentServer};
use lapstrake_proto::fsutil::types::packet::PacketType;
use lapstrake_proto::fsutil::types::{Packet, Stat};
use lapstrake_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use lapstrake_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use lapstrake_proto::moby::buildkit::v1::control_client::ControlClient;
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::check_policy_response::Result as Verdict;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::policy_verifier_server::{
    PolicyVerifier, PolicyVerifierServer,
};
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::{
    CheckPolicyRequest, CheckPolicyResponse, DecisionResponse,
};
use lapstrake_proto::moby::buildkit::v1::{BytesMessage as SessionMessage, Exporter, SolveRequest};
use lapstrake_proto::moby::exporter::v1 as exporter;
use lapstrake_proto::moby::exporter::v1::exporter_server::{Exporter as Exporters, ExporterServer};
use lapstrake_proto::moby::filesync::v1::BytesMessage;
use lapstrake_proto::moby::filesync::v1::file_send_server::{FileSend, FileSendServer};
use lapstrake_proto::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use lapstrake_proto::moby::upload::v1 as upload;
use lapstrake_proto::moby::upload::v1::upload_server::{Upload, UploadServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{channel, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

/// A stream of messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The entries of a directory as the wire has them, with the content of files, in order.
pub type Tree = Vec<(Stat, Vec<u8>)>;

/// A file of mode 0644, or a directory if the path ends with a slash.
pub fn entry(path: &str, content: &str) -> (Stat, Vec<u8>) {
    let directory = path.ends_with('/');
    let mode = if directory { 1 << 31 | 0o755 } else { 0o644 };
    let size = i64::try_from(content.len()).unwrap();
    let path = path.trim_end_matches('/').to_owned();
    (Stat { path, mode, size, mod_time: 1_700_000_000_000_000_000, ..Stat::default() }, content.into())
}

/// What the client has, and what it has been given.
#[derive(Default)]
pub struct Shelf {
    /// The directories by their names.
    pub directories: BTreeMap<String, Tree>,
    /// The secrets by their ids.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The uploads by their paths. Each is given once.
    pub uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The decisions about sources by their names; all others are allowed.
    pub decisions: BTreeMap<String, DecisionResponse>,
    /// The files that came, by the number of the output.
    pub outputs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The paths of the files whose content was asked for.
    pub asked: Mutex<Vec<String>>,
    /// The blobs of content stores, by the store and by the digest.
    pub blobs: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    /// The sizes that the client announces for blobs, by the digest, where these are not the sizes of the blobs.
    pub announced: Mutex<BTreeMap<String, i64>>,
    /// The exporters that the session names once there are results, and the answer of these exporters.
    pub exporters: Mutex<(Vec<Exporter>, BTreeMap<String, String>)>,
}

impl Shelf {
    /// A blob of the content store `store` as JSON.
    pub fn document(&self, store: &str, digest: &str) -> serde_json::Value {
        let blobs = self.blobs.lock().unwrap();
        serde_json::from_slice(&blobs[&(store.to_owned(), digest.to_owned())]).unwrap()
    }
}

/// The services of the session.
#[derive(Clone)]
struct Services(Arc<Shelf>);

#[tonic::async_trait]
impl FileSync for Services {
    type DiffCopyStream = Messages<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let text =
            |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let name = text("dir-name").unwrap_or_default();
        let follow: Vec<String> = request
            .metadata()
            .get_all("followpaths")
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect();
        let tree = self.0.directories.get(&name).cloned();
        let tree = tree.ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        // Paths, and not patterns: everything below a path comes, and so do the directories above.
        let within =
            |path: &str, top: &str| path == top || path.strip_prefix(top).is_some_and(|p| p.starts_with('/'));
        let comes = |stat: &Stat, path: &String| {
            within(&stat.path, path) || within(path, &stat.path) && stat.mode & 1 << 31 != 0
        };
        let wanted = |stat: &Stat| follow.is_empty() || follow.iter().any(|path| comes(stat, path));
        let tree: Tree = tree.into_iter().filter(|(stat, _)| wanted(stat)).collect();
        let (sender, receiver) = channel(8);
        let shelf = self.0.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let packet = |kind: PacketType, id: u32, data: Vec<u8>, stat| {
                Ok(Packet { r#type: kind.into(), id, data: data.into(), stat })
            };
            for (stat, _) in &tree {
                sender.send(packet(PacketType::PacketStat, 0, Vec::new(), Some(stat.clone()))).await.ok()?;
            }
            sender.send(packet(PacketType::PacketStat, 0, Vec::new(), None)).await.ok()?;
            while let Ok(Some(asked)) = incoming.message().await {
                if asked.r#type() == PacketType::PacketFin {
                    sender.send(packet(PacketType::PacketFin, 0, Vec::new(), None)).await.ok()?;
                    break;
                }
                let (stat, content) = &tree[usize::try_from(asked.id).unwrap()];
                shelf.asked.lock().unwrap().push(stat.path.clone());
                for piece in content.chunks(1 << 20) {
                    let piece = piece.to_vec();
                    sender.send(packet(PacketType::PacketData, asked.id, piece, None)).await.ok()?;
                }
                // The end of the file.
                sender.send(packet(PacketType::PacketData, asked.id, Vec::new(), None)).await.ok()?;
            }
            Some(())
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl FileSend for Services {
    type DiffCopyStream = Messages<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let number = request.metadata().get("buildkit-attachable-exporter-id");
        let number = number.and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let mut incoming = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = incoming.message().await? {
            bytes.extend(message.data);
        }
        self.0.outputs.lock().unwrap().insert(number, bytes);
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

#[tonic::async_trait]
impl Secrets for Services {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let data = self.0.secrets.get(&request.get_ref().id).cloned();
        let data = data.ok_or_else(|| Status::not_found("no such secret"))?;
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl Upload for Services {
    type PullStream = Messages<upload::BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<upload::BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request.metadata().get("urlpath").and_then(|path| path.to_str().ok()).unwrap_or("");
        let data = self.0.uploads.lock().unwrap().remove(path);
        let data = data.ok_or_else(|| Status::not_found(format!("no upload {path}")))?;
        let pieces: Vec<_> =
            data.chunks(1 << 14).map(|data| Ok(upload::BytesMessage { data: data.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }
}

#[tonic::async_trait]
impl PolicyVerifier for Services {
    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        let source = request.into_inner().source.and_then(|facts| facts.source).unwrap_or_default();
        let decision = self.0.decisions.get(&source.identifier).cloned().unwrap_or_default();
        Ok(Response::new(CheckPolicyResponse { result: Some(Verdict::Decision(decision)) }))
    }
}

/// The content store that a request names.
fn store_of<T>(request: &Request<T>) -> String {
    let name = request.metadata().get("buildkit-attachable-store-id");
    name.and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned()
}

#[tonic::async_trait]
impl Content for Services {
    type ListStream = Messages<content::ListContentResponse>;
    type ReadStream = Messages<content::ReadContentResponse>;
    type WriteStream = Messages<content::WriteContentResponse>;

    async fn info(
        &self,
        request: Request<content::InfoRequest>,
    ) -> Result<Response<content::InfoResponse>, Status> {
        let (store, digest) = (store_of(&request), request.into_inner().digest);
        let blobs = self.0.blobs.lock().unwrap();
        let blob = blobs.get(&(store, digest.clone())).ok_or_else(|| Status::not_found(digest.clone()))?;
        let announced = self.0.announced.lock().unwrap().get(&digest).copied();
        let size = announced.unwrap_or_else(|| i64::try_from(blob.len()).unwrap());
        let info = Some(content::Info { digest, size, ..content::Info::default() });
        Ok(Response::new(content::InfoResponse { info }))
    }

    async fn list(
        &self,
        _request: Request<content::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn read(
        &self,
        request: Request<content::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (store, digest) = (store_of(&request), request.into_inner().digest);
        let data = self.0.blobs.lock().unwrap().get(&(store, digest.clone())).cloned();
        let data = data.ok_or_else(|| Status::not_found(digest))?;
        let piece = content::ReadContentResponse { offset: 0, data };
        Ok(Response::new(Box::pin(once(async move { Ok(piece) }))))
    }

    async fn write(
        &self,
        request: Request<Streaming<content::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let (store, shelf, mut incoming) = (store_of(&request), self.0.clone(), request.into_inner());
        let (sender, receiver) = channel(1);
        tokio::spawn(async move {
            let mut data = Vec::new();
            while let Ok(Some(message)) = incoming.message().await {
                data.extend(&message.data);
                if message.action() == content::WriteAction::Commit {
                    assert_eq!(usize::try_from(message.total).unwrap(), data.len());
                    let key = (store.clone(), message.expected.clone());
                    shelf.blobs.lock().unwrap().insert(key, std::mem::take(&mut data));
                }
                let offset = i64::try_from(data.len()).unwrap();
                let action = message.action;
                let answer = content::WriteContentResponse { action, offset, ..Default::default() };
                sender.send(Ok(answer)).await.ok()?;
            }
            Some(())
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl Exporters for Services {
    async fn find_exporters(
        &self,
        request: Request<exporter::FindExportersRequest>,
    ) -> Result<Response<exporter::FindExportersResponse>, Status> {
        assert!(!request.get_ref().refs.is_empty());
        let named = self.0.exporters.lock().unwrap().0.clone();
        let exporters =
            named.into_iter().map(|one| exporter::ExporterRequest { r#type: one.r#type, attrs: one.attrs });
        Ok(Response::new(exporter::FindExportersResponse { exporters: exporters.collect() }))
    }

    async fn finalize_export(
        &self,
        request: Request<exporter::FinalizeExportRequest>,
    ) -> Result<Response<exporter::FinalizeExportResponse>, Status> {
        self.0.exporters.lock().unwrap().1 = request.into_inner().exporter_response;
        Ok(Response::new(exporter::FinalizeExportResponse {}))
    }
}

/// A connection to the server at `socket`.
pub async fn connect(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// The services of the daemon.
pub fn control(channel: &Channel) -> ControlClient<Channel> {
    ControlClient::new(channel.clone())
}

/// The bridge.
pub fn bridge(channel: &Channel) -> LlbBridgeClient<Channel> {
    LlbBridgeClient::new(channel.clone())
}

/// A call for the bridge that belongs to the build `id`.
pub fn of_build<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", MetadataValue::try_from(id).unwrap());
    request
}

/// The two halves of a session's byte stream.
pub struct Open([JoinHandle<()>; 2]);

impl Open {
    /// A session that is over.
    pub fn closed() -> Open {
        Open([tokio::spawn(async {}), tokio::spawn(async {})])
    }

    /// Breaks the connection.
    pub fn abort(self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// A shelf with a Dockerfile in the directory `dockerfile`, and `context`.
pub fn shelf(dockerfile: &str, context: Tree) -> Shelf {
    let dockerfile = vec![entry("Dockerfile", dockerfile)];
    let directories = [("dockerfile".to_owned(), dockerfile), ("context".to_owned(), context)].into();
    Shelf { directories, ..Shelf::default() }
}

/// The call that builds the Dockerfile of the session `session-ID` with outputs of these types.
pub fn solve(id: &str, exporters: &[&str]) -> SolveRequest {
    let exporter = |kind: &&str| Exporter { r#type: (*kind).to_owned(), ..Exporter::default() };
    SolveRequest {
        r#ref: id.to_owned(),
        session: format!("session-{id}"),
        frontend: "dockerfile.v0".to_owned(),
        exporters: exporters.iter().map(exporter).collect(),
        ..SolveRequest::default()
    }
}

/// Opens the session `id`. It stays open until it is aborted.
pub async fn session(channel: &Channel, id: &str, shelf: &Arc<Shelf>) -> Open {
    let (near, far) = duplex(1 << 16);
    let services = Services(shelf.clone());
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .add_service(FileSyncServer::new(services.clone()))
        .add_service(FileSendServer::new(services.clone()))
        .add_service(ContentServer::new(services.clone()))
        .add_service(ExporterServer::new(services.clone()))
        .add_service(SecretsServer::new(services.clone()))
        .add_service(PolicyVerifierServer::new(services.clone()))
        .add_service(UploadServer::new(services))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(once(async move { Ok::<_, std::io::Error>(near) })));
    let (reader, mut writer) = split(far);
    let (sender, receiver) = unbounded_channel();
    let sending = tokio::spawn(async move {
        let pieces = unfold(reader, |mut reader| async move {
            let mut data = vec![0; 1 << 14];
            let count = reader.read(&mut data).await.unwrap_or(0);
            data.truncate(count);
            (count > 0).then_some((SessionMessage { data }, reader))
        });
        tokio::pin!(pieces);
        while let Some(piece) = futures_util::StreamExt::next(&mut pieces).await {
            if sender.send(piece).is_err() {
                break;
            }
        }
    });
    let mut request = Request::new(UnboundedReceiverStream::new(receiver));
    let metadata = request.metadata_mut();
    metadata.insert("x-docker-expose-session-uuid", MetadataValue::try_from(id).unwrap());
    metadata.insert("x-docker-expose-session-sharedkey", MetadataValue::from_static("key"));
    for method in [
        "/moby.filesync.v1.FileSync/DiffCopy",
        "/moby.filesync.v1.FileSend/DiffCopy",
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
        "/containerd.services.content.v1.Content/Read",
        "/moby.upload.v1.Upload/Pull",
        "/moby.exporter.v1.Exporter/FindExporters",
    ] {
        metadata.append("x-docker-expose-session-grpc-method", MetadataValue::from_static(method));
    }
    let mut incoming = control(channel).session(request).await.unwrap().into_inner();
    let receiving = tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if writer.write_all(&message.data).await.is_err() {
                break;
            }
        }
    });
    Open([sending, receiving])
}
