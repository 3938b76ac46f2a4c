//! Type expressions: `string`, `list(string)`, `object({name = number})`.

use std::collections::BTreeMap;

use hcl_edit::expr::{Expression, ObjectKey};

use crate::value::Type;

/// The type that `expr` names.
///
/// # Errors
/// The expression is no type.
pub(crate) fn of_expression(expr: &Expression) -> Result<Type, String> {
    match expr {
        Expression::Parenthesis(inner) => of_expression(inner.inner()),
        Expression::Variable(name) => match name.as_str() {
            "any" => Ok(Type::Any),
            "bool" => Ok(Type::Bool),
            "number" => Ok(Type::Number),
            "string" => Ok(Type::String),
            kind @ ("list" | "set" | "map" | "tuple" | "object") => {
                Err(format!("the type {kind} needs an argument, as `{kind}({})`", example(kind)))
            }
            other => Err(format!(
                "{other:?} is not a type: write any, bool, number, string, list, set, map, tuple or object"
            )),
        },
        Expression::FuncCall(call) => {
            let kind = call.name.name.as_str();
            let args: Vec<&Expression> = call.args.iter().collect();
            let [arg] = args[..] else {
                return Err(format!("the type {kind} takes one argument, as `{kind}({})`", example(kind)));
            };
            match kind {
                "list" => Ok(Type::List(Box::new(of_expression(arg)?))),
                "set" => Ok(Type::Set(Box::new(of_expression(arg)?))),
                "map" => Ok(Type::Map(Box::new(of_expression(arg)?))),
                "tuple" => {
                    let Expression::Array(types) = arg else {
                        return Err("tuple takes a list of types".to_owned());
                    };
                    Ok(Type::Tuple(types.iter().map(of_expression).collect::<Result<_, _>>()?))
                }
                "object" => object(arg),
                "optional" => Err("optional attributes are not supported in types".to_owned()),
                other => Err(format!("{other:?} is not a type")),
            }
        }
        // JSON has types as texts.
        Expression::String(text) => {
            let inner = text.value().parse::<Expression>().map_err(|error| error.message().to_owned())?;
            if matches!(inner, Expression::String(_)) {
                Err("a type is required".to_owned())
            } else {
                of_expression(&inner)
            }
        }
        _ => Err("a type is required, as `string` or `list(number)`".to_owned()),
    }
}

fn example(kind: &str) -> &'static str {
    match kind {
        "tuple" => "[string, number]",
        "object" => "{name = string}",
        _ => "string",
    }
}

fn object(arg: &Expression) -> Result<Type, String> {
    let Expression::Object(fields) = arg else { return Err("object takes a map of types".to_owned()) };
    let mut types = BTreeMap::new();
    for (key, value) in fields {
        let name = match key {
            ObjectKey::Ident(name) => name.as_str().to_owned(),
            ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
            ObjectKey::Expression(Expression::String(name)) => name.value().clone(),
            ObjectKey::Expression(_) => return Err("the keys of an object type must be names".to_owned()),
        };
        types.insert(name, of_expression(value.expr())?);
    }
    Ok(Type::Object(types))
}
