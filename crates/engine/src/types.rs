//! What callers hand in and get back: plain values, no behaviour.
//!
//! Field ids are the engine's: [`CollectionInfo::schema`] says which id a field name has.

use std::{collections::BTreeMap, sync::Arc};

use saker_keyring::RootKeyId;
use saker_model::{
    CollectionId, CollectionSchema, Column, ConsistencyLevel, DatabaseId, IndexSpec, MetricType, PartitionId,
    SegmentId, SparseVector, Timestamp,
};
use saker_query::Templates;

/// String pairs as users give them.
pub type Properties = BTreeMap<String, String>;

/// A database as users see it.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseInfo {
    /// Its id.
    pub id: DatabaseId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The user's properties, and `cipher.enabled`, `cipher.key`, `cipher.ezID` for a database with its own key.
    pub properties: Properties,
    /// The root key that its zone key is wrapped under.
    pub root: RootKeyId,
    /// Whether `root` is the customer's (not the platform key).
    pub customer_key: bool,
    /// Its zone's keys, oldest first: one, or more while a job wraps everything under the newest.
    pub key_versions: Vec<KeyVersion>,
    /// Whether its data can be used now.
    pub lock: LockStatus,
}

/// A version of a zone's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// Its number.
    pub version: u32,
    /// The root key that it is wrapped under.
    pub root: RootKeyId,
    /// The version of the root key's material that wraps it, where the wrapped key says so (Vault does, AWS does not).
    pub root_version: Option<u32>,
    /// SHA-256 of the wrapped key as the key service gave it, in hexadecimal.
    pub wrapped_sha256: String,
}

/// Whether a zone can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockStatus {
    /// It can.
    Active,
    /// It can for a while; the key service does not answer at the moment.
    Suspect,
    /// It cannot.
    Locked {
        /// What the key service said.
        reason: String,
    },
}

/// A zone under a root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyZone {
    /// Its id.
    pub zone: String,
    /// The database, or the one that the collection is in.
    pub database: String,
    /// The collection, if the zone is its own.
    pub collection: Option<String>,
    /// Its keys, oldest first.
    pub keys: Vec<KeyVersion>,
}

/// A root key in use and what its key service last said.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyStatus {
    /// The key.
    pub root: RootKeyId,
    /// Whether it is the cluster's own platform key.
    pub platform: bool,
    /// Databases under it, by name; `DATABASE/COLLECTION` for a collection with a key of its own.
    pub databases: Vec<String>,
    /// Whether it can be used now.
    pub lock: LockStatus,
    /// When it was last probed (Unix time in milliseconds); `None` before the first probe.
    pub probed_at_ms: Option<u64>,
    /// When the next one is due, if nobody asks for one before.
    pub next_probe_ms: Option<u64>,
    /// The zones under it and their keys' versions.
    pub zones: Vec<KeyZone>,
}

/// A collection to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionSpec {
    /// Name and fields. Field ids are ignored: the engine numbers the fields from 100 in order. The dynamic field is
    /// added if enabled and absent.
    pub schema: CollectionSchema,
    /// Shards asked for; shown again on describe.
    pub shards: i32,
    /// Default consistency of readers.
    pub consistency: ConsistencyLevel,
    /// User properties; `cipher.key` gives it a key of its own.
    pub properties: Properties,
    /// Partitions that a partition key is spread over; `None`: 16.
    pub partitions: Option<usize>,
}

/// A collection as users see it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its id.
    pub id: CollectionId,
    /// Its name.
    pub name: String,
    /// Its database's name.
    pub database: String,
    /// Its database's id.
    pub database_id: DatabaseId,
    /// Fields with their ids, the dynamic field (hidden from users) last.
    pub schema: Arc<CollectionSchema>,
    /// When it was made.
    pub created: Timestamp,
    /// When its description last changed.
    pub updated: Timestamp,
    /// Shards asked for.
    pub shards: i32,
    /// Default consistency of readers.
    pub consistency: ConsistencyLevel,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// User properties, and `cipher.enabled`, `cipher.key`, `cipher.ezID` for a collection with a key of its own.
    pub properties: Properties,
    /// Number of partitions.
    pub partitions: usize,
}

/// A collection in a list; what is known without the database's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionSummary {
    /// Its id.
    pub id: CollectionId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether users want it loaded.
    pub loaded: bool,
}

/// How far a collection is with being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// Nobody asked for it.
    NotLoaded,
    /// Under way.
    Loading {
        /// 0 to 99.
        percent: u8,
    },
    /// Searches are answered.
    Loaded,
    /// It should be loaded and cannot be: its key may not be used. It comes back by itself with the key.
    Locked {
        /// What a search would be told.
        refusal: crate::Error,
    },
}

/// A partition as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its id.
    pub id: PartitionId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// An index to be made.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IndexRequest {
    /// The field's name.
    pub field: String,
    /// The index's name; the field's if empty or absent.
    pub name: Option<String>,
    /// `index_type`, `metric_type`, and further parameters either beside them or as JSON text under `params`; kept as
    /// given for describe.
    pub params: Properties,
}

/// An index as users see it.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInfo {
    /// What was asked for.
    pub spec: IndexSpec,
    /// Name of the indexed field.
    pub field: String,
    /// Rows that the index covers (rows that are searched exactly by design count as covered).
    pub indexed_rows: u64,
    /// Rows that it should cover.
    pub total_rows: u64,
    /// Why the last build failed, if it did; it is tried again.
    pub failure: Option<String>,
}

/// Primary keys of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryKeys {
    /// `Int64` keys.
    Int(Vec<i64>),
    /// `VarChar` keys.
    Text(Vec<String>),
}

/// What an insert, upsert or delete did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutationResult {
    /// Keys of the written rows in the order given; for a delete, the keys that it named.
    pub ids: PrimaryKeys,
    /// Rows written.
    pub inserted: u64,
    /// Rows deleted, as far as known without reading everything (for a delete: rows that matched).
    pub deleted: u64,
    /// When it took effect.
    pub timestamp: Timestamp,
}

/// A filter expression and the values of its placeholders.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The text; empty matches every row.
    pub text: String,
    /// Values for `{name}` placeholders.
    pub templates: Templates,
}

/// Queries, in the form of the field's vectors; or texts, for a field that a function makes vectors of.
#[derive(Clone, Debug, PartialEq)]
pub enum Queries {
    /// For dense vectors of any width: row-major values.
    Dense(Vec<f32>),
    /// For binary vectors: row-major, dim / 8 bytes each.
    Binary(Vec<u8>),
    /// For sparse vectors.
    Sparse(Vec<SparseVector>),
    /// Texts.
    Text(Vec<String>),
}

impl Default for Queries {
    fn default() -> Self {
        Self::Dense(Vec::new())
    }
}

/// Texts for an analyzer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnalyzeRequest {
    /// The analyzer in Milvus's JSON; `None` for the standard one. Not looked at if `field` is given.
    pub params: Option<String>,
    /// The field whose analyzer it is.
    pub field: Option<FieldName>,
    /// The texts.
    pub texts: Vec<String>,
}

/// A field of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldName {
    /// Database name.
    pub database: String,
    /// Collection name or alias.
    pub collection: String,
    /// The field's name.
    pub field: String,
}

/// What an analyzer made of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToken {
    /// The term.
    pub text: String,
    /// Where the word starts in the text, in bytes.
    pub start: usize,
    /// Where it ends, in bytes.
    pub end: usize,
    /// Which word of the text it is, from 0.
    pub position: usize,
    /// The term's number in a sparse vector.
    pub hash: u32,
}

/// A vector search.
#[derive(Clone, Debug, Default)]
pub struct SearchRequest {
    /// Database name.
    pub database: String,
    /// Collection name or alias.
    pub collection: String,
    /// Partitions to look in; empty for all.
    pub partitions: Vec<String>,
    /// The vector field; may be empty if the schema has one only.
    pub field: String,
    /// The queries.
    pub queries: Queries,
    /// Number of queries.
    pub queries_count: usize,
    /// The metric that the caller named, if any; must be the index's.
    pub metric: Option<String>,
    /// Hits wanted for each query after `offset`.
    pub limit: usize,
    /// Hits left out at the front.
    pub offset: usize,
    /// Index-specific and range settings.
    pub params: SearchParams,
    /// Which rows may be hits.
    pub filter: Filter,
    /// Fields to return: names, dynamic keys, `*` for all.
    pub output_fields: Vec<String>,
    /// Digits after the point that scores are rounded to; `None` or negative: not rounded.
    pub round_decimal: Option<i32>,
}

/// Settings of one search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchParams {
    /// Candidates that a graph search keeps; `None`: the index's default. What `named` says comes first.
    pub ef: Option<usize>,
    /// Settings by the names that the type of the index has for them (`ef`, `nprobe`, `search_list`, ...); others are
    /// passed over.
    pub named: Properties,
    /// Hits that the caller wants in the end: a candidate list below that is refused, as in Milvus. `None`: it is
    /// raised, as for range searches and iterators, whose number of hits is not the caller's.
    pub hits: Option<usize>,
    /// Outer bound of a range search: L2 keeps scores below it, the others above it.
    pub radius: Option<f32>,
    /// Inner bound of a range search: L2 keeps scores at or above it, the others at or below it.
    pub range_filter: Option<f32>,
}

/// One returned field.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    /// The field's name (`$meta` for the dynamic field, whose documents hold the requested keys only).
    pub name: String,
    /// Its values, one per returned row.
    pub column: Column,
    /// Whether this is the dynamic field.
    pub is_dynamic: bool,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// Hits of each query, in the order of the queries.
    pub hits_per_query: Vec<usize>,
    /// Keys of all hits, query after query, best first.
    pub ids: PrimaryKeys,
    /// Their scores.
    pub scores: Vec<f32>,
    /// The output fields, one value per hit.
    pub columns: Vec<OutputColumn>,
    /// The metric of the scores.
    pub metric: MetricType,
    /// Name of the primary key field.
    pub primary_field: String,
}

/// A query by filter.
#[derive(Clone, Debug, Default)]
pub struct QueryRequest {
    /// Database name.
    pub database: String,
    /// Collection name or alias.
    pub collection: String,
    /// Partitions to look in; empty for all.
    pub partitions: Vec<String>,
    /// Which rows; empty (with a limit) for all.
    pub filter: Filter,
    /// Fields to return: names, dynamic keys, `*` for all, or `count(*)` alone.
    pub output_fields: Vec<String>,
    /// Most rows to return.
    pub limit: Option<usize>,
    /// Rows left out at the front.
    pub offset: usize,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    /// Output fields, the primary key always among them, rows in ascending order of the primary key. Empty for `count(*)`.
    pub columns: Vec<OutputColumn>,
    /// Rows returned.
    pub rows: usize,
    /// The answer to `count(*)`.
    pub count: Option<u64>,
    /// Name of the primary key field.
    pub primary_field: String,
}

/// What a flush made durable as sealed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushedCollection {
    /// Collection name as asked for.
    pub collection: String,
    /// Its id.
    pub id: CollectionId,
    /// Segments that hold its rows now.
    pub segments: Vec<SegmentId>,
    /// Everything written before this is in them.
    pub timestamp: Timestamp,
}

/// One segment, for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its id.
    pub id: SegmentId,
    /// Its collection.
    pub collection: CollectionId,
    /// Its partition.
    pub partition: PartitionId,
    /// Rows, deleted ones included.
    pub rows: u64,
    /// Whether it is sealed (in files) or growing (in memory and log).
    pub sealed: bool,
    /// Names of the indexes that are built on it.
    pub indexes: Vec<String>,
}
