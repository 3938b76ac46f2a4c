//! Times as image configs carry them: RFC 3339 in UTC.

use jiff::Timestamp;

/// `seconds` and `nanoseconds` since the Unix epoch as RFC 3339 in UTC, with as many fractional digits as needed (Go's
/// `time.RFC3339Nano`). Times outside of years 1–9999 are clamped.
pub fn rfc3339(seconds: i64, nanoseconds: u32) -> String {
    let limit = Timestamp::MAX.as_second();
    let seconds = seconds.clamp(Timestamp::MIN.as_second(), limit - 1);
    let nanoseconds = i32::try_from(nanoseconds.min(999_999_999)).unwrap_or(0);
    match Timestamp::new(seconds, nanoseconds) {
        Ok(time) => time.to_string(),
        Err(_) => Timestamp::UNIX_EPOCH.to_string(),
    }
}

/// The seconds since the Unix epoch that an RFC 3339 time says, if it is one.
pub fn seconds_of(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// Now, in seconds and nanoseconds since the Unix epoch.
pub fn now_seconds() -> (i64, u32) {
    let now = Timestamp::now();
    (now.as_second(), u32::try_from(now.subsec_nanosecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_as_go_prints_them() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_700_000_000, 120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(seconds_of("2023-11-14T22:13:20.12Z"), Some(1_700_000_000));
        assert_eq!(seconds_of("yesterday"), None);
        assert_eq!(rfc3339(i64::MAX, 7), rfc3339(i64::MAX - 1, 7));
    }
}
