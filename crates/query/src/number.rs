//! Arithmetic and comparison of numbers, the same for constants and rows.

use std::cmp::Ordering;

pub(crate) use saker_scalar::compare_int_double;

use crate::ast::Arithmetic;

/// 64-bit integer arithmetic. `None` on overflow and division by zero. Division rounds toward zero, a remainder has the
/// dividend's sign. A negative exponent has no whole result.
pub(crate) fn int_arithmetic(operator: Arithmetic, left: i64, right: i64) -> Option<i64> {
    match operator {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide => left.checked_div(right),
        // The smallest integer modulo -1 is 0, though the division overflows.
        Arithmetic::Modulo => (right != 0).then(|| left.wrapping_rem(right)),
        Arithmetic::Power => power(left, u64::try_from(right).ok()?),
    }
}

/// 64-bit float arithmetic. `None` on division by zero; an overflow is an infinity, as IEEE 754 has it.
pub(crate) fn double_arithmetic(operator: Arithmetic, left: f64, right: f64) -> Option<f64> {
    match operator {
        Arithmetic::Add => Some(left + right),
        Arithmetic::Subtract => Some(left - right),
        Arithmetic::Multiply => Some(left * right),
        Arithmetic::Divide => (right != 0.0).then(|| left / right),
        Arithmetic::Modulo => (right != 0.0).then(|| left % right),
        Arithmetic::Power => Some(left.powf(right)),
    }
}

/// Order of two floats; `None` if one is not a number.
pub(crate) fn compare_doubles(left: f64, right: f64) -> Option<Ordering> {
    left.partial_cmp(&right)
}

/// The integer that equals this float, if there is one.
pub(crate) fn whole(value: f64) -> Option<i64> {
    let fits = value.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "the range was just checked")]
    fits.then_some(value as i64)
}

/// By squaring, as exponents are 64 bits wide. `None` on overflow.
fn power(base: i64, mut exponent: u64) -> Option<i64> {
    match base {
        0 | 1 => return Some(if exponent == 0 { 1 } else { base }),
        -1 => return Some(if exponent.is_multiple_of(2) { 1 } else { -1 }),
        _ if exponent > 63 => return None,
        _ => {}
    }
    let mut result: i64 = 1;
    while exponent > 0 {
        result = result.checked_mul(base)?;
        exponent -= 1;
    }
    Some(result)
}

/// The first float above every 64-bit integer.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_arithmetic_never_wraps() {
        use Arithmetic::{Add, Divide, Modulo, Multiply, Power, Subtract};
        assert_eq!(int_arithmetic(Add, i64::MAX, 1), None);
        assert_eq!(int_arithmetic(Subtract, i64::MIN, 1), None);
        assert_eq!(int_arithmetic(Multiply, i64::MAX, 2), None);
        assert_eq!(int_arithmetic(Divide, i64::MIN, -1), None);
        assert_eq!(int_arithmetic(Divide, 1, 0), None);
        assert_eq!(int_arithmetic(Divide, -7, 2), Some(-3));
        assert_eq!(int_arithmetic(Modulo, -7, 2), Some(-1));
        assert_eq!(int_arithmetic(Modulo, i64::MIN, -1), Some(0));
        assert_eq!(int_arithmetic(Modulo, 1, 0), None);
        assert_eq!(int_arithmetic(Power, 2, 62), Some(1 << 62));
        assert_eq!(int_arithmetic(Power, 2, 63), None);
        assert_eq!(int_arithmetic(Power, -2, 63), Some(i64::MIN));
        assert_eq!(int_arithmetic(Power, -1, i64::MAX), Some(-1));
        assert_eq!(int_arithmetic(Power, 2, -1), None);
        assert_eq!(int_arithmetic(Power, 0, 0), Some(1));
    }

    #[test]
    fn whole_floats_are_found() {
        assert_eq!(whole(-0.0), Some(0));
        assert_eq!(whole(1.5), None);
        assert_eq!(whole(9_223_372_036_854_775_808.0), None);
        assert_eq!(whole(-9_223_372_036_854_775_808.0), Some(i64::MIN));
        assert_eq!(whole(f64::NAN), None);
    }
}
