//! Exact search: every allowed row is compared. The reference for the graph and the answer for small or filtered sets.

use std::collections::BinaryHeap;

use crate::vectors::Scorer;
use crate::{Elements, Hit, Metric, RowMask, Vectors, kernel};

/// The score of `a` against `b` in the user's metric. Different lengths compare over the shorter.
#[must_use]
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    match metric {
        Metric::L2 => kernel::l2(a, b),
        Metric::Ip => kernel::dot(a, b),
        Metric::Cosine => cosine(kernel::dot(a, b), kernel::dot(a, a), kernel::dot(b, b)),
    }
}

/// The `k` best rows of `vectors` (row-major, rows of `dim` values) for `query`: best first, ties by lower row. Rows
/// outside `mask` are skipped; a trailing partial row is ignored, and so is everything if `dim` is 0.
///
/// Rows whose score is not a number (a query or row with NaN or infinities) come last. `query` is compared over the
/// shorter length if it is not `dim` long: callers reject that earlier.
#[must_use]
pub fn flat_search(
    metric: Metric,
    vectors: &[f32],
    dim: usize,
    query: &[f32],
    k: usize,
    mask: Option<RowMask<'_>>,
) -> Vec<Hit> {
    if dim == 0 {
        return Vec::new();
    }
    let rows = (vectors.len() / dim).min(u32::MAX as usize);
    let scorer = Scorer::new(metric, query);
    best_of(metric.larger_is_better(), rows, k, mask, |row| {
        scorer.score(Elements::F32(&vectors[row * dim..][..dim]))
    })
}

/// [`flat_search`] over rows of any element type.
#[must_use]
pub fn exact_search(metric: Metric, vectors: &Vectors, query: &[f32], k: usize, mask: Option<RowMask<'_>>) -> Vec<Hit> {
    let scorer = Scorer::new(metric, query);
    best_of(metric.larger_is_better(), vectors.rows(), k, mask, |row| {
        scorer.score(vectors.row_elements(row))
    })
}

/// The `k` best of `rows` rows, or of those of them in `mask`, by the score that `score` gives them.
pub(crate) fn best_of(
    larger_is_better: bool,
    rows: usize,
    k: usize,
    mask: Option<RowMask<'_>>,
    score: impl Fn(usize) -> f32,
) -> Vec<Hit> {
    let mut best = Best::in_order(larger_is_better, k.min(rows));
    match mask {
        None => (0..rows).for_each(|row| best.offer(row, score(row))),
        Some(mask) => mask
            .iter()
            .take_while(|&row| row < rows)
            .for_each(|row| best.offer(row, score(row))),
    }
    best.into_hits()
}

/// Cosine similarity from the three inner products; 0 if either vector is zero (or so small that it underflows).
pub(crate) fn cosine(dot: f32, a_squared: f32, b_squared: f32) -> f32 {
    let norms = a_squared.sqrt() * b_squared.sqrt();
    if norms == 0.0 { 0.0 } else { dot / norms }
}

/// Keeps the best `k` of the rows that it is offered.
pub(crate) struct Best {
    larger_is_better: bool,
    k: usize,
    worst_first: BinaryHeap<Entry>,
}

impl Best {
    pub(crate) fn new(metric: Metric, k: usize) -> Self {
        Self::in_order(metric.larger_is_better(), k)
    }

    pub(crate) fn in_order(larger_is_better: bool, k: usize) -> Self {
        Self {
            larger_is_better,
            k,
            worst_first: BinaryHeap::with_capacity(k.min(CAPACITY_AT_START)),
        }
    }

    #[inline]
    pub(crate) fn offer(&mut self, row: usize, score: f32) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rows are bounded by u32::MAX where they are counted"
        )]
        let entry = Entry {
            cost: cost(self.larger_is_better, score),
            row: row as u32,
        };
        if self.worst_first.len() < self.k {
            self.worst_first.push(entry);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// The score that a further row has to be better than; `None` while there are fewer than `k`.
    pub(crate) fn to_beat(&self) -> Option<f32> {
        let worst = self.worst_first.peek().filter(|_| self.worst_first.len() >= self.k)?;
        Some(cost(self.larger_is_better, worst.cost))
    }

    /// The cost of the worst of the best, smaller for a better match, once there are `k` of them.
    pub(crate) fn worst(&self) -> Option<f32> {
        let worst = self.worst_first.peek();
        worst
            .filter(|_| self.worst_first.len() >= self.k)
            .map(|worst| worst.cost)
    }

    /// Best first, ties by lower row.
    pub(crate) fn into_hits(self) -> Vec<Hit> {
        let larger_is_better = self.larger_is_better;
        let entries = self.worst_first.into_sorted_vec();
        entries
            .into_iter()
            .map(|entry| Hit {
                row: entry.row,
                score: cost(larger_is_better, entry.cost),
            })
            .collect()
    }
}

/// A value that is smaller for a better score, and back.
fn cost(larger_is_better: bool, score: f32) -> f32 {
    if larger_is_better { -score } else { score }
}

/// A row and its cost, ordered by cost with NaN of either sign last, then by row.
#[derive(Clone, Copy)]
struct Entry {
    cost: f32,
    row: u32,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.cost.is_nan(), other.cost.is_nan()) {
            // `+ 0.0` turns -0.0 into 0.0, so that equal costs tie.
            (false, false) => (self.cost + 0.0).total_cmp(&(other.cost + 0.0)),
            (mine, theirs) => mine.cmp(&theirs),
        }
        .then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// First allocation of the heap, in rows, so that a huge `k` does not allocate before rows turn up.
const CAPACITY_AT_START: usize = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small integer as a 16-bit IEEE 754 float.
    fn f16_bits(value: f32) -> u16 {
        let bits = value.to_bits();
        let sign = (bits >> 16 & 0x8000) as u16;
        if value == 0.0 {
            return sign;
        }
        let exponent = (bits >> 23 & 0xff) as u16 - 127 + 15;
        sign | exponent << 10 | (bits >> 13 & 0x3ff) as u16
    }

    fn mask_of(rows: usize, allowed: &[usize]) -> Vec<u64> {
        let mut words = vec![0; rows.div_ceil(64)];
        allowed.iter().for_each(|row| words[row / 64] |= 1u64 << (row % 64));
        words
    }

    #[test]
    fn scores_are_those_of_the_metric() {
        let (a, b) = ([3.0, 4.0], [6.0, 8.0]);
        assert_eq!(distance(Metric::L2, &a, &b), 25.0);
        assert_eq!(distance(Metric::Ip, &a, &b), 50.0);
        assert_eq!(distance(Metric::Cosine, &a, &b), 1.0);
        assert_eq!(distance(Metric::Cosine, &a, &[0.0, 0.0]), 0.0);
        assert_eq!(distance(Metric::Cosine, &a, &[4.0, -3.0]), 0.0);
    }

    #[test]
    fn best_come_first_and_ties_by_lower_row() {
        let vectors = [2.0, 1.0, 2.0, 0.0, 1.0];
        let rows = |metric, k| {
            flat_search(metric, &vectors, 1, &[1.0], k, None)
                .iter()
                .map(|hit| hit.row)
                .collect()
        };
        let (nearest, largest): (Vec<u32>, Vec<u32>) = (rows(Metric::L2, 9), rows(Metric::Ip, 2));
        assert_eq!(nearest, [1, 4, 0, 2, 3]);
        assert_eq!(largest, [0, 2]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_total() {
        assert_eq!(flat_search(Metric::L2, &[1.0, 2.0], 0, &[1.0], 3, None), []);
        assert_eq!(flat_search(Metric::L2, &[], 4, &[1.0; 4], 3, None), []);
        assert_eq!(
            flat_search(Metric::L2, &[1.0; 5], 2, &[1.0; 2], usize::MAX, None).len(),
            2
        );
        assert_eq!(flat_search(Metric::L2, &[1.0; 6], 2, &[1.0; 9], 0, None), []);
        let mask = RowMask {
            words: &[u64::MAX],
            rows: 200,
        };
        assert_eq!(flat_search(Metric::L2, &[1.0; 6], 2, &[1.0], 9, Some(mask)).len(), 3);
    }

    #[test]
    fn scores_that_are_not_numbers_come_last() {
        let vectors = [f32::NAN, 5.0, f32::INFINITY, 1.0];
        for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
            let hits = flat_search(metric, &vectors, 1, &[1.0], 4, None);
            assert_eq!(hits.len(), 4);
            assert!([0, 2].contains(&hits[3].row), "{metric:?}");
            let query = flat_search(metric, &vectors, 1, &[f32::NAN], 4, None);
            assert_eq!(query.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn masks_count_and_list_their_rows() {
        let words = mask_of(200, &[0, 63, 64, 127, 199]);
        let mask = RowMask {
            words: &words,
            rows: 199,
        };
        assert_eq!(mask.count(), 4);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert!(mask.contains(127) && !mask.contains(199) && !mask.contains(1) && !mask.contains(usize::MAX));
        let short = RowMask {
            words: &words[..1],
            rows: 200,
        };
        assert_eq!(short.iter().collect::<Vec<_>>(), [0, 63]);
        assert!(!short.contains(64));
    }

    proptest! {
        #[test]
        fn rows_of_other_element_types_score_as_their_widened_selves(
            values in prop::collection::vec(-100i8..101, 0..240),
            query in prop::collection::vec(-9i8..10, 5),
            k in 0usize..20,
        ) {
            let len = values.len() / 5 * 5;
            let wide: Vec<f32> = values[..len].iter().map(|&value| f32::from(value)).collect();
            let query: Vec<f32> = query.iter().map(|&value| f32::from(value)).collect();
            // Integers up to 128 have 8 significant bits, so both 16-bit floats hold them exactly.
            let halves = wide.iter().map(|value| (value.to_bits() >> 16) as u16).collect();
            let sixteen = wide.iter().map(|&value| f16_bits(value)).collect();
            for vectors in [
                Vectors::of_i8(5, values[..len].to_vec()).unwrap(),
                Vectors::of_bf16(5, halves).unwrap(),
                Vectors::of_f16(5, sixteen).unwrap(),
                Vectors::new(5, wide.clone()).unwrap(),
            ] {
                for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                    let expected = flat_search(metric, &wide, 5, &query, k, None);
                    prop_assert_eq!(exact_search(metric, &vectors, &query, k, None), expected, "{:?}", vectors);
                }
            }
        }

        #[test]
        fn equals_sorting_all_allowed_rows(
            values in prop::collection::vec(-3i8..4, 0..240),
            query in prop::collection::vec(-3i8..4, 3),
            bits in prop::collection::vec(any::<u64>(), 2),
            masked in any::<bool>(),
            k in 0usize..20,
        ) {
            let vectors: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
            let query: Vec<f32> = query.iter().map(|&value| f32::from(value)).collect();
            let rows = vectors.len() / 3;
            let mask = masked.then_some(RowMask { words: &bits, rows });
            for metric in [Metric::L2, Metric::Ip] {
                let mut expected: Vec<Hit> = (0..rows)
                    .filter(|&row| mask.is_none_or(|mask| mask.contains(row)))
                    .map(|row| Hit { row: u32::try_from(row).unwrap(), score: distance(metric, &query, &vectors[row * 3..][..3]) })
                    .collect();
                expected.sort_by(|a, b| metric.cost(a.score).total_cmp(&metric.cost(b.score)).then(a.row.cmp(&b.row)));
                expected.truncate(k);
                prop_assert_eq!(flat_search(metric, &vectors, 3, &query, k, mask), expected);
            }
        }
    }
}
