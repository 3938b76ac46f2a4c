//! Times.

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::Param::{Any, Number as N, Text};
use super::{Call, Function, row};
use crate::value::Value;

pub(super) const TABLE: &[Function] = &[
    row("formatdate", &[Text, Text], |c| shown(c.text(0), &parse(c.text(1))?).map(Value::text)),
    row("formattimestamp", &[Text, Any], format_timestamp),
    row("homedir", &[], |c| Ok(Value::text(c.host.home.to_string_lossy().into_owned()))),
    row("timeadd", &[Text, Text], add),
    row("timestamp", &[], |c| of_unix(c.host.now).map(|time| Value::text(rfc3339(&time)))),
    row("unixtimestampparse", &[N], parse_unix),
];

/// Reads RFC 3339, which needs an offset.
fn parse(text: &str) -> Result<Zoned, String> {
    let bad = || format!("not a valid RFC3339 timestamp: {text:?}");
    let time: Timestamp = text.parse().map_err(|_| bad())?;
    let offset = match text.as_bytes() {
        [.., b'Z' | b'z'] => Offset::UTC,
        [.., sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |byte: &u8| i32::from(byte.wrapping_sub(b'0'));
            let seconds = (digit(h1) * 10 + digit(h2)) * 3600 + (digit(m1) * 10 + digit(m2)) * 60;
            Offset::from_seconds(if *sign == b'-' { -seconds } else { seconds }).map_err(|_| bad())?
        }
        _ => return Err(bad()),
    };
    if text.as_bytes().get(10) != Some(&b'T') {
        return Err(bad());
    }
    Ok(time.to_zoned(TimeZone::fixed(offset)))
}

fn of_unix(seconds: i64) -> Result<Zoned, String> {
    let time = Timestamp::from_second(seconds).map_err(|_| "the time is out of range".to_owned())?;
    Ok(time.to_zoned(TimeZone::UTC))
}

fn rfc3339(time: &Zoned) -> String {
    format!("{}{}", time.strftime("%Y-%m-%dT%H:%M:%S"), offset(time, ":", true))
}

fn offset(time: &Zoned, separator: &str, zulu: bool) -> String {
    let seconds = time.offset().seconds();
    if seconds == 0 && zulu {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

fn format_timestamp(call: &Call<'_>) -> Result<Value, String> {
    let time = match &call.args[1] {
        Value::String(text) => parse(text)?,
        Value::Number(number) => of_unix(number.to_i64().ok_or("unix timestamp must be an integer")?)?,
        _ => return Err("argument 2: must be a string timestamp or a unix timestamp number".to_owned()),
    };
    if call.text(0) == "X" {
        return Ok(Value::text(time.timestamp().as_second().to_string()));
    }
    shown(call.text(0), &time).map(Value::text)
}

fn add(call: &Call<'_>) -> Result<Value, String> {
    let time = parse(call.text(0))?;
    let nanoseconds = lapstrake_go::duration::parse(call.text(1)).map_err(|error| error.to_string())?;
    let later = time.checked_add(jiff::SignedDuration::from_nanos(nanoseconds));
    later.map(|time| Value::text(rfc3339(&time))).map_err(|_| "the time is out of range".to_owned())
}

fn weekday(day: Weekday) -> i64 {
    i64::from(day.to_sunday_zero_offset())
}

fn parse_unix(call: &Call<'_>) -> Result<Value, String> {
    let time = of_unix(call.number(0).to_i64().ok_or("unix timestamp must be an integer")?)?;
    let week = time.date().iso_week_date();
    let name = |format: &str| Value::text(time.strftime(format).to_string());
    let fields = [
        ("year", Value::int(i64::from(time.year()))),
        ("year_day", Value::int(i64::from(time.day_of_year()))),
        ("day", Value::int(i64::from(time.day()))),
        ("month", Value::int(i64::from(time.month()))),
        ("month_name", name("%B")),
        ("weekday", Value::int(weekday(time.weekday()))),
        ("weekday_name", name("%A")),
        ("hour", Value::int(i64::from(time.hour()))),
        ("minute", Value::int(i64::from(time.minute()))),
        ("second", Value::int(i64::from(time.second()))),
        ("rfc3339", Value::text(rfc3339(&time))),
        ("iso_year", Value::int(i64::from(week.year()))),
        ("iso_week", Value::int(i64::from(week.week()))),
    ];
    Ok(Value::object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// `time` as go-cty's format has it: runs of letters are verbs, quoted parts stand for themselves.
fn shown(format: &str, time: &Zoned) -> Result<String, String> {
    let mut out = String::new();
    let chars: Vec<char> = format.chars().collect();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        if c == '\'' {
            at = quoted(&chars, at + 1, &mut out)?;
            continue;
        }
        if !c.is_ascii_alphabetic() {
            out.push(c);
            at += 1;
            continue;
        }
        let length = chars[at..].iter().take_while(|next| **next == c).count();
        let verb: String = chars[at..at + length].iter().collect();
        out.push_str(&part(&verb, time)?);
        at += length;
    }
    Ok(out)
}

/// Copies a quoted part, in which two quotes are one, and gives the place behind it.
fn quoted(chars: &[char], mut at: usize, out: &mut String) -> Result<usize, String> {
    loop {
        match (chars.get(at), chars.get(at + 1)) {
            (Some('\''), Some('\'')) => {
                out.push('\'');
                at += 2;
            }
            (Some('\''), _) => return Ok(at + 1),
            (Some(c), _) => {
                out.push(*c);
                at += 1;
            }
            (None, _) => return Err("unterminated literal '".to_owned()),
        }
    }
}

fn part(verb: &str, time: &Zoned) -> Result<String, String> {
    let by = |format: &str| Ok(time.strftime(format).to_string());
    let hour = time.hour();
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    match verb {
        "YY" => by("%y"),
        "YYYY" => by("%Y"),
        "M" => Ok(time.month().to_string()),
        "MM" => by("%m"),
        "MMM" => by("%b"),
        "MMMM" => by("%B"),
        "D" => Ok(time.day().to_string()),
        "DD" => by("%d"),
        "EEE" => by("%a"),
        "EEEE" => by("%A"),
        "h" => Ok(hour.to_string()),
        "hh" => by("%H"),
        "H" => Ok(twelve.to_string()),
        "HH" => Ok(format!("{twelve:02}")),
        "AA" => Ok(if hour < 12 { "AM" } else { "PM" }.to_owned()),
        "aa" => Ok(if hour < 12 { "am" } else { "pm" }.to_owned()),
        "m" => Ok(time.minute().to_string()),
        "mm" => by("%M"),
        "s" => Ok(time.second().to_string()),
        "ss" => by("%S"),
        "ZZZZZ" => Ok(offset(time, ":", false)),
        "ZZZZ" => Ok(offset(time, "", false)),
        "ZZZ" if time.offset().seconds() == 0 => Ok("UTC".to_owned()),
        "ZZZ" => Ok(offset(time, "", false)),
        "Z" => Ok(offset(time, ":", true)),
        other => Err(format!("invalid date format verb {other:?}")),
    }
}
