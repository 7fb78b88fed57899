//! Rows of 32-bit floats in 28 bits a value, without losing any.
//!
//! What differs little between the values of one place (sign and fraction aside) is the exponent: nearly all of them lie
//! within a factor of 2^14 of the largest. So a value is kept as its sign and fraction, 24 bits, and how far its exponent is
//! below the highest of its place, 4 bits. The few values for which that does not do are kept whole beside the rows; a
//! bitmap tells which rows have some. A value is exactly what it was, bit by bit, and so are scores.
//!
//! | bytes of a block of 8 values | what |
//! |---|---|
//! | 8 × 3 | sign and fraction, the lowest byte first |
//! | 4 | exponents below the highest: 0 to 14; 15 for zero and for what is kept beside |
//!
//! What it deliberately does not do: it packs nothing where that saves little, or where many values would have to be kept
//! beside; [`PackedRows::pack`] says so.

use zeroize::{Zeroize, Zeroizing};

use crate::kernel;

/// Packed rows. Wiped on drop.
pub(crate) struct PackedRows {
    dim: usize,
    rows: usize,
    /// The highest exponent of each place, at its place in an `f32`; padded to whole blocks.
    highest: Vec<u32>,
    /// Blocks of all rows, and [`PAD_BYTES`].
    bytes: Vec<u8>,
    /// Which rows have values in `beside`.
    patched: Vec<u64>,
    /// In order of row.
    beside: Vec<Beside>,
}

/// A value that is kept whole.
#[derive(Clone, Copy)]
struct Beside {
    row: u32,
    place: u32,
    value: f32,
}

/// One packed row.
#[derive(Clone, Copy)]
pub struct PackedRow<'a> {
    rows: &'a PackedRows,
    row: usize,
}

impl PackedRows {
    /// Packs rows of `dim` values, as many as are in `values`; `None` where that would save too little.
    pub(crate) fn pack(dim: usize, values: &[f32]) -> Option<Self> {
        let rows = values.len().checked_div(dim)?;
        if dim < DIM_MIN || rows < ROWS_MIN || rows > u32::MAX as usize || values.len() != rows * dim {
            return None;
        }
        let blocks = dim.div_ceil(BLOCK);
        let mut highest = vec![0_u32; blocks * BLOCK];
        for row in values.chunks_exact(dim) {
            for (highest, value) in highest.iter_mut().zip(row) {
                *highest = (*highest).max(value.to_bits() & EXPONENT);
            }
        }
        // Zero and what is smaller than any normal number stand at 15 steps below: no exponent wraps.
        highest
            .iter_mut()
            .for_each(|highest| *highest = (*highest).max(STEP * u32::from(BESIDE)));
        let mut packed = Self {
            dim,
            rows,
            highest,
            bytes: kernel::room_for_random_access(rows * blocks * BLOCK_BYTES + PAD_BYTES),
            patched: vec![0; rows.div_ceil(64)],
            beside: Vec::new(),
        };
        // Allocated at once: growing would leave copies that nobody wipes.
        packed.beside.reserve_exact(values.len() / BESIDE_SHARE);
        for (row, values) in values.chunks_exact(dim).enumerate() {
            if !packed.push(row, values) {
                return None;
            }
        }
        packed.bytes.resize(packed.bytes.len() + PAD_BYTES, 0);
        Some(packed)
    }

    /// Appends a row; whether there was room beside the rows.
    fn push(&mut self, row: usize, values: &[f32]) -> bool {
        for (block, values) in values.chunks(BLOCK).enumerate() {
            let mut bits = [0_u32; BLOCK];
            bits.iter_mut()
                .zip(values)
                .for_each(|(bits, value)| *bits = value.to_bits());
            let highest = &self.highest[block * BLOCK..][..BLOCK];
            let (mut fields, mut below_all) = ([0_u8; BLOCK_BYTES], 0_u32);
            for (place, (bits, highest)) in bits.iter().zip(highest).enumerate() {
                let below = (highest - (bits & EXPONENT)) / STEP;
                let fits = below < u32::from(BESIDE);
                // A zero has no fraction; a negative one is not what 15 stands for.
                if !fits && *bits != 0 {
                    if self.beside.len() == self.beside.capacity() {
                        return false;
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "rows and places were counted to fit")]
                    self.beside.push(Beside {
                        row: row as u32,
                        place: (block * BLOCK + place) as u32,
                        value: f32::from_bits(*bits),
                    });
                    self.patched[row / 64] |= 1 << (row % 64);
                }
                below_all |= below.min(u32::from(BESIDE)) << (4 * place);
                let field = (bits & FRACTION) | (bits >> 31 << 23);
                fields[3 * place..][..3].copy_from_slice(&field.to_le_bytes()[..3]);
            }
            fields[BLOCK_BYTES - 4..].copy_from_slice(&below_all.to_le_bytes());
            self.bytes.extend_from_slice(&fields);
        }
        true
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + size_of_val(self.beside.as_slice()) + 8 * self.patched.len() + 4 * self.highest.len()
    }

    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> PackedRow<'_> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        PackedRow { rows: self, row }
    }
}

impl Drop for PackedRows {
    fn drop(&mut self) {
        self.bytes.zeroize();
        self.highest.zeroize();
        self.beside.iter_mut().for_each(|beside| beside.value.zeroize());
    }
}

impl<'a> PackedRow<'a> {
    /// Number of values.
    #[must_use]
    pub fn len(self) -> usize {
        self.rows.dim
    }

    /// Whether it has no values: never.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.rows.dim == 0
    }

    /// Appends its values, exactly.
    pub fn widen_onto(self, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + self.rows.dim, 0.0);
        let (bytes, highest) = self.packed();
        kernel::packed::unpack(bytes, highest, &mut out[start..]);
        for beside in self.beside() {
            if let Some(value) = out.get_mut(start + beside.place as usize) {
                *value = beside.value;
            }
        }
    }

    /// Its blocks, those of the next rows after them, and the highest exponents.
    #[inline]
    pub(crate) fn packed(self) -> (&'a [u8], &'a [u32]) {
        let stride = self.rows.highest.len() / BLOCK * BLOCK_BYTES;
        (&self.rows.bytes[self.row * stride..], &self.rows.highest)
    }

    /// Whether it has no values that are kept beside the rows, so that its blocks tell everything.
    #[inline]
    pub(crate) fn is_whole(self) -> bool {
        self.rows.patched[self.row / 64] >> (self.row % 64) & 1 == 0
    }

    /// Runs `work` over its values in an array of their own, which is wiped after that.
    #[cold]
    pub(crate) fn with_values<R>(self, work: impl FnOnce(&[f32]) -> R) -> R {
        let mut values = Zeroizing::new(Vec::with_capacity(self.rows.dim));
        self.widen_onto(&mut values);
        work(&values)
    }

    /// Bytes that it takes, those beside not counted.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.rows.highest.len() / BLOCK * BLOCK_BYTES
    }

    fn beside(self) -> impl Iterator<Item = &'a Beside> {
        let row = self.row;
        let all = if self.is_whole() {
            &[][..]
        } else {
            self.rows.beside.as_slice()
        };
        let first = all.partition_point(|beside| (beside.row as usize) < row);
        all[first..].iter().take_while(move |beside| beside.row as usize == row)
    }
}

impl PartialEq for PackedRow<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (mut a, mut b) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
        self.widen_onto(&mut a);
        other.widen_onto(&mut b);
        a == b
    }
}

impl std::fmt::Debug for PackedRow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedRow")
            .field("row", &self.row)
            .finish_non_exhaustive()
    }
}

/// Values of a block.
pub(crate) const BLOCK: usize = 8;
/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 28;
/// Bytes after the last block, so that kernels may load 32 bytes from any block's start.
const PAD_BYTES: usize = 4;
/// The bits of an `f32`'s exponent, ...
pub(crate) const EXPONENT: u32 = 0x7f80_0000;
/// ... one step of it, ...
pub(crate) const STEP: u32 = 1 << 23;
/// ... and the bits of its fraction.
pub(crate) const FRACTION: u32 = STEP - 1;
/// Stands for a value that is zero or kept beside.
pub(crate) const BESIDE: u8 = 15;
/// Fewer values in a row are not worth it.
const DIM_MIN: usize = 32;
/// Fewer rows neither.
const ROWS_MIN: usize = 1_024;
/// Values of which at most one may be kept beside: 12 bytes for each, where packing saves half a byte a value.
const BESIDE_SHARE: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Elements, Metric, vectors::Scorer};

    fn values_of(rows: &PackedRows) -> Vec<u32> {
        let mut values = Vec::new();
        (0..rows.rows()).for_each(|row| rows.row(row).widen_onto(&mut values));
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Numbers that look like embeddings: near zero, some exactly zero, a few of another kind.
    fn embeddings(seed: u64, count: usize, odd: &[f32]) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        };
        let mut values: Vec<f32> = (0..count).map(|_| next() * next()).collect();
        for (index, odd) in odd.iter().enumerate() {
            values[index * 1_009 % count] = *odd;
        }
        values
    }

    const ODD: [f32; 10] = [
        0.0,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MIN_POSITIVE,
        -1e-40,
        1e-30,
        f32::MAX,
        -1.0,
    ];

    #[test]
    fn every_value_comes_back_bit_by_bit() {
        for dim in [32, 33, 39, 40, 64, 100] {
            let values = embeddings(dim as u64, dim * ROWS_MIN, &ODD);
            // Infinities raise the highest exponents of their places so far that nothing else fits.
            assert!(PackedRows::pack(dim, &values).is_none(), "{dim}");
            let finite: Vec<f32> = ODD.iter().copied().filter(|odd| odd.abs() <= 1.0).collect();
            let values = embeddings(dim as u64, dim * ROWS_MIN, &finite);
            let packed = PackedRows::pack(dim, &values).unwrap();
            let expected: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(values_of(&packed), expected, "{dim}");
            assert!(!packed.beside.is_empty());
            assert_eq!((packed.dim(), packed.rows()), (dim, ROWS_MIN));
        }
    }

    #[test]
    fn whole_numbers_and_zeros_are_packed_too() {
        let values: Vec<f32> = (0..64 * ROWS_MIN).map(|index| (index * 7 % 219) as f32).collect();
        let packed = PackedRows::pack(64, &values).unwrap();
        assert!(packed.beside.is_empty() && packed.bytes() < 4 * values.len() * 9 / 10);
        assert_eq!(
            values_of(&packed),
            values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        );
        let zeros = vec![0.0; 64 * ROWS_MIN];
        assert_eq!(
            values_of(&PackedRows::pack(64, &zeros).unwrap()),
            vec![0; 64 * ROWS_MIN]
        );
    }

    #[test]
    fn what_packing_does_not_suit_is_left_alone() {
        let wide: Vec<f32> = (-50..=50)
            .map(|exponent| 2.0_f32.powi(exponent))
            .cycle()
            .take(64 * ROWS_MIN)
            .collect();
        assert!(PackedRows::pack(64, &wide).is_none(), "exponents lie far apart");
        assert!(PackedRows::pack(DIM_MIN - 1, &vec![1.0; (DIM_MIN - 1) * ROWS_MIN]).is_none());
        assert!(PackedRows::pack(64, &vec![1.0; 64 * (ROWS_MIN - 1)]).is_none());
        assert!(PackedRows::pack(64, &vec![1.0; 64 * ROWS_MIN + 1]).is_none());
        assert!(PackedRows::pack(0, &[]).is_none());
        assert!(PackedRows::pack(64, &vec![1.0; 64 * ROWS_MIN]).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn kernels_agree_with_their_twins_and_with_plain_rows(seed in any::<u64>(), dim in 32usize..140) {
            let values = embeddings(seed, dim * ROWS_MIN, &[1e-20, -0.0, 1e-9, 0.5]);
            let query = &embeddings(!seed, dim, &[])[..];
            let packed = PackedRows::pack(dim, &values).unwrap();
            for row in [0, 1, 2, 3, 7, 100, ROWS_MIN - 1] {
                let plain = &values[row * dim..][..dim];
                let row = packed.row(row);
                for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                    let scorer = Scorer::new(metric, query);
                    let (a, b) = (scorer.score(Elements::F32(plain)), scorer.score(Elements::Packed(row)));
                    prop_assert!((a - b).abs() <= 1e-6 * (1.0 + a.abs()), "{a} {b}");
                }
                let (bytes, highest) = row.packed();
                let (mut fast, mut twin) = (vec![0.0; dim], vec![0.0; dim]);
                kernel::packed::unpack(bytes, highest, &mut fast);
                kernel::packed::scalar::unpack(bytes, highest, &mut twin);
                prop_assert_eq!(&fast, &twin);
                let dot = (kernel::packed::dot(query, bytes, highest), kernel::packed::scalar::dot(query, bytes, highest));
                let l2 = (kernel::packed::l2(query, bytes, highest), kernel::packed::scalar::l2(query, bytes, highest));
                let both = kernel::packed::dot_and_square(query, bytes, highest);
                let twin = kernel::packed::scalar::dot_and_square(query, bytes, highest);
                for (a, b) in [dot, l2, (both.0, twin.0), (both.1, twin.1)] {
                    prop_assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
                }
            }
        }
    }
}
