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
    /// Rows to compare after those.
    later: Vec<u32>,
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
    ///
    /// The row to expand next is chosen before the neighbours of the one before are compared, so that its own neighbours'
    /// codes arrive meanwhile. A row that is found nearer waits for one turn; it is found all the same.
    pub(super) fn walk(&self, query: &Query, list: usize, scratch: &mut Scratch) {
        self.begin(query, scratch);
        let mut next = 0;
        let mut is_going = self.expand(&mut next, scratch);
        while is_going {
            std::mem::swap(&mut scratch.rows, &mut scratch.later);
            is_going = self.expand(&mut next, scratch);
            let Scratch {
                nearest,
                rows,
                later,
                costs,
                ..
            } = &mut *scratch;
            self.codes.costs_before(later, query, rows, costs);
            for (&cost, &row) in costs.iter().zip(rows.iter()) {
                if let Some(place) = insert(nearest, Step::new(cost, row), list)
                    && place <= next + LISTS_AHEAD
                {
                    next = next.min(place);
                    self.links.prefetch(row);
                }
            }
            // Where the list was exhausted, something may have been found now.
            is_going = is_going || self.expand(&mut next, scratch);
        }
    }

    fn begin(&self, query: &Query, scratch: &mut Scratch) {
        scratch.nearest.clear();
        scratch.expanded.clear();
        scratch.seen.clear(self.codes.rows());
        scratch.seen.insert(self.start);
        self.codes.costs(query, &[self.start], &mut scratch.costs);
        scratch.nearest.push(Step::new(scratch.costs[0], self.start));
    }

    /// Expands the nearest row that is not yet, from place `next` on: leaves its neighbours that were not seen before in
    /// `scratch.later`. Whether there was one.
    #[inline]
    fn expand(&self, next: &mut usize, scratch: &mut Scratch) -> bool {
        let Scratch {
            nearest,
            expanded,
            seen,
            later,
            ..
        } = scratch;
        later.clear();
        while let Some(step) = nearest.get_mut(*next) {
            *next += 1;
            if step.is_expanded() {
                continue;
            }
            expanded.push(*step);
            *step = step.expanded();
            self.links.copy(step.row(), later);
            seen.mark_new(later);
            // The next one, unless something nearer is found.
            if let Some(after) = nearest[*next..].iter().find(|step| !step.is_expanded()) {
                self.links.prefetch(after.row());
            }
            return true;
        }
        false
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

/// The rows that a walk has met: one bit each, and a note of them so that the next walk has few words to clear.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    met: Vec<u32>,
}

impl Seen {
    pub(super) fn clear(&mut self, rows: usize) {
        let words = rows.div_ceil(64);
        if self.words.len() != words {
            self.words.clear();
            self.words.resize(words, 0);
        } else if self.met.len() > words / 8 {
            self.words.fill(0);
        } else {
            for &row in &self.met {
                self.words[row as usize / 64] = 0;
            }
        }
        self.met.clear();
    }

    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64] >> (row % 64) & 1 == 1
    }

    /// Whether `row` is new.
    #[inline]
    pub(super) fn insert(&mut self, row: u32) -> bool {
        let is_new = self.mark(row);
        if is_new {
            self.met.push(row);
        }
        is_new
    }

    /// Takes from `rows` what is not new, or there twice, and remembers the others.
    #[inline]
    pub(super) fn mark_new(&mut self, rows: &mut Vec<u32>) {
        let mut kept = 0;
        for place in 0..rows.len() {
            let row = rows[place];
            // Without a branch: the processor would often guess it wrongly.
            rows[kept] = row;
            kept += usize::from(self.mark(row));
        }
        rows.truncate(kept);
        self.met.extend_from_slice(rows);
    }

    #[inline]
    fn mark(&mut self, row: u32) -> bool {
        let word = &mut self.words[row as usize / 64];
        let bit = 1 << (row % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// A row this far behind the next to be expanded gets its list fetched when it is found.
const LISTS_AHEAD: usize = 3;
