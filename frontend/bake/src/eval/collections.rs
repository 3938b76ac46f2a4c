//! Object constructors, `for` expressions and indexes.

use std::collections::BTreeMap;

use hcl_edit::Ident;
use hcl_edit::expr::{Expression, ForExpr, Object, ObjectKey};

use super::{Names, Scope, eval, spend};
use crate::convert::convert;
use crate::error::Baked;
use crate::items::entries;
use crate::value::{Type, Value};

/// The object that `{…}` makes.
pub(super) fn object(names: &mut dyn Names, object: &Object, scope: &Scope<'_>) -> Baked<Value> {
    let mut fields = BTreeMap::new();
    for (key, value) in object {
        let name = match key {
            ObjectKey::Ident(name) => name.as_str().to_owned(),
            // A bare name may have been read as an expression.
            ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
            ObjectKey::Expression(expr) => key_text(names, expr, scope)?,
        };
        let value = eval(names, value.expr(), scope)?;
        fields.insert(name, value);
    }
    Ok(Value::object(fields))
}

fn key_text(names: &mut dyn Names, expr: &Expression, scope: &Scope<'_>) -> Baked<String> {
    let key = eval(names, expr, scope)?;
    if key.is_null() {
        return Err(scope.error(expr, "a key must not be null"));
    }
    let key = convert(&key, &Type::String).map_err(|why| scope.error(expr, format!("invalid key: {why}")))?;
    Ok(key.as_str().unwrap_or_default().to_owned())
}

/// The local variables of one round of a loop.
pub(super) fn round(key: Option<&Ident>, value: &Ident, entry: (Value, Value)) -> BTreeMap<String, Value> {
    let mut local = BTreeMap::from([(value.as_str().to_owned(), entry.1)]);
    if let Some(key) = key {
        local.insert(key.as_str().to_owned(), entry.0);
    }
    local
}

/// The tuple or object that a `for` expression makes.
pub(super) fn each(
    names: &mut dyn Names,
    this: &ForExpr,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    let intro = &this.intro;
    let from = &intro.collection_expr;
    let collection = eval(names, from, scope)?;
    if collection.is_null() {
        return Err(scope.error(from, "a null value cannot be iterated over"));
    }
    let entries = entries(&collection).ok_or_else(|| {
        scope.error(from, format!("a {} cannot be iterated over", collection.kind().name()))
    })?;
    let (mut items, mut fields) = (Vec::new(), BTreeMap::<String, Value>::new());
    let mut groups = BTreeMap::<String, Vec<Value>>::new();
    for entry in entries {
        spend(names, 1)?;
        let key = intro.key_var.as_ref().map(hcl_edit::Decorated::value);
        let local = scope.inner(round(key, intro.value_var.value(), entry));
        if let Some(condition) = &this.cond {
            let kept = eval(names, &condition.expr, &local)?;
            let kept = if kept.is_null() {
                Err("the condition is null".to_owned())
            } else {
                convert(&kept, &Type::Bool)
            };
            if kept.map_err(|why| local.error(&condition.expr, why))? == Value::Bool(false) {
                continue;
            }
        }
        let Some(key) = &this.key_expr else {
            items.push(eval(names, &this.value_expr, &local)?);
            continue;
        };
        let name = key_text(names, key, &local)?;
        let value = eval(names, &this.value_expr, &local)?;
        if this.grouping {
            groups.entry(name).or_default().push(value);
        } else if fields.insert(name.clone(), value).is_some() {
            let hint = "add `...` behind the value to collect all of them";
            return Err(scope.error(expr, format!("two items have the key {name:?}")).hint(hint));
        }
    }
    Ok(match (&this.key_expr, this.grouping) {
        (None, _) => Value::tuple(items),
        (Some(_), false) => Value::object(fields),
        (Some(_), true) => {
            Value::object(groups.into_iter().map(|(name, values)| (name, Value::tuple(values))).collect())
        }
    })
}
