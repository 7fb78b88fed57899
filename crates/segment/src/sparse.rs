//! Sparse vectors of a chunk, and searching them: by an inverted index, or row by row where that is less work.
//!
//! A sealed segment has its index in a file once it is built. Until then, and for rows that are not sealed yet, the first
//! search of a chunk makes an index of that chunk and leaves it there.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use saker_index::{
    Hit, Pairs, RowMask, SparseIndex, SparseKind, SparseScoring, shortened, sparse_flat_search, sparse_length,
    sparse_score,
};
use saker_model::{Bitmap, CollectionSchema, FieldId, MetricType, SparseVector};
use zeroize::Zeroize;

use crate::{
    Chunk, SearchParams, SegmentError, VectorRows,
    search::{better_first, words_from},
};

/// The sparse vectors of a chunk. Customer plaintext: overwritten with zeros on drop.
pub struct SparseRows {
    rows: Vec<SparseVector>,
    /// Bytes that they take in memory.
    bytes: usize,
    /// Made by the first search that needs it.
    index: OnceLock<Option<SparseIndex>>,
}

/// A query for sparse vectors.
#[derive(Clone, Copy, Debug)]
pub struct SparseQuery<'a> {
    /// Its elements; for BM25 the weight of each term.
    pub vector: &'a SparseVector,
    /// How rows are scored.
    pub scoring: SparseScoring,
    /// Share of its smallest elements that finding candidates leaves out, 0 to below 1; hits have whole scores.
    pub drop_ratio: f32,
    /// Whether postings that cannot give a hit are left out; the hits are the same.
    pub prune: bool,
}

/// What BM25 has to know of a field's terms, over some rows. Deleted rows count until they are compacted away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TermStatistics {
    /// Rows.
    pub rows: u64,
    /// Sum of the lengths of all rows, in terms.
    pub length: f64,
    /// Rows that have each term, in the order asked.
    pub rows_with: Vec<u64>,
}

impl TermStatistics {
    /// Adds those of other rows for the same terms.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.length += other.length;
        self.rows_with
            .resize(self.rows_with.len().max(other.rows_with.len()), 0);
        for (mine, theirs) in self.rows_with.iter_mut().zip(&other.rows_with) {
            *mine += theirs;
        }
    }
}

impl SparseRows {
    /// Takes vectors over.
    #[must_use]
    pub fn new(rows: Vec<SparseVector>) -> Self {
        let bytes = size_of_val(rows.as_slice()) + rows.iter().map(SparseVector::bytes).sum::<usize>();
        Self {
            rows,
            bytes,
            index: OnceLock::new(),
        }
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
    /// All vectors.
    #[must_use]
    pub fn as_slice(&self) -> &[SparseVector] {
        &self.rows
    }
    /// The elements of a row.
    ///
    /// # Panics
    /// If `row` is not below [`Self::rows`].
    #[must_use]
    pub fn row(&self, row: usize) -> &Pairs {
        self.rows[row].pairs()
    }
    /// Bytes that they take in memory, the index that a search made among them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let index = self.index.get().and_then(Option::as_ref);
        self.bytes + index.map_or(0, SparseIndex::memory_bytes)
    }
    /// An index of all rows, for a file.
    ///
    /// # Errors
    /// [`SegmentError::Index`] once `stop` is set.
    pub fn build_index(
        &self,
        metric: MetricType,
        drop_ratio: f32,
        stop: &AtomicBool,
    ) -> Result<SparseIndex, SegmentError> {
        let row = |row: usize| self.row(row);
        Ok(SparseIndex::build(kind_of(metric), self.rows(), row, drop_ratio, stop)?)
    }

    /// The index that belongs to these rows: the given one, or one of its own. `None` where going through the rows is as fast.
    fn index_for<'a>(&'a self, built: Option<&'a SparseIndex>, kind: SparseKind) -> Option<&'a SparseIndex> {
        if built.is_some() {
            return built;
        }
        if self.rows() < INDEXED_ROWS_MIN {
            return None;
        }
        let never = AtomicBool::new(false);
        let row = |row: usize| self.row(row);
        let made = self
            .index
            .get_or_init(|| SparseIndex::build(kind, self.rows(), row, 0.0, &never).ok());
        made.as_ref().filter(|index| index.kind() == kind)
    }

    fn search(
        &self,
        built: Option<&SparseIndex>,
        query: &SparseQuery<'_>,
        k: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, SegmentError> {
        let pairs = query.vector.pairs();
        let flat = || {
            Ok(sparse_flat_search(
                self.rows(),
                |row| self.row(row),
                pairs,
                query.scoring,
                k,
                mask,
            ))
        };
        let kind = match query.scoring {
            SparseScoring::Ip => SparseKind::Ip,
            SparseScoring::Bm25(_) => SparseKind::Bm25,
        };
        let Some(index) = self.index_for(built, kind) else {
            return flat();
        };
        if let Some(mask) = mask {
            let postings: usize = pairs.iter().map(|&(term, _)| index.rows_with(term)).sum();
            if mask.count().saturating_mul(ROW_COST * pairs.len().max(1)) < postings {
                return flat();
            }
        }
        if query.drop_ratio <= 0.0 && !index.dropped() {
            return Ok(index.search(pairs, query.scoring, k, mask, query.prune)?);
        }
        let mut short = shortened(pairs, query.drop_ratio);
        let wanted = k.saturating_mul(CANDIDATES_A_HIT);
        let candidates = index.search(&short, query.scoring, wanted, mask, query.prune);
        short.zeroize();
        let rescored = candidates?.into_iter().map(|hit| Hit {
            score: sparse_score(self.row(hit.row as usize), pairs, query.scoring).unwrap_or(hit.score),
            ..hit
        });
        let mut hits: Vec<Hit> = rescored.collect();
        hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        hits.truncate(k);
        Ok(hits)
    }

    fn statistics(&self, built: Option<&SparseIndex>, terms: &[u32]) -> TermStatistics {
        let built = built.filter(|index| index.kind() == SparseKind::Bm25 && !index.dropped());
        if let Some(index) = self.index_for(built, SparseKind::Bm25) {
            return TermStatistics {
                rows: self.rows() as u64,
                length: index.length(),
                rows_with: terms.iter().map(|&term| index.rows_with(term) as u64).collect(),
            };
        }
        let has = |row: &SparseVector, term: u32| row.pairs().binary_search_by_key(&term, |pair| pair.0).is_ok();
        TermStatistics {
            rows: self.rows() as u64,
            length: self.rows.iter().map(|row| f64::from(sparse_length(row.pairs()))).sum(),
            rows_with: terms
                .iter()
                .map(|&term| self.rows.iter().filter(|row| has(row, term)).count() as u64)
                .collect(),
        }
    }
}

impl std::fmt::Debug for SparseRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SparseRows")
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl Drop for SparseRows {
    fn drop(&mut self) {
        self.rows.iter_mut().for_each(|row| row.pairs_mut().zeroize());
    }
}

/// What an index for this metric keeps.
pub(crate) fn kind_of(metric: MetricType) -> SparseKind {
    if metric == MetricType::Bm25 {
        SparseKind::Bm25
    } else {
        SparseKind::Ip
    }
}

/// The best rows of all chunks, best first, ties by lower row. `built` is the index of the only chunk, if there is one.
pub(crate) fn search_sparse(
    schema: &CollectionSchema,
    chunks: &[Arc<Chunk>],
    field: FieldId,
    query: &SparseQuery<'_>,
    params: &SearchParams,
    mask: Option<&Bitmap>,
    built: Option<&SparseIndex>,
) -> Result<Vec<Hit>, SegmentError> {
    let metric = match query.scoring {
        SparseScoring::Ip => MetricType::Ip,
        SparseScoring::Bm25(_) => MetricType::Bm25,
    };
    if params.metric != metric {
        let found = schema.field_by_id(field).ok_or(SegmentError::NoSuchField(field))?;
        return Err(SegmentError::QueryKind {
            field,
            data_type: found.data_type,
        });
    }
    let mut hits: Vec<Hit> = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let rows = sparse_rows(schema, chunk, field)?;
        let words = mask.map(|mask| words_from(mask.words(), start, chunk.rows()));
        let mask = words.as_ref().map(|words| RowMask {
            words,
            rows: chunk.rows(),
        });
        let first = u32::try_from(start).map_err(|_| SegmentError::TooManyRows {
            rows: start,
            rows_max: Chunk::ROWS_MAX,
        })?;
        start += chunk.rows();
        let found = rows.search(built, query, params.k, mask)?;
        hits.extend(found.into_iter().map(|hit| Hit {
            row: first + hit.row,
            ..hit
        }));
    }
    if chunks.len() > 1 {
        hits.sort_unstable_by(|a, b| better_first(params, a, b));
        hits.truncate(params.k);
    }
    Ok(hits)
}

/// What BM25 has to know of these terms, over all chunks.
pub(crate) fn chunk_statistics(
    schema: &CollectionSchema,
    chunks: &[Arc<Chunk>],
    field: FieldId,
    terms: &[u32],
    built: Option<&SparseIndex>,
) -> Result<TermStatistics, SegmentError> {
    let mut all = TermStatistics {
        rows_with: vec![0; terms.len()],
        ..TermStatistics::default()
    };
    for chunk in chunks {
        all.add(&sparse_rows(schema, chunk, field)?.statistics(built, terms));
    }
    Ok(all)
}

fn sparse_rows<'a>(
    schema: &CollectionSchema,
    chunk: &'a Chunk,
    field: FieldId,
) -> Result<&'a SparseRows, SegmentError> {
    match chunk.vector_rows(field) {
        Some(VectorRows::Sparse(rows)) => Ok(rows),
        Some(_) => Err(SegmentError::QueryKind {
            field,
            data_type: schema
                .field_by_id(field)
                .ok_or(SegmentError::NoSuchField(field))?
                .data_type,
        }),
        None => match schema.field_by_id(field) {
            Some(found) if !found.data_type.is_vector() => Err(SegmentError::NotAVector {
                field,
                data_type: found.data_type,
            }),
            Some(_) | None => Err(SegmentError::NoSuchField(field)),
        },
    }
}

/// Below so many rows an index costs more than it saves.
const INDEXED_ROWS_MIN: usize = 512;
/// What it costs to look for a term of the query in a row, in postings.
const ROW_COST: usize = 4;
/// Candidates for each hit where they are found by a part of the elements.
const CANDIDATES_A_HIT: usize = 10;
