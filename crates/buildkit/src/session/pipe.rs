//! The byte stream that a session's connection runs in.

use std::pin::Pin;
use std::sync::Mutex;

use futures_util::Stream;
use futures_util::stream::unfold;
use hyper_util::rt::TokioIo;
use lapstrake_proto::moby::buildkit::v1::BytesMessage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use tower::service_fn;

/// The bytes between the two ends that are on their way at most.
const BUFFER: usize = 1 << 20;
/// The largest message of the stream, in bytes: what a client's own buffer holds.
const PIECE: usize = 32 << 10;
/// The bytes that a client may send on one stream before the server has read them.
const WINDOW: u32 = 4 << 20;

/// The bytes for the client.
pub(crate) type Outgoing = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

/// Connects through the byte stream. The connection ends with `gone`, and `gone` with the byte stream.
///
/// # Errors
/// The client does not answer in HTTP/2.
pub(super) async fn connect(
    incoming: Streaming<BytesMessage>,
    gone: CancellationToken,
) -> Result<(Channel, Outgoing), Status> {
    let (near, far) = duplex(BUFFER);
    let (reader, writer) = split(far);
    tokio::spawn(receive(incoming, writer, gone.clone()));
    let outgoing = send(reader, gone);
    let once = Mutex::new(Some(near));
    let connector = service_fn(move |_: Uri| {
        let near = once.lock().ok().and_then(|mut once| once.take());
        async move { near.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the session is over")) }
    });
    let endpoint = Endpoint::from_static("http://session")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    // The handshake needs the bytes that go out only once the caller has the stream: so it is not waited for.
    Ok((endpoint.connect_with_connector_lazy(connector), outgoing))
}

/// Brings what the client sends to the connection.
async fn receive(
    mut incoming: Streaming<BytesMessage>,
    mut writer: WriteHalf<DuplexStream>,
    gone: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            () = gone.cancelled() => break,
            message = incoming.message() => message,
        };
        let Ok(Some(message)) = message else { break };
        if writer.write_all(&message.data).await.is_err() {
            break;
        }
    }
    gone.cancel();
}

/// Brings what the connection sends to the client.
fn send(reader: ReadHalf<DuplexStream>, gone: CancellationToken) -> Outgoing {
    let guard = gone.clone().drop_guard();
    Box::pin(unfold((reader, gone, guard), |(mut reader, gone, guard)| async move {
        let mut data = vec![0; PIECE];
        let count = tokio::select! {
            () = gone.cancelled() => 0,
            count = reader.read(&mut data) => count.unwrap_or(0),
        };
        data.truncate(count);
        (count > 0).then(|| (Ok(BytesMessage { data }), (reader, gone, guard)))
    }))
}
