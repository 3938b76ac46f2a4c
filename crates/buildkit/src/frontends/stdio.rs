//! The bridge over the standard input and output of a frontend.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{StreamExt as _, once, pending};
use lapstrake_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::bridge::Bridge;
use crate::driven::Driven;
use crate::server::{LARGEST, WINDOW};
use crate::shared::Shared;

/// Serves the bridge to the frontend `driven` until the frontend is over. `input` is what it reads, `output` what it writes.
/// The token that comes back is done when the connection has ended.
///
/// # Errors
/// The system has no more of what this needs.
pub(super) fn serve(
    shared: &Arc<Shared>,
    driven: &Driven,
    (input, output): (OwnedFd, OwnedFd),
) -> io::Result<CancellationToken> {
    let ended = CancellationToken::new();
    let connection = Stdio {
        read: Receiver::from_file_unchecked(without_waits(output)?)?,
        write: Sender::from_file_unchecked(without_waits(input)?)?,
        _ended: ended.clone().drop_guard(),
    };
    let (_, health) = tonic_health::server::health_reporter();
    let bridge = LlbBridgeServer::new(Bridge::of_frontend(shared.clone(), driven.clone()));
    let router = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .add_service(bridge.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST))
        .add_service(health);
    // The server listens for more connections until it is told to stop, and there are none.
    let one = once(async move { Ok::<_, io::Error>(connection) }).chain(pending());
    let over = driven.driver.over.clone();
    tokio::spawn(async move {
        // A connection that breaks ends the frontend, which tells its caller.
        router.serve_with_incoming_shutdown(one, over.cancelled_owned()).await.unwrap_or_default();
    });
    Ok(ended)
}

/// `fd`, whose calls do not wait from now on.
fn without_waits(fd: OwnedFd) -> io::Result<std::fs::File> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd.into())
}

/// Our ends of the streams of a process, as one connection.
struct Stdio {
    read: Receiver,
    write: Sender,
    _ended: DropGuard,
}

impl Connected for Stdio {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
