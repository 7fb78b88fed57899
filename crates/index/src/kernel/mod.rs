//! Inner loops over vectors: the fastest kernel the processor has, chosen at run time, each with a scalar twin.
//!
//! Only this module contains `unsafe`, and only to call kernels that need a processor feature. Every kernel takes
//! slices and compares over the shorter, so no caller can make one read out of bounds.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;
#[cfg(test)]
mod tests;

/// Calls the AVX2 form of a kernel where the processor has it, else the scalar twin.
macro_rules! dispatch {
    ($name:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if avx2_fma() {
            #[expect(unsafe_code, reason = "the kernels need AVX2 and FMA, which the compiler cannot assume")]
            // SAFETY: `avx2_fma` just saw both features on this processor.
            return unsafe { avx2::$name($($argument),*) };
        }
        scalar::$name($($argument),*)
    }};
}

/// Sum of products.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    dispatch!(dot(a, b))
}

/// Squared Euclidean distance.
pub(crate) fn l2(a: &[f32], b: &[f32]) -> f32 {
    dispatch!(l2(a, b))
}

/// The inner product of `a` and `b`, and of `b` with itself, in one pass over `b`.
pub(crate) fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    dispatch!(dot_and_square(a, b))
}

/// Squared distance of a query in code units to a row of codes, modulo 2^32.
///
/// Both hold a multiple of [`CODE_BLOCK`] values; a rest beyond the last whole block is ignored.
pub(crate) fn l2_codes(query: &[i16], row: &[u8]) -> u32 {
    dispatch!(l2_codes(query, row))
}

/// [`l2_codes`] of `query` to each of `rows` of `codes` (rows of `stride` bytes), in order, into `costs`.
///
/// Rows are fetched ahead of their use, so a batch costs far less than one call per row.
///
/// # Panics
/// If one of `rows` is not in `codes`.
pub(crate) fn l2_codes_of_rows(query: &[i16], codes: &[u8], stride: usize, rows: &[u32], costs: &mut Vec<u32>) {
    dispatch!(l2_codes_of_rows(query, codes, stride, rows, costs))
}

/// Asks the processor to load the start of `values`; changes nothing but speed.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "prefetch is an intrinsic over a raw pointer")]
    // SAFETY: a prefetch never faults whatever the address, and SSE is part of x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx2_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Code rows are padded to a multiple of this many values, the width of the widest kernel's step.
pub(crate) const CODE_BLOCK: usize = 32;
