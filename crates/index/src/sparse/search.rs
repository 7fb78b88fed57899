//! Finding the best rows, window by window.

use super::{
    BLOCK, Block, Pairs, SparseIndex, SparseKind, SparseScoring,
    scoring::{Bm25Scorer, IpScorer, Scorer},
    sparse_length,
};
use crate::{Hit, IndexError, Metric, RowMask, flat::Best};

impl SparseIndex {
    /// The `k` rows with the highest scores among those that have a term of the query: best first, ties by lower row.
    /// Rows outside `mask` are left out. With `prune` off every posting is looked at; the hits are the same.
    ///
    /// # Errors
    /// [`IndexError::MaskRows`]; [`IndexError::Scoring`] for BM25 on an index without lengths.
    pub fn search(
        &self,
        query: &Pairs,
        scoring: SparseScoring,
        k: usize,
        mask: Option<RowMask<'_>>,
        prune: bool,
    ) -> Result<Vec<Hit>, IndexError> {
        RowMask::check(mask, self.rows)?;
        match scoring {
            SparseScoring::Ip => Ok(self.run(query, IpScorer, k, mask, prune)),
            SparseScoring::Bm25(numbers) if self.kind == SparseKind::Bm25 => {
                Ok(self.run(query, Bm25Scorer::new(numbers), k, mask, prune))
            }
            SparseScoring::Bm25(_) => Err(IndexError::Scoring),
        }
    }

    fn run<S: Scorer>(&self, query: &Pairs, scorer: S, k: usize, mask: Option<RowMask<'_>>, prune: bool) -> Vec<Hit> {
        let mut cursors = self.cursors(query);
        let k = k.min(self.rows);
        let mut best = Best::new(Metric::Ip, k);
        if cursors.is_empty() || k == 0 {
            return Vec::new();
        }
        let mut window = Window::new();
        let mut low = 0;
        while let Some(next) = cursors.iter().filter_map(Cursor::row).min() {
            // On to the window that the next posting is in; windows start at whole words of the mask.
            low = low.max(next / WINDOW_ROWS * WINDOW_ROWS);
            let high = low + WINDOW_ROWS;
            let to_beat = best.to_beat().filter(|_| prune);
            let optional = if let Some(to_beat) = to_beat {
                cursors.iter_mut().for_each(|cursor| cursor.bound_below(high, scorer));
                cursors.sort_unstable_by(|a, b| a.bound.total_cmp(&b.bound));
                optional_count(&cursors, to_beat)
            } else {
                0
            };
            let (optional, needed) = cursors.split_at_mut(optional);
            needed
                .iter_mut()
                .for_each(|cursor| window.add(cursor, low, high, scorer, &self.lengths));
            window.offer(low, optional, scorer, &self.lengths, mask, prune, &mut best);
            optional.iter_mut().for_each(|cursor| cursor.seek(high));
            low = high;
        }
        best.into_hits()
    }

    /// The postings of the query's terms.
    fn cursors(&self, query: &Pairs) -> Vec<Cursor<'_>> {
        let wanted = query.iter().filter(|(_, weight)| *weight != 0.0);
        let cursors = wanted.filter_map(|&(term, weight)| {
            let list = self.list(term)?;
            let postings = self.starts[list]..self.starts[list + 1];
            Some(Cursor {
                weight: f64::from(weight),
                rows: &self.posting_rows[postings.clone()],
                values: &self.values[postings],
                blocks: &self.blocks[self.block_starts[list]..self.block_starts[list + 1]],
                at: 0,
                bound: f64::INFINITY,
            })
        });
        cursors.collect()
    }
}

/// How many of the cursors, which are in order of their bounds, cannot lift a row above `to_beat` by themselves: rows that
/// have only their terms need not be looked at.
fn optional_count(cursors: &[Cursor<'_>], to_beat: f32) -> usize {
    let mut sum = 0.0;
    let within = cursors.iter().take_while(|cursor| {
        sum += cursor.bound;
        !beats(sum, f64::from(to_beat))
    });
    within.count()
}

/// Whether a score that is at most `bound` may be above `to_beat`: with room for the order of additions.
fn beats(bound: f64, to_beat: f64) -> bool {
    bound + bound.abs() * ROUNDING > to_beat
}

/// Where a search is in the postings of one term.
struct Cursor<'a> {
    weight: f64,
    rows: &'a [u32],
    values: &'a [f32],
    blocks: &'a [Block],
    /// The next posting.
    at: usize,
    /// Most that the term adds within the window.
    bound: f64,
}

impl Cursor<'_> {
    /// Row of the next posting.
    fn row(&self) -> Option<u32> {
        self.rows.get(self.at).copied()
    }

    /// On to the first posting from `row` on.
    fn seek(&mut self, row: u32) {
        if self.row().is_none_or(|next| next >= row) {
            return;
        }
        // Doubling steps, then halving: near targets are the usual ones.
        let (mut low, mut step) = (self.at, 1);
        while self.rows.get(low + step).is_some_and(|&next| next < row) {
            low += step;
            step *= 2;
        }
        let high = (low + step).min(self.rows.len());
        self.at = low + 1 + self.rows[low + 1..high].partition_point(|&next| next < row);
    }

    /// Works out the bound for rows below `high`.
    fn bound_below<S: Scorer>(&mut self, high: u32, scorer: S) {
        self.bound = 0.0;
        let mut block = self.at / BLOCK;
        while let Some(&bounds) = self.blocks.get(block)
            && self
                .rows
                .get((block * BLOCK).max(self.at))
                .is_some_and(|&row| row < high)
        {
            self.bound = self.bound.max(scorer.bound(self.weight, bounds));
            block += 1;
        }
    }
}

/// Scores of neighbouring rows while they add up.
struct Window {
    scores: Vec<f64>,
    /// One bit a row that has a term.
    touched: [u64; WINDOW_ROWS as usize / 64],
}

impl Window {
    fn new() -> Self {
        Self {
            scores: vec![0.0; WINDOW_ROWS as usize],
            touched: [0; WINDOW_ROWS as usize / 64],
        }
    }

    /// Adds what a term gives to the rows from `low` to below `high`, and moves on behind them.
    fn add<S: Scorer>(&mut self, cursor: &mut Cursor<'_>, low: u32, high: u32, scorer: S, lengths: &[f32]) {
        // A window has no more postings of a term than rows.
        let near = (cursor.at + WINDOW_ROWS as usize).min(cursor.rows.len());
        let end = cursor.at + cursor.rows[cursor.at..near].partition_point(|&row| row < high);
        let postings = cursor.rows[cursor.at..end].iter().zip(&cursor.values[cursor.at..end]);
        for (&row, &value) in postings {
            let place = (row - low) as usize;
            let length = length_of::<S>(lengths, row);
            self.scores[place] += scorer.part(cursor.weight, value, length);
            self.touched[place / 64] |= 1 << (place % 64);
        }
        cursor.at = end;
    }

    /// Offers the rows that have a term, with what the optional terms add where that may matter, and empties itself.
    #[expect(clippy::too_many_arguments, reason = "one call, in the middle of a search")]
    fn offer<S: Scorer>(
        &mut self,
        low: u32,
        optional: &mut [Cursor<'_>],
        scorer: S,
        lengths: &[f32],
        mask: Option<RowMask<'_>>,
        prune: bool,
        best: &mut Best,
    ) {
        let first_word = low as usize / 64;
        let optional_bound: f64 = optional.iter().map(|cursor| cursor.bound).sum();
        for (index, touched) in self.touched.iter_mut().enumerate() {
            let mut word = std::mem::take(touched);
            let allowed = mask.map_or(u64::MAX, |mask| {
                mask.words.get(first_word + index).copied().unwrap_or(0)
            });
            while word != 0 {
                let bit = word.trailing_zeros();
                word &= word - 1;
                let place = index * 64 + bit as usize;
                let mut score = std::mem::take(&mut self.scores[place]);
                if allowed >> bit & 1 == 0 {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "below the window's rows")]
                let row = low + place as u32;
                let to_beat = best.to_beat().filter(|_| prune).map(f64::from);
                let hopeless = |score: f64, rest: f64| {
                    to_beat.is_some_and(|to_beat| !beats(score + rest + score.abs() * ROUNDING, to_beat))
                };
                let mut rest = optional_bound;
                if hopeless(score, rest) {
                    continue;
                }
                let length = length_of::<S>(lengths, row);
                for cursor in optional.iter_mut().rev() {
                    cursor.seek(row);
                    rest -= cursor.bound;
                    if cursor.row() == Some(row) {
                        score += scorer.part(cursor.weight, cursor.values[cursor.at], length);
                    }
                    if hopeless(score, rest.max(0.0)) {
                        break;
                    }
                }
                if hopeless(score, rest.max(0.0)) {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "scores are handed out with 32 bits")]
                best.offer(row as usize, score as f32);
            }
        }
    }
}

fn length_of<S: Scorer>(lengths: &[f32], row: u32) -> f32 {
    if S::NEEDS_LENGTH {
        lengths.get(row as usize).copied().unwrap_or(0.0)
    } else {
        0.0
    }
}

/// The `k` rows with the highest scores among those that have a term of the query, by looking at every allowed row: best
/// first, ties by lower row. `row` gives each of the `rows` rows.
#[must_use]
pub fn sparse_flat_search<'a>(
    rows: usize,
    row: impl Fn(usize) -> &'a Pairs,
    query: &Pairs,
    scoring: SparseScoring,
    k: usize,
    mask: Option<RowMask<'_>>,
) -> Vec<Hit> {
    let rows = rows.min(IndexError::ROWS_MAX);
    let mut best = Best::new(Metric::Ip, k.min(rows));
    let mut offer = |at: usize| {
        if let Some(score) = sparse_score(row(at), query, scoring) {
            best.offer(at, score);
        }
    };
    match mask {
        None => (0..rows).for_each(&mut offer),
        Some(mask) => mask.iter().take_while(|&at| at < rows).for_each(&mut offer),
    }
    best.into_hits()
}

/// The score of one row; `None` if it has no term of the query.
#[must_use]
pub fn sparse_score(row: &Pairs, query: &Pairs, scoring: SparseScoring) -> Option<f32> {
    match scoring {
        SparseScoring::Ip => score(row, query, IpScorer),
        SparseScoring::Bm25(numbers) => score(row, query, Bm25Scorer::new(numbers)),
    }
}

fn score<S: Scorer>(row: &Pairs, query: &Pairs, scorer: S) -> Option<f32> {
    let length = if S::NEEDS_LENGTH { sparse_length(row) } else { 0.0 };
    let (mut row, mut sum, mut shared) = (row, 0.0, false);
    for &(term, weight) in query {
        let behind = row.partition_point(|&(index, _)| index < term);
        row = &row[behind..];
        if let Some(&(index, value)) = row.first()
            && index == term
            && value != 0.0
            && weight != 0.0
        {
            sum += scorer.part(f64::from(weight), value, length);
            shared = true;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "scores are handed out with 32 bits")]
    shared.then_some(sum as f32)
}

/// Rows of a window: their scores fit the first-level cache. A multiple of 64.
const WINDOW_ROWS: u32 = 2_048;
/// More than additions of 64-bit floats in another order can differ by, relative to their sum.
const ROUNDING: f64 = 1e-9;
