//! One request with its retries and its leave.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::ask::Ask;
use crate::credentials::Credentials;
use crate::error::RegistryError;
use crate::token::Grants;

/// How often a request is made.
pub(crate) const ATTEMPTS: u32 = 5;

/// The way to registries.
pub(crate) struct Channel {
    pub(crate) http: reqwest::Client,
    credentials: Credentials,
    grants: Grants,
}

impl Channel {
    pub(crate) fn new(http: reqwest::Client, credentials: Credentials) -> Channel {
        Channel { http, credentials, grants: Grants::default() }
    }

    /// The leave to show at `url`: none at all to anybody but the registry itself.
    pub(crate) fn grant(&self, ask: &Ask<'_>, url: &str) -> Option<String> {
        self.grants.of(ask).filter(|_| ask.is_own(url))
    }

    /// Sends what `request` makes for `url`, again while the registry is busy or cannot be reached, and once more when
    /// it asks who we are. Any answer that is neither is given to the caller. Leave goes to the registry's own address
    /// only.
    pub(crate) async fn send(
        &self,
        ask: &Ask<'_>,
        url: &str,
        request: impl Fn(&str) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let own = ask.is_own(url);
        let (mut attempt, mut asked) = (0, false);
        loop {
            attempt += 1;
            let mut request = request(url);
            if let Some(grant) = self.grant(ask, url) {
                request = request.header(AUTHORIZATION, grant);
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(source) if attempt < ATTEMPTS && !source.is_builder() => {
                    pause(attempt, None).await;
                    continue;
                }
                Err(source) => return Err(ask.unreachable(source)),
            };
            let status = response.status();
            let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if busy && attempt < ATTEMPTS {
                pause(attempt, retry_after(&response)).await;
            } else if status == StatusCode::UNAUTHORIZED && own && !asked {
                asked = true;
                self.grants.get(&self.http, &self.credentials, ask, &response).await?;
            } else {
                return Ok(response);
            }
        }
    }
}

fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// Waits before another attempt: as long as the registry says, up to half a minute, or twice as long as before.
pub(crate) async fn pause(attempt: u32, after_seconds: Option<u64>) {
    let wait =
        after_seconds.map_or(Duration::from_millis(200 << attempt), |s| Duration::from_secs(s.min(30)));
    tokio::time::sleep(wait).await;
}
