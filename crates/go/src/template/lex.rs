//! Text and actions: the pieces of a template.

use super::TemplateError;

/// A piece of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.A.B`, or `.` alone (then there is nothing in it). Follows a closing parenthesis or stands for itself.
    Field(Vec<String>),
    /// `$name.A.B`.
    Variable(String, Vec<String>),
    /// A function's name or a keyword.
    Word(String),
    /// A string or a number.
    Literal(serde_json::Value),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// As it stands.
    Text(String),
    /// Between `{{` and `}}`.
    Action(Vec<Token>),
}

/// Takes a template apart.
pub(super) fn lex(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (text, false);
    loop {
        let (before, after) = rest.split_once("{{").map_or((rest, None), |(a, b)| (a, Some(b)));
        let after_trim = after.and_then(|text| text.strip_prefix('-')).filter(|text| is_space(text));
        let mut plain = if trim { before.trim_start() } else { before };
        if after_trim.is_some() {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some(action) = after_trim.or(after) else { return Ok(pieces) };
        let body = action.trim_start();
        if let Some(comment) = body.strip_prefix("/*") {
            let unclosed = || TemplateError::new("a comment is not closed by `*/}}`");
            let end = comment.split_once("*/").ok_or_else(unclosed)?.1.trim_start();
            (trim, rest) = closing(end).ok_or_else(unclosed)?;
            continue;
        }
        let mut lexer = Lexer { rest: action, tokens: Vec::new() };
        (trim, rest) = lexer.action()?;
        if lexer.tokens.is_empty() {
            return Err(TemplateError::new("an action is empty"));
        }
        pieces.push(Piece::Action(lexer.tokens));
    }
}

fn is_space(text: &str) -> bool {
    text.starts_with(char::is_whitespace)
}

/// The text behind `}}`, and whether white space there is trimmed.
fn closing(text: &str) -> Option<(bool, &str)> {
    match text.strip_prefix("-}}") {
        Some(rest) => Some((true, rest)),
        None => text.strip_prefix("}}").map(|rest| (false, rest)),
    }
}

struct Lexer<'t> {
    rest: &'t str,
    tokens: Vec<Token>,
}

impl<'t> Lexer<'t> {
    fn action(&mut self) -> Result<(bool, &'t str), TemplateError> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(end) = closing(self.rest) {
                return Ok(end);
            }
            let token = self.token()?;
            self.tokens.push(token);
        }
    }

    fn token(&mut self) -> Result<Token, TemplateError> {
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else {
            return Err(TemplateError::new("an action is not closed by `}}`"));
        };
        let after = chars.as_str();
        let single = |token| Ok((token, after));
        let (token, rest) = match first {
            '(' => single(Token::Open),
            ')' => single(Token::Close),
            '|' => single(Token::Pipe),
            ',' => single(Token::Comma),
            ':' if after.starts_with('=') => Ok((Token::Declare, &after[1..])),
            '=' => single(Token::Assign),
            '"' => quoted(after),
            '`' => match after.split_once('`') {
                Some((raw, rest)) => Ok((Token::Literal(raw.into()), rest)),
                None => Err(TemplateError::new("a string is not closed")),
            },
            '.' if !after.starts_with(|c: char| c.is_ascii_digit()) => {
                let (fields, rest) = fields(self.rest);
                Ok((Token::Field(fields), rest))
            }
            '$' => {
                let (name, rest) = word(after);
                let (fields, rest) = fields(rest);
                Ok((Token::Variable(name.to_owned(), fields), rest))
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' || c == '.' => number(self.rest),
            c if c.is_alphabetic() || c == '_' => {
                let (name, rest) = word(self.rest);
                Ok((Token::Word(name.to_owned()), rest))
            }
            c => Err(TemplateError::new(format!("unexpected `{c}`"))),
        }?;
        self.rest = rest;
        Ok(token)
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// `.A.B`, as far as it goes.
fn fields(text: &str) -> (Vec<String>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(after) = rest.strip_prefix('.') {
        let (name, behind) = word(after);
        if name.is_empty() {
            return (found, if rest.len() == text.len() { after } else { rest });
        }
        found.push(name.to_owned());
        rest = behind;
    }
    (found, rest)
}

fn number(text: &str) -> Result<(Token, &str), TemplateError> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let end = text[sign..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |n| n + sign);
    let (digits, rest) = text.split_at(end);
    let bad = || TemplateError::new(format!("`{digits}` is not a number"));
    let digits = digits.trim_start_matches('+');
    let value = match digits.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) => digits.parse::<f64>().map_err(|_| bad())?.into(),
    };
    Ok((Token::Literal(value), rest))
}

/// A string up to its closing quote.
fn quoted(text: &str) -> Result<(Token, &str), TemplateError> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            Some('"') => return Ok((Token::Literal(value.into()), chars.as_str())),
            Some('\\') => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(c @ ('"' | '\\' | '\'')) => value.push(c),
                Some(c) => return Err(TemplateError::new(format!("`\\{c}` in a string is not supported"))),
                None => return Err(TemplateError::new("a string is not closed")),
            },
            Some('\n') | None => return Err(TemplateError::new("a string is not closed")),
            Some(c) => value.push(c),
        }
    }
}
