//! What every part of Saker talks about: schema, columns of rows, ids, timestamps and limits.
//!
//! What it deliberately does not do: no I/O, no cryptography, no Milvus wire types (only `server` knows those).
//!
//! Start reading at [`CollectionSchema`] and [`RowBatch`].
#![forbid(unsafe_code)]

mod bitmap;
mod column;
mod function;
pub mod half;
mod ids;
mod limits;
mod primary_key;
mod rows;
#[cfg(test)]
mod sample;
mod schema;
mod sparse;
mod validate;

pub use bitmap::Bitmap;
pub use column::{ArrayValue, Column, ColumnData, ColumnError, RowBatch, Scalar};
pub use function::{FunctionKind, FunctionSchema};
pub use ids::{CollectionId, DatabaseId, FieldId, PartitionId, SegmentId, Timestamp};
pub use limits::Limits;
pub use primary_key::PrimaryKey;
pub use rows::{RowError, all_finite};
pub use schema::{
    CollectionSchema, ConsistencyLevel, DataType, FieldSchema, IndexKind, IndexSpec, MetricType, SchemaError,
};
pub use sparse::{SparseError, SparseVector};
