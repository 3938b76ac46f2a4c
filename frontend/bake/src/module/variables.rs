//! Variables and global attributes.

use lapstrake_go::csv;
use serde::Serialize;

use super::Module;
use crate::convert::convert;
use crate::error::{BakeError, Baked};
use crate::eval::{Scope, eval};
use crate::number::Number;
use crate::syntax::Block;
use crate::types;
use crate::value::{Type, Value};

/// The end of the name of a variable of the environment whose value is JSON.
const JSON_SUFFIX: &str = "_JSON";

/// A variable, as `--list=variables` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The purpose, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The type, where one is given.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The value; nothing for `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A value from outside.
struct Override {
    text: String,
    json: bool,
}

impl Module<'_> {
    /// Evaluates all variables.
    pub(super) fn all_variables(&mut self) -> Baked<Vec<Variable>> {
        let names: Vec<String> = self.variables.keys().cloned().collect();
        let mut variables = Vec::new();
        for name in names {
            let value = self.resolve(&name)?.unwrap_or(Value::NULL);
            let block = self.variables.get(&name).cloned();
            let description = match block.as_ref().and_then(|block| block.body.attribute("description")) {
                Some(attribute) => {
                    let text = eval(self, &attribute.expr, &Scope::new(&attribute.origin))?;
                    convert(&text, &Type::String)?.as_str().unwrap_or_default().to_owned()
                }
                None => String::new(),
            };
            let constraint = self.constraints.get(&name);
            let value = (!value.is_null()).then(|| shown(&value, constraint));
            variables.push(Variable {
                kind: constraint.map_or_else(String::new, Type::name),
                name,
                description,
                value,
            });
        }
        for block in self.variables.values() {
            let known = ["type", "default", "description", "validation"];
            let unknown =
                block.body.attributes.iter().filter(|attribute| !known.contains(&attribute.name.as_str()));
            let name = block.labels.first().map_or("", String::as_str);
            let warning = |attribute: &crate::syntax::Attribute| {
                format!(
                    "{}: the attribute {:?} of the variable {name:?} is ignored: bake does not know it",
                    block.origin.file.name(),
                    attribute.name
                )
            };
            let warnings: Vec<String> = unknown.map(warning).collect();
            self.warnings.extend(warnings);
        }
        Ok(variables)
    }

    /// Checks the rules of all variables.
    pub(super) fn validate(&mut self) -> Baked<()> {
        let rules: Vec<Block> = self.variables.values().flat_map(|block| block.body.blocks.clone()).collect();
        for rule in rules.iter().filter(|rule| rule.kind == "validation") {
            let error = |text: &str| BakeError::new(text).at(&rule.origin, rule.range.clone());
            let condition =
                rule.body.attribute("condition").ok_or_else(|| error("a validation needs a `condition`"))?;
            let message = rule
                .body
                .attribute("error_message")
                .ok_or_else(|| error("a validation needs an `error_message`"))?;
            let scope = Scope::new(&condition.origin);
            let held = eval(self, &condition.expr, &scope)?;
            if held.is_null() {
                return Err(scope.error(&condition.expr, "a condition must be true or false, not null"));
            }
            let held = convert(&held, &Type::Bool).map_err(|why| scope.error(&condition.expr, why))?;
            if held != Value::Bool(true) {
                let message = eval(self, &message.expr, &Scope::new(&message.origin))?;
                let text = convert(&message, &Type::String)?;
                let text = text.as_str().unwrap_or("this check failed, but has an invalid error message");
                return Err(scope.error(&condition.expr, format!("validation failed: {text}")));
            }
        }
        Ok(())
    }

    /// The value of the variable or global attribute `name`; nothing if there is none.
    pub(super) fn resolve(&mut self, name: &str) -> Baked<Option<Value>> {
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.clone()));
        }
        if let Some(value) = self.outside.built_in.get(name) {
            return Ok(Some(Value::text(value.as_str())));
        }
        if !self.attributes.contains_key(name) && !self.variables.contains_key(name) {
            return Ok(None);
        }
        if !self.progress.insert(name.to_owned()) {
            return Err(BakeError::new(format!("variable cycle not allowed for {name}")));
        }
        let value = self.compute(name);
        self.progress.remove(name);
        let value = value.map_err(|error| match self.variables.get(name) {
            Some(block) => error.at(&block.origin, block.range.clone()),
            None => error,
        })?;
        self.values.insert(name.to_owned(), value.clone());
        Ok(Some(value))
    }

    fn compute(&mut self, name: &str) -> Baked<Value> {
        let attribute = self.attributes.get(name).cloned();
        let block = self.variables.get(name).cloned();
        let (mut default, mut constraint) = (attribute.clone(), None);
        if let (None, Some(block)) = (&attribute, &block) {
            default = block.body.attribute("default").cloned();
            if let Some(kind) = block.body.attribute("type").filter(|kind| !kind.expr.is_null()) {
                let scope = Scope::new(&kind.origin);
                constraint =
                    Some(types::of_expression(&kind.expr).map_err(|why| scope.error(&kind.expr, why))?);
            }
        }
        if let Some(constraint) = &constraint {
            self.constraints.insert(name.to_owned(), constraint.clone());
        }
        let mut value = match (&default, &constraint) {
            (None, None) => Value::text(""),
            (None, Some(constraint)) => Value::Null(constraint.clone()),
            (Some(default), constraint) => {
                let scope = Scope::new(&default.origin);
                let value = eval(self, &default.expr, &scope)?;
                let to = constraint.clone().unwrap_or(Type::Any);
                convert(&value, &to).map_err(|why| {
                    scope.error(
                        &default.expr,
                        format!("invalid type {} for variable {name} default value: {why}", to.name()),
                    )
                })?
            }
        };
        if block.is_some()
            && let Some(given) = self.overriding(name, constraint.is_some())
        {
            let inferred = default.is_some().then(|| value.kind());
            value = read_override(name, &given, constraint.as_ref(), inferred)?;
        }
        Ok(value)
    }

    /// The value from outside of the variable `name`. `NAME_JSON` is asked where no variable is called so.
    fn overriding(&self, name: &str, favor_json: bool) -> Option<Override> {
        let plain = self.outside.lookup(name);
        if plain.is_none() || favor_json {
            let suffixed = format!("{name}{JSON_SUFFIX}");
            let taken =
                self.variables.contains_key(&suffixed) || self.outside.built_in.contains_key(&suffixed);
            if let Some(text) = self.outside.lookup(&suffixed).filter(|_| !taken) {
                return Some(Override { text: text.to_owned(), json: true });
            }
        }
        plain.map(|text| Override { text: text.to_owned(), json: false })
    }
}

fn read_override(
    name: &str,
    given: &Override,
    constraint: Option<&Type>,
    inferred: Option<Type>,
) -> Result<Value, String> {
    let text = given.text.as_str();
    match (constraint, inferred) {
        (Some(to), _) if given.json => {
            let bad = |why: String| format!("failed to convert variable {name} from JSON: {why}");
            let json: serde_json::Value =
                serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
            convert(&Value::from_json(&json).map_err(bad)?, to).map_err(bad)
        }
        (Some(to), _) if is_collection(to) => {
            of_csv(name, text, to).map_err(|why| format!("failed to convert variable {name} from CSV: {why}"))
        }
        (Some(to), _) if to.is_primitive() => primitive(name, text, to),
        (Some(to), _) => Err(format!(
            "unsupported type {} for variable {name}: set {name}{JSON_SUFFIX} to a value in JSON",
            to.name()
        )),
        (None, None | Some(Type::Any)) => Ok(Value::text(text)),
        (None, Some(to)) if to.is_primitive() => primitive(name, text, &to),
        (None, Some(to)) if is_collection(&to) && matches!(to, Type::Tuple(_) | Type::List(_)) => {
            of_csv(name, text, &to)
                .map_err(|why| format!("failed to convert variable {name} from CSV: {why}"))
        }
        (None, Some(to)) => {
            Err(format!("unsupported type {} for variable {name}: give the variable a `type`", to.name()))
        }
    }
}

fn is_collection(to: &Type) -> bool {
    matches!(to, Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_))
}

fn primitive(name: &str, text: &str, to: &Type) -> Result<Value, String> {
    match to {
        Type::String => Ok(Value::text(text)),
        Type::Bool => lapstrake_go::parse_bool(text)
            .map(Value::Bool)
            .ok_or_else(|| format!("failed to parse {name} as bool: {text:?} is neither true nor false")),
        Type::Number => Number::parse(text)
            .map(Value::Number)
            .map_err(|_| format!("failed to parse {name} as number: {text:?} is not a number")),
        other => Err(format!("{name} of type {} is not a primitive", other.name())),
    }
}

/// A list, set, tuple or map of a line of CSV.
fn of_csv(name: &str, text: &str, to: &Type) -> Result<Value, String> {
    let unsupported =
        || format!("unsupported type {} for CSV: set {name}{JSON_SUFFIX} to a value in JSON", to.name());
    let fields = csv::fields(text).map_err(|error| format!("failed to parse {text}: {error}"))?;
    let each = |of: &Type| -> Result<Vec<Value>, String> {
        if !of.is_primitive() {
            return Err(unsupported());
        }
        fields.iter().map(|field| primitive(name, field, of)).collect()
    };
    match to {
        Type::List(of) => Ok(Value::list((**of).clone(), each(of)?)),
        Type::Set(of) => Ok(Value::set((**of).clone(), each(of)?)),
        Type::Tuple(types) => {
            if types.len() != fields.len() {
                return Err(format!("tuple expects {} elements but {} provided", types.len(), fields.len()));
            }
            if !types.iter().all(Type::is_primitive) {
                return Err(unsupported());
            }
            let items = fields.iter().zip(types).map(|(field, of)| primitive(name, field, of));
            Ok(Value::tuple(items.collect::<Result<_, _>>()?))
        }
        Type::Map(of) if of.is_primitive() => {
            let pair = |field: &String| {
                let (key, value) = field
                    .split_once(':')
                    .ok_or_else(|| format!("expected one k/v pair, as `key:value`, in {field}"))?;
                Ok((key.to_owned(), primitive(name, value, of)?))
            };
            Ok(Value::map((**of).clone(), fields.iter().map(pair).collect::<Result<_, String>>()?))
        }
        _ => Err(unsupported()),
    }
}

/// The value as a text: primitive ones as they are, others as JSON.
fn shown(value: &Value, constraint: Option<&Type>) -> String {
    match value {
        Value::String(text) if constraint.is_none_or(|of| matches!(of, Type::String)) => text.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => String::from_utf8_lossy(&lapstrake_go::to_json(&other.to_json())).into_owned(),
    }
}
