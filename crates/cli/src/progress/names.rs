//! Text that is safe and fits.

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
}
