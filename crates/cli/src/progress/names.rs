//! Text that is safe and fits.

use std::fmt::Write as _;
use std::time::Duration;

/// `text` without what a terminal would obey: control characters other than tabs. Colour sequences go whole.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push_str("    "),
            '\r' => out.clear(),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Passes over the rest of an escape sequence: `[`, parameters and a letter, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if chars.next_if_eq(&'[').is_none() {
        chars.next();
        return;
    }
    for c in chars.by_ref() {
        if ('@'..='~').contains(&c) {
            return;
        }
    }
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
    }

    #[test]
    fn byte_counts() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(12_345), bytes(123_456_789)],
            ["0B", "999B", "1.00kB", "12.3kB", "123MB"]
        );
    }
}
