//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?` and literals, no `[…]`.
//!
//! Matching keeps the set of reachable positions instead of going back, so it takes pattern length times value length
//! and never more. As in the regular expressions that BuildKit makes of them, `*` and `?` do not match a line feed.

use smallvec::{SmallVec, smallvec};

use super::in_name;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

pub(super) struct Pattern {
    tokens: Tokens,
}

/// Few patterns have more: these need no memory of their own.
type Tokens = SmallVec<[Token; 8]>;

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let mut tokens = Tokens::new();
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text).chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match rest.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(c),
                    other => {
                        let escape = other.unwrap_or('\u{fffd}');
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{escape}'"
                        ));
                    }
                },
                c => Token::Literal(c),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Many && *b == Token::Many);
        Ok(Pattern { tokens })
    }

    /// `value` without the shortest or longest match at its start.
    pub(super) fn trim<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        &value[self.matched(value, longest).unwrap_or(0)..]
    }

    /// `value` with its first match replaced.
    pub(super) fn replace_first(&self, value: &str, replacement: &str) -> String {
        match self.find(value) {
            Some((start, end)) => format!("{}{replacement}{}", &value[..start], &value[end..]),
            None => value.to_owned(),
        }
    }

    /// `value` with all matches replaced; in the replacement `$0` is the match and `$$` is `$`, and any other `$name`
    /// is nothing. Fails when the result would be longer than `limit` bytes.
    pub(super) fn replace_all(&self, value: &str, replacement: &str, limit: usize) -> Result<String, String> {
        let mut out = String::new();
        let mut at = 0;
        let mut copied = 0;
        let mut matched_before = false;
        while let Some((start, end)) = self.find(&value[at..]).map(|(s, e)| (s + at, e + at)) {
            // An empty match that touches the match before it is none.
            let touches = matched_before && start == end && start == copied;
            if !touches {
                out.push_str(&value[copied..start]);
                expand_template(replacement, &value[start..end], &mut out);
                copied = end;
                matched_before = true;
            }
            if out.len() > limit {
                return Err(format!("the expansion is larger than {limit} bytes"));
            }
            at = end;
            if start == end {
                match value[at..].chars().next() {
                    Some(c) => at += c.len_utf8(),
                    None => break,
                }
            }
        }
        out.push_str(&value[copied..]);
        Ok(out)
    }

    /// The first and, there, longest match.
    fn find(&self, value: &str) -> Option<(usize, usize)> {
        let starts = value.char_indices().map(|(at, _)| at).chain([value.len()]);
        for start in starts {
            // A literal at the front rules out most starts without running the matcher.
            if let Some(Token::Literal(first)) = self.tokens.first()
                && !value[start..].starts_with(*first)
            {
                continue;
            }
            if let Some(length) = self.matched(&value[start..], true) {
                return Some((start, start + length));
            }
        }
        None
    }

    /// How many bytes from the start of `value` match, at least or at most.
    fn matched(&self, value: &str, longest: bool) -> Option<usize> {
        let tokens = &self.tokens;
        let end = tokens.len();
        let mut states: SmallVec<[bool; 16]> = smallvec![false; end + 1];
        let mut next = states.clone();
        open(tokens, &mut states, 0);
        let mut found = states[end].then_some(0);
        let mut length = 0;
        for c in value.chars() {
            if found.is_some() && !longest {
                break;
            }
            next.fill(false);
            let mut alive = false;
            for (at, token) in tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
                let to = match token {
                    Token::Literal(literal) if *literal == c => at + 1,
                    Token::One if c != '\n' => at + 1,
                    Token::Many if c != '\n' => at,
                    Token::Literal(_) | Token::One | Token::Many => continue,
                };
                open(tokens, &mut next, to);
                alive = true;
            }
            length += c.len_utf8();
            std::mem::swap(&mut states, &mut next);
            if states[end] {
                found = Some(length);
            }
            if !alive {
                break;
            }
        }
        found
    }
}

/// `pattern` from behind, with each escape still in front of what it escapes.
pub(super) fn reversed(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('\\', Some(escaped)) => {
                rest.next();
                pieces.extend([escaped, '\\']);
            }
            _ => pieces.push(c),
        }
    }
    pieces.iter().rev().collect()
}

/// Marks `at` and what a `*` there lets one skip to.
fn open(tokens: &[Token], states: &mut [bool], at: usize) {
    states[at] = true;
    if tokens.get(at) == Some(&Token::Many) {
        states[at + 1] = true;
    }
}

fn expand_template(template: &str, matched: &str, out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inside = after.strip_prefix('{');
        let start = inside.unwrap_or(after);
        let (name, tail) = start.split_at(start.find(|c| !in_name(c)).unwrap_or(start.len()));
        let (name, tail) = match inside {
            None => (name, tail),
            // Without a name and a brace behind it, the dollar sign stands for itself.
            Some(_) => tail.strip_prefix('}').map_or(("", after), |tail| (name, tail)),
        };
        let tail = if name.is_empty() { after } else { tail };
        match name {
            "" => out.push('$'),
            "0" => out.push_str(matched),
            _ => {}
        }
        rest = tail;
    }
    out.push_str(rest);
}
