//! Kernels over rows of 16-bit floats and 8-bit integers: each element is widened to `f32` in a register, which is exact,
//! then treated as the `f32` kernels do. Queries are `f32`.

pub(crate) use saker_model::half::{bf16_to_f32, f16_to_f32};

#[inline(always)]
fn i8_to_f32(value: i8) -> f32 {
    f32::from(value)
}

/// The kernels for rows of one type: the fastest that the processor has, and the scalar twin.
macro_rules! kernels {
    ($(#[$doc:meta])* $name:ident, $value:ty, $widen:path, $load:ident) => {
        $(#[$doc])*
        pub(crate) mod $name {
            /// Calls the widest form that the processor has, else the scalar twin.
            macro_rules! dispatch {
                ($kernel:ident, $query:expr, $row:expr) => {{
                    #[cfg(target_arch = "x86_64")]
                    match crate::kernel::narrow::width() {
                        #[expect(unsafe_code, reason = "the kernels need features that the compiler cannot assume")]
                        // SAFETY: `width` saw every feature of the kernel on this processor.
                        crate::kernel::narrow::Width::Sixteen => return unsafe { sixteen::$kernel($query, $row) },
                        #[expect(unsafe_code, reason = "the kernels need features that the compiler cannot assume")]
                        // SAFETY: `width` saw every feature of the kernel on this processor.
                        crate::kernel::narrow::Width::Eight => return unsafe { eight::$kernel($query, $row) },
                        crate::kernel::narrow::Width::One => {}
                    }
                    scalar::$kernel($query, $row)
                }};
            }

            /// Sum of products. Different lengths compare over the shorter.
            #[inline]
            pub(crate) fn dot(query: &[f32], row: &[$value]) -> f32 {
                dispatch!(dot, query, row)
            }

            /// Squared Euclidean distance.
            #[inline]
            pub(crate) fn l2(query: &[f32], row: &[$value]) -> f32 {
                dispatch!(l2, query, row)
            }

            /// The inner product of `query` and `row`, and of `row` with itself.
            #[inline]
            pub(crate) fn dot_and_square(query: &[f32], row: &[$value]) -> (f32, f32) {
                dispatch!(dot_and_square, query, row)
            }

            pub(super) mod scalar {
                /// Running sums: they let the compiler vectorise and keep rounding errors low.
                const LANES: usize = 8;

                pub(in super::super) fn dot(query: &[f32], row: &[$value]) -> f32 {
                    fold(query, row, |x, y| x * y)
                }

                pub(in super::super) fn l2(query: &[f32], row: &[$value]) -> f32 {
                    fold(query, row, |x, y| (x - y) * (x - y))
                }

                pub(in super::super) fn dot_and_square(query: &[f32], row: &[$value]) -> (f32, f32) {
                    (dot(query, row), fold(query, row, |_, y| y * y))
                }

                #[inline(always)]
                fn fold(query: &[f32], row: &[$value], term: impl Fn(f32, f32) -> f32) -> f32 {
                    let len = query.len().min(row.len());
                    let (queries, query_rest) = query[..len].as_chunks::<LANES>();
                    let (rows, row_rest) = row[..len].as_chunks::<LANES>();
                    let mut sums = [0.0f32; LANES];
                    for (x, y) in queries.iter().zip(rows) {
                        for lane in 0..LANES {
                            sums[lane] += term(x[lane], $widen(y[lane]));
                        }
                    }
                    let rest = query_rest.iter().zip(row_rest);
                    sums.iter().sum::<f32>() + rest.map(|(&x, &y)| term(x, $widen(y))).sum::<f32>()
                }
            }

            simd!(eight, "avx2,fma,f16c", $value, $widen, $load);
            simd!(sixteen, "avx512f", $value, $widen, $load);
        }
    };
}

/// The kernels of one type and one width of register.
macro_rules! simd {
    ($width:ident, $features:tt, $value:ty, $widen:path, $load:ident) => {
        #[cfg(target_arch = "x86_64")]
        pub(super) mod $width {
            use super::super::$width::{LANES, difference, load_query, product_added, total, zero, $load as load};

            /// Registers taken in one step: as many sums run side by side, for a sum has to wait for its last addition.
            const STEP: usize = 4;

            #[target_feature(enable = $features)]
            pub(in super::super) fn dot(query: &[f32], row: &[$value]) -> f32 {
                let len = query.len().min(row.len());
                let (queries, query_rest) = query[..len].as_chunks::<LANES>();
                let (rows, row_rest) = row[..len].as_chunks::<LANES>();
                let (query_steps, queries) = queries.as_chunks::<STEP>();
                let (row_steps, rows) = rows.as_chunks::<STEP>();
                let mut sums = [zero(); STEP];
                for (x, y) in query_steps.iter().zip(row_steps) {
                    for at in 0..STEP {
                        sums[at] = product_added(load_query(&x[at]), load(&y[at]), sums[at]);
                    }
                }
                for (x, y) in queries.iter().zip(rows) {
                    sums[0] = product_added(load_query(x), load(y), sums[0]);
                }
                let rest = query_rest.iter().zip(row_rest);
                total(sums) + rest.map(|(&x, &y)| x * $widen(y)).sum::<f32>()
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn l2(query: &[f32], row: &[$value]) -> f32 {
                let len = query.len().min(row.len());
                let (queries, query_rest) = query[..len].as_chunks::<LANES>();
                let (rows, row_rest) = row[..len].as_chunks::<LANES>();
                let (query_steps, queries) = queries.as_chunks::<STEP>();
                let (row_steps, rows) = rows.as_chunks::<STEP>();
                let mut sums = [zero(); STEP];
                for (x, y) in query_steps.iter().zip(row_steps) {
                    for at in 0..STEP {
                        let apart = difference(load_query(&x[at]), load(&y[at]));
                        sums[at] = product_added(apart, apart, sums[at]);
                    }
                }
                for (x, y) in queries.iter().zip(rows) {
                    let apart = difference(load_query(x), load(y));
                    sums[0] = product_added(apart, apart, sums[0]);
                }
                let rest = query_rest.iter().zip(row_rest).map(|(&x, &y)| x - $widen(y));
                total(sums) + rest.map(|apart| apart * apart).sum::<f32>()
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn dot_and_square(query: &[f32], row: &[$value]) -> (f32, f32) {
                let len = query.len().min(row.len());
                let (queries, query_rest) = query[..len].as_chunks::<LANES>();
                let (rows, row_rest) = row[..len].as_chunks::<LANES>();
                let (query_steps, queries) = queries.as_chunks::<STEP>();
                let (row_steps, rows) = rows.as_chunks::<STEP>();
                let (mut dots, mut squares) = ([zero(); STEP], [zero(); STEP]);
                for (x, y) in query_steps.iter().zip(row_steps) {
                    for at in 0..STEP {
                        let y = load(&y[at]);
                        dots[at] = product_added(load_query(&x[at]), y, dots[at]);
                        squares[at] = product_added(y, y, squares[at]);
                    }
                }
                for (x, y) in queries.iter().zip(rows) {
                    let y = load(y);
                    dots[0] = product_added(load_query(x), y, dots[0]);
                    squares[0] = product_added(y, y, squares[0]);
                }
                let rest = query_rest.iter().zip(row_rest).map(|(&x, &y)| (x, $widen(y)));
                let (dot_rest, square_rest) =
                    rest.fold((0.0, 0.0), |(dot, square), (x, y)| (dot + x * y, square + y * y));
                (total(dots) + dot_rest, total(squares) + square_rest)
            }
        }
    };
}

kernels!(
    /// Rows of 16-bit IEEE 754 floats, as bits.
    f16,
    u16,
    crate::kernel::narrow::f16_to_f32,
    load_f16
);
kernels!(
    /// Rows of upper halves of `f32`, as bits.
    bf16,
    u16,
    crate::kernel::narrow::bf16_to_f32,
    load_bf16
);
kernels!(
    /// Rows of 8-bit integers.
    int8,
    i8,
    crate::kernel::narrow::i8_to_f32,
    load_i8
);

/// Values in the widest register that the processor has and there are kernels for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Sixteen,
    Eight,
    One,
}

/// What the processor has; asking is a load and a test or two.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn width() -> Width {
    if std::arch::is_x86_feature_detected!("avx512f") {
        Width::Sixteen
    } else if has_eight() {
        Width::Eight
    } else {
        Width::One
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_eight() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c")
}

/// Registers of eight values: AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer comes from an array reference"
)]
mod eight {
    use std::arch::x86_64::{
        __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64, _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
        _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_setzero_ps, _mm256_slli_epi32, _mm256_sub_ps,
    };

    /// `f32` values in one register.
    pub(super) const LANES: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn zero() -> __m256 {
        _mm256_setzero_ps()
    }

    /// `a * b + sum`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn product_added(a: __m256, b: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn difference(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn load_query(values: &[f32; LANES]) -> __m256 {
        // SAFETY: the reference is to 8 `f32`, the 32 bytes that an unaligned load reads.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn load_f16(values: &[u16; LANES]) -> __m256 {
        // SAFETY: the reference is to 8 `u16`, the 16 bytes that an unaligned load reads.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn load_bf16(values: &[u16; LANES]) -> __m256 {
        // SAFETY: the reference is to 8 `u16`, the 16 bytes that an unaligned load reads.
        let bits = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn load_i8(values: &[i8; LANES]) -> __m256 {
        // SAFETY: the reference is to 8 `i8`, the 8 bytes that an unaligned load reads.
        let bytes = unsafe { _mm_loadl_epi64(values.as_ptr().cast()) };
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
    }

    /// Sum of all 32 values.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn total(sums: [__m256; 4]) -> f32 {
        let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps::<0b01>(sum, sum)))
    }
}

/// Registers of sixteen values: AVX-512F.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer comes from an array reference"
)]
mod sixteen {
    use std::arch::x86_64::{
        __m512, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi8_epi32,
        _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_sub_ps,
    };

    /// `f32` values in one register.
    pub(super) const LANES: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    /// `a * b + sum`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn product_added(a: __m512, b: __m512, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn difference(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_query(values: &[f32; LANES]) -> __m512 {
        // SAFETY: the reference is to 16 `f32`, the 64 bytes that an unaligned load reads.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_f16(values: &[u16; LANES]) -> __m512 {
        // SAFETY: the reference is to 16 `u16`, the 32 bytes that an unaligned load reads.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_bf16(values: &[u16; LANES]) -> __m512 {
        // SAFETY: the reference is to 16 `u16`, the 32 bytes that an unaligned load reads.
        let bits = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_i8(values: &[i8; LANES]) -> __m512 {
        // SAFETY: the reference is to 16 `i8`, the 16 bytes that an unaligned load reads.
        let bytes = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
    }

    /// Sum of all 64 values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn total(sums: [__m512; 4]) -> f32 {
        let halves = (_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        _mm512_reduce_add_ps(_mm512_add_ps(halves.0, halves.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f32, b: f32, magnitude: f32) -> bool {
        (a - b).abs() <= 1e-5 * magnitude.max(1.0)
    }

    /// Bits of a finite value of small magnitude, either 16-bit type.
    fn small_f16() -> impl Strategy<Value = u16> {
        any::<u16>().prop_map(|bits| bits & 0x8fff | 0x3000)
    }
    fn small_bf16() -> impl Strategy<Value = u16> {
        any::<u16>().prop_map(|bits| bits & 0x80ff | 0x3f00)
    }

    macro_rules! agree {
        ($kernel:ident, $query:expr, $row:expr, $widen:path) => {{
            let (query, row) = ($query, $row);
            let wide: Vec<f32> = row.iter().map(|&value| $widen(value)).collect();
            let len = query.len().min(row.len());
            let magnitude: f32 = query[..len]
                .iter()
                .zip(&wide)
                .map(|(x, y)| (x.abs() + y.abs()).powi(2))
                .sum();
            let expected = (
                crate::kernel::dot(query, &wide),
                crate::kernel::l2(query, &wide),
                crate::kernel::dot(&wide[..len], &wide[..len]),
            );
            let mut forms = vec![
                (
                    $kernel::dot(query, row),
                    $kernel::l2(query, row),
                    $kernel::dot_and_square(query, row),
                ),
                (
                    $kernel::scalar::dot(query, row),
                    $kernel::scalar::l2(query, row),
                    $kernel::scalar::dot_and_square(query, row),
                ),
            ];
            #[cfg(target_arch = "x86_64")]
            if has_eight() {
                #[expect(unsafe_code, reason = "the form that a machine with AVX-512 would not choose")]
                // SAFETY: the condition just saw every feature of the kernels on this processor.
                forms.push(unsafe {
                    (
                        $kernel::eight::dot(query, row),
                        $kernel::eight::l2(query, row),
                        $kernel::eight::dot_and_square(query, row),
                    )
                });
            }
            for (dot, l2, (both, square)) in forms {
                prop_assert!(close(dot, expected.0, magnitude), "{} {}", dot, expected.0);
                prop_assert!(close(l2, expected.1, magnitude), "{} {}", l2, expected.1);
                prop_assert!(close(both, expected.0, magnitude), "{} {}", both, expected.0);
                prop_assert!(close(square, expected.2, magnitude), "{} {}", square, expected.2);
            }
        }};
    }

    proptest! {
        #[test]
        fn kernels_agree_with_their_twins_and_with_widened_rows(
            query in prop::collection::vec(-10.0f32..10.0, 0..200),
            f16s in prop::collection::vec(small_f16(), 0..200),
            bf16s in prop::collection::vec(small_bf16(), 0..200),
            ints in prop::collection::vec(any::<i8>(), 0..200),
        ) {
            agree!(f16, &query[..], &f16s[..], f16_to_f32);
            agree!(bf16, &query[..], &bf16s[..], bf16_to_f32);
            agree!(int8, &query[..], &ints[..], i8_to_f32);
        }
    }

    #[test]
    fn every_sixteen_bit_float_widens_as_the_processor_does_it() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            let one = f16::dot(&[1.0; 8], &[bits, 0, 0, 0, 0, 0, 0, 0]);
            assert!(
                value.is_nan() && one.is_nan() || value == one,
                "{bits:#06x}: {value} {one}"
            );
        }
    }
}
