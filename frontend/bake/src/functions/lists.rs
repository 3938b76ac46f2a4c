//! Functions on lists and tuples.

use super::Param::{Any, List, Number as N, Texts};
use super::{Call, Function, many, row};
use crate::convert::{convert, equal, unify};
use crate::items::index;
use crate::number::Number;
use crate::value::{Type, Value};

pub(super) const TABLE: &[Function] = &[
    row("chunklist", &[List, N], chunks),
    many("coalesce", &[], super::Param::Nullable, coalesce),
    many("coalescelist", &[], super::Param::Nullable, coalesce_list),
    row("compact", &[Texts], compact),
    many("concat", &[], List, concat),
    row("contains", &[List, Any], |c| Ok(Value::Bool(position(c.items(0), &c.args[1]).is_some()))),
    row("distinct", &[List], distinct),
    row("element", &[List, N], element),
    row("flatten", &[List], flatten),
    row("hasindex", &[Any, Any], has_index),
    row("index", &[Any, Any], |c| index(&c.args[0], &c.args[1])),
    row("indexof", &[List, Any], index_of),
    row("length", &[Any], length),
    many("range", &[N], N, range),
    row("reverselist", &[List], |c| {
        Ok(Value::tuple_like(&c.args[0], c.items(0).iter().rev().cloned().collect()))
    }),
    row("slice", &[List, N, N], slice),
    row("sort", &[Texts], sort),
];

impl Value {
    /// Items of `like`, or others of its type, as a list if it is a list or a set, else as a tuple.
    pub(super) fn tuple_like(like: &Value, items: Vec<Value>) -> Value {
        match like {
            Value::List(of, _) | Value::Set(of, _) => Value::list((**of).clone(), items),
            _ => Value::tuple(items),
        }
    }
}

/// Values as a list of their common type.
pub(super) fn unified(items: &[Value]) -> Result<Value, String> {
    let types: Vec<Type> = items.iter().map(Value::kind).collect();
    let of = unify(&types).ok_or("all items must have the same type")?;
    let items = items.iter().map(|item| convert(item, &of)).collect::<Result<_, _>>()?;
    Ok(Value::list(of, items))
}

fn position(items: &[Value], wanted: &Value) -> Option<usize> {
    items.iter().position(|item| equal(item, wanted))
}

fn index_of(call: &Call<'_>) -> Result<Value, String> {
    let at = position(call.items(0), &call.args[1]);
    at.map(|at| Value::Number(Number::from(at))).ok_or_else(|| "item not found".to_owned())
}

fn chunks(call: &Call<'_>) -> Result<Value, String> {
    let size = usize::try_from(call.int(1)?).map_err(|_| "the size must not be negative".to_owned())?;
    let items = call.items(0);
    let chunks: Vec<Value> = match size {
        0 => vec![Value::tuple_like(&call.args[0], items.to_vec())],
        size => items.chunks(size).map(|chunk| Value::tuple_like(&call.args[0], chunk.to_vec())).collect(),
    };
    Ok(Value::tuple(chunks))
}

fn coalesce(call: &Call<'_>) -> Result<Value, String> {
    let types: Vec<Type> = call.args.iter().map(Value::kind).collect();
    let of = unify(&types).ok_or("all arguments must have the same type")?;
    let first = call.args.iter().find(|arg| !arg.is_null());
    convert(first.ok_or("no non-null arguments")?, &of)
}

fn coalesce_list(call: &Call<'_>) -> Result<Value, String> {
    let full = |arg: &&Value| arg.as_items().is_some_and(|items| !items.is_empty());
    if call.args.is_empty() {
        return Err("at least one argument is required".to_owned());
    }
    call.args.iter().find(full).cloned().ok_or_else(|| "no non-null arguments".to_owned())
}

fn compact(call: &Call<'_>) -> Result<Value, String> {
    let texts = call.items(0).iter().filter_map(Value::as_str).filter(|text| !text.is_empty());
    Ok(Value::texts(texts))
}

fn concat(call: &Call<'_>) -> Result<Value, String> {
    if call.args.is_empty() {
        return Err("at least one argument is required".to_owned());
    }
    let items: Vec<Value> = (0..call.args.len()).flat_map(|at| call.items(at).to_vec()).collect();
    if call.args.iter().all(|arg| matches!(arg, Value::List(..)))
        && let Ok(list) = unified(&items)
    {
        return Ok(list);
    }
    Ok(Value::tuple(items))
}

fn distinct(call: &Call<'_>) -> Result<Value, String> {
    let items = unified(call.items(0))?;
    let mut kept: Vec<Value> = Vec::new();
    for item in items.as_items().unwrap_or_default() {
        if position(&kept, item).is_none() {
            kept.push(item.clone());
        }
        if kept.len() > 10_000 {
            return Err("more than 10000 different items".to_owned());
        }
    }
    Ok(Value::tuple_like(&items, kept))
}

fn element(call: &Call<'_>) -> Result<Value, String> {
    let items = call.items(0);
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Err("cannot use element function with an empty list".to_owned());
    }
    let at = call.int(1)?;
    let at = if at < 0 { at.checked_add(count).filter(|at| *at >= 0) } else { Some(at % count) };
    let at = at.and_then(|at| usize::try_from(at).ok()).ok_or("the index is out of range")?;
    items.get(at).cloned().ok_or_else(|| "the index is out of range".to_owned())
}

fn flatten(call: &Call<'_>) -> Result<Value, String> {
    fn add(items: &[Value], flat: &mut Vec<Value>) {
        for item in items {
            match item.as_items() {
                Some(inner) => add(inner, flat),
                None => flat.push(item.clone()),
            }
        }
    }
    let mut flat = Vec::new();
    add(call.items(0), &mut flat);
    Ok(Value::tuple(flat))
}

fn has_index(call: &Call<'_>) -> Result<Value, String> {
    match &call.args[0] {
        Value::List(..) | Value::Tuple(_) | Value::Map(..) => {
            Ok(Value::Bool(index(&call.args[0], &call.args[1]).is_ok()))
        }
        _ => Err("collection must be a list, a map or a tuple".to_owned()),
    }
}

fn length(call: &Call<'_>) -> Result<Value, String> {
    let count = match &call.args[0] {
        Value::Map(_, fields) => fields.len(),
        arg => arg.as_items().ok_or("collection must be a list, a map or a tuple")?.len(),
    };
    Ok(Value::Number(Number::from(count)))
}

fn range(call: &Call<'_>) -> Result<Value, String> {
    let (zero, one) = (Number::from(0_i64), Number::from(1_i64));
    let (start, end, step) = match call.args.len() {
        1 => (zero.clone(), call.number(0), if call.number(0) < zero { one.negated() } else { one }),
        2 => {
            let (start, end) = (call.number(0), call.number(1));
            let step = if end < start { one.negated() } else { one };
            (start, end, step)
        }
        3 => (call.number(0), call.number(1), call.number(2)),
        count => return Err(format!("1, 2 or 3 numbers are required, and there are {count}")),
    };
    let down = end < start;
    if step.is_zero() || (step < zero) != down && start != end {
        return Err("the step must lead from start to end".to_owned());
    }
    let (mut numbers, mut at) = (Vec::new(), start);
    while if down { at > end } else { at < end } {
        if numbers.len() >= 1024 {
            return Err("more than 1024 values were generated; either decrease the difference between start and end or use a smaller step".to_owned());
        }
        numbers.push(Value::Number(at.clone()));
        at = at.plus(&step)?;
    }
    Ok(Value::list(Type::Number, numbers))
}

fn slice(call: &Call<'_>) -> Result<Value, String> {
    let (Ok(start), Ok(end)) = (usize::try_from(call.int(1)?), usize::try_from(call.int(2)?)) else {
        return Err("start and end must not be negative".to_owned());
    };
    let part =
        call.items(0).get(start..end).ok_or("start and end must be within the list, the start first")?;
    Ok(Value::tuple_like(&call.args[0], part.to_vec()))
}

fn sort(call: &Call<'_>) -> Result<Value, String> {
    let mut texts = call.texts(0)?;
    texts.sort_unstable();
    Ok(Value::texts(texts))
}
