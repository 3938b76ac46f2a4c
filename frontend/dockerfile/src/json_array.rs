//! The JSON form of arguments: an array of strings, each with its place.
//!
//! Takes what Go's decoder takes: nesting up to ten thousand deep, half surrogate pairs (as U+FFFD), and no number that
//! is too large for a float. Nothing recurses.

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 10_000;

/// A string of the array.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) text: String,
    /// Where it stands in the text, quotes included.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a text is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// An array of strings.
    Strings(Vec<Item>),
    /// An array with something else in it.
    Mixed,
    /// No JSON array at all.
    Not,
}

/// Reads all of `text`, which may have white space around it.
pub(crate) fn parse(text: &str) -> Array {
    if !text.starts_with('[') {
        return Array::Not;
    }
    let mut scanner =
        Scanner { bytes: text.as_bytes(), at: 0, depth: Vec::new(), strings: Vec::new(), mixed: false };
    if scanner.document().is_none() {
        return Array::Not;
    }
    if scanner.mixed {
        return Array::Mixed;
    }
    let item = |(start, end): (usize, usize)| Item { text: unescaped(&text[start + 1..end - 1]), start, end };
    Array::Strings(scanner.strings.into_iter().map(item).collect())
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// A value or the end of the array.
    First,
    Key,
    /// A key or the end of the object.
    FirstKey,
    /// A comma or the end of what is open.
    Comma,
}

struct Scanner<'t> {
    bytes: &'t [u8],
    at: usize,
    /// The closing bytes of what is open.
    depth: Vec<u8>,
    /// The places of the strings in the outermost array.
    strings: Vec<(usize, usize)>,
    /// Whether the outermost array has something else.
    mixed: bool,
}

impl Scanner<'_> {
    fn document(&mut self) -> Option<()> {
        let mut next = Next::Value;
        loop {
            self.space();
            next = match (next, self.bytes.get(self.at).copied()?) {
                (Next::Comma, b',') => {
                    self.at += 1;
                    if self.depth.last() == Some(&b'}') { Next::Key } else { Next::Value }
                }
                (Next::Comma | Next::First | Next::FirstKey, byte) if self.depth.last() == Some(&byte) => {
                    self.at += 1;
                    self.depth.pop();
                    Next::Comma
                }
                (Next::Key | Next::FirstKey, b'"') => {
                    self.string()?;
                    self.space();
                    self.byte(b':')?;
                    Next::Value
                }
                (Next::Value | Next::First, byte) => self.value(byte)?,
                _ => return None,
            };
            if self.depth.is_empty() {
                self.space();
                return (self.at == self.bytes.len()).then_some(());
            }
        }
    }

    fn value(&mut self, first: u8) -> Option<Next> {
        let start = self.at;
        let outermost = self.depth.len() == 1;
        self.mixed |= outermost && first != b'"';
        match first {
            b'"' => {
                self.string()?;
                if outermost {
                    self.strings.push((start, self.at));
                }
            }
            b'[' | b'{' => {
                if self.depth.len() == MAX_DEPTH {
                    return None;
                }
                self.at += 1;
                self.depth.push(if first == b'[' { b']' } else { b'}' });
                return Some(if first == b'[' { Next::First } else { Next::FirstKey });
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Some(Next::Comma)
    }

    fn space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    }

    fn skip(&mut self, of: impl Fn(u8) -> bool) -> usize {
        let count = self.bytes[self.at..].iter().take_while(|byte| of(**byte)).count();
        self.at += count;
        count
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found.then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.at += word.len();
        (self.bytes.get(self.at - word.len()..self.at) == Some(word)).then_some(())
    }

    fn string(&mut self) -> Option<()> {
        self.byte(b'"')?;
        loop {
            self.skip(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let escaped = *self.bytes.get(self.at)?;
        self.at += 1;
        match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                self.at += 4;
                let digits = self.bytes.get(self.at - 4..self.at)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.byte(b'-').unwrap_or_default();
        if self.byte(b'0').is_none() {
            self.digits()?;
        }
        if self.byte(b'.').is_some() {
            self.digits()?;
        }
        if self.byte(b'e').or_else(|| self.byte(b'E')).is_some() {
            self.byte(b'+').or_else(|| self.byte(b'-')).unwrap_or_default();
            self.digits()?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).ok()?;
        text.parse::<f64>().ok()?.is_finite().then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        (self.skip(|byte| byte.is_ascii_digit()) > 0).then_some(())
    }
}

/// The inside of a string that has been scanned.
fn unescaped(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        let c = match chars.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (c, length) = code_point(after);
                chars = after[length..].chars();
                c
            }
            other => other.unwrap_or_default(),
        };
        out.push(c);
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// The character that `u` and four digits stand for, with a second such escape if it takes two; and their length.
fn code_point(text: &str) -> (char, usize) {
    let unit = |text: &str| u32::from_str_radix(text.get(1..5).unwrap_or_default(), 16).unwrap_or(0xfffd);
    let first = unit(text);
    if (0xd800..0xdc00).contains(&first) && text[5..].starts_with("\\u") {
        let second = unit(&text[6..]);
        if (0xdc00..0xe000).contains(&second) {
            let c = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return (char::from_u32(c).unwrap_or('\u{fffd}'), 11);
        }
    }
    (char::from_u32(first).unwrap_or('\u{fffd}'), 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings() {
        let table: [(&str, &[&str]); 7] = [
            ("[]", &[]),
            ("[ \"a\" ,\t\"b c\"] ", &["a", "b c"]),
            (r#"["\"\\\/\b\f\n\r\t"]"#, &["\"\\/\u{8}\u{c}\n\r\t"]),
            (r#"["\u00e9\ud83d\ude00"]"#, &["\u{e9}\u{1f600}"]),
            (r#"["\ud83d","\ude00x","\ud83d\u0041"]"#, &["\u{fffd}", "\u{fffd}x", "\u{fffd}A"]),
            ("[\"\u{7f}\"]", &["\u{7f}"]),
            ("[\n\"a\"\r]", &["a"]),
        ];
        for (text, expected) in table {
            let Array::Strings(items) = parse(text) else { panic!("{text}") };
            assert_eq!(items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>(), expected, "{text}");
            assert!(items.iter().all(|item| text[item.start..item.end].starts_with('"')), "{text}");
        }
    }

    #[test]
    fn other_arrays_and_texts_that_are_none() {
        for text in ["[1]", "[\"a\", null]", "[[\"a\"]]", "[{\"a\": [1, {}]}]", "[-0.5e+3, true]"] {
            assert_eq!(parse(text), Array::Mixed, "{text}");
        }
        let not = [
            "",
            "a",
            "[",
            "]",
            "[]x",
            "[\"a\"",
            "[\"a\",]",
            "[,]",
            "['a']",
            "[01]",
            "[1.]",
            "[1e999]",
            "[tru]",
            "[\"\\x\"]",
            "[\"\t\"]",
            "[\"\\u12g4\"]",
            "[{]",
            "[{\"a\"}]",
            "[{\"a\":1,}]",
            "[}",
            "[-]",
        ];
        for text in not {
            assert_eq!(parse(text), Array::Not, "{text}");
        }
    }

    #[test]
    fn deep_arrays_neither_recurse_nor_pass() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(parse(&nested(MAX_DEPTH)), Array::Mixed);
        assert_eq!(parse(&nested(MAX_DEPTH + 1)), Array::Not);
        assert_eq!(parse(&"[".repeat(1 << 20)), Array::Not);
    }
}
