//! Durations in Go's notation: `1m30s`, `1.5h`, `100ms`.

use std::fmt::Write as _;

/// Text in double quotes as Go's `time` has it: what is not printable ASCII as bytes.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='\u{7f}' => out.push(c),
            c => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(out, "\\x{byte:02x}").expect("writing to a string does not fail");
                }
            }
        }
    }
    out.push('"');
    out
}

/// The largest magnitude that a duration has: that of the least `i64`.
const MOST: u64 = 1 << 63;

/// Nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, after) = rest.split_at(number);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                after.split_at(after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len())
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let whole = leading(whole).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quoted(text)));
        }
        let scale = scale(unit)
            .ok_or_else(|| format!("time: unknown unit {} in duration {}", quoted(unit), quoted(text)))?;
        let whole = whole.checked_mul(scale).filter(|product| *product <= MOST).ok_or_else(invalid)?;
        total = total
            .checked_add(whole + part(fraction, scale))
            .filter(|sum| *sum <= MOST)
            .ok_or_else(invalid)?;
        rest = after;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(total)) => Ok(total),
        (true, Ok(total)) => Ok(-total),
        (true, Err(_)) => Ok(i64::MIN),
        (false, Err(_)) => Err(invalid()),
    }
}

/// Nanoseconds of a unit.
fn scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Digits before the point.
fn leading(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok().filter(|number| *number <= MOST)
}

/// Digits behind the point, as nanoseconds; digits that do not fit any more are left out.
fn part(digits: &str, unit: u64) -> u64 {
    let mut number: u64 = 0;
    let mut divisor = 1.0;
    for digit in digits.bytes() {
        let next = number.checked_mul(10).and_then(|tenfold| tenfold.checked_add(u64::from(digit - b'0')));
        match next.filter(|next| *next <= MOST) {
            Some(next) => number = next,
            None => break,
        }
        divisor *= 10.0;
    }
    // In floats, as Go does it: one third of an hour in digits has to come out the same.
    (number as f64 * (unit as f64 / divisor)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("1m30s", Ok(90_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            ("100ms", Ok(100_000_000)),
            (".5s", Ok(500_000_000)),
            ("-1s", Ok(-1_000_000_000)),
            ("0", Ok(0)),
            ("1us", Ok(1_000)),
            ("10", Err("time: missing unit in duration \"10\"")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"")),
            ("", Err("time: invalid duration \"\"")),
            ("a", Err("time: invalid duration \"a\"")),
            ("99999999999h", Err("time: invalid duration \"99999999999h\"")),
        ];
        for (text, expected) in table {
            assert_eq!(parse_duration(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
