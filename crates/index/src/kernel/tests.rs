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

/// What each form of a kernel that this processor has gives, with its name.
macro_rules! forms {
    ($name:ident($($argument:expr),*)) => {{
        #[allow(unused_mut, reason = "some processors have no other form")]
        let mut forms = vec![("chosen", $name($($argument),*))];
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the kernels need features that the compiler cannot assume")]
        {
            if avx2_fma() {
                // SAFETY: the condition just saw every feature of the kernel.
                forms.push(("avx2", unsafe { avx2::$name($($argument),*) }));
            }
            if avx512_vnni() {
                // SAFETY: the condition just saw every feature of the kernel.
                forms.push(("avx512", unsafe { avx512::$name($($argument),*) }));
            }
        }
        forms
    }};
}

/// Weights and codes as the kernels take them.
fn weights(len: usize) -> impl Strategy<Value = Vec<i8>> {
    prop::collection::vec(prop_oneof![4 => -127i8..=127, 1 => Just(-127), 1 => Just(127)], len)
}
fn codes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![4 => 0..=CODE_MAX, 2 => Just(CODE_MAX)], len)
}

proptest! {
    #[test]
    fn float_kernels_agree_with_their_scalar_twins((a, b) in pairs()) {
        let magnitude = 400.0 * a.len() as f32;
        for (name, result) in forms!(dot(&a, &b)) {
            prop_assert!(close(result, scalar::dot(&a, &b), magnitude), "{}", name);
        }
        for (name, result) in forms!(l2(&a, &b)) {
            prop_assert!(close(result, scalar::l2(&a, &b), magnitude), "{}", name);
        }
        for (name, (product, square)) in forms!(dot_and_square(&a, &b)) {
            prop_assert!(close(product, scalar::dot(&a, &b), magnitude), "{}", name);
            prop_assert!(close(square, scalar::dot(&b, &b), magnitude), "{}", name);
        }
    }

    #[test]
    fn float_kernels_compare_over_the_shorter((a, b) in pairs(), cut in 0usize..50) {
        let short = &b[..b.len().saturating_sub(cut)];
        for ((_, of_both), (name, of_short)) in forms!(dot(&a, short)).into_iter().zip(forms!(dot(&a[..short.len()], short))) {
            prop_assert_eq!(of_both, of_short, "{}", name);
        }
        for ((_, of_both), (name, of_short)) in forms!(l2(&a, short)).into_iter().zip(forms!(l2(&a[..short.len()], short))) {
            prop_assert_eq!(of_both, of_short, "{}", name);
        }
        prop_assert_eq!(dot_and_square(short, &b), dot_and_square(short, &b[..short.len()]));
    }

    #[test]
    fn products_of_codes_equal_their_scalar_twins(
        (weights, codes) in (0usize..400, 0usize..400).prop_flat_map(|(a, b)| (weights(a), codes(b))),
        halves in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for (name, result) in forms!(dot_codes(&weights, &codes)) {
            prop_assert_eq!(result, scalar::dot_codes(&weights, &codes), "{}", name);
        }
        for (name, result) in forms!(dot_half_codes(&weights, &halves)) {
            prop_assert_eq!(result, scalar::dot_half_codes(&weights, &halves), "{}", name);
        }
    }

    #[test]
    fn a_batch_equals_one_call_per_row(
        weights in weights(192),
        codes in codes(192 * 10),
        halves in prop::collection::vec(any::<u8>(), 96 * 10),
        rows in prop::collection::vec(0u32..10, 0..40),
        later in prop::collection::vec(0u32..10, 0..40),
    ) {
        let (mut fast, mut slow) = (vec![7], Vec::new());
        scalar::dot_codes_of_rows(&weights, &codes, 192, &rows, &[], &mut slow);
        dot_codes_of_rows(&weights, &codes, 192, &rows, &later, &mut fast);
        prop_assert_eq!(&fast, &slow);
        scalar::dot_half_codes_of_rows(&weights, &halves, 96, &rows, &[], &mut slow);
        dot_half_codes_of_rows(&weights, &halves, 96, &rows, &later, &mut fast);
        prop_assert_eq!(&fast, &slow);
    }

    #[test]
    fn values_become_codes_alike_in_all_forms(
        values in prop::collection::vec(prop_oneof![4 => -3.0f32..3.0, 1 => any::<f32>()], 0..100),
        scale in 0.1f32..100.0,
    ) {
        let center: Vec<f32> = (0..values.len()).map(|place| place as f32 * 0.01).collect();
        let mut expected = vec![9; values.len() + 3];
        scalar::encode(&values, &center, &vec![scale; values.len()], 63.5, CODE_MAX, &mut expected);
        let mut codes = vec![9; values.len() + 3];
        encode(&values, &center, &vec![scale; values.len()], 63.5, CODE_MAX, &mut codes);
        // Fused operations may round a value in the middle of two codes to the other.
        prop_assert!(codes.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
        prop_assert!(codes[..values.len()].iter().all(|&code| code <= CODE_MAX));
        prop_assert_eq!(&codes[values.len()..], [9; 3]);
    }
}

#[test]
fn codes_are_rounded_and_saturate() {
    let mut codes = [0; 6];
    let values = [0.0, 0.49, 0.51, -1e30, 1e30, f32::NAN];
    encode(&values, &[0.0; 6], &[1.0; 6], 63.0, CODE_MAX, &mut codes);
    assert_eq!(codes, [63, 63, 64, 0, CODE_MAX, 0]);
}

#[test]
fn products_of_codes_are_sums_of_products() {
    let weights: Vec<i8> = (0..64).map(|i| 2 * i - 127).collect();
    let codes: Vec<u8> = (0..64).map(|i| i * 2 % 16).collect();
    let halves: Vec<u8> = (0..32).map(|i| codes[i] | codes[i + 32] << 4).collect();
    let expected: i32 = weights
        .iter()
        .zip(&codes)
        .map(|(&w, &c)| i32::from(w) * i32::from(c))
        .sum();
    for (name, result) in forms!(dot_codes(&weights, &codes)) {
        assert_eq!(result, expected, "{name}");
    }
    for (name, result) in forms!(dot_half_codes(&weights, &halves)) {
        assert_eq!(result, expected, "{name}");
    }
    // The largest sums that the kernels meet on their way.
    let (least, most) = (vec![-127i8; 64], vec![CODE_MAX; 64]);
    for (name, result) in forms!(dot_codes(&least, &most)) {
        assert_eq!(result, -127 * 127 * 64, "{name}");
    }
    for (name, result) in forms!(dot_half_codes(&least, &[0xff; 32])) {
        assert_eq!(result, -127 * 15 * 64, "{name}");
    }
}

#[test]
fn values_that_are_not_numbers_pass_through() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(!dot(&[bad; 11], &[0.0; 11]).is_finite());
        assert!(!l2(&[bad; 11], &[0.0; 11]).is_finite());
    }
}
