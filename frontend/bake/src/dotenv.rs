//! `$NAME` in texts, as compose has it, and `.env` files.

use std::collections::BTreeMap;

use crate::value::LARGEST;

/// `text` with the values of its variables. Names without a value become empty and are added to `unset`.
///
/// # Errors
/// A variable is required and has no value, or the text cannot be read.
pub(crate) fn interpolated(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
) -> Result<String, String> {
    within(text, lookup, unset, 0)
}

/// The deepest nesting of defaults.
const DEPTH: usize = 32;

fn within(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > DEPTH {
        return Err(format!("variables are nested more than {DEPTH} deep"));
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner)
                .ok_or_else(|| format!("invalid interpolation format: \"${rest}\": a `}}` is missing"))?;
            out.push_str(&braced(&inner[..end], lookup, unset, depth)?);
            rest = &inner[end + 1..];
        } else {
            let length = name_length(rest);
            if length == 0 {
                return Err(format!(
                    "invalid interpolation format for {text:?}: write `$$` for a dollar sign"
                ));
            }
            out.push_str(&value(&rest[..length], lookup, unset));
            rest = &rest[length..];
        }
        if out.len() > LARGEST {
            return Err("the text is too long".to_owned());
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value(name: &str, lookup: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

fn name_length(text: &str) -> usize {
    let fits = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    text.char_indices().find(|found| !fits(*found)).map_or(text.len(), |(at, _)| at)
}

/// The place of the brace that closes an open one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn braced(
    inner: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    let length = name_length(inner);
    let (name, rest) = inner.split_at(length);
    if name.is_empty() {
        return Err(format!("invalid interpolation format: \"${{{inner}}}\""));
    }
    let (colon, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let found = lookup(name);
    let there = found.as_ref().is_some_and(|value| !colon || !value.is_empty());
    let Some(operator) = rest.chars().next() else {
        return if colon {
            Err(format!("invalid interpolation format: \"${{{inner}}}\""))
        } else {
            Ok(value(name, lookup, unset))
        };
    };
    let other = &rest[operator.len_utf8()..];
    match operator {
        '-' if there => Ok(found.unwrap_or_default()),
        '-' => within(other, lookup, unset, depth + 1),
        '+' if there => within(other, lookup, unset, depth + 1),
        '+' => Ok(String::new()),
        '?' if there => Ok(found.unwrap_or_default()),
        '?' => Err(format!(
            "required variable {name} is missing a value: {}",
            within(other, lookup, unset, depth + 1)?
        )),
        _ => Err(format!("invalid interpolation format: \"${{{inner}}}\"")),
    }
}

/// The variables of a `.env` file.
///
/// # Errors
/// A line is not `NAME=VALUE`.
pub(crate) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let text = text.trim_start_matches('\u{feff}');
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let (this, behind) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = this.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            (rest, line) = (behind, line + 1);
            continue;
        }
        let bad = || format!("line {line}: not NAME=VALUE");
        let start = this.trim_start();
        let start = start.strip_prefix("export ").unwrap_or(start);
        let at = start.find(['=', ':', ' ']).unwrap_or(start.len());
        let name = start[..at].trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-[]".contains(c)) {
            return Err(bad());
        }
        let Some(value) = start[at..].trim_start().strip_prefix(['=', ':']) else {
            if let Some(inherited) = outer(name) {
                values.insert(name.to_owned(), inherited);
            }
            (rest, line) = (behind, line + 1);
            continue;
        };
        let place = this.len() - value.len();
        let (value, used) =
            quoted(&rest[place..]).ok_or_else(|| format!("line {line}: a quote is missing"))?;
        let lookup = |name: &str| outer(name).or_else(|| values.get(name).cloned());
        let value = match value {
            Quoted::Raw(value) => value,
            Quoted::Open(value) => {
                interpolated(&value, &lookup, &mut Vec::new()).map_err(|why| format!("line {line}: {why}"))?
            }
        };
        values.insert(name.to_owned(), value);
        let taken = &rest[place..place + used];
        line += taken.matches('\n').count() + 1;
        rest = rest[place + used..].split_once('\n').map_or("", |(_, behind)| behind);
    }
    Ok(values)
}

enum Quoted {
    /// As it stands.
    Raw(String),
    /// With variables in it.
    Open(String),
}

/// The value in front of `text`, and the bytes that it has.
fn quoted(text: &str) -> Option<(Quoted, usize)> {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'');
    let Some(quote) = quote else {
        let line = value.split('\n').next().unwrap_or_default();
        let end = if line.starts_with('#') { 0 } else { line.find(" #").unwrap_or(line.len()) };
        return Some((Quoted::Open(line[..end].trim().to_owned()), start + line.len()));
    };
    let mut out = String::new();
    let mut chars = value.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                let used = start + at + 1;
                return Some((if quote == '"' { Quoted::Open(out) } else { Quoted::Raw(out) }, used));
            }
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                '$' => out.push_str("$$"),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_texts() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut unset = Vec::new();
        for (text, wanted) in [
            ("$A${A}", "11"),
            ("$$A", "$A"),
            ("${B:-x}", "x"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${A:+set}${B+no}", "set"),
            ("${B:-${C:-$A}}", "1"),
            ("$B", ""),
        ] {
            assert_eq!(interpolated(text, &lookup, &mut unset).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(unset, ["B"]);
        for text in ["${B:?needed}", "${", "$ ", "${A:}", "${A%x}"] {
            assert!(interpolated(text, &lookup, &mut unset).is_err(), "{text}");
        }
        let deep = "${X:-".repeat(100) + &"}".repeat(100);
        assert!(interpolated(&deep, &lookup, &mut unset).is_err());
    }

    #[test]
    fn files_of_variables() {
        let text = "# no\nA=1\nexport B = two # c\nC='$A'\nD=\"x$A\\n\"\n\nE=\"a\nb\"\nF=last";
        let values = parse(text, &|_| None).unwrap();
        let shown: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["A=1", "B=two", "C=$A", "D=x1\n", "E=a\nb", "F=last"]);
        assert!(parse("=x", &|_| None).is_err());
        assert!(parse("A=\"x", &|_| None).is_err());
    }
}
