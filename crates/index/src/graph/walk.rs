//! Best-first walks over a graph: from the start row towards a query, keeping the nearest rows seen.

use super::codes::{Codes, Query};
use super::links::Neighbours;
use super::masked::Sample;

/// A row and its cost in one integer that orders by cost, then by row. Its last bit says whether a walk has expanded it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Step(u64);

impl Step {
    pub(super) fn new(cost: u32, row: u32) -> Self {
        Self(u64::from(cost) << 32 | u64::from(row) << 1)
    }

    /// After every other.
    pub(super) const LAST: Self = Self(u64::MAX);

    pub(super) fn cost(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the row is in the lower half, and below 2^31"
    )]
    pub(super) fn row(self) -> u32 {
        self.0 as u32 >> 1
    }

    pub(super) fn is_expanded(self) -> bool {
        self.0 & 1 == 1
    }

    pub(super) fn expanded(self) -> Self {
        Self(self.0 | 1)
    }
}

/// Memory that walks reuse. Between searches it holds row numbers and costs, nothing of vectors.
#[derive(Default)]
pub(super) struct Scratch {
    /// Empty but for its memory while no search is under way.
    pub(super) query: Query,
    /// The nearest rows seen, best first: the answer of a walk.
    pub(super) nearest: Vec<Step>,
    /// Rows in the order in which the walk expanded them.
    pub(super) expanded: Vec<Step>,
    pub(super) seen: Seen,
    /// Rows to compare at once, and what came out.
    pub(super) rows: Vec<u32>,
    pub(super) costs: Vec<u32>,
    /// Rows that are not allowed, of whose neighbours some may be.
    pub(super) bridges: Vec<u32>,
    pub(super) sample: Sample,
}

/// What a walk walks over.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a, N> {
    pub(super) links: &'a N,
    pub(super) codes: &'a Codes,
    pub(super) start: u32,
}

impl<N: Neighbours> Ground<'_, N> {
    /// Leaves the `list` nearest rows found in `scratch.nearest` and the expanded ones in `scratch.expanded`.
    pub(super) fn walk(&self, query: &Query, list: usize, scratch: &mut Scratch) {
        self.begin(query, scratch);
        let first = Step::new(scratch.costs[0], self.start);
        scratch.nearest.push(first);
        let mut next = 0;
        while let Some(&step) = scratch.nearest.get(next) {
            if step.is_expanded() {
                next += 1;
                continue;
            }
            scratch.nearest[next] = step.expanded();
            scratch.expanded.push(step);
            // The next to be expanded, unless something nearer is found now.
            if let Some(after) = scratch.nearest.get(next + 1) {
                self.links.prefetch(after.row());
            }
            self.expand(query, step.row(), scratch);
            for index in 0..scratch.rows.len() {
                let found = Step::new(scratch.costs[index], scratch.rows[index]);
                if let Some(place) = insert(&mut scratch.nearest, found, list)
                    && place <= next + 1
                {
                    next = next.min(place);
                    self.links.prefetch(found.row());
                }
            }
        }
    }

    fn begin(&self, query: &Query, scratch: &mut Scratch) {
        scratch.nearest.clear();
        scratch.expanded.clear();
        scratch.seen.clear(self.codes.rows());
        scratch.seen.insert(self.start);
        self.codes.costs(query, &[self.start], &mut scratch.costs);
    }

    /// Leaves the neighbours of `row` that were not seen before in `scratch.rows`, their costs in `scratch.costs`.
    #[inline]
    fn expand(&self, query: &Query, row: u32, scratch: &mut Scratch) {
        let Scratch { seen, rows, costs, .. } = scratch;
        rows.clear();
        self.links.each(row, |neighbour| {
            if seen.insert(neighbour) {
                rows.push(neighbour);
            }
        });
        self.codes.costs(query, rows, costs);
    }
}

/// Puts `found` where it belongs in `nearest`, which keeps at most `list` steps, and says where that was.
#[inline]
pub(super) fn insert(nearest: &mut Vec<Step>, found: Step, list: usize) -> Option<usize> {
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

#[inline]
fn is_full_of_nearer(nearest: &[Step], list: usize, step: Step) -> bool {
    nearest.len() >= list && nearest.last().is_none_or(|worst| *worst < step)
}

/// The rows that a walk has met: one bit each, and a note of which words to clear before the next walk.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    pub(super) fn clear(&mut self, rows: usize) {
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

    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64] >> (row % 64) & 1 == 1
    }

    /// Whether `row` is new.
    #[inline]
    pub(super) fn insert(&mut self, row: u32) -> bool {
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
