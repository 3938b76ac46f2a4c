//! Trying again: how often, and after how long.

use std::io;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

/// How often a request is made while connections break, or answers say that something broke. With the pauses between,
/// five attempts take six seconds: a server that is started again, or a balancer that moves on, is back by then, and a person
/// does not wait long for one that is not.
pub const ATTEMPTS: u32 = 5;
/// How often a request is made while the server says that it has too many of them: it is there, and asks for patience.
const PATIENCE: u32 = 12;
/// How often a request is made where nothing is: a host that does not exist does not come into being within seconds.
pub const ABSENT: u32 = 2;

/// How often a request is made that is answered by `status`. One that answers a question is not made again.
#[must_use]
pub fn attempts_after(status: StatusCode) -> u32 {
    match status {
        StatusCode::TOO_MANY_REQUESTS => PATIENCE,
        StatusCode::REQUEST_TIMEOUT => ATTEMPTS,
        status if status.is_server_error() => ATTEMPTS,
        _ => 1,
    }
}

/// Whether nothing is at an address, as far as one can know: the connection is refused, the name leads nowhere, or the
/// host there is not the one that was meant.
#[must_use]
pub fn is_absence(error: &reqwest::Error) -> bool {
    if !error.is_connect() {
        return false;
    }
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.into_iter().any(|cause| match cause.downcast_ref::<io::Error>() {
        Some(io) => {
            use io::ErrorKind::{ConnectionRefused, HostUnreachable, InvalidData, NetworkUnreachable};
            // Certificates that nobody vouches for are invalid data.
            matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | InvalidData)
        }
        // What looked the name up has tried it more than once.
        None => cause.to_string().starts_with("dns error"),
    })
}

/// Seconds until the server wants to be asked again: a number, or a time of day.
#[must_use]
pub fn retry_after(response: &Response) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wait_of(text, jiff::Timestamp::now())
}

fn wait_of(text: &str, now: jiff::Timestamp) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(seconds);
    }
    let then = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(u64::try_from(then.as_second() - now.as_second()).unwrap_or(0))
}

/// Waits before another attempt: as long as the server says, up to half a minute, or twice as long as before.
pub async fn pause(attempt: u32, after_seconds: Option<u64>) {
    let doubled = Duration::from_millis(200 << attempt.min(6));
    let wait = after_seconds.map_or(doubled, |s| Duration::from_secs(s.min(30)));
    tracing::info!(attempt, ?wait, by_server = after_seconds.is_some(), "a request is made again");
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_numbers_or_times() {
        let now = "2015-10-21T07:27:30Z".parse().unwrap();
        assert_eq!(wait_of("120", now), Some(120));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(30));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(0));
        assert_eq!(wait_of("soon", now), None);
    }
}
