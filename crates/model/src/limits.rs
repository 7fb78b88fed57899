//! Limits on what a client may ask for. Values follow Milvus where it documents one.

/// Every limit has its unit in its name; the reasons stand beside them.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    /// Longest name of a database, collection, field or alias, in bytes (Milvus: 255).
    pub const NAME_BYTES_MAX: usize = 255;
    /// Most fields in a schema (Milvus: 64 by default).
    pub const FIELDS_MAX: usize = 64;
    /// Most vector fields in a schema (Milvus: 10 at most; 4 by default).
    pub const VECTOR_FIELDS_MAX: usize = 10;
    /// Largest dimension of a vector (Milvus: 32,768).
    pub const DIMENSION_MAX: usize = 32_768;
    /// Most bits of a binary vector.
    pub const BINARY_DIMENSION_MAX: usize = 8 * Self::DIMENSION_MAX;
    /// Longest `VarChar`, in bytes (Milvus: 65,535).
    pub const VARCHAR_BYTES_MAX: usize = 65_535;
    /// Longest JSON value, in bytes (Milvus: 65,536).
    pub const JSON_BYTES_MAX: usize = 65_536;
    /// Most elements in an array (Milvus: 4,096).
    pub const ARRAY_CAPACITY_MAX: usize = 4_096;
    /// Most rows in one request: about what [`Self::MESSAGE_BYTES_MAX`] holds of the smallest rows.
    pub const ROWS_MAX: usize = 4 << 20;
    /// Largest `topk`, and largest `offset + limit` (Milvus: 16,384).
    pub const TOP_K_MAX: usize = 16_384;
    /// Most queries in one search request (Milvus: 16,384).
    pub const QUERIES_MAX: usize = 16_384;
    /// Largest request or response, in bytes (Milvus's gRPC receive limit: 64 MiB).
    pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
    /// Longest filter text, in bytes; large `in` lists of ids fit.
    pub const FILTER_BYTES_MAX: usize = 16 << 20;
    /// Deepest nesting of a filter; keeps the recursive parser's stack small.
    pub const FILTER_DEPTH_MAX: usize = 128;
    /// Most literal values in a filter, list items counted one by one; bounds what a parsed filter costs in memory.
    pub const FILTER_VALUES_MAX: usize = 4 << 20;
    /// Most conditions joined by `and` and `or` in a filter, over all of it; each costs a pass over a column.
    pub const FILTER_TERMS_MAX: usize = 65_536;
    /// Longest `like` or regular expression pattern, in bytes; matching costs pattern length times text length at worst.
    pub const PATTERN_BYTES_MAX: usize = 4_096;
    /// Most memory that one compiled regular expression may take, in bytes.
    pub const REGEX_BYTES_MAX: usize = 1 << 20;
    /// Most fields that a request may ask to be put out, in names.
    pub const OUTPUT_FIELDS_MAX: usize = 1_024;
    /// Most databases in a cluster, beside the 1,000 customers' ones that one node is measured with.
    pub const DATABASES_MAX: usize = 4_096;
    /// Most collections in a cluster (Milvus: 65,536).
    pub const COLLECTIONS_MAX: usize = 65_536;
    /// Most partitions in a collection (Milvus: 1,024).
    pub const PARTITIONS_MAX: usize = 1_024;
}
