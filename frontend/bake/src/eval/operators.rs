//! Operators on one and two values.

use hcl_edit::expr::{BinaryOp, BinaryOperator, UnaryOp, UnaryOperator};

use super::{Names, Scope, eval};
use crate::convert::{convert, equal};
use crate::error::Baked;
use crate::number::Number;
use crate::value::{Type, Value};

/// `!` and `-`.
pub(super) fn unary(names: &mut dyn Names, this: &UnaryOp, scope: &Scope<'_>) -> Baked<Value> {
    let value = eval(names, &this.expr, scope)?;
    let value = match this.operator.value() {
        UnaryOperator::Not => flag(&value).map(|value| Value::Bool(!value)),
        UnaryOperator::Neg => number(&value).map(|number| Value::Number(number.negated())),
    };
    value.map_err(|why| scope.error(&this.expr, why))
}

fn flag(value: &Value) -> Result<bool, String> {
    match convert(value, &Type::Bool)? {
        Value::Bool(value) => Ok(value),
        _ => Err("a bool is required, and the value is null".to_owned()),
    }
}

fn number(value: &Value) -> Result<Number, String> {
    match convert(value, &Type::Number)? {
        Value::Number(number) => Ok(number),
        _ => Err("a number is required, and the value is null".to_owned()),
    }
}

/// All operators between two values. Both are evaluated, as HCL does.
pub(super) fn binary(names: &mut dyn Names, this: &BinaryOp, scope: &Scope<'_>) -> Baked<Value> {
    let (left, right) = (eval(names, &this.lhs_expr, scope)?, eval(names, &this.rhs_expr, scope)?);
    let operator = *this.operator.value();
    match operator {
        BinaryOperator::Eq => return Ok(Value::Bool(equal(&left, &right))),
        BinaryOperator::NotEq => return Ok(Value::Bool(!equal(&left, &right))),
        BinaryOperator::And | BinaryOperator::Or => {
            let left = flag(&left).map_err(|why| scope.error(&this.lhs_expr, why))?;
            let right = flag(&right).map_err(|why| scope.error(&this.rhs_expr, why))?;
            return Ok(Value::Bool(if operator == BinaryOperator::And {
                left && right
            } else {
                left || right
            }));
        }
        _ => {}
    }
    let left = number(&left).map_err(|why| scope.error(&this.lhs_expr, why))?;
    let right = number(&right).map_err(|why| scope.error(&this.rhs_expr, why))?;
    let value = match operator {
        BinaryOperator::Less => Ok(Value::Bool(left < right)),
        BinaryOperator::LessEq => Ok(Value::Bool(left <= right)),
        BinaryOperator::Greater => Ok(Value::Bool(left > right)),
        BinaryOperator::GreaterEq => Ok(Value::Bool(left >= right)),
        BinaryOperator::Plus => left.plus(&right).map(Value::Number),
        BinaryOperator::Minus => left.minus(&right).map(Value::Number),
        BinaryOperator::Mul => left.times(&right).map(Value::Number),
        BinaryOperator::Div => left.over(&right).map(Value::Number),
        BinaryOperator::Mod => left.modulo(&right).map(Value::Number),
        BinaryOperator::Eq | BinaryOperator::NotEq | BinaryOperator::And | BinaryOperator::Or => {
            Ok(Value::NULL)
        }
    };
    value.map_err(|why| scope.error(&this.rhs_expr, why))
}
