//! The server: addresses, connections, and the services on them.

use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use lapstrake_diag::Usage;
use lapstrake_ops::Worker;
use lapstrake_proto::containerd::services::content::v1::content_server::ContentServer;
use lapstrake_proto::moby::buildkit::v1::control_server::ControlServer;
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use lapstrake_proto::opentelemetry::proto::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server as Grpc;
use tonic::transport::server::Router;
use tonic_reflection::server::Builder as ReflectionBuilder;

use crate::bridge::Bridge;
use crate::content::Content;
use crate::control::Control;
use crate::history::{Collector, History};
use crate::host::Host;
use crate::shared::Shared;
use crate::upkeep::Upkeep;

/// The largest message, in bytes, as BuildKit's clients send it.
pub(crate) const LARGEST: usize = 16 << 20;
/// The bytes that a client may send on one stream before the server has read them.
pub(crate) const WINDOW: u32 = 4 << 20;

/// The services that reflection tells of. The services of sessions are the clients' own.
const SERVICES: [&str; 5] = [
    "moby.buildkit.v1.Control",
    "moby.buildkit.v1.frontend.LLBBridge",
    "containerd.services.content.v1.Content",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "grpc.health.v1.Health",
];

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// A port of this machine.
    Tcp(SocketAddr),
    /// The socket that a service manager has opened: `fd://`.
    Activated,
}

impl FromStr for Address {
    type Err = Usage;

    /// Reads `unix://PATH`, `tcp://IP:PORT` or `fd://`.
    fn from_str(text: &str) -> Result<Address, Usage> {
        let bad = |why: &str| Usage(format!("address `{text}`: {why}"));
        match text.split_once("://") {
            Some(("unix", path)) if Path::new(path).is_absolute() => Ok(Address::Unix(PathBuf::from(path))),
            Some(("unix", _)) => Err(bad("the path of the socket must be absolute")),
            Some(("tcp", place)) => {
                let place = place.replacen("localhost:", "127.0.0.1:", 1);
                place.parse().map(Address::Tcp).map_err(|_| bad("not an IP address and a port"))
            }
            Some(("fd", "" | "3")) => Ok(Address::Activated),
            Some(("fd", _)) => Err(bad("only the first socket of a service manager is used: `fd://`")),
            _ => Err(bad("only `unix://PATH`, `tcp://IP:PORT` and `fd://` can be listened at")),
        }
    }
}

impl Address {
    /// The socket file.
    fn socket(&self) -> Option<&Path> {
        match self {
            Address::Unix(path) => Some(path),
            Address::Tcp(_) | Address::Activated => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(place) => write!(f, "tcp://{place}"),
            Address::Activated => f.write_str("fd://"),
        }
    }
}

/// The keys of a server that speaks TLS, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate.
    pub cert: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// The certificate that signs those of clients. Where it is given, a client without a certificate is refused.
    pub client_ca: Option<Vec<u8>>,
}

/// The server could not listen, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// A port without TLS would let everybody on the network run anything here.
    #[error(
        "{0} is reached by other machines and has no TLS: give `--tlscert`, `--tlskey` and `--tlscacert`"
    )]
    Open(SocketAddr),
    /// A port without TLS would let every user of this machine run anything as this one.
    #[error(
        "{0} is open to every user of this machine: say `--allow-insecure-loopback`, or give TLS certificates"
    )]
    Loopback(SocketAddr),
    /// The certificates cannot be used, or a connection broke the server.
    #[error("the server broke off: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptions of the services cannot be read.
    #[error("the descriptions of the services are damaged: {0}")]
    Reflection(String),
}

impl lapstrake_diag::Reported for ServeError {
    fn code(&self) -> lapstrake_diag::Code {
        lapstrake_diag::Code::new("serve", "listen")
    }
}

/// A server that does not listen yet.
pub struct Server {
    shared: Arc<Shared>,
    tls: Option<Tls>,
    loopback: bool,
    activated: usize,
    /// A further socket, for the spans of programs that know no other service.
    traces: Option<PathBuf>,
}

impl Server {
    /// A server whose builds `worker` does.
    pub fn new(host: Host, worker: Arc<Worker>) -> Server {
        // Each build says for itself that it uses the store.
        worker.store().leave();
        let (jobs, sessions) = (Arc::default(), Arc::default());
        let history = Arc::new(History::new(worker.store().clone()));
        let upkeep = Arc::new(Upkeep::new(host.keep.clone()));
        // A server that was killed may have left garbage.
        upkeep.start_if_needed(worker.store());
        Server {
            shared: Arc::new(Shared { host: Arc::new(host), worker, jobs, sessions, upkeep, history }),
            tls: None,
            loopback: false,
            activated: 0,
            traces: None,
        }
    }

    /// Ports speak TLS with these keys.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Server {
        Server { tls: Some(tls), ..self }
    }

    /// Ports of the loopback interface may be without TLS.
    #[must_use]
    pub fn with_insecure_loopback(self, allowed: bool) -> Server {
        Server { loopback: allowed, ..self }
    }

    /// Programs that send spans find the collector of traces at the socket `path`, too.
    #[must_use]
    pub fn with_trace_socket(self, path: PathBuf) -> Server {
        Server { traces: Some(path), ..self }
    }

    /// The service manager has opened `count` sockets, from descriptor 3 on.
    #[must_use]
    pub fn with_activated(self, count: usize) -> Server {
        Server { activated: count, ..self }
    }

    /// Listens at `addresses` until `stop` is done, then waits for the builds that run, but not longer than until `kill` is
    /// done. `ready` is called once all addresses are open. The sockets are for `group` too, if one is given, by its number.
    ///
    /// # Errors
    /// An address cannot be had.
    pub async fn run(
        self,
        addresses: &[Address],
        group: Option<u32>,
        ready: impl FnOnce(),
        (stop, kill): (impl Future<Output = ()>, impl Future<Output = ()>),
    ) -> Result<(), ServeError> {
        let token = tokio_util::sync::CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        let mut sockets = Vec::new();
        for address in addresses {
            let stopped = token.clone().cancelled_owned();
            match self.listen(address, group).await? {
                Listener::Unix(listener) => {
                    sockets.extend(address.socket().map(Path::to_owned));
                    let router = self.router(false)?;
                    let incoming = UnixListenerStream::new(listener);
                    running
                        .spawn(async move { router.serve_with_incoming_shutdown(incoming, stopped).await });
                }
                Listener::Tcp(listener) => {
                    let router = self.router(self.tls.is_some())?;
                    let incoming = TcpListenerStream::new(listener);
                    running
                        .spawn(async move { router.serve_with_incoming_shutdown(incoming, stopped).await });
                }
            }
        }
        if let Some(path) = &self.traces {
            let incoming = UnixListenerStream::new(listen_unix(path, group)?);
            sockets.push(path.clone());
            let router = Grpc::builder().add_service(self.traces());
            let stopped = token.clone().cancelled_owned();
            running.spawn(async move { router.serve_with_incoming_shutdown(incoming, stopped).await });
        }
        ready();
        let ended = tokio::select! {
            () = stop => None,
            ended = running.join_next() => ended,
        };
        token.cancel();
        for path in sockets {
            // The next server removes what is left of this one.
            fs::remove_file(path).unwrap_or_default();
        }
        let drained = async { while running.join_next().await.is_some() {} };
        tokio::select! {
            () = drained => {}
            () = kill => {}
        }
        self.shared.sessions.close();
        running.shutdown().await;
        match ended {
            Some(Ok(Err(error))) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Opens `address`.
    async fn listen(&self, address: &Address, group: Option<u32>) -> Result<Listener, ServeError> {
        let failed = |source| ServeError::Listen { address: address.to_string(), source };
        match address {
            Address::Unix(path) => listen_unix(path, group).map(Listener::Unix),
            Address::Tcp(place) => {
                self.check_open(*place)?;
                TcpListener::bind(place).await.map(Listener::Tcp).map_err(failed)
            }
            Address::Activated => {
                let socket = lapstrake_sys::fd::activated(self.activated).ok_or_else(|| {
                    let why = "the service manager has opened no socket (`LISTEN_FDS`)";
                    failed(io::Error::new(io::ErrorKind::NotFound, why))
                })?;
                let listener = adopt(socket).map_err(failed)?;
                if let Listener::Tcp(listener) = &listener {
                    self.check_open(listener.local_addr().map_err(failed)?)?;
                }
                Ok(listener)
            }
        }
    }

    fn check_open(&self, place: SocketAddr) -> Result<(), ServeError> {
        match (&self.tls, place.ip().is_loopback()) {
            (Some(_), _) => Ok(()),
            (None, true) if self.loopback => Ok(()),
            (None, true) => Err(ServeError::Loopback(place)),
            (None, false) => Err(ServeError::Open(place)),
        }
    }

    /// The service that takes spans.
    fn traces(&self) -> TraceServiceServer<Collector> {
        TraceServiceServer::new(self.shared.history.collector()).max_decoding_message_size(LARGEST)
    }

    fn router(&self, tls: bool) -> Result<Router, ServeError> {
        let mut server = Grpc::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .http2_max_header_list_size(16 << 20);
        if tls && let Some(tls) = &self.tls {
            use tonic::transport::{Certificate, Identity, ServerTlsConfig};
            let mut config = ServerTlsConfig::new().identity(Identity::from_pem(&tls.cert, &tls.key));
            if let Some(ca) = &tls.client_ca {
                config = config.client_ca_root(Certificate::from_pem(ca));
            }
            server = server.tls_config(config)?;
        }
        let control = ControlServer::new(Control::new(self.shared.clone()));
        let bridge = LlbBridgeServer::new(Bridge::new(self.shared.clone()));
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = ReflectionBuilder::configure()
            .register_encoded_file_descriptor_set(lapstrake_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let reflection = SERVICES.iter().fold(reflection, |builder, name| builder.with_service_name(*name));
        let reflection = reflection.build_v1().map_err(|error| ServeError::Reflection(error.to_string()))?;
        Ok(server
            .add_service(control.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST))
            .add_service(bridge.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST))
            .add_service(ContentServer::new(Content::new(self.shared.history.clone())))
            .add_service(self.traces())
            .add_service(health)
            .add_service(reflection))
    }
}

/// An open address.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A socket that somebody else has opened.
fn adopt(socket: OwnedFd) -> io::Result<Listener> {
    use rustix::net::AddressFamily;
    let family = rustix::net::getsockname(&socket)?.address_family();
    if family == AddressFamily::UNIX {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener).map(Listener::Unix);
    }
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

/// Opens a socket file, for its owner and for `group` alone. A file that a dead server left behind is replaced.
fn listen_unix(path: &Path, group: Option<u32>) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { address: format!("unix://{}", path.display()), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            )));
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(_) => {}
    }
    // Made in a directory that is closed to others, so that nobody can connect before the mode is right.
    let closed = path.with_file_name(format!(".{}.{}", name_of(path), std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&closed).map_err(failed)?;
    let opened = open_in(&closed, path, group);
    fs::remove_dir_all(&closed).map_err(failed)?;
    let listener = opened.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Opens a socket in the directory `closed`, and moves it to `path`.
fn open_in(closed: &Path, path: &Path, group: Option<u32>) -> io::Result<StdUnixListener> {
    let made = closed.join("socket");
    let listener = StdUnixListener::bind(&made)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(&made, None, Some(group))?;
    }
    fs::set_permissions(&made, fs::Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(read("unix:///run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
        assert_eq!(read("tcp://localhost:1234").unwrap(), Address::Tcp("127.0.0.1:1234".parse().unwrap()));
        assert_eq!(read("fd://").unwrap(), Address::Activated);
        for bad in ["", "fd://7", "unix://x", "tcp://host:1", "npipe://x", "/run/x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
