use proptest::prelude::*;

use super::*;

fn close(a: f32, b: f32, magnitude: f32) -> bool {
    (a - b).abs() <= 1e-5 * magnitude.max(1.0)
}

/// Two vectors of the same length, so that every remainder modulo the register widths turns up.
fn pairs() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (0usize..200).prop_flat_map(|len| {
        (
            prop::collection::vec(-10.0f32..10.0, len),
            prop::collection::vec(-10.0f32..10.0, len),
        )
    })
}

proptest! {
    #[test]
    fn float_kernels_agree_with_their_scalar_twins((a, b) in pairs()) {
        let magnitude = 400.0 * a.len() as f32;
        prop_assert!(close(dot(&a, &b), scalar::dot(&a, &b), magnitude));
        prop_assert!(close(l2(&a, &b), scalar::l2(&a, &b), magnitude));
        let (product, square) = dot_and_square(&a, &b);
        prop_assert!(close(product, scalar::dot(&a, &b), magnitude));
        prop_assert!(close(square, scalar::dot(&b, &b), magnitude));
    }

    #[test]
    fn float_kernels_compare_over_the_shorter((a, b) in pairs(), cut in 0usize..50) {
        let short = &b[..b.len().saturating_sub(cut)];
        prop_assert_eq!(dot(&a, short), dot(&a[..short.len()], short));
        prop_assert_eq!(l2(&a, short), l2(&a[..short.len()], short));
        prop_assert_eq!(dot_and_square(short, &b), dot_and_square(short, &b[..short.len()]));
    }

    #[test]
    fn code_kernels_equal_their_scalar_twins(
        query in prop::collection::vec(any::<i16>(), 0..300),
        codes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert_eq!(l2_codes(&query, &codes), scalar::l2_codes(&query, &codes));
    }

    #[test]
    fn a_batch_equals_one_call_per_row(
        query in prop::collection::vec(any::<i16>(), 96),
        codes in prop::collection::vec(any::<u8>(), 96 * 10),
        rows in prop::collection::vec(0u32..10, 0..40),
    ) {
        let (mut fast, mut slow) = (vec![7], Vec::new());
        l2_codes_of_rows(&query, &codes, 96, &rows, &mut fast);
        scalar::l2_codes_of_rows(&query, &codes, 96, &rows, &mut slow);
        prop_assert_eq!(fast, slow);
    }
}

#[test]
fn code_distance_is_the_sum_of_squares() {
    let query: Vec<i16> = (0..32).map(|i| i * 10 - 50).collect();
    let row: Vec<u8> = (0..32).collect();
    let expected: i32 = query
        .iter()
        .zip(&row)
        .map(|(&q, &r)| (i32::from(q) - i32::from(r)).pow(2))
        .sum();
    assert_eq!(i64::from(l2_codes(&query, &row)), i64::from(expected));
}

#[test]
fn values_that_are_not_numbers_pass_through() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(!dot(&[bad; 11], &[0.0; 11]).is_finite());
        assert!(!l2(&[bad; 11], &[0.0; 11]).is_finite());
    }
}
