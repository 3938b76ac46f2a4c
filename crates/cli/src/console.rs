//! Standard output and standard error. A terminal gets text and colours, and nothing else that it would obey: what is
//! written may come from a Dockerfile, an image or a registry.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

/// Writes to standard output.
///
/// # Errors
/// The result of the write is dropped: the reader may be gone.
pub(crate) fn out(text: Arguments<'_>) -> io::Result<()> {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    if *TERMINAL.get_or_init(|| io::stdout().is_terminal()) {
        return io::stdout().write_all(tamed(&text.to_string()).as_bytes());
    }
    io::stdout().write_fmt(text)
}

/// Writes to standard error, if anybody is there to read it.
pub(crate) fn err(text: Arguments<'_>) {
    if err_is_terminal() {
        return err_bytes(text.to_string().as_bytes());
    }
    io::stderr().write_fmt(text).unwrap_or_default();
}

/// As [`err`], for what may be no text.
pub(crate) fn err_bytes(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    if err_is_terminal() {
        err.write_all(tamed(&String::from_utf8_lossy(bytes)).as_bytes()).unwrap_or_default();
    } else {
        err.write_all(bytes).unwrap_or_default();
    }
}

fn err_is_terminal() -> bool {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    *TERMINAL.get_or_init(|| io::stderr().is_terminal())
}

/// Whether a character does something to a terminal, or to the order of what is shown, instead of being shown.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with line ends, tabs and colours, and without all else that a terminal would obey.
fn tamed(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_control(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match sequence(rest) {
            Some(length) => {
                let sequence = &rest[..length];
                if is_colour(sequence) {
                    out.push_str(sequence);
                }
                length
            }
            None => {
                if !is_control(c) || matches!(c, '\n' | '\t') {
                    out.push(c);
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// Whether an escape sequence sets colours and weights only: `ESC [ … m`.
fn is_colour(sequence: &str) -> bool {
    let inside = sequence.strip_prefix("\u{1b}[").and_then(|rest| rest.strip_suffix('m'));
    inside.is_some_and(|inside| inside.bytes().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':')))
}

/// The length of the escape sequence that `text` begins with (ECMA-48): of a control sequence up to its letter, of a string
/// up to its end, else two characters.
pub(crate) fn sequence(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\u{1b}')?;
    let Some(kind) = rest.chars().next() else { return Some(text.len()) };
    let after = &rest[kind.len_utf8()..];
    let before = text.len() - after.len();
    match kind {
        '[' => {
            let length = after.find(|c| !matches!(c, ' '..='?'));
            let last = length.and_then(|at| after[at..].chars().next()).filter(|c| matches!(c, '@'..='~'));
            Some(before + length.unwrap_or(after.len()) + last.map_or(0, char::len_utf8))
        }
        // Titles, colours' definitions, pictures: they end with BEL or ESC `\`, and with their line at the latest.
        ']' | 'P' | 'X' | '^' | '_' => {
            let end = after.find(['\u{7}', '\u{1b}', '\u{9c}', '\n']).unwrap_or(after.len());
            let closing = if after[end..].starts_with("\u{1b}\\") {
                2
            } else if after[end..].starts_with('\u{7}') {
                1
            } else {
                0
            };
            Some(before + end + closing)
        }
        '\n' => Some(1),
        _ => Some(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_text_and_colours_only() {
        for (text, shown) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[1;31mred\u{1b}[0m", "\u{1b}[1;31mred\u{1b}[0m"),
            ("a\u{1b}[2Jb\u{1b}[10;10Hc", "abc"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]52;c;Zm9v\u{1b}\\b", "ab"),
            ("a\u{1b}]8;;x", "a"),
            ("a\u{1b}Pq#0\u{1b}\\b", "ab"),
            ("a\u{1b}cb\u{1b}7", "ab"),
            ("a\rb\u{8}c\u{7}", "abc"),
            ("a\u{9b}2Jb", "a2Jb"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("a\u{1b}[31\nb", "a\nb"),
            ("a\u{1b}]0;x\nb", "a\nb"),
            ("a\u{1b}\nb", "a\nb"),
            ("a\u{1b}[>0;1mb", "ab"),
            ("漢\u{1b}[31m字", "漢\u{1b}[31m字"),
        ] {
            assert_eq!(tamed(text), shown, "{text:?}");
        }
    }
}
