//! Functions on texts.

use regex::Regex;

use super::Param::{Number as N, Text, Texts};
use super::{Call, Function, many, row};
use crate::value::{LARGEST, Type, Value};

pub(super) const TABLE: &[Function] = &[
    row("basename", &[Text], |c| Ok(Value::text(base(c.text(0))))),
    row("byteslen", &[Text], |c| Ok(Value::int(i64::try_from(c.text(0).len()).unwrap_or(i64::MAX)))),
    row("bytesslice", &[Text, N, N], bytes_slice),
    row("chomp", &[Text], |c| Ok(Value::text(c.text(0).trim_end_matches(['\r', '\n'])))),
    row("dirname", &[Text], |c| Ok(Value::text(dir(c.text(0))))),
    row("indent", &[N, Text], indent),
    many("join", &[Text], Texts, join),
    row("lower", &[Text], |c| Ok(Value::text(lapstrake_go::to_lower(c.text(0))))),
    row("regex", &[Text, Text], first_match),
    row("regex_replace", &[Text, Text, Text], replace_matches),
    row("regexall", &[Text, Text], all_matches),
    row("replace", &[Text, Text, Text], |c| Ok(Value::text(c.text(0).replace(c.text(1), c.text(2))))),
    row("reverse", &[Text], |c| Ok(Value::text(c.text(0).chars().rev().collect::<String>()))),
    row("sanitize", &[Text], sanitize),
    row("split", &[Text, Text], split),
    row("strlen", &[Text], |c| Ok(Value::int(i64::try_from(c.text(0).chars().count()).unwrap_or(i64::MAX)))),
    row("substr", &[Text, N, N], substring),
    row("title", &[Text], |c| Ok(Value::text(title(c.text(0))))),
    row("trim", &[Text, Text], |c| {
        Ok(Value::text(c.text(0).trim_matches(|found| c.text(1).contains(found))))
    }),
    row("trimprefix", &[Text, Text], |c| {
        Ok(Value::text(c.text(0).strip_prefix(c.text(1)).unwrap_or(c.text(0))))
    }),
    row("trimspace", &[Text], |c| Ok(Value::text(c.text(0).trim()))),
    row("trimsuffix", &[Text, Text], |c| {
        Ok(Value::text(c.text(0).strip_suffix(c.text(1)).unwrap_or(c.text(0))))
    }),
    row("upper", &[Text], |c| Ok(Value::text(lapstrake_go::to_upper(c.text(0))))),
];

fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) }
}

fn dir(path: &str) -> String {
    lapstrake_go::path::clean(path.rfind('/').map_or("", |at| &path[..=at]))
}

/// A range of `length` items from `start`, where both may be negative as in go-cty.
fn range(length: usize, start: i64, wanted: i64) -> std::ops::Range<usize> {
    let total = i64::try_from(length).unwrap_or(i64::MAX);
    let start = if start < 0 { start + total } else { start };
    let Ok(from) = usize::try_from(start) else { return 0..0 };
    if from >= length {
        return 0..0;
    }
    let end = usize::try_from(wanted).map_or(length, |wanted| from.saturating_add(wanted).min(length));
    from..end
}

fn substring(call: &Call<'_>) -> Result<Value, String> {
    let chars: Vec<char> = call.text(0).chars().collect();
    let range = range(chars.len(), call.int(1)?, call.int(2)?);
    Ok(Value::text(chars[range].iter().collect::<String>()))
}

fn bytes_slice(call: &Call<'_>) -> Result<Value, String> {
    let text = call.text(0);
    let (Ok(start), Ok(length)) = (usize::try_from(call.int(1)?), usize::try_from(call.int(2)?)) else {
        return Err("offset and length must not be negative".to_owned());
    };
    let part = start.checked_add(length).and_then(|end| text.get(start..end));
    part.map(Value::text)
        .ok_or_else(|| "offset and length are outside of the text, or within a character".to_owned())
}

fn indent(call: &Call<'_>) -> Result<Value, String> {
    let spaces = usize::try_from(call.int(0)?).ok().filter(|spaces| *spaces <= 4096);
    let spaces = " ".repeat(spaces.ok_or("the number of spaces must be between 0 and 4096")?);
    let lines = call.text(1).matches('\n').count();
    if lines.saturating_mul(spaces.len()) > LARGEST {
        return Err("the result is too long".to_owned());
    }
    Ok(Value::text(call.text(1).replace('\n', &format!("\n{spaces}"))))
}

fn join(call: &Call<'_>) -> Result<Value, String> {
    let mut parts = Vec::new();
    for at in 1..call.args.len() {
        parts.extend(call.texts(at)?);
    }
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + parts.len() * call.text(0).len();
    if length > LARGEST {
        return Err("the result is too long".to_owned());
    }
    Ok(Value::text(parts.join(call.text(0))))
}

fn split(call: &Call<'_>) -> Result<Value, String> {
    let (separator, text) = (call.text(0), call.text(1));
    if separator.is_empty() {
        return Ok(Value::texts(text.chars().map(|c| c.to_string())));
    }
    Ok(Value::texts(text.split(separator)))
}

/// Replaces what is not allowed in names of targets.
fn sanitize(call: &Call<'_>) -> Result<Value, String> {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    Ok(Value::text(call.text(0).chars().map(kept).collect::<String>()))
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        if start {
            titled.extend(c.to_uppercase());
        } else {
            titled.push(c);
        }
        start = if c.is_ascii() { !(c.is_ascii_alphanumeric() || c == '_') } else { c.is_whitespace() };
    }
    titled
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("invalid regular expression: {error}"))
}

/// The groups of a match: a text without groups, else a list, or an object where groups have names.
fn groups(found: &regex::Captures<'_>, pattern: &Regex) -> Value {
    let text = |group: Option<regex::Match<'_>>| {
        group.map_or(Value::Null(Type::String), |group| Value::text(group.as_str()))
    };
    if pattern.captures_len() == 1 {
        return text(found.get(0));
    }
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    if names.iter().any(Option::is_some) {
        let named = names.iter().flatten().map(|name| ((*name).to_owned(), text(found.name(name))));
        return Value::object(named.collect());
    }
    Value::tuple((1..pattern.captures_len()).map(|at| text(found.get(at))).collect())
}

fn mixed(pattern: &Regex) -> Result<(), String> {
    let names: Vec<bool> = pattern.capture_names().skip(1).map(|name| name.is_some()).collect();
    if names.contains(&true) && names.contains(&false) {
        return Err("invalid regular expression: groups must all have names, or none".to_owned());
    }
    Ok(())
}

fn first_match(call: &Call<'_>) -> Result<Value, String> {
    let pattern = compiled(call.text(0))?;
    mixed(&pattern)?;
    let found = pattern.captures(call.text(1)).ok_or("pattern did not match any part of the given string")?;
    Ok(groups(&found, &pattern))
}

fn all_matches(call: &Call<'_>) -> Result<Value, String> {
    let pattern = compiled(call.text(0))?;
    mixed(&pattern)?;
    let found: Vec<Value> =
        pattern.captures_iter(call.text(1)).map(|found| groups(&found, &pattern)).collect();
    Ok(Value::list(found.first().map_or(Type::String, Value::kind), found))
}

/// Replaces matches, with `$1` and `${name}` as in Go.
fn replace_matches(call: &Call<'_>) -> Result<Value, String> {
    let pattern = compiled(call.text(1))?;
    let worst = call.text(0).len().saturating_add(1).saturating_mul(call.text(2).len() + 1);
    if worst > LARGEST * 16 {
        return Err("the result is too long".to_owned());
    }
    Ok(Value::text(pattern.replace_all(call.text(0), call.text(2)).into_owned()))
}
