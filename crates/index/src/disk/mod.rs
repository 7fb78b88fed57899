//! The graph of an index that is larger than memory: codes of four bits in memory, neighbour lists and vectors elsewhere.
//!
//! What it is for: [`DiskGraph`] walks over codes, asks a [`DiskRows`] for the neighbours of the rows that it passes, and
//! for the vectors of the best candidates, whose exact scores decide. What it deliberately does not do: it reads nothing
//! itself, and builds nothing: a [`GraphIndex`] over vectors in memory is built first, and [`DiskGraph::write`] lays it out
//! so that it can be read in pieces.
//!
//! Start at [`DiskGraph::search`]; `codes` has the codes, `format` the bytes.
//!
//! [`GraphIndex`]: crate::GraphIndex

mod codes;
mod format;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, PoisonError},
};

use zeroize::Zeroizing;

pub use self::format::DiskGraphLayout;

use self::codes::{NibbleCodes, NibbleEncoder, NibbleQuery};
use crate::{Elements, Hit, IndexError, Metric, RowMask, flat::Best, kernel, vectors::Scorer};

/// Where a walk finds what is not in memory.
pub trait DiskRows {
    /// Why something was not found.
    type Error: From<IndexError>;

    /// Puts the row's neighbours into `list` in place of what it holds. Rows beyond the last one are an error of the caller's
    /// to report; the walk refuses them too.
    ///
    /// # Errors
    /// Whatever keeps the list from being read.
    fn neighbours(&self, row: u32, list: &mut Vec<u32>) -> Result<(), Self::Error>;

    /// Fills `values`, one row long, with the row's vector.
    ///
    /// # Errors
    /// Whatever keeps the vector from being read.
    fn vector(&self, row: u32, values: &mut [f32]) -> Result<(), Self::Error>;

    /// Says that the neighbours of this row will be asked for soon.
    fn neighbours_soon(&self, _row: u32) {}

    /// Says that the vector of this row will be asked for soon.
    fn vector_soon(&self, _row: u32) {}
}

/// What of a graph is in memory. Wiped on drop.
pub struct DiskGraph {
    dim: usize,
    degree: usize,
    start: u32,
    /// Where the lists begin in the bytes that [`Self::write`] made.
    lists_at: u64,
    encoder: NibbleEncoder,
    codes: NibbleCodes,
    scratches: Mutex<Vec<Scratch>>,
}

impl DiskGraph {
    /// The list length of a search that asks for none.
    pub const EF_DEFAULT: usize = 120;

    /// Values in one row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.codes.rows()
    }

    /// How vectors compare.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.encoder.metric
    }

    /// Bytes that codes take in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes() + 2 * self.dim * size_of::<f32>()
    }

    /// Whether walking can answer this query. A query that is not finite, or has no direction under cosine, has to be
    /// compared with every row.
    #[must_use]
    pub fn answers(&self, query: &[f32]) -> bool {
        query.iter().all(|value| value.is_finite())
            && (self.metric() != Metric::Cosine || kernel::dot(query, query) > 0.0)
    }

    /// The `k` best rows (fewer if there are fewer to return), best first, ties by lower row, with exact scores, for a
    /// query that it [answers](Self::answers).
    ///
    /// `ef` is the length of the candidate list; 0 means [`Self::EF_DEFAULT`], less than `k` is raised to it. With a `mask`
    /// only its rows are returned: where they are few, their codes are compared one by one instead of walking.
    ///
    /// # Errors
    /// Those of `source`; [`IndexError::QueryDimension`], [`IndexError::MaskRows`]; [`IndexError::Corrupt`] if `source` names
    /// a row that is not there.
    pub fn search<S: DiskRows>(
        &self,
        source: &S,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, S::Error> {
        self.check(query, mask)?;
        let rows = self.rows();
        let allowed = mask.map_or(rows, |mask| mask.count());
        let k = k.min(allowed);
        if k == 0 {
            return Ok(Vec::new());
        }
        let list = if ef == 0 { Self::EF_DEFAULT } else { ef }.max(k);
        let ranked = k.saturating_mul(RANKED_PER_HIT).max(list / 2).min(list.max(k));
        self.with_scratch(|scratch| {
            let coded = self.encoder.encode_query(query);
            match mask.filter(|_| allowed < rows) {
                _ if self.scans(list, allowed) => self.scan(&coded, list.max(ranked), mask, scratch),
                None => self.walk(source, &coded, list, scratch)?,
                Some(mask) => self.walk_masked(source, &coded, list, mask, scratch)?,
            }
            let candidates = &scratch.nearest[..ranked.min(scratch.nearest.len())];
            self.rank(source, query, k, candidates)
        })
    }

    fn check(&self, query: &[f32], mask: Option<RowMask<'_>>) -> Result<(), IndexError> {
        if query.len() != self.dim {
            return Err(IndexError::QueryDimension {
                query: query.len(),
                index: self.dim,
            });
        }
        RowMask::check(mask, self.rows())
    }

    /// Whether comparing the codes of all allowed rows is quicker than a walk that finds `list` of them.
    fn scans(&self, list: usize, allowed: usize) -> bool {
        let share = allowed as f64 / self.rows().max(1) as f64;
        let walked = list as f64 * self.degree as f64 * FRESH_SHARE * SCAN_ROWS_PER_WALK_ROW / share;
        walked >= allowed as f64
    }

    /// Leaves the `list` nearest rows found in `scratch.nearest`.
    fn walk<S: DiskRows>(
        &self,
        source: &S,
        query: &NibbleQuery,
        list: usize,
        scratch: &mut Scratch,
    ) -> Result<(), S::Error> {
        let first = self.begin(query, scratch);
        scratch.nearest.push(first);
        let mut next = 0;
        while let Some(&step) = scratch.nearest.get(next) {
            if step.is_expanded() {
                next += 1;
                continue;
            }
            scratch.nearest[next] = step.expanded();
            let after = scratch.nearest[next + 1..].iter().find(|step| !step.is_expanded());
            if let Some(after) = after {
                source.neighbours_soon(after.row());
            }
            self.expand(source, query, step.row(), scratch)?;
            for index in 0..scratch.found.len() {
                if let Some(place) = insert(&mut scratch.nearest, scratch.found[index], list) {
                    next = next.min(place);
                }
            }
        }
        Ok(())
    }

    /// Leaves the `list` nearest rows found that are in `mask` in `scratch.nearest`. The walk passes through other rows.
    fn walk_masked<S: DiskRows>(
        &self,
        source: &S,
        query: &NibbleQuery,
        list: usize,
        mask: RowMask<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), S::Error> {
        let first = self.begin(query, scratch);
        scratch.frontier.clear();
        scratch.frontier.push(Reverse(first));
        if mask.contains(first.row() as usize) {
            scratch.nearest.push(first);
        }
        while let Some(Reverse(step)) = scratch.frontier.pop() {
            if is_full_of_nearer(&scratch.nearest, list, step) {
                break;
            }
            if let Some(Reverse(after)) = scratch.frontier.peek() {
                source.neighbours_soon(after.row());
            }
            self.expand(source, query, step.row(), scratch)?;
            for index in 0..scratch.found.len() {
                let found = scratch.found[index];
                if is_full_of_nearer(&scratch.nearest, list, found) {
                    continue;
                }
                scratch.frontier.push(Reverse(found));
                if mask.contains(found.row() as usize) {
                    insert(&mut scratch.nearest, found, list);
                }
            }
        }
        Ok(())
    }

    /// Leaves the `list` nearest allowed rows by code in `scratch.nearest`.
    fn scan(&self, query: &NibbleQuery, list: usize, mask: Option<RowMask<'_>>, scratch: &mut Scratch) {
        let mut nearest = BinaryHeap::with_capacity(list.min(self.rows()) + 1);
        let Scratch { rows, sums, .. } = scratch;
        rows.clear();
        let mut compare = |rows: &mut Vec<u32>| {
            self.codes.costs(query, rows, sums, |row, cost| {
                let step = Step::new(cost, row);
                if nearest.len() < list {
                    nearest.push(step);
                } else if let Some(mut worst) = nearest.peek_mut()
                    && step < *worst
                {
                    *worst = step;
                }
            });
            rows.clear();
        };
        let mut offer = |row: usize| {
            #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
            rows.push(row as u32);
            if rows.len() == SCAN_BATCH_ROWS {
                compare(rows);
            }
        };
        match mask {
            None => (0..self.rows()).for_each(&mut offer),
            Some(mask) => mask.iter().for_each(&mut offer),
        }
        compare(rows);
        scratch.nearest = nearest.into_sorted_vec();
    }

    fn begin(&self, query: &NibbleQuery, scratch: &mut Scratch) -> Step {
        scratch.nearest.clear();
        scratch.seen.clear(self.rows());
        scratch.seen.insert(self.start);
        let mut first = Step::new(0.0, self.start);
        self.codes.costs(query, &[self.start], &mut scratch.sums, |row, cost| {
            first = Step::new(cost, row)
        });
        first
    }

    /// Leaves the neighbours of `row` that were not seen before in `scratch.found`, with their costs.
    fn expand<S: DiskRows>(
        &self,
        source: &S,
        query: &NibbleQuery,
        row: u32,
        scratch: &mut Scratch,
    ) -> Result<(), S::Error> {
        source.neighbours(row, &mut scratch.rows)?;
        let Scratch {
            seen,
            rows,
            sums,
            found,
            ..
        } = scratch;
        if rows.iter().any(|&row| row as usize >= self.codes.rows()) {
            return Err(IndexError::Corrupt {
                reason: "a neighbour does not exist",
            }
            .into());
        }
        rows.retain(|&row| seen.insert(row));
        found.clear();
        self.codes
            .costs(query, rows, sums, |row, cost| found.push(Step::new(cost, row)));
        Ok(())
    }

    /// The `k` best of `candidates` by their exact scores.
    fn rank<S: DiskRows>(
        &self,
        source: &S,
        query: &[f32],
        k: usize,
        candidates: &[Step],
    ) -> Result<Vec<Hit>, S::Error> {
        candidates.iter().for_each(|step| source.vector_soon(step.row()));
        let scorer = Scorer::new(self.metric(), query);
        let mut best = Best::new(self.metric(), k);
        let mut values = Zeroizing::new(vec![0.0; self.dim]);
        for step in candidates {
            source.vector(step.row(), &mut values)?;
            best.offer(step.row() as usize, scorer.score(Elements::F32(&values)));
        }
        Ok(best.into_hits())
    }

    /// Lends a scratch to `work` and keeps it for later searches.
    fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let kept = || self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = kept().pop().unwrap_or_default();
        let result = work(&mut scratch);
        let mut scratches = kept();
        if scratches.len() < SCRATCHES_MAX {
            scratches.push(scratch);
        }
        result
    }
}

impl std::fmt::Debug for DiskGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskGraph")
            .field("metric", &self.encoder.metric)
            .field("rows", &self.rows())
            .field("degree", &self.degree)
            .finish_non_exhaustive()
    }
}

/// A row and its cost in one integer that orders by cost, then by row. Its last bit says whether a walk has expanded it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Step(u64);

impl Step {
    fn new(cost: f32, row: u32) -> Self {
        // As `f32::total_cmp` orders.
        let bits = cost.to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(row) << 1)
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the row is in the lower half, and below 2^31"
    )]
    fn row(self) -> u32 {
        self.0 as u32 >> 1
    }
    fn is_expanded(self) -> bool {
        self.0 & 1 == 1
    }
    fn expanded(self) -> Self {
        Self(self.0 | 1)
    }
}

/// Memory that searches reuse. It holds row numbers and costs, no vectors.
#[derive(Default)]
struct Scratch {
    nearest: Vec<Step>,
    frontier: BinaryHeap<Reverse<Step>>,
    seen: Seen,
    rows: Vec<u32>,
    sums: Vec<i32>,
    found: Vec<Step>,
}

/// Puts `found` where it belongs in `nearest`, which keeps at most `list` steps, and says where that was.
fn insert(nearest: &mut Vec<Step>, found: Step, list: usize) -> Option<usize> {
    if is_full_of_nearer(nearest, list, found) {
        return None;
    }
    let place = nearest.partition_point(|step| *step < found);
    if nearest.len() >= list {
        nearest.pop();
    }
    nearest.insert(place, found);
    Some(place)
}

fn is_full_of_nearer(nearest: &[Step], list: usize, step: Step) -> bool {
    nearest.len() >= list && nearest.last().is_none_or(|worst| *worst < step)
}

/// The rows that a walk has met: one bit each, and a note of which words to clear before the next walk.
#[derive(Default)]
struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    fn clear(&mut self, rows: usize) {
        let words = rows.div_ceil(64);
        if self.words.len() != words || self.touched.len() > words / 8 {
            self.words.clear();
            self.words.resize(words, 0);
        } else {
            for &word in &self.touched {
                self.words[word as usize] = 0;
            }
        }
        self.touched.clear();
    }

    /// Whether `row` is new.
    fn insert(&mut self, row: u32) -> bool {
        let word = &mut self.words[row as usize / 64];
        let bit = 1 << (row % 64);
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(row / 64);
        }
        *word |= bit;
        true
    }
}

/// Candidates that get an exact score, at least so many for each hit wanted (as far as the list has them): each costs a
/// read, and the codes are coarse.
const RANKED_PER_HIT: usize = 5;
/// The share of the neighbours met on a walk that it had not met before.
const FRESH_SHARE: f64 = 0.65;
/// Codes that a scan compares in the time in which a walk reaches one, for it reads memory in order and no list at all.
const SCAN_ROWS_PER_WALK_ROW: f64 = 4.0;
/// Rows that a scan compares at once.
const SCAN_BATCH_ROWS: usize = 64;
/// Scratches kept for reuse: as many as searches run at once, beyond which they are made afresh.
const SCRATCHES_MAX: usize = 64;
