//! Functions on numbers and booleans, and the operators as functions.

use bigdecimal::RoundingMode;
use bigdecimal::num_bigint::BigInt;

use super::Param::{Bool, Nullable, Number as N, Text};
use super::{Call, Function, many, row};
use crate::convert::equal;
use crate::number::Number;
use crate::value::Value;

pub(super) const TABLE: &[Function] = &[
    row("absolute", &[N], |c| Ok(Value::Number(c.number(0).absolute()))),
    row("add", &[N, N], |c| c.number(0).plus(&c.number(1)).map(Value::Number)),
    row("and", &[Bool, Bool], |c| Ok(Value::Bool(c.flag(0) && c.flag(1)))),
    row("ceil", &[N], |c| Ok(Value::Number(c.number(0).rounded(RoundingMode::Ceiling)))),
    row("divide", &[N, N], |c| c.number(0).over(&c.number(1)).map(Value::Number)),
    row("equal", &[Nullable, Nullable], |c| Ok(Value::Bool(equal(&c.args[0], &c.args[1])))),
    row("floor", &[N], |c| Ok(Value::Number(c.number(0).rounded(RoundingMode::Floor)))),
    row("greaterthan", &[N, N], |c| Ok(Value::Bool(c.number(0) > c.number(1)))),
    row("greaterthanorequalto", &[N, N], |c| Ok(Value::Bool(c.number(0) >= c.number(1)))),
    row("int", &[N], |c| Ok(Value::Number(c.number(0).rounded(RoundingMode::Down)))),
    row("lessthan", &[N, N], |c| Ok(Value::Bool(c.number(0) < c.number(1)))),
    row("lessthanorequalto", &[N, N], |c| Ok(Value::Bool(c.number(0) <= c.number(1)))),
    row("log", &[N, N], |c| real(c.number(0).to_f64().ln() / c.number(1).to_f64().ln())),
    many("max", &[], N, |c| extreme(c, Ordering::Greater)),
    many("min", &[], N, |c| extreme(c, Ordering::Less)),
    row("modulo", &[N, N], |c| c.number(0).modulo(&c.number(1)).map(Value::Number)),
    row("multiply", &[N, N], |c| c.number(0).times(&c.number(1)).map(Value::Number)),
    row("negate", &[N], |c| Ok(Value::Number(c.number(0).negated()))),
    row("not", &[Bool], |c| Ok(Value::Bool(!c.flag(0)))),
    row("notequal", &[Nullable, Nullable], |c| Ok(Value::Bool(!equal(&c.args[0], &c.args[1])))),
    row("or", &[Bool, Bool], |c| Ok(Value::Bool(c.flag(0) || c.flag(1)))),
    row("parseint", &[Text, N], parse_int),
    row("pow", &[N, N], |c| real(c.number(0).to_f64().powf(c.number(1).to_f64()))),
    row("signum", &[N], |c| c.int(0).map(|number| Value::int(number.signum()))),
    row("subtract", &[N, N], |c| c.number(0).minus(&c.number(1)).map(Value::Number)),
];

use std::cmp::Ordering;

fn real(number: f64) -> Result<Value, String> {
    Number::from_f64(number).map(Value::Number)
}

fn extreme(call: &Call<'_>, wanted: Ordering) -> Result<Value, String> {
    let numbers = (0..call.args.len()).map(|at| call.number(at));
    let best = numbers.reduce(|best, next| if next.cmp(&best) == wanted { next } else { best });
    best.map(Value::Number).ok_or_else(|| "at least one number is required".to_owned())
}

fn parse_int(call: &Call<'_>) -> Result<Value, String> {
    let base = u32::try_from(call.int(1)?).ok().filter(|base| (2..=62).contains(base));
    let base = base.ok_or("the base must be a whole number between 2 and 62 inclusive")?;
    let text = call.text(0);
    let bad = || format!("cannot parse {text:?} as a base {base} integer");
    if base > 36 {
        return Err(format!("base {base} is not supported: bases up to 36 are"));
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if plain.len() > 4096 || plain.contains('_') {
        return Err(bad());
    }
    let number = BigInt::parse_bytes(plain.as_bytes(), base).ok_or_else(bad)?;
    Number::from_big(number).map(Value::Number)
}
