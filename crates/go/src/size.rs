//! go-units: sizes in bytes, as flags take them and as lists show them.

/// `units.RAMInBytes`: a size in bytes with an optional binary unit (`64m`, `1.5 GiB`); `None` is its error.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
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

/// `units.HumanSizeWithPrecision(bytes, 3)`, as Docker's lists have it: decimal units, three digits, no zeros at the
/// end. Go turns to an exponent between 999.5 and 1000; this does not.
#[must_use]
pub fn human(bytes: u64) -> String {
    let (digits, unit) = rounded(bytes);
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits.as_str()
    };
    format!("{digits}{unit}")
}

/// As [`human`], with the zeros at the end: a size that grows keeps its width. BuildKit's progress has these.
#[must_use]
pub fn human_padded(bytes: u64) -> String {
    let (digits, unit) = rounded(bytes);
    format!("{digits}{unit}")
}

/// The number in the largest unit that leaves something before the point, to three digits; plain bytes have no point.
fn rounded(bytes: u64) -> (String, &'static str) {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    let digits = if unit == "B" || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    (format!("{value:.digits$}"), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        let table = [
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("1GiB", Some(1 << 30)),
            ("100", Some(100)),
            ("1 kB", Some(1024)),
            ("5b", Some(5)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("5x", None),
            ("5bb", None),
            ("5mi", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn shown() {
        let table = [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1.00kB"),
            (1230, "1.23kB", "1.23kB"),
            (12_340, "12.3kB", "12.3kB"),
            (762_000, "762kB", "762kB"),
            (123_456_789, "123MB", "123MB"),
            (20_000_000, "20MB", "20.0MB"),
        ];
        for (bytes, short, padded) in table {
            assert_eq!((human(bytes).as_str(), human_padded(bytes).as_str()), (short, padded));
        }
    }
}
