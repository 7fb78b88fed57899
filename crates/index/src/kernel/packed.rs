//! Kernels over packed rows: a block of eight values is unpacked in a register and used there.
//!
//! A row is given by the bytes from its first block on, of which there must be 4 more than it has, and the highest exponents
//! of its places, a whole number of blocks. Values that are kept beside the rows count as zero here.

use crate::packed::{BESIDE, BLOCK, BLOCK_BYTES, FRACTION, STEP};

/// Calls the form for AVX2 where the processor has that, else the scalar twin.
macro_rules! fastest {
    ($kernel:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if super::avx2_fma() {
            #[expect(unsafe_code, reason = "the kernel needs features that the compiler cannot assume")]
            // SAFETY: `avx2_fma` just saw both features on this processor.
            return unsafe { eight::$kernel($($argument),*) };
        }
        scalar::$kernel($($argument),*)
    }};
}

/// Sum of products over the shorter.
#[inline]
pub(crate) fn dot(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
    fastest!(dot(query, row, highest))
}

/// Squared Euclidean distance.
#[inline]
pub(crate) fn l2(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
    fastest!(l2(query, row, highest))
}

/// The inner product of `query` and the row, and of the row with itself.
#[inline]
pub(crate) fn dot_and_square(query: &[f32], row: &[u8], highest: &[u32]) -> (f32, f32) {
    fastest!(dot_and_square(query, row, highest))
}

/// The values themselves.
#[inline]
pub(crate) fn unpack(row: &[u8], highest: &[u32], out: &mut [f32]) {
    fastest!(unpack(row, highest, out));
}

/// Bytes that a load from a block's start reads.
const LOAD_BYTES: usize = 32;

/// The loads of all blocks: each begins at a block's start and ends in the next one.
#[inline(always)]
fn loads(row: &[u8]) -> impl Iterator<Item = &[u8; LOAD_BYTES]> {
    (0..).step_by(BLOCK_BYTES).map_while(|at| row.get(at..)?.first_chunk())
}

/// The plain twins.
pub(crate) mod scalar {
    use super::{BESIDE, BLOCK, FRACTION, LOAD_BYTES, STEP, loads};

    fn block(bytes: &[u8; LOAD_BYTES], highest: &[u32; BLOCK]) -> [f32; BLOCK] {
        let below_all = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        std::array::from_fn(|place| {
            let field = u32::from_le_bytes([bytes[3 * place], bytes[3 * place + 1], bytes[3 * place + 2], 0]);
            let below = below_all >> (4 * place) & 15;
            if below == u32::from(BESIDE) {
                return 0.0;
            }
            f32::from_bits((field >> 23 << 31) | (highest[place] - below * STEP) | (field & FRACTION))
        })
    }

    #[inline(always)]
    fn fold(query: &[f32], row: &[u8], highest: &[u32], term: impl Fn(f32, f32) -> f32) -> f32 {
        let mut sums = [0.0_f32; BLOCK];
        let blocks = query.chunks(BLOCK).zip(loads(row)).zip(highest.as_chunks().0);
        for ((query, bytes), highest) in blocks {
            let values = block(bytes, highest);
            for ((sum, query), value) in sums.iter_mut().zip(query).zip(values) {
                *sum += term(*query, value);
            }
        }
        sums.iter().sum()
    }

    pub(crate) fn dot(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
        fold(query, row, highest, |x, y| x * y)
    }

    pub(crate) fn l2(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
        fold(query, row, highest, |x, y| (x - y) * (x - y))
    }

    pub(crate) fn dot_and_square(query: &[f32], row: &[u8], highest: &[u32]) -> (f32, f32) {
        (dot(query, row, highest), fold(query, row, highest, |_, y| y * y))
    }

    pub(crate) fn unpack(row: &[u8], highest: &[u32], out: &mut [f32]) {
        for ((out, bytes), highest) in out.chunks_mut(BLOCK).zip(loads(row)).zip(highest.as_chunks().0) {
            out.iter_mut()
                .zip(block(bytes, highest))
                .for_each(|(out, value)| *out = value);
        }
    }
}

/// With AVX2 and FMA. Sums are added up in the order of the kernels over plain rows.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector loads take raw pointers; every pointer comes from an array reference"
)]
mod eight {
    use std::arch::x86_64::{
        __m256, _mm256_and_si256, _mm256_andnot_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi32,
        _mm256_setr_epi8, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_shuffle_epi8, _mm256_shuffle_epi32,
        _mm256_sllv_epi32, _mm256_srai_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps,
    };

    use super::{super::avx2::total, BESIDE, BLOCK, LOAD_BYTES, STEP, loads};

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn block(bytes: &[u8; LOAD_BYTES], highest: &[u32; BLOCK]) -> __m256 {
        // SAFETY: the reference is to 32 bytes, which an unaligned load reads.
        let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        // SAFETY: the reference is to 8 `u32`, the 32 bytes that an unaligned load reads.
        let highest = unsafe { _mm256_loadu_si256(highest.as_ptr().cast()) };
        // Each half gets twelve bytes of fields, then the exponents.
        let halves = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 6, 3, 4, 5, 6));
        #[rustfmt::skip]
        let upper_bytes = _mm256_setr_epi8(
            -1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11,
            -1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11,
        );
        let fields = _mm256_srai_epi32::<8>(_mm256_shuffle_epi8(halves, upper_bytes));
        // The shift has filled the exponent with the sign.
        let sign_and_fraction = _mm256_and_si256(fields, _mm256_set1_epi32(0x807f_ffff_u32.cast_signed()));
        let below = _mm256_shuffle_epi32::<0xff>(halves);
        let below = _mm256_sllv_epi32(below, _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0));
        let all_below = _mm256_set1_epi32((u32::from(BESIDE) * STEP).cast_signed());
        let below = _mm256_and_si256(_mm256_srli_epi32::<5>(below), all_below);
        let value = _mm256_or_si256(sign_and_fraction, _mm256_sub_epi32(highest, below));
        _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpeq_epi32(below, all_below), value))
    }

    /// A block of the query, zeros after its end.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load_query(query: &[f32]) -> __m256 {
        let mut padded = [0.0; BLOCK];
        let query = query.first_chunk::<BLOCK>().unwrap_or_else(|| {
            padded
                .iter_mut()
                .zip(query)
                .for_each(|(padded, value)| *padded = *value);
            &padded
        });
        // SAFETY: the reference is to 8 `f32`, the 32 bytes that an unaligned load reads.
        unsafe { _mm256_loadu_ps(query.as_ptr()) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        let blocks = query.chunks(BLOCK).zip(loads(row)).zip(highest.as_chunks().0);
        for (index, ((query, bytes), highest)) in blocks.enumerate() {
            let sum = &mut sums[index % 4];
            *sum = _mm256_fmadd_ps(load_query(query), block(bytes, highest), *sum);
        }
        total(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn l2(query: &[f32], row: &[u8], highest: &[u32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        let blocks = query.chunks(BLOCK).zip(loads(row)).zip(highest.as_chunks().0);
        for (index, ((query, bytes), highest)) in blocks.enumerate() {
            let apart = _mm256_sub_ps(load_query(query), block(bytes, highest));
            let sum = &mut sums[index % 4];
            *sum = _mm256_fmadd_ps(apart, apart, *sum);
        }
        total(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_and_square(query: &[f32], row: &[u8], highest: &[u32]) -> (f32, f32) {
        let zero = _mm256_setzero_ps();
        let (mut dots, mut squares) = ([zero; 4], [zero; 4]);
        let blocks = query.chunks(BLOCK).zip(loads(row)).zip(highest.as_chunks().0);
        for (index, ((query, bytes), highest)) in blocks.enumerate() {
            let value = block(bytes, highest);
            dots[index % 2] = _mm256_fmadd_ps(load_query(query), value, dots[index % 2]);
            squares[index % 2] = _mm256_fmadd_ps(value, value, squares[index % 2]);
        }
        (total(dots), total(squares))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn unpack(row: &[u8], highest: &[u32], out: &mut [f32]) {
        for ((out, bytes), highest) in out.chunks_mut(BLOCK).zip(loads(row)).zip(highest.as_chunks().0) {
            let mut values = [0.0_f32; BLOCK];
            // SAFETY: the array takes the 32 bytes that an unaligned store writes.
            unsafe { _mm256_storeu_ps(values.as_mut_ptr(), block(bytes, highest)) };
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
        }
    }
}
