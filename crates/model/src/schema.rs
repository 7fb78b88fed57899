//! Schema of a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{FieldId, FunctionSchema, Limits, Scalar};

/// Type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// True or false.
    Bool,
    /// 8-bit signed.
    Int8,
    /// 16-bit signed.
    Int16,
    /// 32-bit signed.
    Int32,
    /// 64-bit signed.
    Int64,
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// UTF-8 text with a maximum length in bytes.
    VarChar,
    /// A JSON document.
    Json,
    /// Up to `max_capacity` values of one scalar type.
    Array,
    /// `dim` 32-bit floats.
    FloatVector,
    /// `dim` 16-bit IEEE 754 floats.
    Float16Vector,
    /// `dim` 16-bit brain floats: the upper half of a 32-bit float.
    BFloat16Vector,
    /// `dim` 8-bit signed integers.
    Int8Vector,
    /// `dim` bits, a multiple of 8.
    BinaryVector,
    /// Pairs of index and 32-bit float; no dimension.
    SparseFloatVector,
}

impl DataType {
    /// Whether values are vectors.
    #[must_use]
    pub const fn is_vector(self) -> bool {
        matches!(
            self,
            Self::FloatVector
                | Self::Float16Vector
                | Self::BFloat16Vector
                | Self::Int8Vector
                | Self::BinaryVector
                | Self::SparseFloatVector
        )
    }
    /// Whether values are vectors with an element at each place, compared by L2, IP or COSINE.
    #[must_use]
    pub const fn is_dense_vector(self) -> bool {
        matches!(
            self,
            Self::FloatVector | Self::Float16Vector | Self::BFloat16Vector | Self::Int8Vector
        )
    }
    /// Bytes of a row of `dim` elements in this vector type's own width; 0 where rows have no fixed width.
    #[must_use]
    pub const fn vector_row_bytes(self, dim: usize) -> usize {
        match self {
            Self::FloatVector => dim * 4,
            Self::Float16Vector | Self::BFloat16Vector => dim * 2,
            Self::Int8Vector => dim,
            Self::BinaryVector => dim.div_ceil(8),
            Self::Bool
            | Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Float
            | Self::Double
            | Self::VarChar
            | Self::Json
            | Self::Array
            | Self::SparseFloatVector => 0,
        }
    }
    /// The name that Milvus's users know, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "Bool",
            Self::Int8 => "Int8",
            Self::Int16 => "Int16",
            Self::Int32 => "Int32",
            Self::Int64 => "Int64",
            Self::Float => "Float",
            Self::Double => "Double",
            Self::VarChar => "VarChar",
            Self::Json => "JSON",
            Self::Array => "Array",
            Self::FloatVector => "FloatVector",
            Self::Float16Vector => "Float16Vector",
            Self::BFloat16Vector => "BFloat16Vector",
            Self::Int8Vector => "Int8Vector",
            Self::BinaryVector => "BinaryVector",
            Self::SparseFloatVector => "SparseFloatVector",
        }
    }
}

/// How near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricType {
    /// Squared Euclidean distance; smaller is nearer.
    L2,
    /// Inner product; larger is nearer.
    Ip,
    /// Cosine similarity; larger is nearer.
    Cosine,
    /// Number of bits that differ, of binary vectors; smaller is nearer.
    Hamming,
    /// 1 - bits in both / bits in either, of binary vectors; smaller is nearer.
    Jaccard,
    /// Okapi BM25, of text; larger is nearer.
    Bm25,
}

impl MetricType {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "L2",
            Self::Ip => "IP",
            Self::Cosine => "COSINE",
            Self::Hamming => "HAMMING",
            Self::Jaccard => "JACCARD",
            Self::Bm25 => "BM25",
        }
    }
    /// The metric with this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::L2,
            Self::Ip,
            Self::Cosine,
            Self::Hamming,
            Self::Jaccard,
            Self::Bm25,
        ]
        .into_iter()
        .find(|metric| metric.name().eq_ignore_ascii_case(name))
    }
    /// Whether a larger score is nearer.
    #[must_use]
    pub const fn larger_is_nearer(self) -> bool {
        !matches!(self, Self::L2 | Self::Hamming | Self::Jaccard)
    }
}

/// Consistency that a collection's readers get when they name none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum ConsistencyLevel {
    /// Sees every write acknowledged before the read.
    Strong,
    /// Sees the caller's own writes.
    Session,
    /// May lag by a bounded time.
    #[default]
    Bounded,
    /// May lag.
    Eventually,
    /// The caller gives the timestamp.
    Customized,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldSchema {
    /// Its id in the schema.
    pub id: FieldId,
    /// Its name.
    pub name: String,
    /// What users wrote about it.
    pub description: String,
    /// Type of its values.
    pub data_type: DataType,
    /// Type of an array's elements.
    pub element_type: Option<DataType>,
    /// Whether it is the primary key.
    pub is_primary: bool,
    /// Whether the server makes the primary key.
    pub auto_id: bool,
    /// Whether rows are spread over partitions by it.
    pub is_partition_key: bool,
    /// Whether it is the hidden JSON field that takes undeclared fields (`$meta`).
    pub is_dynamic: bool,
    /// Whether a row may leave it out.
    pub nullable: bool,
    /// What a row that leaves it out gets.
    pub default_value: Option<Scalar>,
    /// Dimension of vectors, in elements; 0 for other types.
    pub dim: usize,
    /// Longest text, in bytes; 0 for other types.
    pub max_length: usize,
    /// Most array elements; 0 for other types.
    pub max_capacity: usize,
    /// Type parameters as the client wrote them, to be shown again.
    pub type_params: BTreeMap<String, String>,
}

/// A collection's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// The collection's name when it was made.
    pub name: String,
    /// What users wrote about it.
    pub description: String,
    /// The fields in order, the dynamic field last if there is one.
    pub fields: Vec<FieldSchema>,
    /// Whether undeclared fields are kept in the dynamic field.
    pub enable_dynamic_field: bool,
    /// What makes the values of some fields.
    #[serde(default)]
    pub functions: Vec<FunctionSchema>,
}

/// Why a schema is refused. The texts follow Milvus's where it has one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SchemaError {
    /// A name is empty, too long, or has characters that are not allowed.
    #[error("Invalid {what} name: {name}. {reason}")]
    Name {
        /// Collection, field, database.
        what: &'static str,
        /// The name given.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

/// Kind of index that a user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexKind {
    /// Exact search by comparing with every vector.
    Flat,
    /// The graph index.
    Graph,
    /// The inverted index of a field of sparse vectors.
    Sparse,
    /// An index on a scalar field, or on a path into a JSON field.
    Scalar,
}

impl IndexKind {
    /// Whether it is built over a segment and kept in a file.
    #[must_use]
    pub const fn has_file(self) -> bool {
        matches!(self, Self::Graph | Self::Sparse | Self::Scalar)
    }
}

/// An index on a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// Its name; the field's name if the user gave none.
    pub name: String,
    /// The field.
    pub field: FieldId,
    /// What serves it.
    pub kind: IndexKind,
    /// The type name that the user gave (`HNSW`, `AUTOINDEX`, ...), shown again on describe.
    pub type_name: String,
    /// Metric, for vector fields.
    pub metric: Option<MetricType>,
    /// All parameters as given, shown again on describe.
    pub params: BTreeMap<String, String>,
}

impl CollectionSchema {
    /// Name of the dynamic field.
    pub const DYNAMIC_FIELD_NAME: &'static str = "$meta";

    /// The field with this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.name == name)
    }
    /// The field with this id.
    #[must_use]
    pub fn field_by_id(&self, id: FieldId) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.id == id)
    }
    /// The primary key. A checked schema always has one.
    #[must_use]
    pub fn primary(&self) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.is_primary)
    }
    /// The dynamic field, if enabled.
    #[must_use]
    pub fn dynamic(&self) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.is_dynamic)
    }
    /// The vector fields, in order.
    pub fn vectors(&self) -> impl Iterator<Item = &FieldSchema> {
        self.fields.iter().filter(|field| field.data_type.is_vector())
    }

    /// Checks a name by Milvus's rule: first a letter or underscore, then letters, digits, underscores.
    ///
    /// # Errors
    /// [`SchemaError::Name`] with the rule that is broken.
    pub fn check_name(what: &'static str, name: &str) -> Result<(), SchemaError> {
        let fail = |reason: String| {
            Err(SchemaError::Name {
                what,
                name: name.chars().take(64).collect(),
                reason,
            })
        };
        if name.is_empty() {
            return fail(format!("{what} name should not be empty"));
        }
        if name.len() > Limits::NAME_BYTES_MAX {
            return fail(format!(
                "The length of a {what} name must be less than {} characters",
                Limits::NAME_BYTES_MAX
            ));
        }
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return fail(format!(
                "The first character of a {what} name must be an underscore or letter"
            ));
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return fail(format!("{what} name can only contain numbers, letters and underscores"));
        }
        Ok(())
    }
}
