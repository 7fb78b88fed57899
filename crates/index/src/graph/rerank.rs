//! Exact scores for what a walk found, for as many rows as matter.
//!
//! A walk orders rows by costs of codes, which differ from exact costs by errors that are alike for all rows of a query.
//! So rows are scored from the most promising on, the errors seen so far tell how far a cost can be off, and the scoring
//! ends at the first row that could no longer be among the best even with a far larger error than usual.

use super::codes::Query;
use super::walk::Step;
use crate::flat::Best;
use crate::vectors::Scorer;
use crate::{Hit, Metric, Vectors};

/// The `k` best of `candidates`, which are in the order of their costs for `weights`, by their exact scores for `query`.
pub(super) fn rerank(
    vectors: &Vectors,
    metric: Metric,
    query: &[f32],
    weights: &Query,
    k: usize,
    candidates: &[Step],
) -> Vec<Hit> {
    let row = |step: &Step| vectors.row_elements(step.row() as usize);
    let scorer = Scorer::new(metric, query);
    let mut best = Best::new(metric, k);
    let mut errors = Errors::default();
    candidates
        .iter()
        .take(ROWS_AHEAD)
        .for_each(|step| Scorer::prefetch(row(step)));
    for (index, step) in candidates.iter().enumerate() {
        let estimate = weights.estimate(step.cost());
        if index >= SCORED_MIN
            && let Some(worst) = best.worst()
            && errors.least(estimate) > worst
        {
            break;
        }
        if let Some(ahead) = candidates.get(index + ROWS_AHEAD) {
            Scorer::prefetch(row(ahead));
        }
        let score = scorer.score(row(step));
        best.offer(step.row() as usize, score);
        errors.add(metric.cost(score) - estimate);
    }
    best.into_hits()
}

/// How far exact costs are from their estimates: a constant of the query, and noise.
#[derive(Default)]
struct Errors {
    count: f32,
    /// Sums are of differences from the first error, for the constant may be large.
    first: f32,
    sum: f32,
    sum_of_squares: f32,
}

impl Errors {
    fn add(&mut self, error: f32) {
        if self.count == 0.0 {
            self.first = error;
        }
        let difference = error - self.first;
        self.count += 1.0;
        self.sum += difference;
        self.sum_of_squares += difference * difference;
    }

    /// The least exact cost that a row of this estimate may have. Not a number if errors are not, which compares as false.
    fn least(&self, estimate: f32) -> f32 {
        let mean = self.sum / self.count;
        let variance = (self.sum_of_squares / self.count - mean * mean).max(0.0);
        estimate + self.first + mean - ERRORS_MAX * variance.sqrt()
    }
}

/// Rows that are scored in any case, if there are so many: before, the spread of errors is not known.
const SCORED_MIN: usize = 12;
/// How many standard deviations an error may be below the mean.
const ERRORS_MAX: f32 = 4.0;
/// How many rows ahead of the one being scored the vectors are fetched.
const ROWS_AHEAD: usize = 6;
