//! Filters as containerd's users write them: `status==error,ref~=^a`.
//!
//! ```text
//! selectors = selector *("," selector)
//! selector  = field *("." field) [("==" / "!=" / "~=") value]
//! field     = quoted / word of letters, digits and "_"
//! value     = quoted / characters without space and comma
//! ```
//!
//! A pattern after `~=` may have `/` or `|` for quotes. Without an operator, the field has to be there.

use std::iter::Peekable;
use std::str::CharIndices;

use lapstrake_diag::{Outcome, Report, Usage};
use regex::Regex;

/// The selectors that a thing must all fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(Vec<Selector>);

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Reads a filter. The empty text fits everything.
    ///
    /// # Errors
    /// The text is not in the grammar above.
    pub(crate) fn parse(text: &str) -> Outcome<Filter> {
        if text.is_empty() {
            return Ok(Filter::default());
        }
        let mut reader = Reader { text, rest: text.char_indices().peekable() };
        let mut selectors = vec![reader.selector()?];
        while let Some((at, next)) = reader.rest.next() {
            if next != ',' {
                return Err(reader.bad(at, "unexpected input"));
            }
            selectors.push(reader.selector()?);
        }
        Ok(Filter(selectors))
    }

    /// Whether a thing with these fields fits. `field` gives the value of a field by its path, if there is one.
    pub(crate) fn fits(&self, field: impl Fn(&[String]) -> Option<String>) -> bool {
        self.0.iter().all(|selector| {
            let value = field(&selector.path);
            match &selector.test {
                Test::Present => value.is_some(),
                Test::Equal(wanted) => value.as_ref() == Some(wanted),
                Test::NotEqual(other) => value.unwrap_or_default() != *other,
                Test::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
            }
        })
    }
}

struct Reader<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
}

impl Reader<'_> {
    fn bad(&self, at: usize, why: &str) -> Report {
        Usage(format!("filters: parse error: [{}]: {why} at {at}", self.text)).into()
    }

    fn place(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn while_is(&mut self, is: impl Fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some((_, next)) = self.rest.next_if(|(_, next)| is(*next)) {
            word.push(next);
        }
        word
    }

    fn selector(&mut self) -> Outcome<Selector> {
        let mut path = vec![self.field()?];
        while self.rest.next_if(|(_, next)| *next == '.').is_some() {
            path.push(self.field()?);
        }
        if self.rest.peek().is_none_or(|(_, next)| *next == ',') {
            return Ok(Selector { path, test: Test::Present });
        }
        let at = self.place();
        let operator = self.while_is(|next| matches!(next, '=' | '!' | '~'));
        let test = match operator.as_str() {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            "~=" => {
                let pattern = self.value(true)?;
                let read = Regex::new(&pattern);
                Test::Matches(read.map_err(|error| self.bad(at, &format!("bad pattern: {error}")))?)
            }
            _ => return Err(self.bad(at, "expected an operator (\"==\"|\"!=\"|\"~=\")")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Outcome<String> {
        let at = self.place();
        match self.rest.peek().map(|(_, next)| *next) {
            Some('"') => self.quoted('"'),
            Some(next) if next.is_ascii_alphabetic() || next == '_' => {
                Ok(self.while_is(|next| next.is_ascii_alphanumeric() || next == '_'))
            }
            _ => Err(self.bad(at, "expected field or quoted")),
        }
    }

    fn value(&mut self, is_pattern: bool) -> Outcome<String> {
        let at = self.place();
        match self.rest.peek().map(|(_, next)| *next) {
            Some('"') => self.quoted('"'),
            Some(quote @ ('/' | '|')) if is_pattern => self.quoted(quote),
            _ => match self.while_is(|next| next != ',' && !next.is_whitespace()) {
                word if word.is_empty() => Err(self.bad(at, "expected value or quoted")),
                word => Ok(word),
            },
        }
    }

    /// A text between quotes. Only the quote itself has to be escaped between others than `"`.
    fn quoted(&mut self, quote: char) -> Outcome<String> {
        let begin = self.place();
        self.rest.next();
        let mut text = String::new();
        while let Some((at, next)) = self.rest.next() {
            match next {
                next if next == quote => return Ok(text),
                '\\' => {
                    let Some((_, escaped)) = self.rest.next() else { break };
                    match escaped {
                        escaped if escaped == quote => text.push(escaped),
                        escaped if quote != '"' => text.extend(['\\', escaped]),
                        '\\' => text.push('\\'),
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        _ => return Err(self.bad(at, "unquoting failed: invalid syntax")),
                    }
                }
                next => text.push(next),
            }
        }
        Err(self.bad(begin, "literal not terminated"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(filter: &str) -> bool {
        Filter::parse(filter).unwrap().fits(|path| match path.join(".").as_str() {
            "name" => Some("foo".to_owned()),
            "labels.a b" => Some("x,y".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn selectors_are_read_as_by_containerd() {
        for yes in [
            "",
            "name==foo",
            "name",
            "name!=bar",
            "name~=^f",
            "name~=/^f.o$/",
            "name~=|o+|",
            "labels.\"a b\"==\"x,y\"",
            "name==foo,labels.\"a b\"",
            "nosuch!=x",
        ] {
            assert!(fits(yes), "{yes}");
        }
        for no in ["nosuch", "name==bar", "name==foo,name==bar", "name!=foo", "nosuch==", "name~=x"] {
            assert!(Filter::parse(no).is_err() || !fits(no), "{no}");
        }
        for bad in ["name+foo", "==x", "name==", "name=foo", "name==foo bar", "name~=\"(\"", "\"a", ",", "a,"]
        {
            let error = Filter::parse(bad).unwrap_err().to_string();
            assert!(error.contains("parse error"), "{bad}: {error}");
        }
    }
}
