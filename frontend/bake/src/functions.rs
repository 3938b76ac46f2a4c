//! The functions of bake files: the ones that buildx offers, each a row of a table.

mod codecs;
mod format;
mod lists;
mod maps;
mod net;
mod numbers;
mod sets;
mod text;
mod time;
mod versions;

use std::path::PathBuf;

use crate::convert::convert;
use crate::number::Number;
use crate::value::{Type, Value};

/// What functions see of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The time, for `timestamp`, in seconds since 1970.
    pub now: i64,
    /// The user's home directory, for `homedir`.
    pub home: PathBuf,
}

/// What a parameter takes. Values are converted where that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Param {
    /// Any value but `null`.
    Any,
    /// Any value.
    Nullable,
    /// A text.
    Text,
    /// A number.
    Number,
    /// A boolean.
    Bool,
    /// A list of texts.
    Texts,
    /// A list of any type.
    List,
}

/// The arguments of a call, as the parameters want them.
struct Call<'c> {
    args: &'c [Value],
    host: &'c Host,
}

type Run = fn(&Call<'_>) -> Result<Value, String>;

/// A row of the table.
pub(crate) struct Function {
    name: &'static str,
    params: &'static [Param],
    /// Further arguments of this kind.
    rest: Option<Param>,
    run: Run,
}

const fn row(name: &'static str, params: &'static [Param], run: Run) -> Function {
    Function { name, params, rest: None, run }
}

const fn many(name: &'static str, params: &'static [Param], rest: Param, run: Run) -> Function {
    Function { name, params, rest: Some(rest), run }
}

/// All tables.
const TABLES: [&[Function]; 10] = [
    text::TABLE,
    numbers::TABLE,
    lists::TABLE,
    maps::TABLE,
    sets::TABLE,
    codecs::TABLE,
    format::TABLE,
    time::TABLE,
    net::TABLE,
    versions::TABLE,
];

/// The function `name` of the table.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    TABLES.iter().flat_map(|table| table.iter()).find(|function| function.name == name)
}

/// The reason why a function of buildx is not offered here.
pub(crate) fn refused(name: &str) -> Option<&'static str> {
    match name {
        "rsadecrypt" => Some("pass the decrypted value as a variable"),
        "bcrypt" => Some("its result differs in each call; pass the hash as a variable"),
        _ => None,
    }
}

/// Calls `function`.
///
/// # Errors
/// The arguments do not fit, or the function fails.
pub(crate) fn call(function: &Function, args: &[Value], host: &Host) -> Result<Value, String> {
    let Function { params, rest, run, .. } = function;
    let count = args.len();
    if count < params.len() || (rest.is_none() && count > params.len()) {
        let more = if rest.is_some() { " or more" } else { "" };
        return Err(format!("{}{more} arguments are required, and there are {count}", params.len()));
    }
    let kinds = params.iter().copied().chain(std::iter::repeat(rest.unwrap_or(Param::Any)));
    let fit = |(number, (arg, kind)): (usize, (&Value, Param))| {
        fitting(arg, kind).map_err(|why| format!("argument {}: {why}", number + 1))
    };
    let args = args.iter().zip(kinds).enumerate().map(fit).collect::<Result<Vec<_>, _>>()?;
    run(&Call { args: &args, host })
}

fn fitting(arg: &Value, kind: Param) -> Result<Value, String> {
    if kind == Param::Nullable {
        return Ok(arg.clone());
    }
    if arg.is_null() {
        return Err("must not be null".to_owned());
    }
    match kind {
        Param::Any | Param::Nullable => Ok(arg.clone()),
        Param::Text => convert(arg, &Type::String),
        Param::Number => convert(arg, &Type::Number),
        Param::Bool => convert(arg, &Type::Bool),
        Param::Texts => convert(arg, &Type::List(Box::new(Type::String))),
        Param::List => match arg {
            Value::List(..) | Value::Tuple(_) | Value::Set(..) => Ok(arg.clone()),
            _ => Err("a list is required".to_owned()),
        },
    }
}

impl Call<'_> {
    fn text(&self, at: usize) -> &str {
        self.args.get(at).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, at: usize) -> Number {
        match self.args.get(at) {
            Some(Value::Number(number)) => number.clone(),
            _ => Number::from(0_i64),
        }
    }

    /// A whole number.
    fn int(&self, at: usize) -> Result<i64, String> {
        self.number(at).to_i64().ok_or_else(|| format!("argument {}: a whole number is required", at + 1))
    }

    fn flag(&self, at: usize) -> bool {
        self.args.get(at) == Some(&Value::Bool(true))
    }

    fn items(&self, at: usize) -> &[Value] {
        self.args.get(at).and_then(Value::as_items).unwrap_or_default()
    }

    /// The texts of a list. `null` among them is an error.
    fn texts(&self, at: usize) -> Result<Vec<&str>, String> {
        let text = |item| Value::as_str(item).ok_or_else(|| format!("argument {}: an item is null", at + 1));
        self.items(at).iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests;
