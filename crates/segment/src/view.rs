//! What readers see of a segment, growing or sealed: a fixed number of rows in chunks, some of them deleted.

use std::sync::Arc;

use saker_index::{Hit, Metric};
use saker_model::{Bitmap, Column, FieldId, MetricType, PrimaryKey, Timestamp};
use saker_scalar::ScalarIndex;

use crate::{Chunk, SegmentError, SparseQuery, TermStatistics, VectorRows};

/// How a search compares, and how hard it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParams {
    /// How vectors compare. A graph that was built for another metric is not used.
    pub metric: MetricType,
    /// Most hits wanted.
    pub k: usize,
    /// Length of a graph's candidate list; 0 for its own default, [`Self::EXACT`] to compare with every row. Exact search
    /// ignores it.
    pub ef: usize,
}

impl SearchParams {
    /// A candidate list of every row.
    pub const EXACT: usize = usize::MAX;
}

/// Rows and deletes of a segment as of one instant. Neither changes while the view is held.
///
/// Rows are numbered from 0 through all chunks.
pub trait SegmentView: Send + Sync {
    /// Number of rows, deleted ones included.
    fn rows(&self) -> usize;

    /// The chunks, in order of rows: where a filter finds its columns. A sealed segment has one.
    fn chunks(&self) -> &[Arc<Chunk>];

    /// Indexes over the scalar columns of one chunk.
    fn scalar_indexes(&self, _chunk: usize) -> &[Arc<ScalarIndex>] {
        &[]
    }

    /// The deleted rows; as long as there are rows.
    fn deletes(&self) -> &Bitmap;

    /// The rows that are not deleted; as long as there are rows.
    fn live(&self) -> &Bitmap;

    /// Number of deleted rows.
    fn deleted_rows(&self) -> usize;

    /// The rows nearest to `query`, best first, ties by lower row. Deleted rows are left out, and so is everything that
    /// is not in `allowed` (one bit a row; `None` for all rows).
    ///
    /// # Errors
    /// [`SegmentError::NoSuchField`], [`SegmentError::NotAVector`], or [`SegmentError::Index`] for a query or bitmap of
    /// another length.
    fn search_vectors(
        &self,
        field: FieldId,
        query: QueryVector<'_>,
        params: &SearchParams,
        allowed: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError>;

    /// About how many bytes of vectors a search of one query reads; [`usize::MAX`] if it may wait for a file, or if
    /// that depends on the query. A caller takes it for a measure of time. By default, all of them.
    fn search_bytes(&self, field: FieldId, _params: &SearchParams) -> usize {
        let of = |chunk: &Arc<Chunk>| exact_bytes(chunk, field);
        self.chunks().iter().map(of).fold(0, usize::saturating_add)
    }

    /// What BM25 has to know of these terms of a field of sparse vectors. Deleted rows count.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchField`], [`SegmentError::NotAVector`], [`SegmentError::QueryKind`].
    fn term_statistics(&self, field: FieldId, terms: &[u32]) -> Result<TermStatistics, SegmentError>;

    /// The values of these fields ([`FieldId::TIMESTAMP`] as `Int64`) in these rows, in the order of `rows`; deleted rows
    /// too. Columns come in the order of `fields`.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchField`], [`SegmentError::NoSuchRow`].
    fn take(&self, fields: &[FieldId], rows: &[usize]) -> Result<Vec<Column>, SegmentError>;

    /// The primary key of a row.
    fn primary_key(&self, row: usize) -> Option<PrimaryKey>;

    /// When a row was written.
    fn timestamp(&self, row: usize) -> Option<Timestamp>;

    /// The rows with this primary key that are not deleted, in order.
    fn find(&self, key: &PrimaryKey) -> Vec<usize>;
}

/// What a comparison with every row of a chunk reads; [`usize::MAX`] if that may be in a file, or depends on the query as
/// it does for sparse vectors.
pub(crate) fn exact_bytes(chunk: &Chunk, field: FieldId) -> usize {
    match chunk.vector_rows(field) {
        None | Some(VectorRows::Disk(_)) => usize::MAX,
        Some(rows) => rows.bytes(),
    }
}

/// One query, in the form that its field's vectors have. Queries of 16-bit and 8-bit dense vectors are widened, which is
/// exact.
#[derive(Clone, Copy, Debug)]
pub enum QueryVector<'a> {
    /// For dense vectors: one value per element.
    Dense(&'a [f32]),
    /// For binary vectors: dim / 8 bytes.
    Binary(&'a [u8]),
    /// For sparse vectors.
    Sparse(SparseQuery<'a>),
}

/// The index crate's name of a metric of dense vectors; `None` for the others.
#[must_use]
pub fn metric_of(metric: MetricType) -> Option<Metric> {
    match metric {
        MetricType::L2 => Some(Metric::L2),
        MetricType::Ip => Some(Metric::Ip),
        MetricType::Cosine => Some(Metric::Cosine),
        MetricType::Hamming | MetricType::Jaccard | MetricType::Bm25 => None,
    }
}
