//! Comparison of numbers of different types.

use std::cmp::Ordering;

/// Exact order of an integer and a float, without rounding either; `None` if the float is not a number.
#[must_use]
pub fn compare_int_double(left: i64, right: f64) -> Option<Ordering> {
    if right.is_nan() {
        return None;
    }
    if right >= TWO_TO_63 {
        return Some(Ordering::Less);
    }
    if right < -TWO_TO_63 {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
    let floor = right.floor() as i64;
    Some(left.cmp(&floor).then(if right.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Less
    }))
}

/// The first float above every 64-bit integer.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        for (left, right, expected) in [
            (1, 1.0, Equal),
            (1, 1.5, Less),
            (2, 1.5, Greater),
            (-1, -1.5, Greater),
            (-2, -1.5, Less),
            (9_007_199_254_740_993, 9_007_199_254_740_992.0, Greater),
            (i64::MAX, 9_223_372_036_854_775_807.0, Less),
            (i64::MIN, -9_223_372_036_854_775_808.0, Equal),
            (i64::MIN, f64::NEG_INFINITY, Greater),
            (i64::MAX, f64::INFINITY, Less),
        ] {
            assert_eq!(compare_int_double(left, right), Some(expected), "{left} {right}");
        }
        assert_eq!(compare_int_double(0, f64::NAN), None);
    }
}
