//! Vectors of bits, and the exact search over them.
//!
//! There is no graph here: comparing with every row is memory-bound (a million rows of 512 bits are 64 MB), and it is
//! exact under any filter.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::flat::best_of;
use crate::{Hit, IndexError, RowMask, kernel};

/// How two rows of bits are compared, with the scores that Milvus gives. Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryMetric {
    /// Number of bits that differ.
    Hamming,
    /// 1 minus bits set in both over bits set in either; 1 if there are no such bits.
    Jaccard,
}

/// Row-major vectors of bits, immutable and cheap to clone. They are customer plaintext: the buffer is overwritten with
/// zeros when the last clone drops.
#[derive(Clone)]
pub struct BinaryVectors {
    row_bytes: usize,
    rows: usize,
    data: Arc<Wiped>,
}

impl BinaryVectors {
    /// Largest number of bits in a row: Milvus's own limit.
    pub const DIMENSION_MAX: usize = 8 * IndexError::DIMENSION_MAX;

    /// Takes over `data`, rows of `dim` bits each, eight to a byte, without copying.
    ///
    /// # Errors
    /// [`IndexError::Bits`] if `dim` is not a multiple of 8 from 8 to [`Self::DIMENSION_MAX`];
    /// [`IndexError::PartialRow`] or [`IndexError::TooManyRows`]; `data` is wiped then too.
    pub fn new(dim: usize, data: Vec<u8>) -> Result<Self, IndexError> {
        let data = Wiped(data);
        if dim == 0 || dim > Self::DIMENSION_MAX || !dim.is_multiple_of(8) {
            return Err(IndexError::Bits { dim });
        }
        let (row_bytes, len) = (dim / 8, data.0.len());
        if !len.is_multiple_of(row_bytes) {
            return Err(IndexError::PartialRow { dim: row_bytes, len });
        }
        let rows = len / row_bytes;
        if rows > IndexError::ROWS_MAX {
            return Err(IndexError::TooManyRows { rows });
        }
        Ok(Self {
            row_bytes,
            rows,
            data: Arc::new(data),
        })
    }

    /// The rows of all `parts` one after another, in a buffer of exactly their size.
    ///
    /// # Errors
    /// [`IndexError::Unlike`] if there is no part or parts differ in dimension; else as [`Self::new`].
    pub fn concat(parts: &[&Self]) -> Result<Self, IndexError> {
        let first = parts.first().ok_or(IndexError::Unlike)?;
        if parts.iter().any(|part| part.row_bytes != first.row_bytes) {
            return Err(IndexError::Unlike);
        }
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.data.0.len()).sum());
        parts.iter().for_each(|part| all.extend_from_slice(&part.data.0));
        Self::new(first.dim(), all)
    }

    /// Bits in one row.
    #[must_use]
    pub fn dim(&self) -> usize {
        8 * self.row_bytes
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::rows`].
    #[inline]
    #[must_use]
    pub fn row(&self, i: usize) -> &[u8] {
        &self.data.0[i * self.row_bytes..][..self.row_bytes]
    }

    /// All rows, one after another.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.data.0
    }

    /// The `k` best rows for `query`: best first, ties by lower row. Rows outside `mask` are skipped.
    ///
    /// # Errors
    /// [`IndexError::QueryDimension`] if the query has another number of bits.
    pub fn search(
        &self,
        metric: BinaryMetric,
        query: &[u8],
        k: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, IndexError> {
        if query.len() != self.row_bytes {
            return Err(IndexError::QueryDimension {
                query: 8 * query.len(),
                index: self.dim(),
            });
        }
        let query_ones = kernel::bits::set(query);
        Ok(match metric {
            BinaryMetric::Hamming => best_of(false, self.rows, k, mask, |row| hamming(query, self.row(row))),
            BinaryMetric::Jaccard => best_of(false, self.rows, k, mask, |row| {
                jaccard(query, query_ones, self.row(row))
            }),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row has at most 2^18 bits")]
fn hamming(query: &[u8], row: &[u8]) -> f32 {
    kernel::bits::differing(query, row) as f32
}

#[expect(clippy::cast_precision_loss, reason = "a row has at most 2^18 bits")]
fn jaccard(query: &[u8], query_ones: u32, row: &[u8]) -> f32 {
    let (shared, row_ones) = kernel::bits::shared_and_set(query, row);
    let either = query_ones + row_ones - shared;
    if either == 0 {
        1.0
    } else {
        1.0 - shared as f32 / either as f32
    }
}

impl std::fmt::Debug for BinaryVectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BinaryVectors")
            .field("dim", &self.dim())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Owns the rows so that dropping the last reference wipes them.
struct Wiped(Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_checked() {
        for dim in [0, 4, 12, BinaryVectors::DIMENSION_MAX + 8] {
            assert_eq!(BinaryVectors::new(dim, vec![]).unwrap_err(), IndexError::Bits { dim });
        }
        assert!(BinaryVectors::new(BinaryVectors::DIMENSION_MAX, vec![]).is_ok());
        assert_eq!(
            BinaryVectors::new(16, vec![0; 3]).unwrap_err(),
            IndexError::PartialRow { dim: 2, len: 3 }
        );
        let rows = BinaryVectors::new(16, vec![1, 2, 3, 4]).unwrap();
        assert_eq!((rows.rows(), rows.dim(), rows.row(1)), (2, 16, &[3u8, 4][..]));
        assert_eq!(
            rows.search(BinaryMetric::Hamming, &[1], 1, None).unwrap_err(),
            IndexError::QueryDimension { query: 8, index: 16 }
        );
        let more = BinaryVectors::new(16, vec![5, 6]).unwrap();
        assert_eq!(
            BinaryVectors::concat(&[&rows, &more]).unwrap().as_slice(),
            [1, 2, 3, 4, 5, 6]
        );
        let other = BinaryVectors::new(8, vec![5]).unwrap();
        assert_eq!(BinaryVectors::concat(&[&rows, &other]).unwrap_err(), IndexError::Unlike);
    }

    #[test]
    fn scores_are_those_of_the_metric() {
        let rows = BinaryVectors::new(8, vec![0b1111_0000, 0b1100_0000, 0, 0b0000_1111]).unwrap();
        let scores = |metric, query| -> Vec<(u32, f32)> {
            let hits = rows.search(metric, &[query], 9, None).unwrap();
            hits.iter().map(|hit| (hit.row, hit.score)).collect()
        };
        assert_eq!(
            scores(BinaryMetric::Hamming, 0b1111_0000),
            [(0, 0.0), (1, 2.0), (2, 4.0), (3, 8.0)]
        );
        assert_eq!(
            scores(BinaryMetric::Jaccard, 0b1111_0000),
            [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.0)]
        );
        assert_eq!(
            scores(BinaryMetric::Jaccard, 0),
            [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)]
        );
    }

    proptest! {
        #[test]
        fn equals_sorting_all_allowed_rows(
            bytes in prop::collection::vec(any::<u8>(), 0..90),
            query in prop::collection::vec(any::<u8>(), 3),
            words in prop::collection::vec(any::<u64>(), 1),
            masked in any::<bool>(),
            k in 0usize..12,
        ) {
            let count = bytes.len() / 3;
            let rows = BinaryVectors::new(24, bytes[..3 * count].to_vec()).unwrap();
            let mask = masked.then_some(RowMask { words: &words, rows: count });
            for metric in [BinaryMetric::Hamming, BinaryMetric::Jaccard] {
                let mut expected: Vec<Hit> = (0..count)
                    .filter(|&row| mask.is_none_or(|mask| mask.contains(row)))
                    .map(|row| {
                        let pairs = || query.iter().zip(rows.row(row));
                        let sum = |count: fn(u8, u8) -> u32| pairs().map(|(x, y)| count(*x, *y)).sum::<u32>() as f32;
                        let (both, either) = (sum(|x, y| (x & y).count_ones()), sum(|x, y| (x | y).count_ones()));
                        let score = match metric {
                            BinaryMetric::Hamming => sum(|x, y| (x ^ y).count_ones()),
                            BinaryMetric::Jaccard if either == 0.0 => 1.0,
                            BinaryMetric::Jaccard => 1.0 - both / either,
                        };
                        Hit { row: u32::try_from(row).unwrap(), score }
                    })
                    .collect();
                expected.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.row.cmp(&b.row)));
                expected.truncate(k);
                prop_assert_eq!(rows.search(metric, &query, k, mask).unwrap(), expected);
            }
        }
    }
}
