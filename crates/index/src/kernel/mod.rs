//! Inner loops over vectors: the fastest kernel the processor has, chosen at run time, each with a scalar twin.
//!
//! Only this module contains `unsafe`, and only to call kernels that need a processor feature. Every kernel takes
//! slices and compares over the shorter, so no caller can make one read out of bounds.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bits;
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod nibbles;
pub(crate) mod packed;
mod pages;
mod scalar;
#[cfg(test)]
mod tests;

pub(crate) use narrow::{bf16, bf16_to_f32, f16, f16_to_f32, int8};
pub(crate) use pages::{LINE_BYTES, Lined, room_for_random_access};

/// Calls the fastest form of a kernel that the processor has, else the scalar twin.
macro_rules! dispatch {
    ($name:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the kernels need features that the compiler cannot assume")]
        {
            if avx512_vnni() {
                // SAFETY: `avx512_vnni` just saw every feature of the kernel on this processor.
                return unsafe { avx512::$name($($argument),*) };
            }
            if avx2_fma() {
                // SAFETY: `avx2_fma` just saw both features on this processor.
                return unsafe { avx2::$name($($argument),*) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "the kernels need a feature that they name")]
        {
            // SAFETY: NEON is part of aarch64.
            return unsafe { neon::$name($($argument),*) };
        }
        #[cfg(not(target_arch = "aarch64"))]
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

/// Sum of products of the weights of a query and a row's codes.
///
/// Both hold a multiple of [`DOT_BLOCK`] values; a rest beyond the last whole block is ignored. No code is above
/// [`CODE_MAX`] and no weight below -127, else the sum may be any number.
#[cfg(test)]
pub(crate) fn dot_codes(weights: &[i8], row: &[u8]) -> i32 {
    dispatch!(dot_codes(weights, row))
}

/// [`dot_codes`] of `weights` and each of `rows` of `codes` (rows of `stride` bytes), in order, into `dots`, their signed
/// values modulo 2^32.
///
/// Rows are fetched ahead of their use, so a batch costs far less than one call per row; those of `later`, whose turn comes
/// after these, are fetched too.
///
/// # Panics
/// If one of `rows` or `later` is not in `codes`.
pub(crate) fn dot_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    dispatch!(dot_codes_of_rows(weights, codes, stride, rows, later, dots))
}

/// Sum of products of the weights of a query and a row's 4-bit codes, two in a byte.
///
/// `weights` holds blocks of [`DOT_BLOCK`], `row` of [`HALF_BLOCK`]; a rest is ignored. The lower halves of a block's
/// bytes belong to the first half of a block of weights. No weight is below -127.
#[cfg(test)]
pub(crate) fn dot_half_codes(weights: &[i8], row: &[u8]) -> i32 {
    dispatch!(dot_half_codes(weights, row))
}

/// As [`dot_codes_of_rows`], of 4-bit codes as in [`dot_half_codes`].
///
/// # Panics
/// If one of `rows` or `later` is not in `codes`.
pub(crate) fn dot_half_codes_of_rows(
    weights: &[i8],
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
) {
    dispatch!(dot_half_codes_of_rows(weights, codes, stride, rows, later, dots))
}

/// Writes `(value - center) * scale + middle`, rounded and brought between 0 and `code_max`, for each value.
pub(crate) fn encode(values: &[f32], center: &[f32], scale: &[f32], middle: f32, code_max: u8, codes: &mut [u8]) {
    dispatch!(encode(values, center, scale, middle, code_max, codes))
}

/// Runs a kernel over rows of codes, four at a time where there are so many, and fetches rows ahead of it, then those for
/// `later`.
#[inline(always)]
fn in_groups(
    codes: &[u8],
    stride: usize,
    rows: &[u32],
    later: &[u32],
    dots: &mut Vec<u32>,
    four: impl Fn([&[u8]; 4]) -> [u32; 4],
    one: impl Fn(&[u8]) -> u32,
) {
    let code = |row: u32| &codes[row as usize * stride..][..stride];
    let fetch = |row: u32| code(row).chunks(LINE_BYTES).take(LINES_AHEAD).for_each(prefetch);
    rows.iter().take(ROWS_AHEAD).for_each(|&row| fetch(row));
    let mut ahead = rows.iter().skip(ROWS_AHEAD).chain(later);
    dots.clear();
    dots.reserve(rows.len());
    let (groups, rest) = rows.as_chunks::<4>();
    for group in groups {
        ahead.by_ref().take(4).for_each(|&row| fetch(row));
        let [a, b, c, d] = *group;
        dots.extend(four([code(a), code(b), code(c), code(d)]));
    }
    dots.extend(rest.iter().map(|&row| one(code(row))));
    ahead.for_each(|&row| fetch(row));
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
    #[cfg(target_arch = "aarch64")]
    #[expect(unsafe_code, reason = "there is no stable intrinsic for it")]
    // SAFETY: a prefetch never faults whatever the address, and changes neither memory nor registers.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) values.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = values;
}

/// Both over the length of the shorter.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn same_length<'a, 'b>(a: &'a [f32], b: &'b [f32]) -> (&'a [f32], &'b [f32]) {
    let len = a.len().min(b.len());
    (&a[..len], &b[..len])
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx512_vnni() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx2_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Largest code of a value that has 7 bits.
pub(crate) const CODE_MAX: u8 = 127;
/// Values in one step of the kernels over codes: rows of codes are padded to a multiple of it.
pub(crate) const DOT_BLOCK: usize = 64;
/// Bytes of so many 4-bit codes.
pub(crate) const HALF_BLOCK: usize = DOT_BLOCK / 2;
/// Lines of one row fetched ahead; the hardware's own prefetcher follows a longer row from there.
const LINES_AHEAD: usize = 4;
/// Rows fetched ahead of the one in use: as many lines as a processor fetches at once.
const ROWS_AHEAD: usize = 8;
