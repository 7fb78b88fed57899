//! The graph index: walks over codes of few bits find candidates, the vectors themselves give them their exact scores.
//!
//! Start at [`GraphIndex`]; `codes` makes vectors small, `build` makes the graph, `walk` searches it, `rerank` scores what a
//! walk found, `format` saves and opens it.

mod build;
mod codes;
mod disk;
mod format;
mod links;
mod lists;
mod masked;
mod rerank;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BinaryHeap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

pub use self::codes::CodeBits;
use self::codes::{Codes, Encoder, Query};
use self::links::Links;
pub use self::lists::ListIndex;
use self::walk::{Ground, Scratch, Step};
use crate::{Hit, IndexError, Metric, RowMask, Vectors, exact_search, kernel};

/// How a graph is built. Larger values give better recall and cost build time, `degree` memory too.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphParams {
    /// Most neighbours of a row, 2 to [`Self::DEGREE_MAX`]; 4 bytes each in memory and when saved.
    pub degree: usize,
    /// Length of the candidate list while building, 1 to [`Self::BUILD_LIST_MAX`].
    pub build_list: usize,
    /// How much a longer detour is worth a direct link: a candidate is left out if a chosen neighbour is nearer to it by
    /// more than this factor, in squared distance. From 1 up; more gives fuller lists. What is below 1 counts as 1.
    pub alpha: f32,
    /// Size of the codes that searches walk over; `None` chooses by dimension and spread. The graph is built over codes of 7 bits in any
    /// case.
    pub code_bits: Option<CodeBits>,
}

impl GraphParams {
    /// Largest `degree`: beyond it lists cost more than they bring.
    pub const DEGREE_MAX: usize = 256;
    /// Largest `build_list`: the build's time grows with it.
    pub const BUILD_LIST_MAX: usize = 4_096;

    fn check(&self) -> Result<(), IndexError> {
        let in_range = |name, value: usize, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(IndexError::Parameter { name, value, min, max })
            }
        };
        in_range("degree", self.degree, DEGREE_MIN, Self::DEGREE_MAX)?;
        in_range("build_list", self.build_list, 1, Self::BUILD_LIST_MAX)
    }
}

impl Default for GraphParams {
    /// Tuned for a recall@10 of at least 0.95 at [`GraphIndex::EF_DEFAULT`] on 400,000 GloVe vectors of 50 values.
    fn default() -> Self {
        Self {
            degree: 32,
            build_list: 128,
            alpha: 1.2,
            code_bits: None,
        }
    }
}

/// An approximate index over shared vectors. Its graph and codes are wiped on drop.
pub struct GraphIndex {
    vectors: Vectors,
    encoder: Encoder,
    codes: Codes,
    links: Links,
    start: u32,
    scratches: Mutex<Vec<Scratch>>,
}

impl GraphIndex {
    /// The list length of a search that asks for none.
    pub const EF_DEFAULT: usize = 160;

    /// Builds a graph over `vectors` on `threads` threads (0 counts as 1), the caller's among them; on fewer if the system
    /// refuses some. `progress` hears how
    /// many rows have joined; once `stop` is set the build ends within a few hundred rows.
    ///
    /// # Errors
    /// [`IndexError::Stopped`] once `stop` is set; [`IndexError::Parameter`].
    pub fn build(
        vectors: Vectors,
        metric: Metric,
        params: &GraphParams,
        threads: usize,
        progress: &(dyn Fn(usize) + Sync),
        stop: &AtomicBool,
    ) -> Result<Self, IndexError> {
        params.check()?;
        let mut encoder = Encoder::fit(&vectors, metric, CodeBits::Seven);
        let mut codes = encoder.encode_all(&vectors);
        codes.keep_squares();
        let start = codes.start_row(metric);
        let links = build::build(&codes, metric, start, params, threads, progress, stop)?;
        let bits = params.code_bits.unwrap_or_else(|| encoder.suited_bits(&vectors));
        if bits != CodeBits::Seven {
            drop(codes);
            encoder = Encoder::fit(&vectors, metric, bits);
            codes = encoder.encode_all(&vectors);
        }
        codes.keep_squares_if_needed(metric);
        Ok(Self {
            vectors,
            encoder,
            codes,
            links,
            start,
            scratches: Mutex::default(),
        })
    }

    /// The `k` best rows (fewer if there are fewer to return), best first, ties by lower row, with exact scores.
    ///
    /// `ef` is the length of the candidate list: a longer one finds more of the true best and takes longer. 0 means
    /// [`Self::EF_DEFAULT`], or twice `k` if that is more; less than `k` is raised to it. With a `mask` only its rows are
    /// returned; where few rows are allowed, or the list is long for the index, the allowed rows are compared one by one
    /// instead of walking.
    ///
    /// # Errors
    /// [`IndexError::QueryDimension`] or [`IndexError::MaskRows`].
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, IndexError> {
        let (dim, rows) = (self.vectors.dim(), self.vectors.rows());
        if query.len() != dim {
            return Err(IndexError::QueryDimension {
                query: query.len(),
                index: dim,
            });
        }
        RowMask::check(mask, rows)?;
        let allowed = mask.map_or(rows, |mask| mask.count());
        let k = k.min(allowed);
        let ef = match ef {
            0 => Self::EF_DEFAULT.max(k.saturating_mul(LIST_PER_HIT)),
            ef => ef.max(k),
        };
        // A query without a direction has the same cosine with everything; only the exact search answers it well.
        let aimless = query.iter().any(|value| !value.is_finite())
            || self.encoder.metric == Metric::Cosine && kernel::dot(query, query) == 0.0;
        if k == 0 || aimless || dim <= EXACT_DIM_MAX || allowed <= ef.saturating_mul(EXACT_FACTOR) {
            return Ok(exact_search(self.encoder.metric, &self.vectors, query, k, mask));
        }
        let walks = self.walk_rows(ef) < allowed as f64;
        Ok(self.with_scratch(|scratch| {
            let mut weights = std::mem::take(&mut scratch.query);
            self.encoder.encode_query(query, &mut weights);
            match mask.filter(|_| allowed < rows) {
                Some(mask) => self.search_among(&weights, k, ef, mask, allowed, scratch),
                None if walks => self.ground().walk(&weights, ef, scratch),
                None => self.scan(&weights, ef, None, scratch),
            }
            let hits = rerank::rerank(&self.vectors, self.encoder.metric, query, &weights, k, &scratch.nearest);
            weights.wipe();
            scratch.query = weights;
            hits
        }))
    }

    /// Bytes that the graph and its codes hold in memory, without the vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.links.memory_bytes() + self.codes.memory_bytes() + 2 * size_of_val(self.encoder.center.as_slice())
    }

    /// How many rows a scan could compare in the time of a walk.
    fn walk_rows(&self, ef: usize) -> f64 {
        ef as f64 * self.links.width() as f64 * FRESH_SHARE * SCAN_ROWS_PER_WALK_ROW
    }

    /// Leaves the `list` nearest allowed rows by code in `scratch.nearest`.
    fn scan(&self, query: &Query, list: usize, mask: Option<RowMask<'_>>, scratch: &mut Scratch) {
        let mut nearest = BinaryHeap::with_capacity(list.min(self.codes.rows()) + 1);
        let Scratch { rows, costs, .. } = scratch;
        rows.clear();
        let mut compare = |rows: &mut Vec<u32>| {
            self.codes.costs(query, rows, costs);
            for (&cost, &row) in costs.iter().zip(rows.iter()) {
                let step = Step::new(cost, row);
                if nearest.len() < list {
                    nearest.push(step);
                } else if let Some(mut worst) = nearest.peek_mut()
                    && step < *worst
                {
                    *worst = step;
                }
            }
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
            None => (0..self.codes.rows()).for_each(&mut offer),
            Some(mask) => mask.iter().for_each(&mut offer),
        }
        compare(rows);
        scratch.nearest = nearest.into_sorted_vec();
    }

    fn ground(&self) -> Ground<'_, Links> {
        Ground {
            links: &self.links,
            codes: &self.codes,
            start: self.start,
        }
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

impl std::fmt::Debug for GraphIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphIndex")
            .field("metric", &self.encoder.metric)
            .field("vectors", &self.vectors)
            .field("degree", &self.links.width())
            .finish_non_exhaustive()
    }
}

/// Places in the list for each wanted row, in a search that asks for no list length.
const LIST_PER_HIT: usize = 2;
/// Smallest degree that can join rows to more than a chain.
const DEGREE_MIN: usize = 2;
/// Up to this many times `ef` allowed rows, comparing all of them exactly is as fast as ranking them by code first.
const EXACT_FACTOR: usize = 4;
/// The share of the neighbours met on a walk that it had not met before; measured on GloVe.
const FRESH_SHARE: f64 = 0.65;
/// Rows that a scan compares in the time in which a walk compares one, for it reads memory in order.
const SCAN_ROWS_PER_WALK_ROW: f64 = 3.0;
/// Rows that a scan compares at once: their codes are fetched together and stay in the innermost cache.
const SCAN_BATCH_ROWS: usize = 64;
/// Up to this dimension all rows are compared exactly: codes of so few values cannot tell near rows apart, and a row is
/// hardly longer than its code.
const EXACT_DIM_MAX: usize = 4;
/// Scratches kept for reuse: as many as searches run at once, beyond which they are made afresh.
const SCRATCHES_MAX: usize = 64;
