//! The functions of templates: Go's own and Docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::TemplateError;

/// All of them.
pub(super) const NAMES: [&str; 23] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let few = || TemplateError::new(format!("`{name}` needs more arguments"));
    let first = || arguments.first().ok_or_else(few);
    let text = |number: usize| arguments.get(number).map(print).ok_or_else(few);
    Ok(match name {
        "and" => arguments.iter().find(|v| !truth(v)).or(arguments.last()).cloned().ok_or_else(few)?,
        "or" => arguments.iter().find(|v| truth(v)).or(arguments.last()).cloned().ok_or_else(few)?,
        "not" => (!truth(first()?)).into(),
        "eq" => {
            let (first, rest) =
                arguments.split_first().filter(|(_, rest)| !rest.is_empty()).ok_or_else(few)?;
            rest.iter().any(|other| same(first, other)).into()
        }
        "ne" => (!same(first()?, arguments.get(1).ok_or_else(few)?)).into(),
        "lt" | "le" | "gt" | "ge" => {
            let order = order(first()?, arguments.get(1).ok_or_else(few)?)?;
            let holds = match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            };
            holds.into()
        }
        "index" => arguments.iter().skip(1).try_fold(first()?.clone(), |value, key| index(&value, key))?,
        "len" => length(first()?)?.into(),
        "slice" => slice(first()?, arguments.get(1..).unwrap_or_default())?,
        "json" => String::from_utf8_lossy(&crate::to_json(first()?)).into_owned().into(),
        "join" => {
            let Value::Array(list) = first()? else { return Err(TemplateError::new("`join` needs a list")) };
            list.iter().map(print).collect::<Vec<_>>().join(&text(1)?).into()
        }
        "split" => text(0)?.split(&text(1)?).collect::<Vec<_>>().into(),
        "lower" => text(0)?.to_lowercase().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "title" => title(&text(0)?).into(),
        "truncate" => text(0)?.chars().take(number(arguments, 1, name)?).collect::<String>().into(),
        "pad" => pad(&text(0)?, number(arguments, 1, name)?, number(arguments, 2, name)?).into(),
        "print" => together(arguments).into(),
        "println" => (arguments.iter().map(print).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => printf(&text(0)?, arguments.get(1..).unwrap_or_default())?.into(),
        other => return Err(TemplateError::new(format!("function `{other}` is not defined"))),
    })
}

/// The kind of a value, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether a value counts as true: Go's rule is that it is not empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// `print` puts a space between two values of which neither is a string.
fn together(values: &[Value]) -> String {
    let mut out = String::new();
    for (number, value) in values.iter().enumerate() {
        if number > 0 && !value.is_string() && !values[number - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&print(value));
    }
    out
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
        _ => one == other,
    }
}

fn order(one: &Value, other: &Value) -> Result<Ordering, TemplateError> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Ok(one.cmp(&other)),
            _ => Ok(one.as_f64().unwrap_or(0.0).total_cmp(&other.as_f64().unwrap_or(0.0))),
        },
        (Value::String(one), Value::String(other)) => Ok(one.cmp(other)),
        _ => Err(TemplateError::new(format!("{} and {} cannot be compared", kind(one), kind(other)))),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| none_of(map))),
        // A map that nobody has written anything to.
        (Value::Null, Value::String(_)) => Ok(String::new().into()),
        (Value::Array(list), Value::Number(_)) => {
            let found = key.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| list.get(n));
            let there = list.len();
            let out = || TemplateError::new(format!("index {key} is out of range: there are {there}"));
            found.cloned().ok_or_else(out)
        }
        _ => Err(TemplateError::new(format!("{} cannot be indexed by {}", kind(value), kind(key)))),
    }
}

/// Go's value of a missing key: the zero value of the map's elements. In a map of strings, this is an empty string.
fn none_of(map: &serde_json::Map<String, Value>) -> Value {
    if map.values().all(Value::is_string) { String::new().into() } else { Value::Null }
}

fn length(value: &Value) -> Result<usize, TemplateError> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(TemplateError::new(format!("`len` of {}", kind(other)))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, TemplateError> {
    let length = length(value)?;
    let bound = |number: usize, default: usize| match bounds.get(number) {
        None => Ok(default),
        Some(value) => {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= length).ok_or_else(|| {
                TemplateError::new(format!("{} is out of range for the length {length}", print(value)))
            })
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let range = from.min(to)..to;
    match value {
        Value::String(text) => {
            let cut = text.get(range).ok_or_else(|| TemplateError::new("`slice` cuts a character in two"))?;
            Ok(cut.into())
        }
        Value::Array(list) => Ok(list[range].to_vec().into()),
        other => Err(TemplateError::new(format!("`slice` of {}", kind(other)))),
    }
}

fn number(arguments: &[Value], at: usize, of: &str) -> Result<usize, TemplateError> {
    /// More than anybody pads; what is asked for is allocated.
    const MOST: u64 = 10_000;
    let found = arguments.get(at).and_then(Value::as_u64).filter(|n| *n <= MOST);
    let bad = || TemplateError::new(format!("`{of}` needs a number up to {MOST}"));
    found.and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)
}

fn pad(text: &str, before: usize, after: usize) -> String {
    if text.is_empty() { String::new() } else { " ".repeat(before) + text + &" ".repeat(after) }
}

fn title(text: &str) -> String {
    let mut last = ' ';
    text.chars()
        .map(|c| {
            let first = !last.is_alphanumeric() && last != '_';
            last = c;
            if first { c.to_uppercase().next().unwrap_or(c) } else { c }
        })
        .collect()
}

/// `%s`, `%v`, `%d`, `%q`, `%t` and `%%`, with a width.
fn printf(format: &str, values: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let mut width = 0usize;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            chars.next();
            width = (width * 10 + digit as usize).min(10_000);
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| TemplateError::new("`printf` has more verbs than values"))?;
        let text = match verb {
            's' | 'v' | 'd' | 't' => print(value),
            'q' => crate::quoted(&print(value)),
            other => return Err(TemplateError::new(format!("`%{other}` is not supported"))),
        };
        if left {
            out.push_str(&format!("{text:<width$}"));
        } else {
            out.push_str(&format!("{text:>width$}"));
        }
    }
    Ok(out)
}
