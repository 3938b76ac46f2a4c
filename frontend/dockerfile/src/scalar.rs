//! Numbers, booleans and comma-separated fields, with Go's ideas of them.

use crate::quote::quoted;

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A size in bytes with an optional binary unit: `64m`, `1.5 GiB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].strip_prefix(' ').unwrap_or(&text[digits.len()..]);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        unit => {
            let unit = unit.strip_suffix('i').unwrap_or(unit);
            1 + ["k", "m", "g", "t", "p"].iter().position(|name| *name == unit)?
        }
    };
    let number: f64 = digits.parse().ok()?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    // Exact up to 2^53, and beyond it no machine has the memory.
    (bytes.is_finite() && bytes < 9.0e18).then_some(bytes as u64)
}

/// An integer, with the message that Go would give for a bad one.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let number = text.parse::<i64>().ok().filter(|_| !text.is_empty());
    match number {
        Some(number) if i32::try_from(number).is_ok() => Ok(number),
        Some(_) => Err(format!("strconv.ParseInt: parsing {}: value out of range", quoted(text))),
        None => Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(text))),
    }
}

/// The fields of one line of comma-separated values; a field in double quotes may hold commas and doubled quotes.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = if let Some(inside) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(inside)?;
            fields.push(field);
            if !after.is_empty() && !after.starts_with(',') {
                return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
            }
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err("parse error: bare \" in non-quoted-field".to_owned());
            }
            fields.push(rest[..end].to_owned());
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(inside: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = inside;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("100", Some(100)),
            ("1 kB", Some(1024)),
            ("5b", Some(5)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("5x", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn fields() {
        assert_eq!(csv_fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(csv_fields("\"a,\"\"b\",c").unwrap(), ["a,\"b", "c"]);
        assert!(csv_fields("a\"b").is_err());
        assert!(csv_fields("\"a").is_err());
        assert!(csv_fields("\"a\"b").is_err());
    }
}
