//! What readers see of a segment, growing or sealed: a fixed number of rows in chunks, some of them deleted.

use std::sync::Arc;

use saker_index::{Hit, Metric};
use saker_model::{Bitmap, Column, FieldId, MetricType, PrimaryKey, Timestamp};

use crate::{Chunk, SegmentError};

/// How a search compares, and how hard it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParams {
    /// How vectors compare. A graph that was built for another metric is not used.
    pub metric: MetricType,
    /// Most hits wanted.
    pub k: usize,
    /// Length of a graph's candidate list; 0 for its own default. Exact search ignores it.
    pub ef: usize,
}

/// Rows and deletes of a segment as of one instant. Neither changes while the view is held.
///
/// Rows are numbered from 0 through all chunks.
pub trait SegmentView: Send + Sync {
    /// Number of rows, deleted ones included.
    fn rows(&self) -> usize;

    /// The chunks, in order of rows: where a filter finds its columns. A sealed segment has one.
    fn chunks(&self) -> &[Arc<Chunk>];

    /// The deleted rows; as long as there are rows.
    fn deletes(&self) -> &Bitmap;

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
        query: &[f32],
        params: &SearchParams,
        allowed: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError>;

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

/// The index crate's name of a metric.
#[must_use]
pub fn metric_of(metric: MetricType) -> Metric {
    match metric {
        MetricType::L2 => Metric::L2,
        MetricType::Ip => Metric::Ip,
        MetricType::Cosine => Metric::Cosine,
    }
}
