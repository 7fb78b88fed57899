//! Kernels over rows of bits: how many differ, and how many two rows share.

/// How many bits differ. Different lengths compare over the shorter.
pub(crate) fn differing(a: &[u8], b: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            #[expect(unsafe_code, reason = "the kernel needs features that the compiler cannot assume")]
            // SAFETY: the condition just saw every feature of the kernel on this processor.
            return unsafe { avx512::differing(a, b) };
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the kernel needs features that the compiler cannot assume")]
            // SAFETY: the condition just saw every feature of the kernel on this processor.
            return unsafe { avx2::differing(a, b) };
        }
    }
    scalar::differing(a, b)
}

/// How many bits are set in both, and how many in `b`. Different lengths compare over the shorter.
pub(crate) fn shared_and_set(a: &[u8], b: &[u8]) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            #[expect(unsafe_code, reason = "the kernel needs features that the compiler cannot assume")]
            // SAFETY: the condition just saw every feature of the kernel on this processor.
            return unsafe { avx512::shared_and_set(a, b) };
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the kernel needs features that the compiler cannot assume")]
            // SAFETY: the condition just saw every feature of the kernel on this processor.
            return unsafe { avx2::shared_and_set(a, b) };
        }
    }
    scalar::shared_and_set(a, b)
}

/// How many bits are set.
pub(crate) fn set(a: &[u8]) -> u32 {
    shared_and_set(a, a).1
}

/// Whether the processor counts the bits of a whole register at once.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vpopcntdq")
        && std::arch::is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt")
}

/// Plain Rust kernels: the reference for the others, the fallback, and, inlined there with the features that they have,
/// what the others do with the rest of a row.
mod scalar {
    /// Bytes counted at once.
    const WORD: usize = 8;

    #[inline(always)]
    pub(super) fn differing(a: &[u8], b: &[u8]) -> u32 {
        fold(a, b, |x, y| (x ^ y).count_ones())
    }

    #[inline(always)]
    pub(super) fn shared_and_set(a: &[u8], b: &[u8]) -> (u32, u32) {
        (
            fold(a, b, |x, y| (x & y).count_ones()),
            fold(a, b, |_, y| y.count_ones()),
        )
    }

    #[inline(always)]
    fn fold(a: &[u8], b: &[u8], count: impl Fn(u64, u64) -> u32) -> u32 {
        let len = a.len().min(b.len());
        let (a_words, a_rest) = a[..len].as_chunks::<WORD>();
        let (b_words, b_rest) = b[..len].as_chunks::<WORD>();
        let words = a_words.iter().zip(b_words);
        let rest = a_rest.iter().zip(b_rest);
        words
            .map(|(x, y)| count(u64::from_le_bytes(*x), u64::from_le_bytes(*y)))
            .chain(rest.map(|(x, y)| count(u64::from(*x), u64::from(*y))))
            .sum()
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer comes from an array reference"
)]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_unpackhi_epi64, _mm256_add_epi8, _mm256_add_epi64,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_sad_epu8,
        _mm256_set1_epi8, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16,
        _mm256_xor_si256,
    };

    use super::scalar;

    /// Bytes in one register.
    const BLOCK: usize = 32;

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn differing(a: &[u8], b: &[u8]) -> u32 {
        let len = a.len().min(b.len());
        let (a_blocks, a_rest) = a[..len].as_chunks::<BLOCK>();
        let (b_blocks, b_rest) = b[..len].as_chunks::<BLOCK>();
        let mut sum = _mm256_setzero_si256();
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            sum = _mm256_add_epi64(sum, ones(_mm256_xor_si256(load(x), load(y))));
        }
        total(sum) + scalar::differing(a_rest, b_rest)
    }

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn shared_and_set(a: &[u8], b: &[u8]) -> (u32, u32) {
        let len = a.len().min(b.len());
        let (a_blocks, a_rest) = a[..len].as_chunks::<BLOCK>();
        let (b_blocks, b_rest) = b[..len].as_chunks::<BLOCK>();
        let (mut shared, mut set) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            let y = load(y);
            shared = _mm256_add_epi64(shared, ones(_mm256_and_si256(load(x), y)));
            set = _mm256_add_epi64(set, ones(y));
        }
        let (shared_rest, set_rest) = scalar::shared_and_set(a_rest, b_rest);
        (total(shared) + shared_rest, total(set) + set_rest)
    }

    /// The number of bits set, in four sums: half a byte at a time by table (Mula, Kurz and Lemire, "Faster population
    /// counts using AVX2 instructions", The Computer Journal 61, 2018).
    #[inline]
    #[target_feature(enable = "avx2")]
    fn ones(bits: __m256i) -> __m256i {
        let table = _mm256_setr_epi8(
            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        );
        let low = _mm256_set1_epi8(0x0f);
        let lower = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
        let upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), low));
        _mm256_sad_epu8(_mm256_add_epi8(lower, upper), _mm256_setzero_si256())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(values: &[u8; BLOCK]) -> __m256i {
        // SAFETY: the reference is to 32 bytes, which is what an unaligned load reads.
        unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total(sums: __m256i) -> u32 {
        let sums = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let sum = _mm_cvtsi128_si64(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums)));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a row has at most 2^18 bits"
        )]
        let sum = sum as u32;
        sum
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer comes from an array reference"
)]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_popcnt_epi64, _mm512_reduce_add_epi64,
        _mm512_setzero_si512, _mm512_xor_si512,
    };

    use super::scalar;

    /// Bytes in one register.
    const BLOCK: usize = 64;

    #[target_feature(enable = "avx512f,avx512vpopcntdq,popcnt")]
    pub(super) fn differing(a: &[u8], b: &[u8]) -> u32 {
        let len = a.len().min(b.len());
        let (a_blocks, a_rest) = a[..len].as_chunks::<BLOCK>();
        let (b_blocks, b_rest) = b[..len].as_chunks::<BLOCK>();
        let mut sum = _mm512_setzero_si512();
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(load(x), load(y))));
        }
        total(sum) + scalar::differing(a_rest, b_rest)
    }

    #[target_feature(enable = "avx512f,avx512vpopcntdq,popcnt")]
    pub(super) fn shared_and_set(a: &[u8], b: &[u8]) -> (u32, u32) {
        let len = a.len().min(b.len());
        let (a_blocks, a_rest) = a[..len].as_chunks::<BLOCK>();
        let (b_blocks, b_rest) = b[..len].as_chunks::<BLOCK>();
        let (mut shared, mut set) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            let y = load(y);
            shared = _mm512_add_epi64(shared, _mm512_popcnt_epi64(_mm512_and_si512(load(x), y)));
            set = _mm512_add_epi64(set, _mm512_popcnt_epi64(y));
        }
        let (shared_rest, set_rest) = scalar::shared_and_set(a_rest, b_rest);
        (total(shared) + shared_rest, total(set) + set_rest)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(values: &[u8; BLOCK]) -> __m512i {
        // SAFETY: the reference is to 64 bytes, which is what an unaligned load reads.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn total(sums: __m512i) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a row has at most 2^18 bits"
        )]
        let sum = _mm512_reduce_add_epi64(sums) as u32;
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(a: &[u8], b: &[u8]) -> (u32, u32, u32) {
        let bit = |bytes: &[u8], index: usize| bytes[index / 8] >> (index % 8) & 1 == 1;
        (0..8 * a.len().min(b.len())).fold((0, 0, 0), |(differing, shared, set), index| {
            let (x, y) = (bit(a, index), bit(b, index));
            (
                differing + u32::from(x != y),
                shared + u32::from(x && y),
                set + u32::from(y),
            )
        })
    }

    proptest! {
        #[test]
        fn all_forms_count_what_counting_bit_by_bit_counts(
            a in prop::collection::vec(any::<u8>(), 0..300),
            b in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (different, shared, ones) = naive(&a, &b);
            prop_assert_eq!((differing(&a, &b), shared_and_set(&a, &b)), (different, (shared, ones)));
            prop_assert_eq!((scalar::differing(&a, &b), scalar::shared_and_set(&a, &b)), (different, (shared, ones)));
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                #[expect(unsafe_code, reason = "the form that a machine with AVX-512 would not choose")]
                // SAFETY: the condition just saw every feature of the kernels on this processor.
                let slow = unsafe { (avx2::differing(&a, &b), avx2::shared_and_set(&a, &b)) };
                prop_assert_eq!(slow, (different, (shared, ones)));
            }
            prop_assert_eq!(set(&a), a.iter().map(|byte| byte.count_ones()).sum::<u32>());
        }
    }
}
