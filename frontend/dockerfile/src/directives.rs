//! Parser directives: `# syntax=`, `# escape=`, `# check=`, and the more permissive look-up of `syntax`.

use lapstrake_diag::Span;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, satisfy};
use nom::combinator::{recognize, rest, verify};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// A directive at the top of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// The value, white space around it taken off.
    pub value: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The line's bytes.
    pub span: Span,
}

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// The state of reading the top of a file.
#[derive(Default)]
pub(crate) struct DirectiveZone {
    over: bool,
    seen: Vec<String>,
}

impl DirectiveZone {
    /// Looks at one line (leading white space already off).
    pub(crate) fn line(&mut self, text: &str, line: u32, span: Span) -> Result<Option<Directive>, String> {
        self.commented_line("#", text, line, span)
    }

    fn commented_line(
        &mut self,
        comment: &str,
        text: &str,
        line: u32,
        span: Span,
    ) -> Result<Option<Directive>, String> {
        if self.over {
            return Ok(None);
        }
        let found = directive(comment, text).ok().map(|(_, (name, value))| (name.to_lowercase(), value));
        let Some((name, value)) = found.filter(|(name, _)| NAMES.contains(&name.as_str())) else {
            self.over = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name.clone());
        Ok(Some(Directive { name, value: value.to_owned(), line, span }))
    }
}

/// White space within a directive.
fn space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

/// `# key = value`.
fn directive<'t>(comment: &str, text: &'t str) -> IResult<&'t str, (&'t str, &'t str)> {
    let key =
        recognize((satisfy(|c| c.is_ascii_alphabetic()), take_while(|c: char| c.is_ascii_alphanumeric())));
    let equals = (take_while(space), char('='));
    let value = verify(rest.map(value_of), |value: &str| !value.is_empty() && !value.contains('\n'));
    let (input, _) = tag(comment).parse(text)?;
    preceded(take_while(char::is_whitespace), (key, preceded(equals, value))).parse(input)
}

/// The value of the directive that a comment line, its `#` taken off, consists of.
pub(crate) fn directive_in_comment(comment: &str, name: &str) -> Option<String> {
    let (_, (found, value)) = directive("", comment).ok()?;
    found.eq_ignore_ascii_case(name).then(|| value.to_owned())
}

/// The value in what stands behind the `=`. Of nothing but white space, the last character is the value.
fn value_of(behind: &str) -> &str {
    let bare = behind.trim_matches(space);
    match behind.char_indices().next_back() {
        Some((last, _)) if bare.is_empty() => &behind[last..],
        _ => bare,
    }
}

/// Finds the `syntax` directive of any text, as a client does before it knows the text's language: behind a `#!` line,
/// with `#` or `//` for comments, or as a key of a JSON object. Gives the first word of the value and the whole value.
///
/// Other than for `escape`, white space in front of the comment character ends the search.
pub fn detect_syntax(text: &str) -> Option<(String, String)> {
    find(text, "syntax", true)
}

/// The first word of a directive's value, found like [`detect_syntax`] but only with `#` for comments.
pub(crate) fn detect_directive(text: &str, name: &str) -> Option<String> {
    find(text, name, false).map(|(word, _)| word)
}

fn find(text: &str, name: &str, any_format: bool) -> Option<(String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = match text.strip_prefix("#!") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest),
        None => text,
    };
    let comments: &[&str] = if any_format { &["#", "//"] } else { &["#"] };
    for comment in comments {
        let mut zone = DirectiveZone::default();
        for (number, line) in text.lines().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            match zone.commented_line(comment, line, number, Span::default()) {
                Ok(Some(directive)) if directive.name == name => {
                    let word = directive.value.split(' ').next().unwrap_or_default().to_owned();
                    return Some((word, directive.value));
                }
                Ok(_) if !zone.over => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
    if !any_format {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get(name)?.as_str()?;
    Some((value.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_is_found_where_escape_is_not() {
        let table = [
            ("# syntax=a/b:1\nFROM x", Some(("a/b:1", "a/b:1"))),
            ("#syntax = a --opt=1 \nFROM x", Some(("a", "a --opt=1"))),
            ("#!/usr/bin/env x\n# SYNTAX=a", Some(("a", "a"))),
            ("// syntax=a", Some(("a", "a"))),
            ("{\"syntax\": \"a b\"}", Some(("a b", "a b"))),
            ("# escape=`\n# syntax=a", Some(("a", "a"))),
            (" # syntax=a", None),
            ("\n# syntax=a", None),
            ("# a comment\n# syntax=a", None),
            ("# syntax=", None),
            ("# syntax=\t ", Some(("", " "))),
        ];
        for (text, expected) in table {
            let found = detect_syntax(text);
            let found = found.as_ref().map(|(word, value)| (word.as_str(), value.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
