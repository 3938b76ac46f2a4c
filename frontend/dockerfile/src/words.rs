//! Shell words: quotes, escapes and variable expansion, as Dockerfiles have them.
//!
//! Not a shell: no command substitution, no arithmetic, no globbing of file names. One pass gives both the expanded
//! text ([`Expanded::text`]) and the same text split into words at unquoted white space ([`Expanded::words`]).
//!
//! Invariants: the time is linear in the input except for `#`, `%` and `/` patterns (pattern times value), nesting is
//! limited to [`MAX_DEPTH`] and results to [`MAX_EXPANSION`] bytes, because `ENV a=$a$a` doubles with every line.

mod pattern;

use std::collections::BTreeSet;

use pattern::{Pattern, reversed};

/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_DEPTH: usize = 200;

/// How long, in bytes, the expansion of one word may become.
pub const MAX_EXPANSION: usize = 1 << 24;

/// Gives the value of a variable; `None` for one that is not set.
pub type Lookup<'l> = dyn Fn(&str) -> Option<String> + 'l;

/// What is done with quotes, escapes and unknown names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub skip_process_quotes: bool,
    /// Leave references to variables that are not set as they are.
    pub skip_unset_env: bool,
}

impl Mode {
    /// Quotes and escapes are taken off, unknown names are empty.
    pub fn plain(escape: char) -> Mode {
        Mode {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_process_quotes: false,
            skip_unset_env: false,
        }
    }
}

/// What became of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text.
    pub text: String,
    /// The text split at white space that was neither quoted nor escaped.
    pub words: Vec<String>,
    /// Names that were looked up and are set.
    pub matched: BTreeSet<String>,
    /// Names that were looked up and are not set.
    pub unmatched: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {why}", lapstrake_go::quoted(word))]
pub struct ExpandError {
    /// The word as written.
    pub word: String,
    /// What is wrong with it.
    pub why: String,
    /// Names in front of the mistake that were looked up and are not set.
    pub unmatched: BTreeSet<String>,
}

/// Expands `word`.
pub fn expand(word: &str, lookup: &Lookup<'_>, mode: Mode) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer {
        // A byte order mark in front is no part of any word.
        rest: word.strip_prefix('\u{feff}').unwrap_or(word).chars(),
        mode,
        raw_escapes: mode.raw_escapes,
        depth: 0,
        operands: 0,
        produced: 0,
        lookup,
        matched: Names::default(),
        unmatched: Names::default(),
    };
    match lexer.until(None, mode.raw_escapes) {
        Ok((text, words)) => {
            Ok(Expanded { text, words, matched: lexer.matched.finish(), unmatched: lexer.unmatched.finish() })
        }
        Err(why) => Err(ExpandError { word: word.to_owned(), why, unmatched: lexer.unmatched.finish() }),
    }
}

/// A set of names. A word may have a million of them: they are sorted once they have doubled, not one by one.
#[derive(Default)]
struct Names<'w> {
    /// Sorted and without doubles up to `sorted`.
    all: Vec<&'w str>,
    sorted: usize,
}

impl<'w> Names<'w> {
    /// So few are not worth the sorting.
    const FEW: usize = 64;

    fn insert(&mut self, name: &'w str) {
        if self.all.last() == Some(&name) {
            return;
        }
        self.all.push(name);
        if self.all.len() > 2 * self.sorted.max(Self::FEW) {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.all.sort();
        self.all.dedup();
        self.sorted = self.all.len();
    }

    fn finish(mut self) -> BTreeSet<String> {
        self.sort();
        self.all.into_iter().map(str::to_owned).collect()
    }
}

/// Collects words at unquoted white space.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    open: bool,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_raw(c);
        } else if self.open && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.open = false;
        }
    }

    fn push_raw(&mut self, c: char) {
        self.current.push(c);
        self.open = true;
    }

    /// Characters of which none is white space.
    fn push_all(&mut self, text: &str) {
        if !text.is_empty() {
            self.current.push_str(text);
            self.open = true;
        }
    }

    /// BuildKit collects the words of an operand in the same buffer as those around it, so `a${x:-b}` splits into the
    /// single word `b`, although its text is `ab`.
    fn forget_if(&mut self, operand_was_read: bool) {
        if operand_was_read {
            self.current.clear();
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Lexer<'w, 'l> {
    rest: std::str::Chars<'w>,
    mode: Mode,
    raw_escapes: bool,
    depth: usize,
    /// How many operands of `${…}` have been begun.
    operands: usize,
    produced: usize,
    lookup: &'l Lookup<'l>,
    matched: Names<'w>,
    unmatched: Names<'w>,
}

const MISSING_BRACE: &str = "syntax error: missing '}'";

impl<'w> Lexer<'w, '_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    /// Everything up to `stop` (taken and left out) or the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("substitutions are nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        self.operands += 1;
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.next() {
            if Some(c) == stop {
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let before = self.operands;
                    let value = self.dollar()?;
                    self.count(value.len())?;
                    words.forget_if(self.operands != before);
                    text.push_str(&value);
                    if value.contains(char::is_whitespace) {
                        value.chars().for_each(|c| words.push(c));
                    } else {
                        words.push_all(&value);
                    }
                }
                '<' => {
                    let redirection = self.possible_heredoc();
                    text.push_str(&redirection);
                    redirection.chars().for_each(|c| words.push_raw(c));
                }
                '\'' | '"' if !self.mode.skip_process_quotes => {
                    let before = self.operands;
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.forget_if(self.operands != before);
                    text.push_str(&quoted);
                    words.open = true;
                    words.current.push_str(&quoted);
                }
                c if c == self.mode.escape => {
                    if self.raw_escapes {
                        words.push_raw(c);
                        text.push(c);
                    }
                    let Some(escaped) = self.next() else { break };
                    words.push_raw(escaped);
                    text.push(escaped);
                }
                c => {
                    words.push(c);
                    text.push(c);
                }
            }
        }
        match stop {
            None => Ok((text, words.finish())),
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.produced += bytes;
        if self.produced > MAX_EXPANSION {
            return Err(format!("the expansion is larger than {MAX_EXPANSION} bytes"));
        }
        Ok(())
    }

    /// `<<` keeps the white space behind it, so that `<< EOF` stays one word.
    fn possible_heredoc(&mut self) -> String {
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut text = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            text.push(c);
            self.next();
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        if self.mode.raw_quotes {
            text.push('\'');
        }
        loop {
            match self.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote".to_owned()
                    );
                }
                Some('\'') => {
                    if self.mode.raw_quotes {
                        text.push('\'');
                    }
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        if self.mode.raw_quotes {
            text.push('"');
        }
        loop {
            match self.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote".to_owned()
                    );
                }
                Some('"') => {
                    if self.mode.raw_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    self.count(value.len())?;
                    text.push_str(&value);
                }
                Some(c) if c == self.mode.escape => {
                    if self.raw_escapes {
                        text.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.mode.escape => {
                            text.push(next);
                            self.next();
                        }
                        Some(_) => text.push(c),
                    }
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// What stands behind a `$` that has been taken.
    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = self.value(name);
            return Ok(match value {
                None if self.mode.skip_unset_env => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            // The end of the text is told as a character that is none.
            None => Err(unsupported("\u{fffd}")),
            Some('}') => Ok(match self.value(name) {
                None if self.mode.skip_unset_env => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(operator @ ('#' | '%')) => Err(unsupported(&format!(":{operator}"))),
                Some(operator) => self.conditional(name, operator, true),
                None => Err(MISSING_BRACE.to_owned()),
            },
            Some(operator @ ('+' | '-' | '?')) => self.conditional(name, operator, false),
            Some('#') => self.trim(name, '#'),
            Some('%') => self.trim(name, '%'),
            Some('/') => self.replace(name),
            Some(other) => Err(unsupported(&other.to_string())),
        }
    }

    /// An operand; whatever is wrong in it at the very end of the word is a missing brace.
    fn operand(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(_) if self.peek().is_none() => Err(missing.to_owned()),
            Err(why) => Err(why),
        }
    }

    fn conditional(&mut self, name: &'w str, operator: char, empty_is_unset: bool) -> Result<String, String> {
        let word = self.operand('}', false, MISSING_BRACE)?;
        let value = self.value(name);
        if value.is_none() && self.mode.skip_unset_env {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let unset = value.is_none();
        let present = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, present) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (other, _) if other != '?' => Err(unsupported(&format!(":{other}"))),
            _ if !word.is_empty() => Err(format!("{name}: {word}")),
            _ if unset => Err(format!("{name}: is not allowed to be unset")),
            _ => Err(format!("{name}: is not allowed to be empty")),
        }
    }

    fn trim(&mut self, name: &'w str, operator: char) -> Result<String, String> {
        let word = self.operand('}', true, MISSING_BRACE)?;
        let value = self.value(name);
        if value.is_none() && self.mode.skip_unset_env {
            return Ok(format!("${{{name}{operator}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (text, longest) = match word.strip_prefix(operator) {
            Some(text) => (text, true),
            None => (word.as_str(), false),
        };
        if operator == '#' {
            return Ok(Pattern::parse(text)?.trim(&value, longest).to_owned());
        }
        // Both are turned round, which a message about the pattern shows.
        let value: String = value.chars().rev().collect();
        let rest = Pattern::parse(&reversed(text))?.trim(&value, longest).chars().rev().collect();
        Ok(rest)
    }

    fn replace(&mut self, name: &'w str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, MISSING_BRACE)?;
        let value = self.value(name);
        if value.is_none() && self.mode.skip_unset_env {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let pattern = Pattern::parse(&pattern)?;
        if all {
            pattern.replace_all(&value, &replacement, MAX_EXPANSION)
        } else {
            Ok(pattern.replace_first(&value, &replacement))
        }
    }

    /// A name, a positional parameter or a special one; empty if there is none.
    fn name(&mut self) -> &'w str {
        let rest = self.rest.as_str();
        let first = self.peek();
        let length = match first {
            Some(c) if is_digit(c) => rest.find(|c| !is_digit(c)).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c| !in_name(c)).unwrap_or(rest.len()),
        };
        let (name, rest) = rest.split_at(length);
        self.rest = rest.chars();
        name
    }

    fn value(&mut self, name: &'w str) -> Option<String> {
        let value = (self.lookup)(name);
        let set = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        set.insert(name);
        value
    }
}

/// Decimal digits. Unlike `char::is_numeric`, fractions, superscripts and Roman numerals are none.
fn is_digit(c: char) -> bool {
    c.is_numeric() && !matches!(c, '\u{b2}'..='\u{be}' | '\u{2070}'..='\u{33ff}')
}

/// Letters, digits and the underscore.
fn in_name(c: char) -> bool {
    c == '_' || c.is_alphabetic() || is_digit(c)
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

#[cfg(test)]
mod tests;
