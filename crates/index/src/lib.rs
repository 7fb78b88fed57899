//! Distances, flat search and one graph index over dense vectors, and flat search over bits, held in slices and buffers.
//!
//! What it is for: given rows of vectors in memory, find the rows nearest to a query, exactly ([`flat_search`]) or
//! approximately ([`GraphIndex`]), optionally among a subset of rows ([`RowMask`]).
//!
//! What it deliberately does not do: no input or output, no async, no knowledge of segments, primary keys, deletes or
//! encryption. Rows are numbers from 0; callers map them to entities. A caller that holds several chunks searches each
//! and merges. Bytes of a saved graph come in already authenticated, yet the reader still trusts none of them.
//!
//! Start reading at [`Metric`] and [`flat_search`], then `graph` for the index and `kernel` for the inner loops. Beside
//! `arena` this is the only crate of the workspace that may contain `unsafe`: it is confined to `kernel`.

mod binary;
mod disk;
mod error;
mod flat;
mod graph;
mod kernel;
mod metric;
mod packed;
mod sparse;
mod vectors;

pub use binary::{BinaryMetric, BinaryVectors};
pub use disk::{DiskGraph, DiskGraphLayout, DiskRows};
pub use error::IndexError;
pub use flat::{distance, exact_search, flat_search};
pub use graph::{CodeBits, GraphIndex, GraphParams, ListIndex};
pub use metric::{Hit, Metric, RowMask};
pub use packed::PackedRow;
pub use sparse::{
    Bm25, Pairs, SparseIndex, SparseKind, SparseScoring, shortened, sparse_flat_search, sparse_length, sparse_score,
};
pub use vectors::{Element, Elements, Vectors};
