//! Kernels for aarch64 processors, all of which have NEON. Each does what its namesake in `scalar` does.
#![expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer here comes from a fixed-size array reference"
)]

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, vaddq_f32, vaddvq_f32, vaddvq_s32, vandq_u8, vdupq_n_f32,
    vdupq_n_s32, vdupq_n_u8, vfmaq_f32, vget_high_s8, vget_low_s8, vld1q_f32, vld1q_s8, vld1q_u8, vmlal_s8, vmull_s8,
    vpadalq_s16, vreinterpretq_s8_u8, vshrq_n_u8, vsubq_f32,
};

use super::{DOT_BLOCK, HALF_BLOCK, in_groups, same_length};

/// `f32` values in one register.
const LANES: usize = 4;
/// Bytes in one register.
const BYTES: usize = 16;

#[target_feature(enable = "neon")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            *sum = vfmaq_f32(*sum, load(x), load(y));
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        sums[0] = vfmaq_f32(sums[0], load(x), load(y));
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[target_feature(enable = "neon")]
pub(super) fn l2(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(lanes(x).iter().zip(lanes(y))) {
            let difference = vsubq_f32(load(x), load(y));
            *sum = vfmaq_f32(*sum, difference, difference);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let difference = vsubq_f32(load(x), load(y));
        sums[0] = vfmaq_f32(sums[0], difference, difference);
    }
    total(sums) + a_rest.iter().zip(b_rest).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
}

#[target_feature(enable = "neon")]
pub(super) fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    let (a, b) = same_length(a, b);
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    let (mut dots, mut squares) = ([vdupq_n_f32(0.0); 4], [vdupq_n_f32(0.0); 4]);
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((dot, square), (x, y)) in dots.iter_mut().zip(&mut squares).zip(lanes(x).iter().zip(lanes(y))) {
            let y = load(y);
            *dot = vfmaq_f32(*dot, load(x), y);
            *square = vfmaq_f32(*square, y, y);
        }
    }
    let (a_lanes, a_rest) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        let y = load(y);
        dots[0] = vfmaq_f32(dots[0], load(x), y);
        squares[0] = vfmaq_f32(squares[0], y, y);
    }
    let dot_rest = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>();
    let square_rest = b_rest.iter().map(|y| y * y).sum::<f32>();
    (total(dots) + dot_rest, total(squares) + square_rest)
}

#[target_feature(enable = "neon")]
pub(super) fn dot_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<DOT_BLOCK>();
    let mut sum = vdupq_n_s32(0);
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        let (weights, _) = weights.as_chunks::<BYTES>();
        let (codes, _) = codes.as_chunks::<BYTES>();
        for (weights, codes) in weights.iter().zip(codes) {
            sum = add_products(sum, load_codes(codes), load_weights(weights));
        }
    }
    vaddvq_s32(sum)
}

#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
pub(super) fn dot_half_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<HALF_BLOCK>();
    let mut sum = vdupq_n_s32(0);
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        let (weights, _) = weights.as_chunks::<BYTES>();
        let (codes, _) = codes.as_chunks::<BYTES>();
        let (low_weights, high_weights) = weights.split_at(HALF_BLOCK / BYTES);
        for ((low, high), codes) in low_weights.iter().zip(high_weights).zip(codes) {
            let codes = load_codes(codes);
            sum = add_products(sum, vandq_u8(codes, vdupq_n_u8(15)), load_weights(low));
            sum = add_products(sum, vshrq_n_u8::<4>(codes), load_weights(high));
        }
    }
    vaddvq_s32(sum)
}

#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
pub(super) fn encode(values: &[f32], center: &[f32], scale: &[f32], middle: f32, code_max: u8, codes: &mut [u8]) {
    super::scalar::encode(values, center, scale, middle, code_max, codes);
}

/// Adds the products of 16 codes and weights to four sums. A code is at most 127, so it is a signed byte too, and a weight at
/// least -127: the sum of two products fits into 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sums: int32x4_t, codes: uint8x16_t, weights: int8x16_t) -> int32x4_t {
    let codes = vreinterpretq_s8_u8(codes);
    let low = vmull_s8(vget_low_s8(codes), vget_low_s8(weights));
    vpadalq_s16(sums, vmlal_s8(low, vget_high_s8(codes), vget_high_s8(weights)))
}

/// The registers of a block of four.
#[inline(always)]
fn lanes(block: &[f32; 4 * LANES]) -> &[[f32; LANES]] {
    block.as_chunks().0
}

#[inline]
#[target_feature(enable = "neon")]
fn load(values: &[f32; LANES]) -> float32x4_t {
    // SAFETY: the reference is to 4 `f32`, the 16 bytes that the load reads.
    unsafe { vld1q_f32(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_weights(values: &[i8; BYTES]) -> int8x16_t {
    // SAFETY: the reference is to the 16 bytes that the load reads.
    unsafe { vld1q_s8(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_codes(values: &[u8; BYTES]) -> uint8x16_t {
    // SAFETY: the reference is to the 16 bytes that the load reads.
    unsafe { vld1q_u8(values.as_ptr()) }
}

/// Sum of all 16 values.
#[inline]
#[target_feature(enable = "neon")]
fn total(sums: [float32x4_t; 4]) -> f32 {
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))
}
