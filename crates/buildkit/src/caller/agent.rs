//! SSH agents of the client, as sockets on this machine.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::unfold;
use lapstrake_diag::{Outcome, Report};
use lapstrake_ops::bind_short;
use lapstrake_proto::moby::sshforward::v1::ssh_client::SshClient;
use lapstrake_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use lapstrake_store::{Store, TempDir};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::session::Session;

/// The bytes of one message.
const PIECE: usize = 32 << 10;

/// An agent with its socket, which goes when the build ends.
pub(super) struct Agent {
    dir: TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Agent {
    /// The agent `id`; nothing if the client has no such agent.
    pub(super) async fn open(session: &Arc<Session>, store: &Store, id: &str) -> Outcome<Option<Agent>> {
        if !session.offers("/moby.sshforward.v1.SSH/CheckAgent") {
            return Ok(None);
        }
        let mut client = SshClient::new(session.channel());
        match client.check_agent(CheckAgentRequest { id: id.to_owned() }).await {
            Ok(_) => {}
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => return Ok(None),
            // A client answers with an error of no kind where the id is not one of its own.
            Err(status) if status.message().contains("unset ssh forward key") => return Ok(None),
            Err(status) => return Err(Report::new(format!("ssh agent {id}: {}", status.message()))),
        }
        let dir = store.temp_dir()?;
        let listener = bind_short(&dir.path().join("agent"))?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (session, id) = (session.clone(), id.to_owned());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(session.clone(), id.clone(), stream));
            }
        });
        Ok(Some(Agent { dir, accepting }))
    }

    /// The socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }
}

/// Joins a connection and a stream of the client. Either end may close it; an error closes both.
async fn forward(session: Arc<Session>, id: String, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let outgoing = unfold(reader, |mut reader| async move {
        let mut data = vec![0; PIECE];
        let count = reader.read(&mut data).await.unwrap_or(0);
        data.truncate(count);
        (count > 0).then_some((BytesMessage { data }, reader))
    });
    let mut request = Request::new(outgoing);
    let Ok(id) = MetadataValue::try_from(id) else { return };
    request.metadata_mut().insert("buildkit.ssh.id", id);
    let mut client = SshClient::new(session.channel());
    let Ok(answer) = client.forward_agent(request).await else { return };
    let mut incoming = answer.into_inner();
    while let Ok(Some(message)) = incoming.message().await {
        if writer.write_all(&message.data).await.is_err() {
            return;
        }
    }
}
