//! Inverted index over sparse vectors: for each term (index of an element) the rows that have it, with their values.
//!
//! Searches are exact: [`SparseIndex::search`] gives the rows that [`sparse_flat_search`] gives. It goes through the rows
//! window by window and leaves out what cannot become a hit, by upper bounds that every block of postings keeps (MaxScore,
//! Turtle and Flood 1995; block bounds, Ding and Suel 2011). A row is a hit only if it has a term of the query.
//!
//! Two scorings: the inner product, and Okapi BM25 over term frequencies, whose collection-wide numbers come with each
//! query, so that they are never out of date.
//!
//! Start reading at [`SparseIndex::build`], then `search`; the bytes of a saved index are in `format`.

mod format;
mod scoring;
mod search;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicBool, Ordering},
};

use zeroize::{Zeroize, Zeroizing};

pub use scoring::{Bm25, SparseScoring};
pub use search::{sparse_flat_search, sparse_score};

use crate::IndexError;

/// What a row or a query is: ascending indices and their values.
pub type Pairs = [(u32, f32)];

/// What an index keeps beside the postings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseKind {
    /// Nothing: for the inner product.
    Ip,
    /// The length of each row: values are term frequencies, for BM25.
    Bm25,
}

/// Postings of all rows of a segment. Customer plaintext: overwritten with zeros on drop.
pub struct SparseIndex {
    kind: SparseKind,
    rows: usize,
    /// Terms that some row has, ascending.
    terms: Vec<u32>,
    /// Where the postings of each term start, and where the last ones end.
    starts: Vec<usize>,
    /// Rows of all terms, ascending within a term.
    posting_rows: Vec<u32>,
    /// The value of each posting; never 0.
    values: Vec<f32>,
    /// Where the blocks of each term start, and where the last ones end.
    block_starts: Vec<usize>,
    blocks: Vec<Block>,
    /// Sum of the values of each row; empty for [`SparseKind::Ip`].
    lengths: Vec<f32>,
    /// Sum of all lengths.
    length: f64,
    /// Whether small values were left out: hits are candidates then.
    dropped: bool,
}

/// What bounds the scores of [`BLOCK`] neighbouring postings of a term.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Block {
    /// Largest value.
    high: f32,
    /// Smallest value; for BM25 the smallest length of a row instead.
    low: f32,
}

/// Postings to a block.
const BLOCK: usize = 128;
/// Rows between two looks at the request to stop.
const ROWS_A_LOOK: usize = 4_096;

impl SparseIndex {
    /// Indexes `rows` rows, `row` gives each. Elements of value 0 are left out, and so is the share `drop_ratio` (0 to
    /// below 1) of the smallest values by magnitude.
    ///
    /// # Errors
    /// [`IndexError::TooManyRows`], [`IndexError::Stopped`] if `stop` is set meanwhile.
    pub fn build<'a>(
        kind: SparseKind,
        rows: usize,
        row: impl Fn(usize) -> &'a Pairs,
        drop_ratio: f32,
        stop: &AtomicBool,
    ) -> Result<Self, IndexError> {
        if rows > IndexError::ROWS_MAX {
            return Err(IndexError::TooManyRows { rows });
        }
        let go_on = |at: usize| {
            if at.is_multiple_of(ROWS_A_LOOK) && stop.load(Ordering::Relaxed) {
                Err(IndexError::Stopped)
            } else {
                Ok(())
            }
        };
        let least = least_magnitude(rows, &row, drop_ratio);
        let kept = |value: f32| value != 0.0 && value.abs() >= least;

        let mut slots: HashMap<u32, u32, BuildHasherDefault<TermHasher>> = HashMap::default();
        let mut counted: Vec<(u32, usize)> = Vec::new();
        let mut dropped = false;
        for at in 0..rows {
            go_on(at)?;
            for &(term, value) in row(at) {
                if !kept(value) {
                    dropped |= value != 0.0;
                    continue;
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "there are at most 2^32 terms, each a slot"
                )]
                let slot = *slots.entry(term).or_insert(counted.len() as u32) as usize;
                match counted.get_mut(slot) {
                    Some((_, count)) => *count += 1,
                    None => counted.push((term, 1)),
                }
            }
        }
        counted.sort_unstable();
        let (mut starts, mut next) = (Vec::with_capacity(counted.len() + 1), 0);
        for (rank, &(term, count)) in counted.iter().enumerate() {
            starts.push(next);
            next += count;
            #[expect(clippy::cast_possible_truncation, reason = "as above")]
            slots.insert(term, rank as u32);
        }
        starts.push(next);

        let (mut posting_rows, mut values) = (vec![0; next], vec![0.0; next]);
        let mut places = starts.clone();
        for at in 0..rows {
            go_on(at)?;
            for &(term, value) in row(at).iter().filter(|(_, value)| kept(*value)) {
                if let Some(&rank) = slots.get(&term) {
                    let place = &mut places[rank as usize];
                    #[expect(clippy::cast_possible_truncation, reason = "rows are below 2^31")]
                    let number = at as u32;
                    posting_rows[*place] = number;
                    values[*place] = value;
                    *place += 1;
                }
            }
        }
        let lengths = match kind {
            SparseKind::Ip => Vec::new(),
            SparseKind::Bm25 => (0..rows).map(|at| sparse_length(row(at))).collect(),
        };
        let terms = counted.iter().map(|(term, _)| *term).collect();
        Ok(Self::with_parts(
            kind,
            rows,
            terms,
            starts,
            posting_rows,
            values,
            lengths,
            dropped,
        ))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of an index, put together in two places"
    )]
    fn with_parts(
        kind: SparseKind,
        rows: usize,
        terms: Vec<u32>,
        starts: Vec<usize>,
        posting_rows: Vec<u32>,
        values: Vec<f32>,
        lengths: Vec<f32>,
        dropped: bool,
    ) -> Self {
        let (mut block_starts, mut blocks) = (Vec::with_capacity(starts.len()), Vec::new());
        for bounds in starts.windows(2) {
            block_starts.push(blocks.len());
            let (rows, values) = (&posting_rows[bounds[0]..bounds[1]], &values[bounds[0]..bounds[1]]);
            blocks.extend(rows.chunks(BLOCK).zip(values.chunks(BLOCK)).map(|(rows, values)| {
                let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let low = match kind {
                    SparseKind::Ip => values.iter().copied().fold(f32::INFINITY, f32::min),
                    SparseKind::Bm25 => rows
                        .iter()
                        .map(|&row| lengths[row as usize])
                        .fold(f32::INFINITY, f32::min),
                };
                Block { high, low }
            }));
        }
        block_starts.push(blocks.len());
        let length = lengths.iter().map(|&length| f64::from(length)).sum();
        Self {
            kind,
            rows,
            terms,
            starts,
            posting_rows,
            values,
            block_starts,
            blocks,
            lengths,
            length,
            dropped,
        }
    }

    /// What it keeps beside the postings.
    #[must_use]
    pub fn kind(&self) -> SparseKind {
        self.kind
    }
    /// Number of rows, those without elements too.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Rows that have this term.
    #[must_use]
    pub fn rows_with(&self, term: u32) -> usize {
        self.list(term)
            .map_or(0, |list| self.starts[list + 1] - self.starts[list])
    }
    /// Sum of the lengths of all rows; 0 for [`SparseKind::Ip`].
    #[must_use]
    pub fn length(&self) -> f64 {
        self.length
    }
    /// Whether small values were left out, so that scores of hits are to be computed anew from the rows.
    #[must_use]
    pub fn dropped(&self) -> bool {
        self.dropped
    }
    /// Bytes that it takes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(self.terms.as_slice())
            + size_of_val(self.starts.as_slice())
            + size_of_val(self.posting_rows.as_slice())
            + size_of_val(self.values.as_slice())
            + size_of_val(self.block_starts.as_slice())
            + size_of_val(self.blocks.as_slice())
            + size_of_val(self.lengths.as_slice())
    }

    /// Which list is the term's.
    fn list(&self, term: u32) -> Option<usize> {
        self.terms.binary_search(&term).ok()
    }
}

impl std::fmt::Debug for SparseIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SparseIndex")
            .field("kind", &self.kind)
            .field("rows", &self.rows)
            .field("postings", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl Drop for SparseIndex {
    fn drop(&mut self) {
        self.terms.zeroize();
        self.starts.zeroize();
        self.posting_rows.zeroize();
        self.values.zeroize();
        self.block_starts.zeroize();
        self.lengths.zeroize();
        self.length.zeroize();
        for block in &mut self.blocks {
            block.high.zeroize();
            block.low.zeroize();
        }
    }
}

/// The length of a row for BM25: the sum of its values.
#[must_use]
pub fn sparse_length(pairs: &Pairs) -> f32 {
    pairs.iter().map(|(_, value)| value).sum()
}

/// A query without the share `ratio` (0 to below 1) of its smallest values by magnitude; at least one element stays.
#[must_use]
pub fn shortened(query: &Pairs, ratio: f32) -> Vec<(u32, f32)> {
    let mut magnitudes: Vec<f32> = query.iter().map(|(_, value)| value.abs()).collect();
    let least = cut(&mut magnitudes, ratio);
    query
        .iter()
        .copied()
        .filter(|(_, value)| value.abs() >= least)
        .collect()
}

/// The magnitude from which on values are kept.
fn least_magnitude<'a>(rows: usize, row: &impl Fn(usize) -> &'a Pairs, drop_ratio: f32) -> f32 {
    if drop_ratio <= 0.0 {
        return 0.0;
    }
    let all = (0..rows).flat_map(|at| row(at).iter().map(|(_, value)| value.abs()));
    let mut magnitudes = Zeroizing::new(all.filter(|value| *value != 0.0).collect::<Vec<f32>>());
    cut(&mut magnitudes, drop_ratio)
}

/// The value that the share `ratio` of `magnitudes` is below.
fn cut(magnitudes: &mut [f32], ratio: f32) -> f32 {
    if magnitudes.is_empty() || ratio <= 0.0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in the list, cut to it"
    )]
    let place = ((magnitudes.len() as f64 * f64::from(ratio)) as usize).min(magnitudes.len() - 1);
    *magnitudes.select_nth_unstable_by(place, f32::total_cmp).1
}

/// Terms are numbers already; one multiplication spreads them.
#[derive(Clone, Copy, Default)]
struct TermHasher(u64);

impl Hasher for TermHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(u32::from(byte)));
    }
    fn write_u32(&mut self, term: u32) {
        self.0 = (self.0 ^ u64::from(term))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}
