//! Trying again: how often, and after how long.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::RETRY_AFTER;

/// How often a request is made while nobody answers, or answers that something broke.
pub(crate) const ATTEMPTS: u32 = 5;

/// Seconds until the registry wants to be asked again: a number, or a time of day.
pub(crate) fn retry_after(response: &Response) -> Option<u64> {
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

/// Waits before another attempt: as long as the registry says, up to half a minute, or twice as long as before.
pub(crate) async fn pause(attempt: u32, after_seconds: Option<u64>) {
    let doubled = Duration::from_millis(200 << attempt.min(6));
    tokio::time::sleep(after_seconds.map_or(doubled, |s| Duration::from_secs(s.min(30)))).await;
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
