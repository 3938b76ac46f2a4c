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

/// Lower case, character by character: without Unicode's rules for several characters, as Go has it.
pub(crate) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// Upper case, character by character.
pub(crate) fn upper(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let one = |c: char| {
        let mut upper = c.to_uppercase();
        upper.next().filter(|_| upper.next().is_none()).unwrap_or(c)
    };
    text.chars().map(one).collect()
}

/// Whether [`lower`] changes nothing.
pub(crate) fn is_lower(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|byte| byte.is_ascii_uppercase()) } else { lower(text) == text }
}

/// Whether [`upper`] changes nothing.
pub(crate) fn is_upper(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|byte| byte.is_ascii_lowercase()) } else { upper(text) == text }
}

/// A size in bytes with an optional binary unit: `64m`, `1.5 GiB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = match text[last..].strip_prefix(' ') {
        Some(unit) => (&text[..last], unit),
        None => text.split_at(last + 1),
    };
    let number = parse_float(number).filter(|number| *number >= 0.0)?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.as_bytes() {
        [] | [b'b'] => 0,
        [first] | [first, b'b'] | [first, b'i', b'b'] => {
            1 + ["k", "m", "g", "t", "p"].iter().position(|name| name.as_bytes() == [*first])?
        }
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    // Exact up to 2^53, and beyond it no machine has the memory.
    (bytes.is_finite() && bytes < 9.0e18).then_some(bytes as u64)
}

/// A decimal number. Go also reads hexadecimal ones and underscores, which a size has no use for.
fn parse_float(text: &str) -> Option<f64> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-' | b'e' | b'E'));
    text.parse::<f64>().ok().filter(|number| plain && number.is_finite())
}

/// An integer of 32 bits, with the message that Go would give for a bad one: that of the first digit too many or of the
/// first character that is no digit, whichever comes first.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let wrong = |why: &str| Err(format!("strconv.ParseInt: parsing {}: {why}", quoted(text)));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut number: u32 = 0;
    for c in digits.chars() {
        let Some(digit) = c.to_digit(10) else { return wrong("invalid syntax") };
        match number.checked_mul(10).and_then(|tenfold| tenfold.checked_add(digit)) {
            Some(next) => number = next,
            None => return wrong("value out of range"),
        }
    }
    if digits.is_empty() {
        return wrong("invalid syntax");
    }
    let number = if text.starts_with('-') { -i64::from(number) } else { i64::from(number) };
    if i32::try_from(number).is_err() { wrong("value out of range") } else { Ok(number) }
}

/// The fields of one line of comma-separated values; a field in double quotes may hold commas and doubled quotes.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let wrong = |rest: &str, why: &str| {
        Err(format!("parse error on line 1, column {}: {why}", text.len() - rest.len() + 1))
    };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = if let Some(inside) = rest.strip_prefix('"') {
            let (field, after, closed) = quoted_field(inside);
            if !closed {
                return wrong(after, "extraneous or missing \" in quoted-field");
            }
            fields.push(field);
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                return wrong(&rest[quote..], "bare \" in non-quoted-field");
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

/// A field whose opening quote has been taken, what is behind it, and whether it was closed properly; if not, what is
/// behind starts where that was noticed.
fn quoted_field(inside: &str) -> (String, &str, bool) {
    let mut field = String::new();
    let mut rest = inside;
    while let Some(quote) = rest.find('"') {
        field.push_str(&rest[..quote]);
        let after = &rest[quote + 1..];
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return (field, after, true),
            None => return (field, &rest[quote..], false),
        }
    }
    (field, rest, false)
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
