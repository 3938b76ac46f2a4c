//! Values and types of HCL's expressions, after go-cty.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::number::Number;

/// The most bytes of one value, written out.
pub(crate) const LARGEST: usize = 16 << 20;

/// The least weight of a value: a list of many small parts is large, too.
const PART: usize = 16;

/// The type of a value, or a constraint on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Any type: as a constraint, and as the type of a `null` without one.
    Any,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A text.
    String,
    /// A sequence of values of one type.
    List(Box<Type>),
    /// Values of one type, each once, sorted.
    Set(Box<Type>),
    /// Values of one type, by name.
    Map(Box<Type>),
    /// A sequence of values of several types.
    Tuple(Vec<Type>),
    /// Values of several types, by name.
    Object(BTreeMap<String, Type>),
}

impl Type {
    /// Whether it is a boolean, a number or a text.
    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Type::Bool | Type::Number | Type::String)
    }

    /// The name in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Type::Any => "any type".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Number => "number".to_owned(),
            Type::String => "string".to_owned(),
            Type::List(of) => format!("list of {}", of.name()),
            Type::Set(of) => format!("set of {}", of.name()),
            Type::Map(of) => format!("map of {}", of.name()),
            Type::Tuple(_) => "tuple".to_owned(),
            Type::Object(_) => "object".to_owned(),
        }
    }
}

/// The items of a sequence, with what they weigh together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Items {
    items: Vec<Value>,
    weight: usize,
}

/// The items of a mapping, with what they weigh together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    fields: BTreeMap<String, Value>,
    weight: usize,
}

impl std::ops::Deref for Items {
    type Target = Vec<Value>;

    fn deref(&self) -> &Vec<Value> {
        &self.items
    }
}

impl std::ops::Deref for Fields {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &BTreeMap<String, Value> {
        &self.fields
    }
}

/// A value. Large ones are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No value, of this type.
    Null(Type),
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(Arc<str>),
    /// A list, with the type of its items.
    List(Arc<Type>, Arc<Items>),
    /// A set, with the type of its items.
    Set(Arc<Type>, Arc<Items>),
    /// A map, with the type of its items.
    Map(Arc<Type>, Arc<Fields>),
    /// A tuple.
    Tuple(Arc<Items>),
    /// An object.
    Object(Arc<Fields>),
}

fn items(items: Vec<Value>) -> Arc<Items> {
    let weight = items.iter().fold(1_usize, |sum, item| sum.saturating_add(item.weight()));
    Arc::new(Items { items, weight })
}

fn fields(fields: BTreeMap<String, Value>) -> Arc<Fields> {
    let of = |(name, value): (&String, &Value)| name.len().saturating_add(value.weight());
    let weight = fields.iter().map(of).fold(1_usize, usize::saturating_add);
    Arc::new(Fields { fields, weight })
}

impl Value {
    /// `null` without a type.
    pub(crate) const NULL: Value = Value::Null(Type::Any);

    /// A text.
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Value {
        Value::String(text.into())
    }

    /// A whole number.
    pub(crate) fn int(number: i64) -> Value {
        Value::Number(Number::from(number))
    }

    /// A list of values of the type `of`.
    pub(crate) fn list(of: Type, values: Vec<Value>) -> Value {
        Value::List(Arc::new(of), items(values))
    }

    /// A list of texts.
    pub(crate) fn texts<T: Into<Arc<str>>>(texts: impl IntoIterator<Item = T>) -> Value {
        Value::list(Type::String, texts.into_iter().map(Value::text).collect())
    }

    /// A set of values of the type `of`: sorted, each once.
    pub(crate) fn set(of: Type, mut values: Vec<Value>) -> Value {
        values.sort_by(Value::order);
        values.dedup();
        Value::Set(Arc::new(of), items(values))
    }

    /// A map to values of the type `of`.
    pub(crate) fn map(of: Type, values: BTreeMap<String, Value>) -> Value {
        Value::Map(Arc::new(of), fields(values))
    }

    /// A tuple.
    pub(crate) fn tuple(values: Vec<Value>) -> Value {
        Value::Tuple(items(values))
    }

    /// An object.
    pub(crate) fn object(values: BTreeMap<String, Value>) -> Value {
        Value::Object(fields(values))
    }

    /// The type.
    pub(crate) fn kind(&self) -> Type {
        match self {
            Value::Null(of) => of.clone(),
            Value::Bool(_) => Type::Bool,
            Value::Number(_) => Type::Number,
            Value::String(_) => Type::String,
            Value::List(of, _) => Type::List(Box::new((**of).clone())),
            Value::Set(of, _) => Type::Set(Box::new((**of).clone())),
            Value::Map(of, _) => Type::Map(Box::new((**of).clone())),
            Value::Tuple(items) => Type::Tuple(items.iter().map(Value::kind).collect()),
            Value::Object(fields) => {
                Type::Object(fields.iter().map(|(name, value)| (name.clone(), value.kind())).collect())
            }
        }
    }

    /// Whether there is no value.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Value::Null(_))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list, a set or a tuple.
    pub(crate) fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::List(_, items) | Value::Set(_, items) | Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a map or an object.
    pub(crate) fn as_fields(&self) -> Option<&BTreeMap<String, Value>> {
        match self {
            Value::Map(_, fields) | Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// About the bytes that the value takes when it is written out, and no less than what each part costs.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Value::Null(_) | Value::Bool(_) => PART,
            Value::Number(number) => PART + number.weight(),
            Value::String(text) => PART + text.len(),
            Value::List(_, items) | Value::Set(_, items) | Value::Tuple(items) => items.weight,
            Value::Map(_, fields) | Value::Object(fields) => fields.weight,
        }
    }

    /// The order in sets: numbers by value, texts by bytes, others by their rendered form.
    fn order(&self, other: &Value) -> std::cmp::Ordering {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => a.to_json().to_string().cmp(&b.to_json().to_string()),
        }
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null(_) => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => number.to_json(),
            Value::String(text) => Json::String(text.to_string()),
            Value::List(_, items) | Value::Set(_, items) | Value::Tuple(items) => {
                Json::Array(items.iter().map(Value::to_json).collect())
            }
            Value::Map(_, fields) | Value::Object(fields) => {
                Json::Object(fields.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
            }
        }
    }

    /// Of JSON: arrays are tuples and mappings are objects.
    ///
    /// # Errors
    /// A number is out of range.
    pub(crate) fn from_json(json: &serde_json::Value) -> Result<Value, String> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Value::NULL,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(Number::parse(&number.to_string())?),
            Json::String(text) => Value::text(text.as_str()),
            Json::Array(items) => Value::tuple(items.iter().map(Value::from_json).collect::<Result<_, _>>()?),
            Json::Object(fields) => {
                let of = |(name, value): (&String, &Json)| Ok((name.clone(), Value::from_json(value)?));
                Value::object(fields.iter().map(of).collect::<Result<_, String>>()?)
            }
        })
    }
}
