//! Templates: texts with interpolations and directives.

use hcl_edit::expr::Expression;
use hcl_edit::template::{Directive, Element, HeredocTemplate, Interpolation, StringTemplate, Strip};

use super::collections::round;
use super::{Names, Scope, eval, spend};
use crate::convert::convert;
use crate::error::Baked;
use crate::heredocs::sides;
use crate::items::entries;
use crate::value::{Type, Value};

/// The value of a quoted template. One interpolation alone keeps its type.
pub(super) fn string(
    names: &mut dyn Names,
    template: &StringTemplate,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    let parts: Vec<&Element> = template.iter().collect();
    whole(names, &parts, false, scope, expr)
}

/// The value of a here-document.
pub(super) fn heredoc(
    names: &mut dyn Names,
    heredoc: &HeredocTemplate,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    let parts: Vec<&Element> = heredoc.template.iter().collect();
    whole(names, &parts, true, scope, expr).map_err(|error| match heredoc.indent() {
        // The parts were read by themselves: their places are not places in the file.
        Some(_) => scope.error(expr, error.message),
        None => error,
    })
}

fn whole(
    names: &mut dyn Names,
    parts: &[&Element],
    lines: bool,
    scope: &Scope<'_>,
    expr: &Expression,
) -> Baked<Value> {
    if let [Element::Interpolation(only)] = parts {
        return eval(names, &only.expr, scope);
    }
    let mut writer = Writer { names, lines, text: String::new(), at: expr };
    writer.parts(parts, (Strip::None, Strip::None), scope)?;
    Ok(Value::text(writer.text))
}

struct Writer<'w> {
    names: &'w mut dyn Names,
    /// Whether literals are lines: then trimming ends at the line's end.
    lines: bool,
    text: String,
    at: &'w Expression,
}

impl Writer<'_> {
    /// Writes `parts`, between markers that trim on their sides as `around` says.
    fn parts(&mut self, parts: &[&Element], around: (Strip, Strip), scope: &Scope<'_>) -> Baked<()> {
        for (number, part) in parts.iter().enumerate() {
            match part {
                Element::Literal(text) => {
                    let before = match number.checked_sub(1) {
                        Some(before) => sides(parts[before]).1,
                        None => around.0,
                    };
                    let after = parts.get(number + 1).map_or(around.1, |part| sides(part).0);
                    let mut text: &str = text.value();
                    if matches!(before, Strip::End | Strip::Both) {
                        text = trim_start(text, self.lines);
                    }
                    if matches!(after, Strip::Start | Strip::Both) {
                        text = trim_end(text, self.lines);
                    }
                    self.text.push_str(text);
                }
                Element::Interpolation(inner) => self.interpolation(inner, scope)?,
                Element::Directive(directive) => self.directive(directive, scope)?,
            }
        }
        Ok(())
    }

    fn interpolation(&mut self, inner: &Interpolation, scope: &Scope<'_>) -> Baked<()> {
        let value = eval(self.names, &inner.expr, scope)?;
        if value.is_null() {
            return Err(scope.error(&inner.expr, "a null value cannot be part of a text"));
        }
        let text = convert(&value, &Type::String).map_err(|_| {
            let kind = value.kind().name();
            scope.error(&inner.expr, format!("a {kind} cannot be part of a text: string required"))
        })?;
        let text = text.as_str().unwrap_or_default();
        spend(self.names, self.text.len() + text.len())
            .map_err(|error| scope.error(self.at, error.message))?;
        self.text.push_str(text);
        Ok(())
    }

    fn directive(&mut self, directive: &Directive, scope: &Scope<'_>) -> Baked<()> {
        match directive {
            Directive::If(this) => {
                let condition = eval(self.names, &this.if_expr.cond_expr, scope)?;
                let flag = if condition.is_null() {
                    Err("the condition is null".to_owned())
                } else {
                    convert(&condition, &Type::Bool)
                };
                let taken =
                    flag.map_err(|why| scope.error(&this.if_expr.cond_expr, why))? == Value::Bool(true);
                let (if_end, end_start) = (this.if_expr.strip, this.endif_expr.strip);
                match (&this.else_expr, taken) {
                    (Some(other), true) => {
                        self.parts(&list(&this.if_expr.template), (if_end, other.strip), scope)
                    }
                    (None, true) => self.parts(&list(&this.if_expr.template), (if_end, end_start), scope),
                    (Some(other), false) => {
                        self.parts(&list(&other.template), (other.strip, end_start), scope)
                    }
                    (None, false) => Ok(()),
                }
            }
            Directive::For(this) => {
                let each = &this.for_expr;
                let collection = eval(self.names, &each.collection_expr, scope)?;
                let entries = entries(&collection).ok_or_else(|| {
                    scope.error(
                        &each.collection_expr,
                        format!("a {} cannot be iterated over", collection.kind().name()),
                    )
                })?;
                for entry in entries {
                    let key = each.key_var.as_ref().map(hcl_edit::Decorated::value);
                    let local = scope.inner(round(key, each.value_var.value(), entry));
                    spend(self.names, 1).map_err(|error| scope.error(self.at, error.message))?;
                    self.parts(&list(&each.template), (each.strip, this.endfor_expr.strip), &local)?;
                }
                Ok(())
            }
        }
    }
}

fn list(template: &hcl_edit::template::Template) -> Vec<&Element> {
    template.iter().collect()
}

fn trim_start(text: &str, lines: bool) -> &str {
    let end = if lines { text.find('\n').map_or(text.len(), |at| at + 1) } else { text.len() };
    let (line, rest) = text.split_at(end);
    if line.trim_start().is_empty() { rest } else { text.trim_start() }
}

fn trim_end(text: &str, lines: bool) -> &str {
    if !lines {
        return text.trim_end();
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let start = body.rfind('\n').map_or(0, |at| at + 1);
    let (rest, line) = text.split_at(start);
    let kept = rest.len() + line.trim_end().len();
    &text[..kept]
}
