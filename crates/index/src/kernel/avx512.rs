//! Kernels for x86_64 processors with AVX-512 F, BW and VNNI. Each does what its namesake in `scalar` does.
#![expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer here comes from a fixed-size array reference"
)]

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_loadu_si256, _mm256_srli_epi16, _mm512_add_ps, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_inserti64x4, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_sub_ps,
};

use super::{DOT_BLOCK, HALF_BLOCK, in_groups, same_length};

/// `f32` values in one register.
const LANES: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            *sum = _mm512_fmadd_ps(load(x), load(y), *sum);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        sums[0] = _mm512_fmadd_ps(load(x), load(y), sums[0]);
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn l2(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            let difference = _mm512_sub_ps(load(x), load(y));
            *sum = _mm512_fmadd_ps(difference, difference, *sum);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let difference = _mm512_sub_ps(load(x), load(y));
        sums[0] = _mm512_fmadd_ps(difference, difference, sums[0]);
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let (mut dots, mut squares) = ([_mm512_setzero_ps(); 4], [_mm512_setzero_ps(); 4]);
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((dot, square), (x, y)) in dots.iter_mut().zip(&mut squares).zip(lanes(x).iter().zip(lanes(y))) {
            let y = load(y);
            *dot = _mm512_fmadd_ps(load(x), y, *dot);
            *square = _mm512_fmadd_ps(y, y, *square);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let y = load(y);
        dots[0] = _mm512_fmadd_ps(load(x), y, dots[0]);
        squares[0] = _mm512_fmadd_ps(y, y, squares[0]);
    }
    let dot_rest = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>();
    let square_rest = b_rest.iter().map(|y| y * y).sum::<f32>();
    (total(dots) + dot_rest, total(squares) + square_rest)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<DOT_BLOCK>();
    let mut sum = _mm512_setzero_si512();
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        sum = _mm512_dpbusd_epi32(sum, load_codes(codes), load_weights(weights));
    }
    _mm512_reduce_add_epi32(sum)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    let one = |row: &[u8]| dot_codes(weights, row).cast_unsigned();
    in_groups(
        codes,
        stride,
        rows,
        later,
        dots,
        |[a, b, c, d]| [one(a), one(b), one(c), one(d)],
        one,
    );
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_half_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<HALF_BLOCK>();
    let mut sum = _mm512_setzero_si512();
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        sum = _mm512_dpbusd_epi32(sum, load_half_codes(codes), load_weights(weights));
    }
    _mm512_reduce_add_epi32(sum)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_half_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    let one = |row: &[u8]| dot_half_codes(weights, row).cast_unsigned();
    in_groups(
        codes,
        stride,
        rows,
        later,
        dots,
        |[a, b, c, d]| [one(a), one(b), one(c), one(d)],
        one,
    );
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn encode(values: &[f32], center: &[f32], scale: &[f32], middle: f32, code_max: u8, codes: &mut [u8]) {
    // The compiler's own vector code, with wider registers.
    super::scalar::encode(values, center, scale, middle, code_max, codes);
}

/// The registers of a block of four.
#[inline(always)]
fn lanes(block: &[f32; 4 * LANES]) -> &[[f32; LANES]] {
    block.as_chunks().0
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load(values: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference is to 16 `f32`, the 64 bytes that an unaligned load reads.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_weights(values: &[i8; DOT_BLOCK]) -> __m512i {
    // SAFETY: the reference is to 64 bytes, which an unaligned load reads.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_codes(values: &[u8; DOT_BLOCK]) -> __m512i {
    // SAFETY: the reference is to 64 bytes, which an unaligned load reads.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// 64 codes, the lower halves of all bytes first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_half_codes(values: &[u8; HALF_BLOCK]) -> __m512i {
    // SAFETY: the reference is to 32 bytes, which an unaligned load reads.
    let bytes: __m256i = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytes), _mm256_srli_epi16::<4>(bytes));
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// Sum of all 64 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn total(sums: [__m512; 4]) -> f32 {
    _mm512_reduce_add_ps(_mm512_add_ps(
        _mm512_add_ps(sums[0], sums[1]),
        _mm512_add_ps(sums[2], sums[3]),
    ))
}
