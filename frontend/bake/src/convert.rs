//! Conversions between types, and the type that several types have in common.

use std::collections::BTreeMap;

use crate::number::Number;
use crate::value::{Type, Value};

/// `value` as a value of the type `to`.
///
/// # Errors
/// The value cannot be converted. The sentence says what is required.
pub(crate) fn convert(value: &Value, to: &Type) -> Result<Value, String> {
    match (value, to) {
        (_, Type::Any) => Ok(value.clone()),
        (Value::Null(_), _) => Ok(Value::Null(to.clone())),
        (Value::Bool(_), Type::Bool)
        | (Value::Number(_), Type::Number)
        | (Value::String(_), Type::String) => Ok(value.clone()),
        (Value::Number(number), Type::String) => Ok(Value::text(number.to_string())),
        (Value::Bool(value), Type::String) => Ok(Value::text(value.to_string())),
        (Value::String(text), Type::Number) => Number::parse(text).map(Value::Number),
        (Value::String(text), Type::Bool) => match &**text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            "True" | "TRUE" => {
                Err("a bool is required; to convert from string, use lowercase \"true\"".to_owned())
            }
            "False" | "FALSE" => {
                Err("a bool is required; to convert from string, use lowercase \"false\"".to_owned())
            }
            _ => Err("a bool is required".to_owned()),
        },
        (_, Type::List(of) | Type::Set(of)) => sequence(value, of, to),
        (_, Type::Map(of)) => {
            let fields = value.as_fields().ok_or_else(|| required(to))?;
            let of = item_type(of, fields.values())?;
            let each = |(name, value): (&String, &Value)| match convert(value, &of) {
                Ok(value) => Ok((name.clone(), value)),
                Err(why) => Err(format!("element {name:?}: {why}")),
            };
            Ok(Value::map(of.clone(), fields.iter().map(each).collect::<Result<_, String>>()?))
        }
        (_, Type::Tuple(types)) => {
            let items =
                value.as_items().filter(|items| items.len() == types.len()).ok_or_else(|| required(to))?;
            let each = |(item, of)| convert(item, of);
            Ok(Value::tuple(items.iter().zip(types).map(each).collect::<Result<_, _>>()?))
        }
        (_, Type::Object(types)) => object(value, types).ok_or_else(|| required(to))?,
        _ => Err(required(to)),
    }
}

fn required(to: &Type) -> String {
    match to {
        Type::Bool => "a bool is required".to_owned(),
        Type::Number => "a number is required".to_owned(),
        to => format!("{} required", to.name()),
    }
}

fn sequence(value: &Value, of: &Type, to: &Type) -> Result<Value, String> {
    let items = value.as_items().ok_or_else(|| required(to))?;
    let of = item_type(of, items.iter())?;
    let each = |(number, item): (usize, &Value)| {
        convert(item, &of).map_err(|why| format!("element {number}: {why}"))
    };
    let items = items.iter().enumerate().map(each).collect::<Result<_, _>>()?;
    Ok(if matches!(to, Type::Set(_)) { Value::set(of, items) } else { Value::list(of, items) })
}

/// The type of items: the wanted one, or the one that they have in common where any is wanted.
fn item_type<'a>(wanted: &Type, items: impl Iterator<Item = &'a Value>) -> Result<Type, String> {
    if *wanted != Type::Any {
        return Ok(wanted.clone());
    }
    let types: Vec<Type> = items.map(Value::kind).collect();
    unify(&types).ok_or_else(|| "all elements must have the same type".to_owned())
}

/// An object with exactly the fields `types`; nothing for a value that lacks one of them.
fn object(value: &Value, types: &BTreeMap<String, Type>) -> Option<Result<Value, String>> {
    let fields = value.as_fields()?;
    let missing: Vec<&String> = types.keys().filter(|name| !fields.contains_key(*name)).collect();
    if let Some(name) = missing.first() {
        return Some(Err(format!("attribute {name:?} is required")));
    }
    let each = |(name, of): (&String, &Type)| match convert(fields.get(name)?, of) {
        Ok(value) => Some(Ok((name.clone(), value))),
        Err(why) => Some(Err(format!("attribute {name:?}: {why}"))),
    };
    let fields: Result<BTreeMap<_, _>, String> = types.iter().filter_map(each).collect();
    Some(fields.map(Value::object))
}

/// The type that values of all `types` can be converted to.
pub(crate) fn unify(types: &[Type]) -> Option<Type> {
    let known: Vec<&Type> = types.iter().filter(|of| **of != Type::Any).collect();
    let Some(first) = known.first() else { return Some(Type::Any) };
    if known.iter().all(|of| of == first) {
        return Some((*first).clone());
    }
    if known.iter().all(|of| of.is_primitive()) {
        return known.contains(&&Type::String).then_some(Type::String);
    }
    let parts = |of: &Type| match of {
        Type::List(of) | Type::Set(of) | Type::Map(of) => vec![(**of).clone()],
        Type::Tuple(types) => types.clone(),
        Type::Object(types) => types.values().cloned().collect(),
        _ => Vec::new(),
    };
    if known.iter().all(|of| matches!(of, Type::Tuple(_)))
        && known.iter().all(|of| parts(of).len() == parts(first).len())
    {
        let column = |at: usize| unify(&known.iter().map(|of| parts(of)[at].clone()).collect::<Vec<_>>());
        if let Some(types) = (0..parts(first).len()).map(column).collect::<Option<Vec<_>>>() {
            return Some(Type::Tuple(types));
        }
        return None;
    }
    let all = || unify(&known.iter().flat_map(|of| parts(of)).collect::<Vec<_>>()).map(Box::new);
    if known.iter().all(|of| matches!(of, Type::Tuple(_) | Type::List(_) | Type::Set(_))) {
        let lists = known.iter().any(|of| matches!(of, Type::List(_)));
        let sets = known.iter().any(|of| matches!(of, Type::Set(_)));
        return Some(if sets && !lists { Type::Set(all()?) } else { Type::List(all()?) });
    }
    if known.iter().all(|of| matches!(of, Type::Map(_) | Type::Object(_))) {
        return objects(&known).or_else(|| all().map(Type::Map));
    }
    None
}

/// The common type of objects with the same fields.
fn objects(types: &[&Type]) -> Option<Type> {
    let fields = types.iter().map(|of| match of {
        Type::Object(fields) => Some(fields),
        _ => None,
    });
    let fields = fields.collect::<Option<Vec<_>>>()?;
    let first = fields.first()?;
    if !fields.iter().all(|other| other.keys().eq(first.keys())) {
        return None;
    }
    let column = |name: &String| {
        let types: Vec<Type> = fields.iter().filter_map(|fields| fields.get(name).cloned()).collect();
        Some((name.clone(), unify(&types)?))
    };
    Some(Type::Object(first.keys().map(column).collect::<Option<_>>()?))
}

/// Whether two values are equal, as `==` says: values of different types never are.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    if a.is_null() || b.is_null() {
        return a.is_null() && b.is_null();
    }
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_types() {
        let (text, number, flag) = (Type::String, Type::Number, Type::Bool);
        assert_eq!(unify(&[text.clone(), number.clone()]), Some(Type::String));
        assert_eq!(unify(&[flag.clone(), number.clone()]), None);
        assert_eq!(unify(&[Type::Any, number.clone()]), Some(Type::Number));
        let tuple = |types: &[Type]| Type::Tuple(types.to_vec());
        let list = Type::List(Box::new(Type::String));
        assert_eq!(unify(&[tuple(std::slice::from_ref(&text)), tuple(&[])]), Some(list.clone()));
        assert_eq!(unify(&[tuple(&[text.clone(), flag]), list.clone()]), Some(list));
        assert_eq!(unify(&[text, tuple(&[number])]), None);
    }

    #[test]
    fn conversions() {
        let to = |value: Value, to: &Type| convert(&value, to);
        assert_eq!(to(Value::text("1"), &Type::Bool), Ok(Value::Bool(true)));
        assert_eq!(to(Value::text("2.50"), &Type::Number).unwrap().to_json(), serde_json::json!(2.5));
        assert_eq!(to(Value::Bool(true), &Type::String), Ok(Value::text("true")));
        assert!(to(Value::Bool(true), &Type::Number).is_err());
        assert!(to(Value::text("x"), &Type::List(Box::new(Type::String))).is_err());
        let set = to(Value::texts(["b", "a", "b"]), &Type::Set(Box::new(Type::Any))).unwrap();
        assert_eq!(set.to_json(), serde_json::json!(["a", "b"]));
    }
}
