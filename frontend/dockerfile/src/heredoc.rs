//! Heredoc words: `<<EOF`, `3<<-"E O F"`.

use std::collections::BTreeMap;

use lapstrake_diag::Span;
use nom::Parser;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, digit0};
use nom::combinator::{all_consuming, opt};

use crate::text::Text;
use crate::words::{self, Mode};

/// A heredoc with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter, quotes taken off.
    pub name: Text,
    /// The file descriptor before `<<`; only the shell of a RUN cares.
    pub fd: u64,
    /// Whether variables in the body are expanded where the builder writes it (COPY, ADD).
    pub expand: bool,
    /// `<<-`: leading tabs do not count.
    pub chomp: bool,
    /// The body, byte for byte.
    pub content: Text,
    /// Where the body stands.
    pub span: Span,
}

impl Heredoc {
    /// The body without the leading tabs of its lines.
    pub fn chomped(&self) -> String {
        chomp(&self.content)
    }
}

/// `text` without the leading tabs of its lines.
pub fn chomp(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// Heredoc delimiters are always unquoted with `\`, whatever `# escape=` says.
fn mode() -> Mode {
    Mode { skip_unset_env: true, ..Mode::plain('\\') }
}

/// What means nothing to a lexer of words: a word of these alone is itself.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/')
}

/// Reads `word` as a heredoc word with an empty body. `Ok(None)`: it is something else.
pub(crate) fn heredoc_word(word: &str) -> Result<Option<Heredoc>, String> {
    let shape = (
        digit0::<&str, nom::error::Error<&str>>,
        tag("<<"),
        opt(char('-')),
        take_while(|c| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')),
        take_while(|c| c != '<'),
    );
    let Ok((_, (fd, _, dash, _, delimiter))) = all_consuming(shape).parse(word) else {
        return Ok(None);
    };
    if delimiter.is_empty() {
        return Ok(None);
    }
    let here = |name: Text, expand: bool| Heredoc {
        name,
        fd: if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u64::MAX) },
        expand,
        chomp: dash.is_some(),
        content: Text::new(),
        span: Span::default(),
    };
    if delimiter.bytes().all(plain) {
        return Ok(Some(here(delimiter.into(), true)));
    }
    let unset = |_: &str| None;
    let bare = words::expand(delimiter, &unset, mode()).map_err(|error| error.to_string())?.words;
    let [name] = bare.as_slice() else { return Ok(None) };
    let raw = words::expand(delimiter, &unset, Mode { raw_quotes: true, ..mode() })
        .map_err(|error| error.to_string())?
        .words;
    let [raw] = raw.as_slice() else {
        return Err(format!("internal lexing of heredoc produced inconsistent results: {delimiter}"));
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(here(name.as_str().into(), quotes(raw) == quotes(name))))
}

/// Whether all of `text` is one heredoc word.
pub fn is_heredoc_word(text: &str) -> bool {
    matches!(heredoc_word(text), Ok(Some(_)))
}

/// What stands behind each `<<`.
fn signs(text: &str) -> impl Iterator<Item = &[u8]> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'<', bytes).filter_map(move |at| bytes[at + 1..].strip_prefix(b"<"))
}

/// Whether there is a `<<` in it.
pub(crate) fn has_sign(text: &str) -> bool {
    signs(text).next().is_some()
}

/// The heredoc words of an instruction's text, in order. Text that is no valid shell words has none.
pub(crate) fn heredoc_words(text: &str) -> Result<Vec<Heredoc>, String> {
    // Space behind the sign is the lexer's matter: the word goes on behind it.
    let apart = signs(text).any(|behind| behind.starts_with(b" ") || behind.starts_with(b"- "));
    if !apart && text.bytes().all(|byte| plain(byte) || matches!(byte, b' ' | b'<')) {
        let words = text.split(' ').filter(|word| has_sign(word));
        return words.filter_map(|word| heredoc_word(word).transpose()).collect();
    }
    let raw = Mode { raw_quotes: true, raw_escapes: true, ..mode() };
    let Ok(expanded) = words::expand(text, &|_| None, raw) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for word in &expanded.words {
        found.extend(heredoc_word(word)?);
    }
    Ok(found)
}

/// The bodies of an instruction's heredocs, found by name: of two with the same name the last one counts for both.
pub(crate) struct Bodies<'h> {
    last: BTreeMap<&'h str, &'h Heredoc>,
    /// What was asked for before, so that naming one body many times costs nothing.
    given: BTreeMap<(&'h str, bool), Text>,
}

impl<'h> Bodies<'h> {
    pub(crate) fn new(heredocs: &'h [Heredoc]) -> Bodies<'h> {
        let last = heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc)).collect();
        Bodies { last, given: BTreeMap::new() }
    }

    pub(crate) fn of(&mut self, word: &Heredoc) -> Text {
        let Some((name, body)) = self.last.get_key_value(word.name.as_str()) else { return Text::new() };
        let data = || if word.chomp { body.chomped().into() } else { body.content.clone() };
        self.given.entry((name, word.chomp)).or_insert_with(data).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_heredocs() {
        let table = [
            ("<<EOF", Some(("EOF", 0, true, false))),
            ("<<-EOF", Some(("EOF", 0, true, true))),
            ("3<<EOF", Some(("EOF", 3, true, false))),
            ("<<'E F'", Some(("E F", 0, false, false))),
            ("<<\"EOF\"", Some(("EOF", 0, false, false))),
            ("<<E\"O\"F", Some(("EOF", 0, false, false))),
            ("<< -EOF", Some(("-EOF", 0, true, false))),
            ("<<$X", Some(("$X", 0, true, false))),
            ("<<<EOF", None),
            ("<<", None),
            ("<EOF", None),
            ("\"<<EOF\"", None),
            ("a<<EOF", None),
        ];
        for (word, expected) in table {
            let found = heredoc_word(word).unwrap();
            let found = found.as_ref().map(|h| (h.name.as_str(), h.fd, h.expand, h.chomp));
            assert_eq!(found, expected, "{word}");
        }
        let names = |text: &str| heredoc_words(text).unwrap().into_iter().map(|h| h.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A 3<<-'B' && x <<<C \"<<D\" << E"), ["A", "B", "E"]);
        assert!(names("RUN echo ' <<A").is_empty());
        assert_eq!(chomp("\t\ta\n\tb\t\nc"), "a\nb\t\nc");
    }

    #[test]
    fn the_short_way_finds_what_the_lexer_finds() {
        let parts = ["<<", "<", "-", " ", "E", "3", "a.b/c"];
        let raw = Mode { raw_quotes: true, raw_escapes: true, ..mode() };
        for number in 0..parts.len().pow(6) {
            let text: String = (0..6).map(|at| parts[number / parts.len().pow(at) % parts.len()]).collect();
            let text = format!("RUN {text}");
            let words = words::expand(&text, &|_| None, raw).map(|found| found.words).unwrap_or_default();
            let expected: Vec<_> = words.iter().filter_map(|word| heredoc_word(word).unwrap()).collect();
            assert_eq!(heredoc_words(&text).unwrap(), expected, "{text}");
        }
    }
}
