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

/// The header with the times of the watch that a client asks for, in milliseconds.
const OWN_TIME: &str = "x-buildkit-session-health-custom-timeout";
/// The shortest time that a client may ask for.
const SHORTEST: Duration = Duration::from_secs(1);

/// How a server finds out whether a client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    /// The pause between two questions.
    interval: Duration,
    /// The longest wait for the answer.
    patience: Duration,
    /// The number of unanswered questions in a row that end a session.
    failures: u32,
}

impl Watch {
    const USUAL: Watch =
        Watch { interval: Duration::from_secs(5), patience: Duration::from_secs(15), failures: 2 };

    /// The watch that a client asks for with the header's value `text`.
    fn of(text: &str) -> Watch {
        match text.parse::<u64>() {
            Ok(time) if time > 0 => {
                let time = Duration::from_millis(time).max(SHORTEST);
                Watch { interval: time, patience: time, failures: 1 }
            }
            _ => Watch::USUAL,
        }
    }
}

/// The client at the other end of a session.
pub(crate) struct Session {
    id: String,
    shared_key: String,
    /// The methods that the client offers, as `/package.service/method` in lower case.
    methods: BTreeSet<String>,
    channel: Channel,
    watch: Watch,
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
        let watch = Watch::of(text(OWN_TIME));
        let gone = CancellationToken::new();
        let (channel, outgoing) = pipe::connect(incoming, gone.clone()).await?;
        Ok((Session { id, shared_key, methods, channel, watch, gone }, outgoing))
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
        let Watch { interval: pause, patience, failures: most } = self.watch;
        let (mut ticks, mut failures) = (interval(pause), 0);
        ticks.tick().await;
        while failures < most {
            tokio::select! {
                () = self.gone.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let answer = timeout(patience, client.check(HealthCheckRequest::default())).await;
            failures = if matches!(answer, Ok(Ok(_))) { 0 } else { failures + 1 };
        }
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_ask_for_another_watch() {
        let two = Duration::from_secs(2);
        assert_eq!(Watch::of("2000"), Watch { interval: two, patience: two, failures: 1 });
        assert_eq!(Watch::of("1").patience, SHORTEST);
        for text in ["", "0", "-1", "x", "99999999999999999999999"] {
            assert_eq!(Watch::of(text), Watch::USUAL, "{text}");
        }
    }
}
