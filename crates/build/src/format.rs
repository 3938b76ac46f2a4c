//! Times and texts as pages and lists of builds show them.

use std::time::Duration;

use lapstrake_engine::ResourceUsage;
use lapstrake_go::duration;

/// Milliseconds since the Unix epoch as RFC 3339.
pub fn time(millis: i64) -> String {
    let nanos = u32::try_from(millis.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    lapstrake_oci::rfc3339(millis.div_euclid(1_000), nanos)
}

/// A time span, short.
pub fn millis(time: Duration) -> String {
    duration::short(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Processor time, in user mode and in the kernel.
pub fn cpu(used: ResourceUsage) -> Duration {
    used.user + used.system
}

/// Text as HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            // XML has no place for other control characters.
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text() {
        assert_eq!(escaped("<a href=\"x\">&\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
