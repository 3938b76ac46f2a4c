//! A logical line to keyword, flags and arguments.
//!
//! Places are offsets in the logical line. What an instruction makes of its arguments is not known here.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{anychar, char};
use nom::combinator::{opt, recognize, verify};
use nom::multi::{fold_many0, many0_count, many1_count};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use crate::text::{trim_end, trim_start};

/// A piece of a logical line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A logical line taken apart.
#[derive(Debug)]
pub(crate) struct Split<'t> {
    pub(crate) keyword: Piece<'t>,
    pub(crate) flags: Vec<Piece<'static>>,
    /// The rest, white space around it taken off.
    pub(crate) rest: Piece<'t>,
}

/// White space between words: what BuildKit's splitting regular expression has, which is less than Unicode's.
pub(crate) fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// White space to who reads a byte as a code point.
pub(crate) fn byte_space(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// Takes a line apart.
pub(crate) fn split(line: &str, escape: char) -> Split<'_> {
    let line = trim_end(line);
    let trimmed = trim_start(line);
    let base = line.len() - trimmed.len();
    let length = trimmed.bytes().position(|byte| blank(char::from(byte))).unwrap_or(trimmed.len());
    let keyword = piece(&trimmed[..length], base);
    let mut flags = Vec::new();
    let mut at = line.len() - trimmed[length..].trim_start_matches(blank).len();
    loop {
        at += line.as_bytes()[at..].iter().take_while(|byte| byte_space(**byte)).count();
        let word = &line.as_bytes()[at..];
        if !word.starts_with(b"--") {
            break;
        }
        let Ok((after, text)) = flag_word(escape, word) else { break };
        let end = line.len() - after.len();
        if text == "--" {
            at = end;
            break;
        }
        flags.push(Piece { text: Cow::Owned(text), start: at, end });
        at = end;
    }
    Split { keyword, flags, rest: rest_of(line, at) }
}

/// What stands behind the flags. They are read byte by byte, so they may end within a character.
fn rest_of(line: &str, at: usize) -> Piece<'_> {
    match line.get(at..) {
        Some(rest) => {
            let from = trim_start(rest);
            piece(trim_end(from), at + rest.len() - from.len())
        }
        None => {
            let text = String::from_utf8_lossy(&line.as_bytes()[at..]).trim().to_owned();
            Piece { text: Cow::Owned(text), start: at, end: line.len() }
        }
    }
}

/// A piece that starts at `start`.
pub(crate) fn piece(text: &str, start: usize) -> Piece<'_> {
    Piece { text: Cow::Borrowed(text), start, end: start + text.len() }
}

impl Piece<'_> {
    /// A part of the piece, from one byte to another.
    pub(crate) fn part(&self, from: usize, to: usize) -> Piece<'_> {
        piece(&self.text[from..to], self.start + from)
    }
}

/// A flag with its quotes and escapes taken off. Both quotes know escapes, and an open quote ends with the line.
/// Bytes are read one by one as code points, as BuildKit reads them, so that what is not ASCII comes out garbled.
fn flag_word(escape: char, input: &[u8]) -> IResult<&[u8], String> {
    let is_escape = move |byte: u8| char::from(byte) == escape;
    let bare = move |byte: u8| !byte_space(byte) && byte != b'\'' && byte != b'"' && !is_escape(byte);
    let garbled = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let escaped = || preceded(char(escape), opt(anychar)).map(|c| c.map(String::from).unwrap_or_default());
    let quoted = |quote: u8| {
        let plain = take_while1(move |byte: u8| byte != quote && !is_escape(byte)).map(garbled);
        let inside = fold_many0(alt((escaped(), plain)), String::new, joined);
        delimited(char(char::from(quote)), inside, opt(char(char::from(quote))))
    };
    let part = alt((quoted(b'\''), quoted(b'"'), escaped(), take_while1(bare).map(garbled)));
    fold_many0(part, String::new, joined).parse(input)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that nom's folds take")]
fn joined(mut text: String, part: String) -> String {
    text.push_str(&part);
    text
}

/// Words between [`blank`]s; quotes mean nothing.
pub(crate) fn blank_words<'t>(rest: &'t Piece<'_>) -> impl Iterator<Item = Piece<'t>> {
    let mut at = rest.start;
    rest.text.split_inclusive(blank).filter_map(move |part| {
        let word = piece(part.trim_end_matches(blank), at);
        at += part.len();
        (!word.text.is_empty()).then_some(word)
    })
}

/// Words between white space, where quotes and escapes protect white space and are kept.
pub(crate) fn quoted_words<'t>(rest: &'t Piece<'_>, escape: char) -> impl Iterator<Item = Piece<'t>> {
    let mut input: &str = &rest.text;
    std::iter::from_fn(move || {
        input = input.trim_start();
        let at = rest.start + rest.text.len() - input.len();
        let (after, word) = quoted_word(escape, input).ok()?;
        // An escape character at the very end is dropped.
        input = if after.starts_with(escape) { "" } else { after };
        Some(piece(word, at))
    })
}

fn quoted_word(escape: char, input: &str) -> IResult<&str, &str> {
    let pair = || recognize((char(escape), anychar));
    let bare = take_while(move |c: char| !c.is_whitespace() && c != '\'' && c != '"' && c != escape);
    let single = recognize((char('\''), take_while(|c| c != '\''), opt(char('\''))));
    let plain = take_while1(move |c: char| c != '"' && c != escape);
    let double = recognize((char('"'), many0_count(alt((pair(), plain))), opt(char('"'))));
    let bare = verify(bare, |text: &str| !text.is_empty());
    recognize(many1_count(alt((pair(), single, double, bare)))).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'t>(pieces: &'t [Piece<'_>]) -> Vec<&'t str> {
        pieces.iter().map(|piece| &*piece.text).collect()
    }

    #[test]
    fn flags_are_stripped_from_every_instruction() {
        let table: [(&str, &[&str], &str); 9] = [
            ("RUN --mount=type=cache,target=/c make", &["--mount=type=cache,target=/c"], "make"),
            ("copy   --a='x y'  --b\tc  d ", &["--a=x y", "--b"], "c  d"),
            ("CMD --x -- --y", &["--x"], "--y"),
            ("CMD --a\"b\\\"c\"d e", &["--ab\"cd"], "e"),
            ("CMD --a=\\ b", &["--a= b"], ""),
            ("CMD --a=\"open b", &["--a=open b"], ""),
            ("CMD -x --y", &[], "-x --y"),
            ("CMD --a=\u{e9}", &["--a=\u{c3}\u{a9}"], ""),
            ("CMD", &[], ""),
        ];
        for (line, flags, rest) in table {
            let split = split(line, '\\');
            assert_eq!(texts(&split.flags), flags, "{line}");
            assert_eq!(split.rest.text, rest, "{line}");
            if !rest.is_empty() {
                assert_eq!(&line[split.rest.start..split.rest.end], rest, "{line}");
            }
        }
    }

    #[test]
    fn words_with_quotes() {
        let table: [(&str, &[&str]); 7] = [
            ("a=1 b=\"x y\"  c='p q'", &["a=1", "b=\"x y\"", "c='p q'"]),
            ("a=x\\ y b", &["a=x\\ y", "b"]),
            ("a=\"x\\\" y\" b", &["a=\"x\\\" y\"", "b"]),
            ("a='x\\' b", &["a='x\\'", "b"]),
            ("a=1\\", &["a=1"]),
            ("a=\"open b", &["a=\"open b"]),
            ("\\", &[]),
        ];
        for (text, expected) in table {
            let rest = piece(text, 10);
            let words: Vec<Piece<'_>> = quoted_words(&rest, '\\').collect();
            assert_eq!(texts(&words), expected, "{text}");
            for word in words {
                assert_eq!(&text[word.start - 10..word.end - 10], word.text);
            }
        }
    }
}
