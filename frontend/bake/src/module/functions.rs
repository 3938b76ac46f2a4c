//! Functions of a definition.

use std::collections::BTreeSet;

use hcl_edit::expr::{Expression, FuncCall};
use hcl_edit::visit::{Visit, visit_func_call};

use super::Module;
use crate::error::{BakeError, Baked};
use crate::eval::UserFunction;
use crate::functions::{find, refused};
use crate::syntax::Block;

/// The functions that an expression calls.
#[derive(Default)]
struct Calls(BTreeSet<String>);

impl Visit for Calls {
    fn visit_func_call(&mut self, call: &FuncCall) {
        self.0.insert(call.name.name.as_str().to_owned());
        visit_func_call(self, call);
    }
}

/// The name that an expression is, if it is one.
fn name_of(expr: &Expression) -> Option<String> {
    match expr {
        Expression::Variable(name) => Some(name.as_str().to_owned()),
        // JSON has names as texts.
        Expression::String(name) if hcl_edit::Ident::try_new(name.value().as_str()).is_ok() => {
            Some(name.value().clone())
        }
        _ => None,
    }
}

fn read(name: &str, block: &Block) -> Baked<UserFunction> {
    let error = |text: String| BakeError::new(text).at(&block.origin, block.range.clone());
    let params = block
        .body
        .attribute("params")
        .ok_or_else(|| error(format!("empty params not allowed for {name}")))?;
    let result = block
        .body
        .attribute("result")
        .ok_or_else(|| error(format!("empty result not allowed for {name}")))?;
    let bad = || error(format!("the parameters of the function {name} must be names, as `params = [a, b]`"));
    let Expression::Array(names) = &*params.expr else { return Err(bad()) };
    let params = names.iter().map(name_of).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
    let variadic = match block.body.attribute("variadic_params") {
        Some(variadic) => Some(name_of(&variadic.expr).ok_or_else(bad)?),
        None => None,
    };
    Ok(UserFunction { params, variadic, result: result.expr.clone(), origin: result.origin.clone() })
}

impl Module<'_> {
    /// Reads all functions. A function that calls itself, directly or not, is an error.
    pub(super) fn all_functions(&mut self) -> Baked<()> {
        let names: Vec<String> = self.functions.keys().cloned().collect();
        for name in names {
            self.user_function(&name)?;
        }
        Ok(())
    }

    /// The function `name`, if the files have it.
    pub(super) fn user_function(&mut self, name: &str) -> Baked<Option<UserFunction>> {
        if let Some(known) = self.user_functions.get(name) {
            return Ok(Some(known.clone()));
        }
        let Some(block) = self.functions.get(name) else { return Ok(None) };
        let function = read(name, block)?;
        let (origin, range) = (block.origin.clone(), block.range.clone());
        self.check_calls(name, &function).map_err(|error| error.at(&origin, range))?;
        self.user_functions.insert(name.to_owned(), function.clone());
        Ok(Some(function))
    }

    /// Follows the calls of `function`. Functions are a graph without circles, or this is an error.
    fn check_calls(&self, name: &str, function: &UserFunction) -> Baked<()> {
        let mut seen = BTreeSet::new();
        let mut open = vec![(name.to_owned(), function.result.clone())];
        while let Some((caller, result)) = open.pop() {
            let mut calls = Calls::default();
            calls.visit_expr(&result);
            for called in calls.0 {
                if find(&called).is_some()
                    || matches!(called.as_str(), "try" | "can" | "convert")
                    || refused(&called).is_some()
                {
                    continue;
                }
                if called == name {
                    return Err(BakeError::new(format!("function cycle not allowed for {name}")));
                }
                let block = self.functions.get(&called).ok_or_else(|| {
                    BakeError::new(format!("there is no function named {called:?}, which {caller} calls"))
                })?;
                if seen.insert(called.clone())
                    && let Some(result) = block.body.attribute("result")
                {
                    open.push((called, result.expr.clone()));
                }
            }
        }
        Ok(())
    }
}
