//! Functions on sets.

use super::Param::{Any, List};
use super::lists::unified;
use super::{Call, Function, many, row};
use crate::convert::equal;
use crate::value::{Type, Value};

pub(super) const TABLE: &[Function] = &[
    row("sethaselement", &[List, Any], |c| Ok(Value::Bool(has(c.items(0), &c.args[1])))),
    many("setintersection", &[List], List, |c| combined(c, |in_all, _| in_all)),
    many("setproduct", &[], List, product),
    row("setsubtract", &[List, List], subtract),
    many("setsymmetricdifference", &[List], List, |c| combined(c, |_, count| count % 2 == 1)),
    many("setunion", &[List], List, |c| combined(c, |_, _| true)),
];

/// The most items of a product.
const MOST: usize = 100_000;

fn has(items: &[Value], wanted: &Value) -> bool {
    items.iter().any(|item| equal(item, wanted))
}

fn set_of(items: &[Value]) -> Result<Value, String> {
    match unified(items)? {
        Value::List(of, items) => Ok(Value::set((*of).clone(), items.to_vec())),
        other => Ok(other),
    }
}

/// The items that `kept` wants: told whether all sets have one, and how many do.
fn combined(call: &Call<'_>, kept: fn(bool, usize) -> bool) -> Result<Value, String> {
    let all: Vec<Value> = (0..call.args.len()).flat_map(|at| call.items(at).to_vec()).collect();
    let all = set_of(&all)?;
    let sets = (0..call.args.len()).map(|at| set_of(call.items(at))).collect::<Result<Vec<_>, _>>()?;
    let wanted = |item: &&Value| {
        let count = sets.iter().filter(|set| set.as_items().is_some_and(|items| has(items, item))).count();
        kept(count == sets.len(), count)
    };
    let items: Vec<Value> = all.as_items().unwrap_or_default().iter().filter(wanted).cloned().collect();
    let of = match &all {
        Value::Set(of, _) => (**of).clone(),
        _ => Type::Any,
    };
    Ok(Value::set(of, items))
}

fn subtract(call: &Call<'_>) -> Result<Value, String> {
    let from = set_of(call.items(0))?;
    let items = from
        .as_items()
        .unwrap_or_default()
        .iter()
        .filter(|item| !has(call.items(1), item))
        .cloned()
        .collect();
    Ok(match &from {
        Value::Set(of, _) => Value::set((**of).clone(), items),
        _ => from,
    })
}

fn product(call: &Call<'_>) -> Result<Value, String> {
    if call.args.len() < 2 {
        return Err("at least two sets are required".to_owned());
    }
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for at in 0..call.args.len() {
        let items = call.items(at);
        if rows.len().saturating_mul(items.len()) > MOST {
            return Err(format!("the product has more than {MOST} items"));
        }
        let longer = |row: &Vec<Value>| -> Vec<Vec<Value>> {
            items.iter().map(|item| row.iter().cloned().chain([item.clone()]).collect()).collect()
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    Ok(Value::tuple(rows.into_iter().map(Value::tuple).collect()))
}
