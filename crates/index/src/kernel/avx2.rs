//! Kernels for x86_64 processors with AVX2 and FMA. Each does what its namesake in `scalar` does.
#![expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer here comes from a fixed-size array reference"
)]

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
    _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castps256_ps128,
    _mm256_castsi256_si128, _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_hadd_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_sub_ps,
};

use super::{DOT_BLOCK, HALF_BLOCK, in_groups, same_length};

/// `f32` values in one register.
const LANES: usize = 8;

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            *sum = _mm256_fmadd_ps(load(x), load(y), *sum);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        sums[0] = _mm256_fmadd_ps(load(x), load(y), sums[0]);
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn l2(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            let difference = _mm256_sub_ps(load(x), load(y));
            *sum = _mm256_fmadd_ps(difference, difference, *sum);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let difference = _mm256_sub_ps(load(x), load(y));
        sums[0] = _mm256_fmadd_ps(difference, difference, sums[0]);
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let (mut dots, mut squares) = ([_mm256_setzero_ps(); 4], [_mm256_setzero_ps(); 4]);
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((dot, square), (x, y)) in dots.iter_mut().zip(&mut squares).zip(lanes(x).iter().zip(lanes(y))) {
            let y = load(y);
            *dot = _mm256_fmadd_ps(load(x), y, *dot);
            *square = _mm256_fmadd_ps(y, y, *square);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let y = load(y);
        dots[0] = _mm256_fmadd_ps(load(x), y, dots[0]);
        squares[0] = _mm256_fmadd_ps(y, y, squares[0]);
    }
    let dot_rest = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>();
    let square_rest = b_rest.iter().map(|y| y * y).sum::<f32>();
    (total(dots) + dot_rest, total(squares) + square_rest)
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<DOT_BLOCK>();
    let mut sums = [_mm256_setzero_si256(); 2];
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        let (weights, codes) = (load_weights(weights), load_codes(codes));
        for half in 0..2 {
            sums[half] = add_products(sums[half], codes[half], weights[half]);
        }
    }
    let zero = _mm256_setzero_si256();
    totals([_mm256_add_epi32(sums[0], sums[1]), zero, zero, zero])[0].cast_signed()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    in_groups(
        codes,
        stride,
        rows,
        later,
        dots,
        |rows| dot_four_rows(weights, rows),
        |row| dot_codes(weights, row).cast_unsigned(),
    );
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_half_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<HALF_BLOCK>();
    let zero = _mm256_setzero_si256();
    let mut sum = zero;
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        sum = add_half_products(sum, load_half_codes(codes), load_weights(weights));
    }
    totals([sum, zero, zero, zero])[0].cast_signed()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_half_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    in_groups(
        codes,
        stride,
        rows,
        later,
        dots,
        |rows| dot_four_half_rows(weights, rows),
        |row| dot_half_codes(weights, row).cast_unsigned(),
    );
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn encode(values: &[f32], center: &[f32], scale: &[f32], middle: f32, code_max: u8, codes: &mut [u8]) {
    // The compiler's own vector code, with wider registers.
    super::scalar::encode(values, center, scale, middle, code_max, codes);
}

/// [`dot_codes`] of four rows of the same length at once: weights are loaded once, and sums are added up together.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_four_rows(weights: &[i8], rows: [&[u8]; 4]) -> [u32; 4] {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let [a, b, c, d] = rows;
    let mut sums = [_mm256_setzero_si256(); 4];
    let blocks = weight_blocks
        .iter()
        .zip(a.as_chunks::<DOT_BLOCK>().0)
        .zip(b.as_chunks::<DOT_BLOCK>().0)
        .zip(c.as_chunks::<DOT_BLOCK>().0)
        .zip(d.as_chunks::<DOT_BLOCK>().0);
    for ((((weights, a), b), c), d) in blocks {
        let weights = load_weights(weights);
        let codes = [load_codes(a), load_codes(b), load_codes(c), load_codes(d)];
        for (sum, codes) in sums.iter_mut().zip(codes) {
            *sum = add_products(*sum, codes[0], weights[0]);
            *sum = add_products(*sum, codes[1], weights[1]);
        }
    }
    totals(sums)
}

/// [`dot_half_codes`] of four rows of the same length at once.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_four_half_rows(weights: &[i8], rows: [&[u8]; 4]) -> [u32; 4] {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let [a, b, c, d] = rows;
    let mut sums = [_mm256_setzero_si256(); 4];
    let blocks = weight_blocks
        .iter()
        .zip(a.as_chunks::<HALF_BLOCK>().0)
        .zip(b.as_chunks::<HALF_BLOCK>().0)
        .zip(c.as_chunks::<HALF_BLOCK>().0)
        .zip(d.as_chunks::<HALF_BLOCK>().0);
    for ((((weights, a), b), c), d) in blocks {
        let weights = load_weights(weights);
        for (sum, codes) in sums.iter_mut().zip([a, b, c, d]) {
            *sum = add_half_products(*sum, load_half_codes(codes), weights);
        }
    }
    totals(sums)
}

/// Adds the products of 32 codes and weights to eight sums. A code is at most 127 and a weight at least -127, so that the
/// sum of two products fits into 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(sums: __m256i, codes: __m256i, weights: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(codes, weights);
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Like [`add_products`] of 64 codes of 4 bits. Four products of at most 15 × 127 fit into 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_half_products(sums: __m256i, codes: __m256i, weights: [__m256i; 2]) -> __m256i {
    let mask = _mm256_set1_epi8(15);
    let low = _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), weights[0]);
    let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask), weights[1]);
    let fours = _mm256_add_epi16(low, high);
    _mm256_add_epi32(sums, _mm256_madd_epi16(fours, _mm256_set1_epi16(1)))
}

/// The registers of a block of four.
#[inline(always)]
fn lanes(block: &[f32; 4 * LANES]) -> &[[f32; LANES]] {
    block.as_chunks().0
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(values: &[f32; LANES]) -> __m256 {
    // SAFETY: the reference is to 8 `f32`, the 32 bytes that an unaligned load reads.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_weights(values: &[i8; DOT_BLOCK]) -> [__m256i; 2] {
    // SAFETY: the reference is to 64 bytes: both unaligned 32-byte loads stay inside.
    unsafe {
        [
            _mm256_loadu_si256(values.as_ptr().cast()),
            _mm256_loadu_si256(values.as_ptr().add(HALF_BLOCK).cast()),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_codes(values: &[u8; DOT_BLOCK]) -> [__m256i; 2] {
    // SAFETY: the reference is to 64 bytes: both unaligned 32-byte loads stay inside.
    unsafe {
        [
            _mm256_loadu_si256(values.as_ptr().cast()),
            _mm256_loadu_si256(values.as_ptr().add(HALF_BLOCK).cast()),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_half_codes(values: &[u8; HALF_BLOCK]) -> __m256i {
    // SAFETY: the reference is to 32 bytes, which an unaligned load reads.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// The sum of each of four registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn totals(sums: [__m256i; 4]) -> [u32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    let sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let mut totals = [0u32; 4];
    // SAFETY: the array takes the 16 bytes that an unaligned store writes.
    unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), sum) };
    totals
}

/// Sum of all 32 values.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn total(sums: [__m256; 4]) -> f32 {
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps::<0b01>(sum, sum)))
}
