//! `time.Duration` in nanoseconds, and the ways in which Docker's programs show one.

use std::fmt::Write as _;

/// Text that is no duration, in the words of `time.ParseDuration`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Bad syntax, or a number that is too large.
    #[error("time: invalid duration {}", quoted(.0))]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {}", quoted(.0))]
    MissingUnit(String),
    /// A unit that is none.
    #[error("time: unknown unit {} in duration {}", quoted(unit), quoted(text))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

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

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The largest magnitude that a duration has: that of the least `i64`.
const MOST: u64 = 1 << 63;

/// `time.ParseDuration`: `1m30s`, `1.5h`, `-100ms`; in nanoseconds.
///
/// # Errors
/// [`DurationError`], with Go's message.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    parse_with(text, scale)
}

/// As [`parse`], with the unit `d` for 24 hours, which Go has not.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_days(text: &str) -> Result<i64, DurationError> {
    parse_with(text, |unit| if unit == "d" { Some(DAY) } else { scale(unit) })
}

fn parse_with(text: &str, scale: impl Fn(&str) -> Option<u64>) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
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
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let unknown = || DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() };
        let scale = scale(unit).ok_or_else(unknown)?;
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
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
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

/// `time.Duration.String`: `1m30s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn text(nanoseconds: i64) -> String {
    let total = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    if total == 0 {
        return "0s".to_owned();
    }
    for (unit, scale) in [("ns", 1_u64), ("\u{b5}s", 1_000), ("ms", 1_000_000)] {
        if total < scale * 1_000 {
            return format!("{sign}{}{unit}", decimal(total, scale));
        }
    }
    let (minutes, seconds) = (total / MINUTE, decimal(total % MINUTE, SECOND));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / scale`, without zeros at the end.
fn decimal(value: u64, scale: u64) -> String {
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// `units.HumanDuration` of go-units, of seconds: `3 days`, `About an hour`.
#[must_use]
pub fn human(seconds: i64) -> String {
    let hours = seconds.saturating_add(1800) / 3600;
    match (seconds, seconds / 60, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 168),
        (.., ..17520) => format!("{} months", hours / 720),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// Milliseconds as a list of builds shows them: `340ms`, `1.5s`, `2m 7s`.
#[must_use]
pub fn short(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 => format!("{}.{}s", milliseconds / 1_000, milliseconds % 1_000 / 100),
        _ => format!("{}m {}s", milliseconds / 60_000, milliseconds % 60_000 / 1_000),
    }
}

/// A duration as Go writes it, also with days: `1h30m`, `2d`. In whole seconds.
pub fn seconds(text: &str) -> Option<i64> {
    // A bare zero is Go's; here a number without a unit is a time.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let nanoseconds = parse_with_days(text).ok().filter(|length| !is_number && *length >= 0)?;
    Some(nanoseconds / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
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
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
            ("", Err("time: invalid duration \"\"")),
            ("a", Err("time: invalid duration \"a\"")),
            ("99999999999h", Err("time: invalid duration \"99999999999h\"")),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse(text).map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
        assert_eq!(parse_with_days("2d1.5h"), Ok(178_200_000_000_000));
        assert_eq!(
            parse_with_days("1y").map_err(|error| error.to_string()).unwrap_err(),
            "time: unknown unit \"y\" in duration \"1y\""
        );
    }

    #[test]
    fn shown_as_go_does() {
        let table = [
            (0, "0s"),
            (90_000_000_000, "1m30s"),
            (1_500_000_000, "1.5s"),
            (100_000_000, "100ms"),
            (1_500, "1.5\u{b5}s"),
            (7, "7ns"),
            (3_600_000_000_000, "1h0m0s"),
            (60_000_000_000, "1m0s"),
        ];
        for (nanoseconds, expected) in table {
            assert_eq!(text(nanoseconds), expected);
        }
    }

    #[test]
    fn shown_to_people() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (172_000, "2 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(human(seconds), text);
        }
        for (milliseconds, text) in [(0, "0ms"), (999, "999ms"), (1_990, "1.9s"), (127_000, "2m 7s")] {
            assert_eq!(short(milliseconds), text);
        }
    }
}
