//! What a term that a row and a query share adds to the row's score.

use super::Block;

/// How rows are scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SparseScoring {
    /// Sum of the products of values.
    Ip,
    /// Okapi BM25; the query's values are the weights of its terms.
    Bm25(Bm25),
}

/// The numbers of Okapi BM25 (Robertson and Zaragoza 2009, section 3): a term of frequency `f` in a row of length `n` adds
/// `weight * f * (k1 + 1) / (f + k1 * (1 - b + b * n / average_length))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bm25 {
    /// How soon more of the same term counts for little, from 0 on.
    pub k1: f32,
    /// How much the length of a row counts, 0 to 1.
    pub b: f32,
    /// Average length of a row of the collection.
    pub average_length: f64,
}

impl Bm25 {
    /// Weight of a term that `rows_with` of the `rows` rows of the collection have, times its `frequency` in the query.
    #[must_use]
    pub fn weight(rows: u64, rows_with: u64, frequency: f32) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (rows, with) = (rows as f64, rows_with.min(rows) as f64);
        #[expect(clippy::cast_possible_truncation, reason = "a weight, to the precision of values")]
        let rarity = (1.0 + (rows - with + 0.5) / (with + 0.5)).ln() as f32;
        frequency * rarity
    }
}

/// A scoring with what it needs worked out. `length` is the row's, 0 where lengths do not count.
pub(super) trait Scorer: Copy {
    /// Whether [`Self::part`] looks at the length.
    const NEEDS_LENGTH: bool;
    /// What a shared term adds.
    fn part(self, weight: f64, value: f32, length: f32) -> f64;
    /// What a term of the block adds at most; not below 0, since a row may not have the term.
    fn bound(self, weight: f64, block: Block) -> f64;
}

#[derive(Clone, Copy)]
pub(super) struct IpScorer;

impl Scorer for IpScorer {
    const NEEDS_LENGTH: bool = false;
    #[inline]
    fn part(self, weight: f64, value: f32, _length: f32) -> f64 {
        weight * f64::from(value)
    }
    #[inline]
    fn bound(self, weight: f64, block: Block) -> f64 {
        // A negative weight is highest with the smallest value.
        (weight * f64::from(block.high))
            .max(weight * f64::from(block.low))
            .max(0.0)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Bm25Scorer {
    gain: f64,
    /// `k1 * (1 - b)`.
    fixed: f64,
    /// `k1 * b / average_length`.
    per_length: f64,
}

impl Bm25Scorer {
    pub(super) fn new(numbers: Bm25) -> Self {
        let (k1, b) = (f64::from(numbers.k1.max(0.0)), f64::from(numbers.b.clamp(0.0, 1.0)));
        let average = numbers.average_length;
        Self {
            gain: k1 + 1.0,
            fixed: k1 * (1.0 - b),
            per_length: if average > 0.0 { k1 * b / average } else { 0.0 },
        }
    }
}

impl Scorer for Bm25Scorer {
    const NEEDS_LENGTH: bool = true;
    #[inline]
    fn part(self, weight: f64, value: f32, length: f32) -> f64 {
        let frequency = f64::from(value);
        weight * frequency * self.gain / (frequency + self.fixed + self.per_length * f64::from(length))
    }
    #[inline]
    fn bound(self, weight: f64, block: Block) -> f64 {
        // It grows with the frequency and falls with the length.
        self.part(weight, block.high, block.low).max(0.0)
    }
}
