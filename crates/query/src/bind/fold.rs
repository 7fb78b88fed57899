//! Constants computed once, when a filter is bound.

use std::cmp::Ordering;

use crate::ast::{Arithmetic, Comparison};
use crate::plan::Predicate;
use crate::{FilterError, Literal};

use super::mismatch;
use crate::number::{compare_doubles, compare_int_double, double_arithmetic, int_arithmetic};

/// The result of arithmetic on two constants. An overflow or a division by zero is an error here, as it would make every
/// row unknown.
pub(super) fn arithmetic(
    position: usize,
    operator: Arithmetic,
    left: &Literal,
    right: &Literal,
) -> Result<Literal, FilterError> {
    let zero = match right {
        Literal::Int(value) => *value == 0,
        Literal::Double(value) => *value == 0.0,
        Literal::Bool(_) | Literal::Text(_) | Literal::Ints(_) | Literal::List(_) => false,
    };
    if zero && matches!(operator, Arithmetic::Divide | Arithmetic::Modulo) {
        return mismatch(position, "division by zero");
    }
    if let (Literal::Int(left), Literal::Int(right)) = (left, right)
        && (operator != Arithmetic::Power || *right >= 0)
    {
        return match int_arithmetic(operator, *left, *right) {
            Some(value) => Ok(Literal::Int(value)),
            None => mismatch(position, "integer overflow in a constant"),
        };
    }
    let (Some(left_number), Some(right_number)) = (as_double(left), as_double(right)) else {
        let wrong = if as_double(left).is_none() { left } else { right };
        return mismatch(position, format!("arithmetic needs numbers, found {}", wrong.kind()));
    };
    match double_arithmetic(operator, left_number, right_number) {
        Some(value) if value.is_finite() => Ok(Literal::Double(value)),
        _ => mismatch(position, "float overflow in a constant"),
    }
}

pub(super) fn compare(
    position: usize,
    operator: Comparison,
    left: &Literal,
    right: &Literal,
) -> Result<Predicate, FilterError> {
    let holds = match (left, right) {
        (Literal::Bool(left), Literal::Bool(right)) if operator == Comparison::Equal => left == right,
        (Literal::Text(left), Literal::Text(right)) => operator.holds(Some(left.cmp(right))),
        (Literal::Int(_) | Literal::Double(_), Literal::Int(_) | Literal::Double(_)) => {
            operator.holds(order(left, right))
        }
        _ => {
            return mismatch(
                position,
                format!("cannot compare {} with {}", left.kind(), right.kind()),
            );
        }
    };
    Ok(Predicate::Always(holds))
}

/// Whether two constants are the same value; numbers compare by value whatever their type.
pub(super) fn equal(left: &Literal, right: &Literal) -> bool {
    match (left, right) {
        (Literal::Bool(left), Literal::Bool(right)) => left == right,
        (Literal::Text(left), Literal::Text(right)) => left == right,
        (Literal::Ints(left), Literal::Ints(right)) => left == right,
        (Literal::Ints(_) | Literal::List(_), Literal::Ints(_) | Literal::List(_)) => {
            let (left, right) = (left.clone().into_items(), right.clone().into_items());
            left.zip(right).is_some_and(|(left, right)| {
                left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| equal(left, right))
            })
        }
        _ => order(left, right) == Some(Ordering::Equal),
    }
}

fn order(left: &Literal, right: &Literal) -> Option<Ordering> {
    match (left, right) {
        (Literal::Int(left), Literal::Int(right)) => Some(left.cmp(right)),
        (Literal::Double(left), Literal::Double(right)) => compare_doubles(*left, *right),
        (Literal::Int(left), Literal::Double(right)) => compare_int_double(*left, *right),
        (Literal::Double(left), Literal::Int(right)) => compare_int_double(*right, *left).map(Ordering::reverse),
        _ => None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "arithmetic with a float is float arithmetic, as in SQL"
)]
fn as_double(literal: &Literal) -> Option<f64> {
    match literal {
        Literal::Int(value) => Some(*value as f64),
        Literal::Double(value) => Some(*value),
        Literal::Bool(_) | Literal::Text(_) | Literal::Ints(_) | Literal::List(_) => None,
    }
}
