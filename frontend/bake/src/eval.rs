//! Expressions to values, as HCL's Go library evaluates them.
//!
//! The library `hcl-edit` reads the text; `hcl-rs` has an evaluator, too, but that one converts no types, has no functions
//! with an environment, no places and no bounds.

mod collections;
mod operators;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::expr::{Conditional, Expression, FuncCall, Traversal, TraversalOperator};

use crate::convert::{convert, unify};
use crate::error::{BakeError, Baked, Origin};
use crate::functions::{self, Host};
use crate::items::index;
use crate::number::Number;
use crate::types;
use crate::value::{LARGEST, Type, Value};

/// The deepest nesting of expressions, function calls and variables.
const DEPTH: usize = 1000;

/// The largest work of one definition, about in bytes of values that are made.
const WORK: usize = 256 << 20;

/// The error of a definition that is more.
const TOO_MUCH: &str =
    "the definition is too much work: its expressions are evaluated too often, or their values are too large";

/// The work of one expression, however small its value is.
const STEP: usize = 128;

/// The bounds of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    depth: usize,
    work: usize,
}

/// A function of a bake file.
#[derive(Clone, Debug)]
pub(crate) struct UserFunction {
    pub(crate) params: Vec<String>,
    pub(crate) variadic: Option<String>,
    pub(crate) result: Arc<Expression>,
    pub(crate) origin: Arc<Origin>,
}

/// The names that an expression can use.
pub(crate) trait Names {
    /// The global variable or attribute `name`; nothing if there is none.
    fn variable(&mut self, name: &str) -> Baked<Option<Value>>;

    /// The attribute `attribute`, or all of them, of the block `name`, where `kind` is a kind of block.
    fn block(&mut self, kind: &str, name: &str, attribute: Option<&str>) -> Baked<Option<Value>>;

    /// Whether blocks are called `kind`.
    fn is_block(&self, kind: &str) -> bool;

    /// The function `name`; nothing if there is none.
    fn function(&mut self, name: &str) -> Baked<Option<UserFunction>>;

    /// The machine, as functions see it.
    fn host(&self) -> Arc<Host>;

    /// The bounds.
    fn effort(&mut self) -> &mut Effort;
}

/// Local variables, and the file of the expression that uses them.
#[derive(Clone)]
pub(crate) struct Scope<'s> {
    file: Arc<Origin>,
    names: BTreeMap<String, Value>,
    parent: Option<&'s Scope<'s>>,
}

impl<'s> Scope<'s> {
    /// No local variables, for expressions of `file`.
    pub(crate) fn new(file: &Arc<Origin>) -> Scope<'static> {
        Scope::with(file, BTreeMap::new())
    }

    /// The local variables `names`, for expressions of `file`.
    pub(crate) fn with(file: &Arc<Origin>, names: BTreeMap<String, Value>) -> Scope<'static> {
        Scope { file: file.clone(), names, parent: None }
    }

    /// Further local variables in front of these.
    pub(crate) fn inner<'i>(&'i self, names: BTreeMap<String, Value>) -> Scope<'i>
    where
        's: 'i,
    {
        Scope { file: self.file.clone(), names, parent: Some(self) }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.names.get(name).or_else(|| self.parent.and_then(|parent| parent.get(name)))
    }

    /// `message` with the place of `expr`.
    pub(crate) fn error(&self, expr: &Expression, message: impl Into<String>) -> BakeError {
        BakeError::new(message).at(&self.file, expr.span())
    }
}

/// The value of `expr`.
///
/// # Errors
/// The expression cannot be evaluated, or is too much work. The error has its place.
pub(crate) fn eval(names: &mut dyn Names, expr: &Expression, scope: &Scope<'_>) -> Baked<Value> {
    let effort = names.effort();
    effort.depth += 1;
    effort.work = effort.work.saturating_add(STEP);
    if effort.depth > DEPTH {
        effort.depth -= 1;
        return Err(scope.error(expr, format!("expressions are nested more than {DEPTH} deep")));
    }
    if effort.work > WORK {
        effort.depth -= 1;
        return Err(scope.error(expr, TOO_MUCH));
    }
    let value = stacker::maybe_grow(128 << 10, 2 << 20, || eval_inner(names, expr, scope));
    names.effort().depth -= 1;
    let value = value?;
    if !matches!(expr, Expression::Variable(_) | Expression::Traversal(_) | Expression::Parenthesis(_)) {
        spend(names, value.weight()).map_err(|error| error.at(&scope.file, expr.span()))?;
    }
    Ok(value)
}

/// Counts work, which has a bound.
fn spend(names: &mut dyn Names, weight: usize) -> Baked<()> {
    if weight > LARGEST {
        return Err(BakeError::new(format!("the value is larger than {} MiB", LARGEST >> 20)));
    }
    let effort = names.effort();
    effort.work = effort.work.saturating_add(weight);
    if effort.work > WORK {
        return Err(BakeError::new(TOO_MUCH));
    }
    Ok(())
}

fn eval_inner(names: &mut dyn Names, expr: &Expression, scope: &Scope<'_>) -> Baked<Value> {
    match expr {
        Expression::Null(_) => Ok(Value::NULL),
        Expression::Bool(value) => Ok(Value::Bool(*value.value())),
        Expression::Number(number) => {
            let written = number.as_repr().map(|raw| raw.to_string());
            let text = written.filter(|text| !text.is_empty()).unwrap_or_else(|| number.value().to_string());
            Number::parse(&text).map(Value::Number).map_err(|why| scope.error(expr, why))
        }
        Expression::String(text) => Ok(Value::text(text.value().as_str())),
        Expression::Array(array) => {
            let items = array.iter().map(|item| eval(names, item, scope)).collect::<Baked<_>>()?;
            Ok(Value::tuple(items))
        }
        Expression::Object(object) => collections::object(names, object, scope),
        Expression::StringTemplate(parts) => template::string(names, parts, scope, expr),
        Expression::HeredocTemplate(heredoc) => template::heredoc(names, heredoc, scope, expr),
        Expression::Parenthesis(inner) => eval(names, inner.inner(), scope),
        Expression::Variable(name) => variable(names, name.as_str(), scope, expr),
        Expression::Conditional(condition) => conditional(names, condition, scope),
        Expression::FuncCall(call) => function_call(names, call, scope, expr),
        Expression::Traversal(traversal) => traverse(names, traversal, scope, expr),
        Expression::UnaryOp(operation) => operators::unary(names, operation, scope),
        Expression::BinaryOp(operation) => operators::binary(names, operation, scope),
        Expression::ForExpr(each) => collections::each(names, each, scope, expr),
    }
}

fn variable(names: &mut dyn Names, name: &str, scope: &Scope<'_>, expr: &Expression) -> Baked<Value> {
    if let Some(value) = scope.get(name) {
        return Ok(value.clone());
    }
    if names.is_block(name) {
        return Err(
            scope.error(expr, format!("cannot access {name} as a variable: name a {name} as `{name}.NAME`"))
        );
    }
    match names.variable(name).map_err(|error| error.at(&scope.file, expr.span()))? {
        Some(value) => Ok(value),
        None => Err(scope.error(expr, format!("there is no variable named {name:?}"))),
    }
}

fn conditional(names: &mut dyn Names, this: &Conditional, scope: &Scope<'_>) -> Baked<Value> {
    // The branch that is not taken counts for the type, and may fail.
    let (yes, no) = (eval(names, &this.true_expr, scope), eval(names, &this.false_expr, scope));
    let kind = |result: &Baked<Value>| result.as_ref().map_or(Type::Any, Value::kind);
    let common = unify(&[kind(&yes), kind(&no)]).ok_or_else(|| {
        let (yes, no) = (kind(&yes).name(), kind(&no).name());
        scope.error(
            &this.true_expr,
            format!("the two results of a condition must have one type: these are {yes} and {no}"),
        )
    })?;
    let condition = eval(names, &this.cond_expr, scope)?;
    if condition.is_null() {
        return Err(scope.error(&this.cond_expr, "the condition is null: it must be true or false"));
    }
    let condition = convert(&condition, &Type::Bool).map_err(|why| scope.error(&this.cond_expr, why))?;
    let (chosen, from) =
        if condition == Value::Bool(true) { (yes, &this.true_expr) } else { (no, &this.false_expr) };
    convert(&chosen?, &common).map_err(|why| scope.error(from, why))
}

fn function_call(
    names: &mut dyn Names,
    call: &FuncCall,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    let name = call.name.name.as_str();
    if !call.name.namespace.is_empty() {
        return Err(scope.error(expr, "functions have no namespaces here"));
    }
    match name {
        "try" => return try_each(names, call, scope, expr),
        "can" => {
            let [tried] = arguments_of::<1>(call, scope, expr)?;
            return Ok(Value::Bool(eval(names, tried, scope).is_ok()));
        }
        "convert" => {
            let [value, to] = arguments_of::<2>(call, scope, expr)?;
            let to = types::of_expression(to).map_err(|why| scope.error(to, why))?;
            let value = eval(names, value, scope)?;
            return convert(&value, &to).map_err(|why| scope.error(expr, format!("{name}: {why}")));
        }
        _ => {}
    }
    let args = arguments(names, call, scope)?;
    if let Some(function) = functions::find(name) {
        let host = names.host();
        return functions::call(function, &args, &host)
            .map_err(|why| scope.error(expr, format!("error in function call: {name}: {why}")));
    }
    match names.function(name).map_err(|error| error.at(&scope.file, expr.span()))? {
        Some(function) => {
            call_user(names, name, &function, args).map_err(|error| error.at(&scope.file, expr.span()))
        }
        None => {
            let error = scope.error(expr, format!("there is no function named {name:?}"));
            match functions::refused(name) {
                Some(why) => Err(scope.error(expr, format!("the function {name:?} is not offered: {why}"))),
                None => Err(error),
            }
        }
    }
}

/// The first argument that has a value.
fn try_each(names: &mut dyn Names, call: &FuncCall, scope: &Scope<'_>, expr: &Expression) -> Baked<Value> {
    let mut last = None;
    for tried in &call.args {
        match eval(names, tried, scope) {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(
        || scope.error(expr, "try: at least one argument is required"),
        |error| BakeError { message: format!("try: no expression succeeded: {}", error.message), ..error },
    ))
}

fn arguments_of<'c, const N: usize>(
    call: &'c FuncCall,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<[&'c Expression; N]> {
    let given: Vec<&Expression> = call.args.iter().collect();
    let count = given.len();
    given.try_into().map_err(|_| {
        scope.error(
            expr,
            format!("{}: {N} arguments are required, and there are {count}", call.name.name.as_str()),
        )
    })
}

fn arguments(names: &mut dyn Names, call: &FuncCall, scope: &Scope<'_>) -> Baked<Vec<Value>> {
    let mut args = call.args.iter().map(|arg| eval(names, arg, scope)).collect::<Baked<Vec<_>>>()?;
    if call.args.expand_final()
        && let (Some(last), Some(at)) = (args.pop(), call.args.iter().last())
    {
        let items = last
            .as_items()
            .ok_or_else(|| scope.error(at, "the last argument must be a list, since `...` follows"))?;
        args.extend(items.iter().cloned());
    }
    Ok(args)
}

fn call_user(names: &mut dyn Names, name: &str, function: &UserFunction, args: Vec<Value>) -> Baked<Value> {
    let UserFunction { params, variadic, result, origin } = function;
    let count = args.len();
    if count < params.len() || (variadic.is_none() && count > params.len()) {
        let more = if variadic.is_some() { " or more" } else { "" };
        let wanted = params.len();
        return Err(BakeError::new(format!(
            "{name}: {wanted}{more} arguments are required, and there are {count}"
        )));
    }
    if let Some(at) = args.iter().position(Value::is_null) {
        return Err(BakeError::new(format!("{name}: argument {} must not be null", at + 1)));
    }
    let mut args = args.into_iter();
    let mut local: BTreeMap<String, Value> = params.iter().cloned().zip(args.by_ref()).collect();
    if let Some(variadic) = variadic {
        local.insert(variadic.clone(), Value::tuple(args.collect()));
    }
    eval(names, result, &Scope::with(origin, local))
}

fn traverse(names: &mut dyn Names, this: &Traversal, scope: &Scope<'_>, expr: &Expression) -> Baked<Value> {
    let mut operators: &[_] = &this.operators;
    let mut value = match &this.expr {
        Expression::Variable(kind) if names.is_block(kind.as_str()) && scope.get(kind.as_str()).is_none() => {
            let step = |at: usize| match this.operators.get(at).map(hcl_edit::Decorated::value) {
                Some(TraversalOperator::GetAttr(name)) => Some(name.as_str()),
                _ => None,
            };
            let kind = kind.as_str();
            let name = step(0)
                .ok_or_else(|| scope.error(expr, format!("cannot traverse {kind} without attribute")))?;
            let attribute = step(1);
            operators = &operators[if attribute.is_some() { 2 } else { 1 }..];
            names
                .block(kind, name, attribute)
                .map_err(|error| error.at(&scope.file, expr.span()))?
                .ok_or_else(|| scope.error(expr, format!("there is no {kind} named {name:?}")))?
        }
        inner => eval(names, inner, scope)?,
    };
    let mut at = 0;
    while let Some(operator) = operators.get(at) {
        at += 1;
        value = match operator.value() {
            TraversalOperator::AttrSplat(_) => {
                let only = |operator: &&hcl_edit::Decorated<TraversalOperator>| {
                    matches!(operator.value(), TraversalOperator::GetAttr(_))
                };
                let end = at + operators[at..].iter().take_while(only).count();
                let splat = splat(names, &value, &operators[at..end], scope, expr)?;
                at = end;
                splat
            }
            TraversalOperator::FullSplat(_) => {
                let splat = splat(names, &value, &operators[at..], scope, expr)?;
                at = operators.len();
                splat
            }
            operator => step(names, &value, operator, scope, expr)?,
        };
    }
    Ok(value)
}

type Operators<'o> = &'o [hcl_edit::Decorated<TraversalOperator>];

fn splat(
    names: &mut dyn Names,
    value: &Value,
    operators: Operators<'_>,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    if value.is_null() {
        return Ok(Value::tuple(Vec::new()));
    }
    let one = [value.clone()];
    let mut results = Vec::new();
    for item in value.as_items().unwrap_or(&one) {
        let mut item = item.clone();
        for operator in operators {
            item = match operator.value() {
                TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                    return Err(
                        scope.error(expr, "a splat within a splat is not supported: use `[for … in …]`")
                    );
                }
                operator => step(names, &item, operator, scope, expr)?,
            };
        }
        results.push(item);
    }
    Ok(Value::tuple(results))
}

fn step(
    names: &mut dyn Names,
    value: &Value,
    operator: &TraversalOperator,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    match operator {
        TraversalOperator::GetAttr(name) => {
            let name = name.as_str();
            if value.is_null() {
                return Err(scope.error(expr, format!("attempt to get attribute {name:?} from null value")));
            }
            let fields = value.as_fields().ok_or_else(|| {
                scope.error(
                    expr,
                    format!("unsupported attribute: a {} has no attribute {name:?}", value.kind().name()),
                )
            })?;
            fields
                .get(name)
                .cloned()
                .ok_or_else(|| scope.error(expr, format!("there is no attribute named {name:?}")))
        }
        TraversalOperator::Index(at) => {
            let key = eval(names, at, scope)?;
            index(value, &key).map_err(|why| scope.error(at, why))
        }
        TraversalOperator::LegacyIndex(at) => {
            let key = Value::Number(Number::from(usize::try_from(*at.value()).unwrap_or(usize::MAX)));
            index(value, &key).map_err(|why| scope.error(expr, why))
        }
        TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => Ok(value.clone()),
    }
}
