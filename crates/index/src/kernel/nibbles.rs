//! Sums of products of four-bit codes with eight-bit weights.
//!
//! Codes come in blocks of [`BLOCK_BYTES`] bytes for [`BLOCK_VALUES`] values: byte `i` of a block has value `i` in its lower
//! half and value `i + 32` in its upper half, so that one load serves two steps of the weights.

/// Values of a block.
pub(crate) const BLOCK_VALUES: usize = 64;
/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 32;

/// The sum of weight times code over all values. `weights` has [`BLOCK_VALUES`] values for each whole block of `codes`; what
/// is beyond the shorter of the two is ignored. No sum overflows up to 2^18 blocks.
pub(crate) fn dot(weights: &[i8], codes: &[u8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "the kernel needs AVX2, which the compiler cannot assume")]
        // SAFETY: the processor was just seen to have AVX2.
        return unsafe { avx2(weights, codes) };
    }
    scalar(weights, codes)
}

/// [`dot`] of `weights` with each of `rows` of `codes` (rows of `stride` bytes), in order, into `sums`. Rows are fetched
/// ahead of their use.
///
/// # Panics
/// If one of `rows` is not in `codes`.
pub(crate) fn dot_of_rows(weights: &[i8], codes: &[u8], stride: usize, rows: &[u32], sums: &mut Vec<i32>) {
    sums.clear();
    sums.reserve(rows.len());
    let row_at = |row: u32| &codes[row as usize * stride..][..stride];
    for row in rows.iter().take(ROWS_AHEAD) {
        fetch(row_at(*row));
    }
    for (index, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(index + ROWS_AHEAD) {
            fetch(row_at(ahead));
        }
        sums.push(dot(weights, row_at(row)));
    }
}

fn fetch(row: &[u8]) {
    row.chunks(CACHE_LINE_BYTES).for_each(super::prefetch);
}

fn scalar(weights: &[i8], codes: &[u8]) -> i32 {
    let blocks = weights.chunks_exact(BLOCK_VALUES).zip(codes.chunks_exact(BLOCK_BYTES));
    blocks
        .map(|(weights, codes)| {
            let (low, high) = weights.split_at(BLOCK_BYTES);
            let products = codes.iter().zip(low).zip(high).map(|((&code, &low), &high)| {
                i32::from(low) * i32::from(code & 15) + i32::from(high) * i32::from(code >> 4)
            });
            products.sum::<i32>()
        })
        .sum()
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics over raw pointers")]
#[target_feature(enable = "avx2")]
fn avx2(weights: &[i8], codes: &[u8]) -> i32 {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi16, _mm256_add_epi32,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
    };
    let mut sums = _mm256_setzero_si256();
    let (halves, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let blocks = weights.chunks_exact(BLOCK_VALUES).zip(codes.chunks_exact(BLOCK_BYTES));
    for (weights, codes) in blocks {
        // SAFETY: a block of codes is 32 bytes and its weights are 64, so all three loads of 32 bytes lie within; unaligned
        // loads take any address.
        let (codes, low, high) = unsafe {
            let weights = weights.as_ptr().cast::<__m256i>();
            (
                _mm256_loadu_si256(codes.as_ptr().cast()),
                _mm256_loadu_si256(weights),
                _mm256_loadu_si256(weights.add(1)),
            )
        };
        let lower = _mm256_and_si256(codes, halves);
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), halves);
        // Each pair is at most 2 * 15 * 128, and two of them fit into 16 bits.
        let products = _mm256_add_epi16(_mm256_maddubs_epi16(lower, low), _mm256_maddubs_epi16(upper, high));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, ones));
    }
    let half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let pair = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b00_00_00_01>(pair)))
}

const CACHE_LINE_BYTES: usize = 64;
/// Rows whose codes are on their way while one is compared.
const ROWS_AHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_form_agrees_with_the_scalar_one(
            weights in prop::collection::vec(any::<i8>(), 0..700),
            codes in prop::collection::vec(any::<u8>(), 0..350),
        ) {
            prop_assert_eq!(dot(&weights, &codes), scalar(&weights, &codes));
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        for weight in [i8::MIN, i8::MAX] {
            let (weights, codes) = (vec![weight; 32_768], vec![0xff; 16_384]);
            assert_eq!(dot(&weights, &codes), i32::from(weight) * 15 * 32_768);
        }
    }

    #[test]
    fn rows_come_in_order() {
        let codes: Vec<u8> = (0..32 * 9).map(|byte| (byte % 251) as u8).collect();
        let weights: Vec<i8> = (0..64).map(|value| value - 20).collect();
        let mut sums = Vec::new();
        let rows = [8, 0, 3, 3, 5, 1, 7];
        dot_of_rows(&weights, &codes, 32, &rows, &mut sums);
        let each: Vec<i32> = rows
            .iter()
            .map(|&row| scalar(&weights, &codes[row as usize * 32..][..32]))
            .collect();
        assert_eq!(sums, each);
    }
}
