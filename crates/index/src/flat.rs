//! Exact search: every allowed row is compared. The reference for the graph and the answer for small or filtered sets.

use std::collections::BinaryHeap;

use crate::{Hit, Metric, RowMask, kernel};

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
    let mut best = Best::new(metric, k.min(rows));
    let query_squared = kernel::dot(query, query);
    let mut offer = |row: usize| {
        let vector = &vectors[row * dim..][..dim];
        let score = match metric {
            Metric::L2 => kernel::l2(query, vector),
            Metric::Ip => kernel::dot(query, vector),
            Metric::Cosine => {
                let (dot, vector_squared) = kernel::dot_and_square(query, vector);
                cosine(dot, query_squared, vector_squared)
            }
        };
        best.offer(row, score);
    };
    match mask {
        None => (0..rows).for_each(&mut offer),
        Some(mask) => mask.iter().take_while(|&row| row < rows).for_each(&mut offer),
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
    metric: Metric,
    k: usize,
    worst_first: BinaryHeap<Entry>,
}

impl Best {
    pub(crate) fn new(metric: Metric, k: usize) -> Self {
        Self {
            metric,
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
            cost: self.metric.cost(score),
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

    /// Best first, ties by lower row.
    pub(crate) fn into_hits(self) -> Vec<Hit> {
        let metric = self.metric;
        let entries = self.worst_first.into_sorted_vec();
        entries
            .into_iter()
            .map(|entry| Hit {
                row: entry.row,
                score: metric.cost(entry.cost),
            })
            .collect()
    }
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
