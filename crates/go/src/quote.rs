//! Text in double quotes, the way BuildKit's messages and history rows have it.

use std::fmt::Write as _;

/// `text` in double quotes with escapes as in Go's `%q`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let written = match code {
                    0..=0x7f => write!(out, "\\x{code:02x}"),
                    0x80..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
                written.expect("writing to a string does not fail");
            }
        }
    }
    out.push('"');
    out
}

/// Whether Go prints the character as it is. The standard library's escapes have the same table behind them, once a
/// character in front keeps them from looking at whether this one combines.
fn printable(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || (!c.is_ascii() && format!("a{c}").escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_escapes() {
        let table = [
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\""),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\u{0}\u{7f}", r#""\a\b\f\n\r\t\v\x00\x7f""#),
            ("\u{e9}\u{65e5}\u{301}'", "\"\u{e9}\u{65e5}\u{301}'\""),
            (
                "\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}\u{e000}\u{e0001}",
                r#""\u00a0\u00ad\u200b\u2028\ufeff\ue000\U000e0001""#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(quoted(text), expected);
        }
    }
}
