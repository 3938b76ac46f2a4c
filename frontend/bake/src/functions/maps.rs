//! Functions on maps and objects.

use std::collections::BTreeMap;

use super::Param::{Any, Nullable, Text};
use super::{Call, Function, many, row};
use crate::value::{Type, Value};

pub(super) const TABLE: &[Function] = &[
    row("keys", &[Any], |c| Ok(Value::texts(fields(c, 0)?.keys().map(String::as_str)))),
    many("lookup", &[Any, Text], Any, lookup),
    many("merge", &[], Nullable, merge),
    row("values", &[Any], |c| Ok(Value::tuple(fields(c, 0)?.values().cloned().collect()))),
    row("zipmap", &[super::Param::Texts, super::Param::List], zip),
];

fn fields<'c>(call: &'c Call<'_>, at: usize) -> Result<&'c BTreeMap<String, Value>, String> {
    call.args[at].as_fields().ok_or_else(|| format!("argument {}: a map is required", at + 1))
}

fn lookup(call: &Call<'_>) -> Result<Value, String> {
    if call.args.len() > 3 {
        return Err("a map, a key and a default are required".to_owned());
    }
    let found = fields(call, 0)?.get(call.text(1)).or(call.args.get(2));
    found.cloned().ok_or_else(|| format!("there is no key {:?}", call.text(1)))
}

fn merge(call: &Call<'_>) -> Result<Value, String> {
    let mut merged = BTreeMap::new();
    let mut types = Vec::new();
    for (at, arg) in call.args.iter().enumerate().filter(|(_, arg)| !arg.is_null()) {
        merged.extend(fields(call, at)?.iter().map(|(name, value)| (name.clone(), value.clone())));
        types.push(arg.kind());
    }
    match types.first() {
        Some(Type::Map(of)) if types.iter().all(|kind| kind == &types[0]) => {
            Ok(Value::map((**of).clone(), merged))
        }
        _ => Ok(Value::object(merged)),
    }
}

fn zip(call: &Call<'_>) -> Result<Value, String> {
    let (keys, values) = (call.texts(0)?, call.items(1));
    if keys.len() != values.len() {
        return Err(format!(
            "the number of keys ({}) is not the number of values ({})",
            keys.len(),
            values.len()
        ));
    }
    let pairs = keys.into_iter().map(str::to_owned).zip(values.iter().cloned()).collect();
    match &call.args[1] {
        Value::List(of, _) => Ok(Value::map((**of).clone(), pairs)),
        _ => Ok(Value::object(pairs)),
    }
}
