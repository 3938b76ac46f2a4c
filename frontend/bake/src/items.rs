//! Items of collections.

use crate::convert::convert;
use crate::number::Number;
use crate::value::{Type, Value};

/// The keys and values of a collection.
pub(crate) fn entries(value: &Value) -> Option<Vec<(Value, Value)>> {
    match (value, value.as_fields(), value.as_items()) {
        (_, Some(fields), _) => {
            Some(fields.iter().map(|(name, value)| (Value::text(name.as_str()), value.clone())).collect())
        }
        (Value::Set(..), _, Some(items)) => {
            Some(items.iter().map(|item| (item.clone(), item.clone())).collect())
        }
        (_, _, Some(items)) => {
            let numbered = items.iter().enumerate();
            Some(numbered.map(|(at, item)| (Value::Number(Number::from(at)), item.clone())).collect())
        }
        _ => None,
    }
}

/// The item of `value` at `index`.
pub(crate) fn index(value: &Value, index: &Value) -> Result<Value, String> {
    if value.is_null() {
        return Err("a null value has no items".to_owned());
    }
    if index.is_null() {
        return Err("an index must not be null".to_owned());
    }
    if let Some(fields) = value.as_fields() {
        let key = convert(index, &Type::String)?;
        let key = key.as_str().unwrap_or_default();
        return fields.get(key).cloned().ok_or_else(|| format!("there is no item with the key {key:?}"));
    }
    let items = match value {
        Value::List(_, items) | Value::Tuple(items) => items,
        _ => return Err(format!("a {} has no items", value.kind().name())),
    };
    let Value::Number(number) = convert(index, &Type::Number)? else {
        return Err("a number is required".to_owned());
    };
    let at = number
        .to_i64()
        .and_then(|at| usize::try_from(at).ok())
        .ok_or("an index must be a whole number, 0 or more")?;
    items.get(at).cloned().ok_or_else(|| format!("there is no item {at}: there are {}", items.len()))
}
