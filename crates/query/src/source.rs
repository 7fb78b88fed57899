//! Where evaluation finds columns.

use std::sync::Arc;

use saker_model::{Column, FieldId, RowBatch};
use saker_scalar::ScalarIndex;

/// Rows held by column, in one chunk or several, so that a growing store need not copy to be read.
pub trait ColumnSource {
    /// All rows, over all chunks.
    fn rows(&self) -> usize {
        (0..self.chunks()).map(|chunk| self.chunk_rows(chunk)).sum()
    }
    /// Number of chunks.
    fn chunks(&self) -> usize {
        1
    }
    /// Rows of one chunk that count; its columns may hold more, which are ignored.
    fn chunk_rows(&self, chunk: usize) -> usize;
    /// The values of a field in one chunk; `None` if the chunk has none, which reads as null in every row.
    fn column(&self, chunk: usize, field: FieldId) -> Option<&Column>;
    /// Indexes over all rows of one chunk that count. A condition that one of them answers reads no column.
    fn indexes(&self, _chunk: usize) -> &[Arc<ScalarIndex>] {
        &[]
    }
}

impl ColumnSource for RowBatch {
    fn chunk_rows(&self, _chunk: usize) -> usize {
        self.rows()
    }
    fn column(&self, _chunk: usize, field: FieldId) -> Option<&Column> {
        RowBatch::column(self, field)
    }
}
