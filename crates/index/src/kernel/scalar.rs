//! Plain Rust kernels: the reference for every other kernel and the fallback on processors without any of theirs.

use super::{DOT_BLOCK, HALF_BLOCK};

/// See [`super::dot`].
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| x * y)
}

/// See [`super::l2`].
pub(super) fn l2(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| (x - y) * (x - y))
}

/// See [`super::dot_and_square`].
pub(super) fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    let len = a.len().min(b.len());
    (dot(a, b), dot(&b[..len], &b[..len]))
}

/// See [`super::dot_codes`].
pub(super) fn dot_codes(weights: &[i8], row: &[u8]) -> i32 {
    let len = weights.len().min(row.len()) / DOT_BLOCK * DOT_BLOCK;
    let products = weights[..len].iter().zip(&row[..len]);
    products
        .map(|(&weight, &code)| i32::from(weight) * i32::from(code))
        .sum()
}

/// See [`super::dot_codes_of_rows`].
pub(super) fn dot_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    _later: &[u32],
    dots: &mut Vec<u32>,
) {
    dots.clear();
    dots.extend(
        rows.iter()
            .map(|&row| dot_codes(weights, &codes[row as usize * stride..][..stride]).cast_unsigned()),
    );
}

/// See [`super::dot_half_codes`].
pub(super) fn dot_half_codes(weights: &[i8], row: &[u8]) -> i32 {
    let (weight_blocks, _) = weights.as_chunks::<DOT_BLOCK>();
    let (row_blocks, _) = row.as_chunks::<HALF_BLOCK>();
    let mut sum = 0;
    for (weights, codes) in weight_blocks.iter().zip(row_blocks) {
        let (low, high) = weights.split_at(HALF_BLOCK);
        for ((&low, &high), &code) in low.iter().zip(high).zip(codes) {
            sum += i32::from(low) * i32::from(code & 15) + i32::from(high) * i32::from(code >> 4);
        }
    }
    sum
}

/// See [`super::dot_half_codes_of_rows`].
pub(super) fn dot_half_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    _later: &[u32],
    dots: &mut Vec<u32>,
) {
    dots.clear();
    dots.extend(
        rows.iter()
            .map(|&row| dot_half_codes(weights, &codes[row as usize * stride..][..stride]).cast_unsigned()),
    );
}

/// See [`super::encode`].
#[inline(always)]
pub(super) fn encode(values: &[f32], center: &[f32], scale: &[f32], middle: f32, code_max: u8, codes: &mut [u8]) {
    for (((code, value), center), scale) in codes.iter_mut().zip(values).zip(center).zip(scale) {
        // Adding a half rounds, for `as` cuts off; it saturates too, and takes what is not a number for 0.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let byte = ((value - center) * scale + (middle + 0.5)) as u8;
        *code = byte.min(code_max);
    }
}

/// Adds `term` of all pairs in eight running sums, which lets the compiler vectorise and keeps rounding errors low.
#[inline(always)]
fn fold(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 8;
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(&x, &y)| term(x, y))
        .sum::<f32>();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    sums.iter().sum::<f32>() + tail
}
