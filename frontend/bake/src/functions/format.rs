//! `format` and `formatlist`: Go's verbs, as go-cty has them.

use bigdecimal::RoundingMode;
use bigdecimal::num_bigint::BigInt;

use super::Param::{Nullable, Text};
use super::{Call, Function, many};
use crate::convert::convert;
use crate::number::Number;
use crate::value::{Type, Value};

pub(super) const TABLE: &[Function] = &[
    many("format", &[Text], Nullable, |c| formatted(c.text(0), &c.args[1..]).map(Value::text)),
    many("formatlist", &[Text], Nullable, format_list),
];

/// The widest field.
const WIDEST: usize = 4096;

/// A verb with its flags.
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    mode: char,
}

fn format_list(call: &Call<'_>) -> Result<Value, String> {
    let args = &call.args[1..];
    let lists: Vec<Option<&[Value]>> = args.iter().map(Value::as_items).collect();
    let mut lengths = lists.iter().flatten().map(|items| items.len());
    let length = lengths.next().unwrap_or(1);
    if lengths.any(|other| other != length) {
        return Err("all lists must have the same length".to_owned());
    }
    let line = |at: usize| {
        let pick = |(arg, items): (&Value, &Option<&[Value]>)| {
            items.map_or_else(|| arg.clone(), |items| items[at].clone())
        };
        let args: Vec<Value> = args.iter().zip(&lists).map(pick).collect();
        formatted(call.text(0), &args)
    };
    Ok(Value::texts((0..length).map(line).collect::<Result<Vec<_>, _>>()?))
}

fn formatted(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let (mut rest, mut next, mut used) = (format, 0, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (verb, index, length) = verb(&rest[at + 1..])?;
        rest = &rest[at + 1 + length..];
        if verb.mode == '%' {
            out.push('%');
            continue;
        }
        let number = index.unwrap_or(next);
        next = number + 1;
        used = used.max(next);
        let arg = args.get(number).ok_or_else(|| {
            format!(
                "not enough arguments for %{}: need index {number} but have {} total",
                verb.mode,
                args.len()
            )
        })?;
        out.push_str(&padded(&verb, shown(&verb, arg)?));
    }
    out.push_str(rest);
    if used < args.len() {
        return Err(format!("too many arguments; only {used} used by format string"));
    }
    Ok(out)
}

/// The verb in front of `text`, the argument that it names with `[N]`, and the bytes that it has.
fn verb(text: &str) -> Result<(Verb, Option<usize>, usize), String> {
    let mut verb = Verb::default();
    let (mut index, mut at) = (None, 0);
    let bytes = text.as_bytes();
    while let Some(flag) = bytes.get(at) {
        match flag {
            b'-' => verb.minus = true,
            b'+' => verb.plus = true,
            b'#' => verb.sharp = true,
            b' ' => verb.space = true,
            b'0' => verb.zero = true,
            _ => break,
        }
        at += 1;
    }
    verb.width = count(bytes, &mut at)?;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        verb.precision = Some(count(bytes, &mut at)?.unwrap_or(0));
    }
    if bytes.get(at) == Some(&b'[') {
        let end = text[at..].find(']').ok_or("unterminated argument index")?;
        let number: usize =
            text[at + 1..at + end].parse().map_err(|_| "invalid argument index".to_owned())?;
        index = Some(number.checked_sub(1).ok_or("argument index must be 1 or greater")?);
        at += end + 1;
    }
    let mode = text[at..].chars().next().ok_or("unexpected end of the format after %")?;
    verb.mode = mode;
    Ok((verb, index, at + mode.len_utf8()))
}

fn count(bytes: &[u8], at: &mut usize) -> Result<Option<usize>, String> {
    let mut found = None;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        let number = found.unwrap_or(0) * 10 + usize::from(digit - b'0');
        if number > WIDEST {
            return Err(format!("a width or precision is at most {WIDEST}"));
        }
        found = Some(number);
        *at += 1;
    }
    Ok(found)
}

fn shown(verb: &Verb, arg: &Value) -> Result<String, String> {
    let text = || match convert(arg, &Type::String) {
        Ok(Value::String(text)) => Ok(text.to_string()),
        _ => Err(format!("unsupported value for \"%{}\": string required", verb.mode)),
    };
    let number = || match convert(arg, &Type::Number) {
        Ok(Value::Number(number)) => Ok(number),
        _ => Err(format!("unsupported value for \"%{}\": number required", verb.mode)),
    };
    let json = || String::from_utf8_lossy(&lapstrake_go::to_json(&arg.to_json())).into_owned();
    Ok(match verb.mode {
        'v' if verb.sharp => json(),
        'v' => match arg {
            Value::Null(_) => "null".to_owned(),
            Value::Number(number) => signed(verb, number, number.to_string()),
            Value::String(_) | Value::Bool(_) => text()?,
            _ => json(),
        },
        's' => cut(verb, &text()?),
        'q' => serde_json::Value::String(cut(verb, &text()?)).to_string(),
        't' => match convert(arg, &Type::Bool) {
            Ok(Value::Bool(flag)) => flag.to_string(),
            _ => return Err("unsupported value for \"%t\": bool required".to_owned()),
        },
        'd' | 'b' | 'o' | 'x' | 'X' => return whole(verb, arg),
        'f' | 'F' => {
            let number = number()?;
            let places = i64::try_from(verb.precision.unwrap_or(6)).unwrap_or(6);
            signed(verb, &number, number.fixed(places))
        }
        'e' | 'E' | 'g' | 'G' => {
            let number = number()?;
            signed(verb, &number, scientific(verb, &number))
        }
        other => return Err(format!("unsupported format verb {other:?}")),
    })
}

/// A whole number in the base of its verb. `%x` writes the bytes of a text that is no number.
fn whole(verb: &Verb, arg: &Value) -> Result<String, String> {
    if let (Value::String(text), 'x' | 'X') = (arg, verb.mode)
        && Number::parse(text).is_err()
    {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        return Ok(if verb.mode == 'X' { digits.to_uppercase() } else { digits });
    }
    let Ok(Value::Number(number)) = convert(arg, &Type::Number) else {
        return Err(format!("unsupported value for \"%{}\": number required", verb.mode));
    };
    let number = number.rounded(RoundingMode::Down);
    let whole = number.to_big().unwrap_or_else(|| BigInt::from(0));
    let digits = match verb.mode {
        'b' => whole.to_str_radix(2),
        'o' => whole.to_str_radix(8),
        'x' => whole.to_str_radix(16),
        'X' => whole.to_str_radix(16).to_uppercase(),
        _ => whole.to_string(),
    };
    let prefix = match verb.mode {
        _ if !verb.sharp => "",
        'b' => "0b",
        'o' => "0",
        'x' => "0x",
        'X' => "0X",
        _ => "",
    };
    let digits = match digits.strip_prefix('-') {
        Some(digits) => format!("-{prefix}{digits}"),
        None => format!("{prefix}{digits}"),
    };
    Ok(signed(verb, &number, digits))
}

fn scientific(verb: &Verb, number: &Number) -> String {
    let value = number.to_f64();
    if matches!(verb.mode, 'g' | 'G') && (value == 0.0 || (1e-4..1e21).contains(&value.abs())) {
        return number.to_string();
    }
    let text = match verb.precision {
        Some(places) => format!("{value:.places$e}"),
        None if matches!(verb.mode, 'e' | 'E') => format!("{value:.6e}"),
        None => format!("{value:e}"),
    };
    // Go writes at least two digits of an exponent, with its sign.
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    let text = format!("{mantissa}e{sign}{digits:0>2}");
    if verb.mode.is_uppercase() { text.to_uppercase() } else { text }
}

fn signed(verb: &Verb, number: &Number, text: String) -> String {
    match (number.signum() < 0, verb.plus, verb.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    }
}

fn cut(verb: &Verb, text: &str) -> String {
    verb.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
}

fn padded(verb: &Verb, text: String) -> String {
    let missing = verb.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if verb.minus {
        return text + &" ".repeat(missing);
    }
    let numeric = matches!(verb.mode, 'd' | 'b' | 'o' | 'x' | 'X' | 'f' | 'F' | 'e' | 'E' | 'g' | 'G');
    if verb.zero && numeric {
        let split = usize::from(text.starts_with(['-', '+', ' ']));
        return format!("{}{}{}", &text[..split], "0".repeat(missing), &text[split..]);
    }
    let fill = if verb.zero { "0" } else { " " };
    fill.repeat(missing) + &text
}
