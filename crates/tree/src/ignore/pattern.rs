//! One pattern, and which paths it matches.
//!
//! A pattern of an ignore file becomes, as in moby's matcher, a plain comparison or a regular expression. That it is one
//! shows: `|`, `{2}` and `^` reach the expression as they are once the pattern has a `*` that is not `**` at an end, a `?`, a bracket or
//! a backslash. So `*.a|b` hides all that ends in `b`, and so it does here. A pattern of COPY is no such expression
//! ([`Pattern::shallow`]): there `*` and `?` stay within a component, `[a-z]` and `[^a-z]` are one character, a backslash takes
//! the next character literally, and nothing else means anything.

mod regex;

use regex::{Builder, Class, Program};

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// One text.
    Exact(Box<[u8]>),
    /// All that starts so: `a/**`.
    Prefix(Box<[u8]>),
    /// All that ends so: `**.c`, `**/a`, which also is `a`.
    Suffix(Box<[u8]>),
    /// Everything else.
    Program(Program),
    /// Go's regular expressions refuse it (`[b-a]`), which shows only once it is asked about a path.
    Broken,
}

impl Pattern {
    /// Compiles a pattern of an ignore file; `None` for bad syntax.
    pub(crate) fn new(text: &str) -> Option<Self> {
        // Without one of these there is nothing that could be wrong.
        if text.contains(['[', '\\']) {
            probe(text)?;
        }
        let (kind, expression) = expression(text);
        let bytes = |text: &str| text.as_bytes().into();
        Some(match kind {
            Kind::Exact => Self::Exact(bytes(text)),
            Kind::Prefix => Self::Prefix(bytes(text.strip_suffix("**").unwrap_or(text))),
            Kind::Suffix => Self::Suffix(bytes(text.strip_prefix("**").unwrap_or(text))),
            Kind::Expression => Program::parse(&expression).map_or(Self::Broken, Self::Program),
        })
    }

    /// Compiles a pattern in which `**` is no more than `*`, and which means nothing but itself otherwise.
    pub(crate) fn shallow(text: &str) -> Option<Self> {
        let mut literal = Some(String::new());
        let mut program = Builder::default();
        program.begin();
        glob(text, &mut |part| match part {
            Part::Char(c) => {
                program.char(c);
                literal.iter_mut().for_each(|text| text.push(c));
            }
            Part::Other { many, of } => {
                program.class(of);
                if many {
                    program.repeat(0, None);
                }
                literal = None;
            }
        })?;
        program.end();
        let literal = literal.map(|literal| Self::Exact(literal.into_bytes().into()));
        literal.or_else(|| program.finish().map(Self::Program))
    }

    /// True when it cannot be asked about any path.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// True when it matches one text only.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// True when the pattern matches the path.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => **text == *path,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/") == Some(path),
            Self::Program(program) => program.matches(&String::from_utf8_lossy(path)),
            Self::Broken => false,
        }
    }

    /// True when some continuation of `start` would match.
    pub(crate) fn could_continue(&self, start: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.len() > start.len() && text.starts_with(start),
            Self::Prefix(text) => text.starts_with(start) || start.starts_with(text),
            Self::Suffix(_) => true,
            Self::Program(program) => program.could_continue(&String::from_utf8_lossy(start)),
            Self::Broken => false,
        }
    }
}

/// Go's `path.Match`: whether a pattern matches a whole path, with `*`, `?` and `[a-z]` within a component. A pattern with
/// bad syntax matches nothing.
#[must_use]
pub fn path_match(pattern: &str, path: &str) -> bool {
    Pattern::shallow(pattern).is_some_and(|pattern| pattern.matches(path.as_bytes()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// How moby's matcher compares with a pattern, and the regular expression that it makes of it.
fn expression(text: &str) -> (Kind, String) {
    let mut kind = Kind::Exact;
    let mut out = String::with_capacity(3 * text.len() + 2);
    out.push('^');
    // A byte order mark in front is passed over.
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    out.push_str("(.*/)?");
                    kind = Kind::Expression;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    out.push_str(".*");
                    kind = Kind::Expression;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' | '?' => {
                out.push_str(if c == '*' { "[^/]*" } else { "[^/]" });
                kind = Kind::Expression;
            }
            // `|{}` are meant to be among these, and are not: moby's table of them has 64 places.
            '.' | '+' | '(' | ')' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push('\\');
                if let Some(next) = chars.next() {
                    out.push(next);
                    kind = Kind::Expression;
                }
            }
            _ => {
                out.push(c);
                if matches!(c, '[' | ']') {
                    kind = Kind::Expression;
                }
            }
        }
        first = false;
    }
    out.push('$');
    (kind, out)
}

/// A part of a pattern as Go's `filepath.Match` reads it.
enum Part {
    /// A literal character.
    Char(char),
    /// `?`, a class or, for any number of them, `*`.
    Other { many: bool, of: Class },
}

/// Matches a pattern with `.`, as moby's matcher does to see whether it is one; `None` for bad syntax. Go's `filepath.Match`
/// looks at a piece between stars only if those in front of it match, so not all that is wrong is found here: the rest
/// shows once the pattern is asked about a path.
fn probe(text: &str) -> Option<()> {
    let (mut rest, mut name) = (text, ".");
    while !rest.is_empty() {
        let behind = rest.trim_start_matches('*');
        let star = behind.len() < rest.len();
        let (piece, after) = behind.split_at(piece_length(behind));
        if star && piece.is_empty() {
            return Some(());
        }
        let mut found = piece_matches(piece, name)?.filter(|left| left.is_empty() || !after.is_empty());
        // A star takes characters of the name one by one; this name has one.
        if found.is_none() && star && !name.is_empty() {
            found = piece_matches(piece, "")?;
        }
        let Some(left) = found else { return Some(()) };
        (rest, name) = (after, left);
    }
    Some(())
}

/// Up to the next star that is not in brackets.
fn piece_length(text: &str) -> usize {
    let mut chars = text.char_indices();
    let mut inside = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => inside = true,
            ']' => inside = false,
            '*' if !inside => return at,
            _ => {}
        }
    }
    text.len()
}

/// What is left of `name` behind the piece, if that matches its beginning; `None` for bad syntax.
fn piece_matches<'n>(piece: &str, name: &'n str) -> Option<Option<&'n str>> {
    let mut left = name.chars();
    let mut matched = true;
    glob(piece, &mut |part| {
        matched = matched
            && left.next().is_some_and(|c| match part {
                Part::Char(wanted) => wanted == c,
                Part::Other { of, .. } => of.has(c),
            });
    })?;
    Some(matched.then_some(left.as_str()))
}

/// Reads a pattern part by part; `None` for bad syntax.
fn glob(text: &str, tell: &mut dyn FnMut(Part)) -> Option<()> {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tell(match c {
            '*' | '?' => Part::Other { many: c == '*', of: Class::component() },
            '[' => Part::Other { many: false, of: class(&mut chars)? },
            '\\' => Part::Char(chars.next()?),
            c => Part::Char(c),
        });
    }
    Some(())
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Class> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}
