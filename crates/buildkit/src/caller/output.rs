//! Outputs that go to the client, and uploads that come from there.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use lapstrake_build::{Writing, WritingFiles};
use lapstrake_diag::{Context as _, Outcome, Report};
use lapstrake_proto::moby::filesync::v1::BytesMessage;
use lapstrake_proto::moby::filesync::v1::file_send_client::FileSendClient;
use lapstrake_proto::moby::upload::v1::BytesMessage as UploadMessage;
use lapstrake_proto::moby::upload::v1::upload_client::UploadClient;
use lapstrake_store::Store;
use lapstrake_tree::inroot::open_host_dir;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use super::wait;
use crate::files::send;
use crate::session::Session;

/// The bytes of one message. Go's clients take 4 MiB.
const PIECE: usize = 1 << 20;
/// Messages that wait for the connection, at most.
const QUEUE: usize = 4;

/// The words that tell the client for which of its outputs something is. The outputs are counted from 0.
fn metadata(dest: Option<&Path>) -> Outcome<MetadataMap> {
    let mut metadata = MetadataMap::new();
    let number = dest.context("an output of a client has a number")?.to_string_lossy().into_owned();
    let number = MetadataValue::try_from(number).map_err(|error| Report::new(error.to_string()))?;
    metadata.insert("buildkit-attachable-exporter-id", number);
    Ok(metadata)
}

/// Sends one file.
pub(super) fn file(session: &Arc<Session>, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()> {
    let (sender, receiver) = channel(QUEUE);
    let mut request = Request::new(ReceiverStream::new(receiver));
    *request.metadata_mut() = metadata(dest)?;
    let mut client = FileSendClient::new(session.channel());
    let sending = tokio::spawn(async move {
        let mut incoming = client.diff_copy(request).await?.into_inner();
        // The client answers nothing, and ends once it has written the file.
        while incoming.message().await?.is_some() {}
        Ok::<_, Status>(())
    });
    let mut out = Messages { sender, piece: Vec::with_capacity(PIECE) };
    let written = tokio::task::block_in_place(|| write(&mut out).and_then(|()| Ok(out.flush()?)));
    if written.is_err() {
        // Half a file must not look like a whole one.
        sending.abort();
    }
    drop(out);
    let sent = wait(sending).map_err(|error| Report::new(error.to_string()));
    match (sent, written) {
        // The client's reason says more than the broken connection.
        (Ok(Err(status)), _) => Err(Report::new(status.message().to_owned())),
        (_, Err(report)) => Err(report),
        (sent, Ok(())) => sent.map(|_| ()),
    }
}

/// Sends the files that `write` puts into a directory.
pub(super) fn directory(
    session: &Arc<Session>,
    store: &Store,
    dest: &Path,
    write: &mut WritingFiles<'_>,
) -> Outcome<()> {
    let dir = store.temp_dir()?;
    let tree = dir.path().join("files");
    std::fs::create_dir(&tree)?;
    write(&tree)?;
    let mut metadata = metadata(Some(dest))?;
    // All platforms come in one transfer, which a client that deletes other files needs to know.
    metadata.insert("buildkit-exporter-multi-platform", MetadataValue::from_static("1"));
    let root = open_host_dir(&tree).map_err(|error| Report::new(error.to_string()))?;
    wait(send(session, metadata, root)).map_err(|error| Report::new(error.to_string()))
}

/// A writer of messages.
struct Messages {
    sender: Sender<BytesMessage>,
    piece: Vec<u8>,
}

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(BytesMessage { data }).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The bytes of an upload.
pub(super) fn upload(session: &Arc<Session>, host: &str, path: &str) -> impl Read + Send + use<> {
    let (sender, receiver) = channel(QUEUE);
    let mut client = UploadClient::new(session.channel()).max_decoding_message_size(16 << 20);
    let mut request = Request::new(tokio_stream::pending::<UploadMessage>());
    for (key, value) in [("urlhost", host), ("urlpath", path)] {
        if let Ok(value) = MetadataValue::try_from(value) {
            request.metadata_mut().insert(key, value);
        }
    }
    tokio::spawn(async move {
        let pulled = async {
            let mut incoming = client.pull(request).await?.into_inner();
            while let Some(message) = incoming.message().await? {
                if sender.send(Ok(message.data)).await.is_err() {
                    break;
                }
            }
            Ok::<_, Status>(())
        };
        if let Err(status) = pulled.await {
            // A reader that has gone needs no error.
            sender.send(Err(status)).await.unwrap_or_default();
        }
    });
    Upload { receiver, piece: VecDeque::new() }
}

struct Upload {
    receiver: Receiver<Result<Vec<u8>, Status>>,
    piece: VecDeque<u8>,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match wait(self.receiver.recv()) {
                Some(Ok(data)) => self.piece = data.into(),
                Some(Err(status)) => return Err(io::Error::other(status.message().to_owned())),
                None => return Ok(0),
            }
        }
        self.piece.read(buffer)
    }
}
