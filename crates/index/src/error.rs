//! What can go wrong while building, loading or searching an index. Messages carry sizes and limits, never vectors.

/// A failure of an index operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A dimension of zero or above [`Self::DIMENSION_MAX`].
    #[error("vector dimension {dim} is outside 1..={max}; use a dimension in that range", max = Self::DIMENSION_MAX)]
    Dimension {
        /// The dimension that was given.
        dim: usize,
    },
    /// A number of bits that is no multiple of 8, zero or too large.
    #[error("binary dimension {dim} is not a multiple of 8 in 8..={max}; use one that is", max = crate::BinaryVectors::DIMENSION_MAX)]
    Bits {
        /// The number of bits that was given.
        dim: usize,
    },
    /// Rows that cannot stand in one buffer.
    #[error("parts differ in dimension or element type; join only rows of one field")]
    Unlike,
    /// The buffer does not hold a whole number of rows.
    #[error("{len} values are not a whole number of rows of dimension {dim}; pass rows * {dim} values")]
    PartialRow {
        /// Dimension of one row.
        dim: usize,
        /// Values in the buffer.
        len: usize,
    },
    /// More rows than a row number can count.
    #[error("{rows} rows exceed the limit of {max} for one index; split the segment", max = Self::ROWS_MAX)]
    TooManyRows {
        /// Rows that were given.
        rows: usize,
    },
    /// A query of another dimension than the index.
    #[error("query has dimension {query}, the index has {index}; send a query of dimension {index}")]
    QueryDimension {
        /// Dimension of the query.
        query: usize,
        /// Dimension of the index.
        index: usize,
    },
    /// A row mask that counts other rows than the index.
    #[error("row mask covers {mask} rows, the index has {index}; build the mask for this index")]
    MaskRows {
        /// Rows that the mask claims and its words can hold.
        mask: usize,
        /// Rows of the index.
        index: usize,
    },
    /// A build parameter outside its range.
    #[error("build parameter {name} is {value}, outside {min}..={max}; choose a value in that range")]
    Parameter {
        /// Which parameter.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Smallest allowed value.
        min: usize,
        /// Largest allowed value.
        max: usize,
    },
    /// BM25 on a sparse index that was built for the inner product.
    #[error("the sparse index holds no lengths of rows; build it for BM25")]
    Scoring,
    /// The caller asked the build to stop.
    #[error("index build was stopped on request; start it again when it is wanted")]
    Stopped,
    /// Saved bytes that do not describe an index over these rows.
    #[error("saved index is unusable: {reason}; rebuild the index")]
    Corrupt {
        /// Which check failed.
        reason: &'static str,
    },
    /// Saved bytes of a version that this build cannot read.
    #[error("saved index has format version {found}, this build reads {known}; rebuild the index or upgrade")]
    Version {
        /// Version in the bytes.
        found: u32,
        /// Version this build reads.
        known: u32,
    },
}

impl IndexError {
    /// Largest dimension, in values: Milvus's own limit for a float vector.
    pub const DIMENSION_MAX: usize = 32_768;
    /// Most rows of one index: rows are `u32` and the largest values are kept for flags.
    pub const ROWS_MAX: usize = (1 << 31) - 1;
}
