//! Text that is safe and fits.

use std::fmt::Write as _;
use std::time::Duration;

use crate::console::{is_control, sequence};

/// `text` without what a terminal would obey: control characters other than tabs, and sequences of them.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '\u{1b}' => length = sequence(rest).unwrap_or(length),
            '\t' => out.push_str("    "),
            '\r' => out.clear(),
            c if is_control(c) => {}
            c => out.push(c),
        }
        rest = &rest[length..];
    }
    out
}

/// Seconds with one digit, as `docker build` shows them.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// Bytes as Docker prints them: decimal units, four digits at most.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let mut text = String::new();
    let digits = if unit == "B" || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    // Writing to a string does not fail.
    write!(text, "{value:.digits$}{unit}").unwrap_or_default();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(printable("a\u{1b}[31mred\u{1b}[0m\tb\u{7}"), "ared    b");
        assert_eq!(printable("10%\r20%"), "20%");
        assert_eq!(printable("\u{1b}"), "");
        assert_eq!(printable("a\u{1b}]0;title\u{7}b\u{202e}c"), "abc");
    }

    #[test]
    fn byte_counts() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(12_345), bytes(123_456_789)],
            ["0B", "999B", "1.00kB", "12.3kB", "123MB"]
        );
    }
}
