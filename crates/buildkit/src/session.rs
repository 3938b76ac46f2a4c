//! Sessions: the services that a client offers to the server.
//!
//! A session is a second HTTP/2 connection inside of the byte stream `Control.Session`, with the roles reversed: the server
//! calls, the client answers.

mod pipe;
mod registry;

use std::collections::BTreeSet;
use std::time::Duration;

use lapstrake_proto::moby::buildkit::v1::BytesMessage;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

pub(crate) use pipe::Outgoing;
pub(crate) use registry::Sessions;

/// The pause between two questions whether a client is still there.
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The number of unanswered questions in a row that end a session.
const FAILURES: u32 = 2;

/// The client at the other end of a session.
pub(crate) struct Session {
    id: String,
    shared_key: String,
    /// The methods that the client offers, as `/package.service/method` in lower case.
    methods: BTreeSet<String>,
    channel: Channel,
    gone: CancellationToken,
}

impl Session {
    /// Opens the connection inside of the byte stream `incoming`. The bytes for the client come out of the second value.
    ///
    /// # Errors
    /// The headers name no session, or the client speaks no HTTP/2.
    pub(crate) async fn open(
        headers: &MetadataMap,
        incoming: Streaming<BytesMessage>,
    ) -> Result<(Session, Outgoing), Status> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let id = text("x-docker-expose-session-uuid").to_owned();
        if id.is_empty() {
            return Err(Status::invalid_argument("the session has no id"));
        }
        let methods = headers.get_all("x-docker-expose-session-grpc-method").iter();
        let methods = methods.filter_map(|value| value.to_str().ok()).map(str::to_lowercase).collect();
        let shared_key = text("x-docker-expose-session-sharedkey").to_owned();
        let gone = CancellationToken::new();
        let (channel, outgoing) = pipe::connect(incoming, gone.clone()).await?;
        Ok((Session { id, shared_key, methods, channel, gone }, outgoing))
    }

    /// The id that the client chose.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The name for what may be shared between sessions of one client: the same directory of the next session has the same
    /// key. Empty where the client gives none.
    pub(crate) fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// The connection to the client.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Whether the client offers `method`, a path such as `/moby.filesync.v1.FileSync/DiffCopy`.
    pub(crate) fn offers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    /// Is done once the client has gone.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.gone.cancel();
    }

    /// Asks the client every few seconds whether it is there, and closes the session of one that does not answer.
    pub(crate) async fn watch(&self) {
        let mut client = HealthClient::new(self.channel());
        let (mut ticks, mut failures) = (interval(INTERVAL), 0);
        ticks.tick().await;
        while failures < FAILURES {
            tokio::select! {
                () = self.gone.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let answer = timeout(PATIENCE, client.check(HealthCheckRequest::default())).await;
            failures = if matches!(answer, Ok(Ok(_))) { 0 } else { failures + 1 };
        }
        self.close();
    }
}
