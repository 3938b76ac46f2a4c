//! A logical line to keyword, flags and arguments.
//!
//! Places are offsets in the logical line. What an instruction makes of its arguments is not known here.

use nom::branch::alt;
use nom::bytes::complete::take_while;
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{opt, recognize, verify};
use nom::multi::{fold_many0, many0, many1};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// A piece of a logical line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A logical line taken apart.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) keyword: Piece,
    pub(crate) flags: Vec<Piece>,
    /// The rest, white space around it taken off.
    pub(crate) rest: Piece,
}

/// White space between words: what BuildKit's splitting regular expression has, which is less than Unicode's.
pub(crate) fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Takes a line apart.
pub(crate) fn split(line: &str, escape: char) -> Split {
    let trimmed = line.trim();
    let base = line.len() - line.trim_start().len();
    let length = trimmed.find(blank).unwrap_or(trimmed.len());
    let keyword = Piece { text: trimmed[..length].to_owned(), start: base, end: base + length };
    let mut flags = Vec::new();
    let mut rest = trimmed[length..].trim_start_matches(blank);
    let offset = |rest: &str| base + trimmed.len() - rest.len();
    loop {
        let word = rest.trim_start();
        if !word.starts_with("--") {
            rest = word;
            break;
        }
        let Ok((after, text)) = flag_word(escape, word) else {
            break;
        };
        rest = after;
        if text == "--" {
            break;
        }
        flags.push(Piece { text, start: offset(word), end: offset(after) });
    }
    let rest = piece(rest.trim(), offset(rest.trim_start()));
    Split { keyword, flags, rest }
}

/// A piece that starts at `start`.
pub(crate) fn piece(text: &str, start: usize) -> Piece {
    Piece { text: text.to_owned(), start, end: start + text.len() }
}

/// A flag with its quotes and escapes taken off. Both quotes know escapes, and an open quote ends with the line.
/// Bytes are read one by one as code points, as BuildKit reads them, so that what is not ASCII comes out garbled.
fn flag_word(escape: char, input: &str) -> IResult<&str, String> {
    let bare = |c: char| !c.is_whitespace() && c != '\'' && c != '"' && c != escape;
    let escaped = || preceded(char(escape), opt(anychar)).map(|c| c.map(String::from).unwrap_or_default());
    let quoted = |quote: char| {
        let plain = satisfy(move |c| c != quote && c != escape).map(String::from);
        let inside =
            fold_many0(alt((escaped(), plain)), String::new, |text: String, part: String| text + &part);
        delimited(char(quote), inside, opt(char(quote)))
    };
    let plain = recognize(satisfy(bare)).map(str::to_owned);
    let part = alt((quoted('\''), quoted('"'), escaped(), plain));
    let (rest, text) =
        fold_many0(part, String::new, |text: String, part: String| text + &part).parse(input)?;
    let garbled = if text.is_ascii() { text } else { text.bytes().map(char::from).collect() };
    Ok((rest, garbled))
}

/// Words between [`blank`]s; quotes mean nothing.
pub(crate) fn blank_words(rest: &Piece) -> Vec<Piece> {
    let mut words = Vec::new();
    let mut at = rest.start;
    for part in rest.text.split_inclusive(blank) {
        let word = part.trim_end_matches(blank);
        if !word.is_empty() {
            words.push(piece(word, at));
        }
        at += part.len();
    }
    words
}

/// Words between white space, where quotes and escapes protect white space and are kept.
pub(crate) fn quoted_words(rest: &Piece, escape: char) -> Vec<Piece> {
    let mut words = Vec::new();
    let mut input = rest.text.as_str();
    loop {
        input = input.trim_start();
        let at = rest.start + rest.text.len() - input.len();
        match quoted_word(escape, input) {
            Ok((after, word)) => {
                words.push(piece(word, at));
                // An escape character at the very end is dropped.
                input = if after.starts_with(escape) { "" } else { after };
            }
            Err(_) => return words,
        }
    }
}

fn quoted_word(escape: char, input: &str) -> IResult<&str, &str> {
    let pair = || recognize((char(escape), anychar));
    let bare = take_while(move |c: char| !c.is_whitespace() && c != '\'' && c != '"' && c != escape);
    let single = recognize((char('\''), take_while(|c| c != '\''), opt(char('\''))));
    let inside = many0(alt((pair(), recognize(satisfy(move |c| c != '"' && c != escape)))));
    let double = recognize((char('"'), inside, opt(char('"'))));
    let bare = verify(bare, |text: &str| !text.is_empty());
    recognize(many1(alt((pair(), single, double, bare)))).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[Piece]) -> Vec<&str> {
        pieces.iter().map(|piece| piece.text.as_str()).collect()
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
            let words = quoted_words(&piece(text, 10), '\\');
            assert_eq!(texts(&words), expected, "{text}");
            for word in words {
                assert_eq!(&text[word.start - 10..word.end - 10], word.text);
            }
        }
    }
}
