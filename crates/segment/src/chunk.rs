//! A run of rows that never changes: scalar columns, vectors and timestamps. What growing and sealed segments are
//! made of, and what readers share without copying.

use std::sync::Arc;

use saker_index::{BinaryVectors, Element, Elements, Vectors};
use saker_model::{
    ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, PrimaryKey, RowBatch,
    SparseVector, Timestamp,
};

use crate::{SegmentError, SparseRows, WipedColumn, disk::DiskVectors, lists::ChunkLists};

/// Immutable rows; shared as `Arc<Chunk>`.
pub struct Chunk {
    rows: usize,
    /// See [`Self::bytes`]; counted once, since it walks over all texts.
    bytes: usize,
    scalars: Vec<WipedColumn>,
    vectors: Vec<VectorColumn>,
    timestamps: Vec<u64>,
    primary: FieldId,
    pub(crate) lists: ChunkLists,
}

struct VectorColumn {
    field: FieldId,
    vectors: VectorRows,
    /// As in [`Column::validity`].
    validity: Option<Bitmap>,
}

/// A column of dense vectors, in memory or on disk.
pub(crate) struct DenseColumn {
    pub(crate) field: FieldId,
    pub(crate) vectors: VectorRows,
    /// As in [`Column::validity`].
    pub(crate) validity: Option<Bitmap>,
}

/// Vectors of one field, by how they are searched.
#[derive(Clone, Debug)]
pub enum VectorRows {
    /// An element at each place, in the type of the field.
    Dense(Vectors),
    /// Bits.
    Binary(BinaryVectors),
    /// The elements that are not zero.
    Sparse(Arc<SparseRows>),
    /// An element at each place, read from disk as it is asked for.
    Disk(Arc<DiskVectors>),
}

impl Chunk {
    /// Most rows of a chunk, and of a segment: row numbers are 32 bits and the graph keeps one.
    pub const ROWS_MAX: usize = saker_index::IndexError::ROWS_MAX;

    /// Takes rows over after checking them against the schema: every field is there with its type and dimension, and
    /// only nullable fields have nulls.
    ///
    /// # Errors
    /// [`SegmentError::Rows`], [`SegmentError::TooManyRows`], [`SegmentError::Index`].
    pub fn new(schema: &CollectionSchema, rows: RowBatch, timestamps: &[Timestamp]) -> Result<Self, SegmentError> {
        let count = rows.rows();
        let mut columns: Vec<WipedColumn> = rows.into_columns().into_iter().map(WipedColumn::new).collect();
        if count > Self::ROWS_MAX {
            return Err(SegmentError::TooManyRows {
                rows: count,
                rows_max: Self::ROWS_MAX,
            });
        }
        if timestamps.len() != count {
            return Err(SegmentError::Rows {
                field: FieldId::TIMESTAMP,
                reason: "each row needs one timestamp",
            });
        }
        let mut ordered = Vec::with_capacity(schema.fields.len());
        for field in &schema.fields {
            let found = columns.iter().position(|column| column.field == field.id);
            let missing = SegmentError::Rows {
                field: field.id,
                reason: "the field is missing",
            };
            ordered.push(columns.swap_remove(found.ok_or(missing)?));
        }
        if let Some(extra) = columns.first() {
            return Err(SegmentError::Rows {
                field: extra.field,
                reason: "the schema has no such field",
            });
        }
        Self::from_columns(
            schema,
            ordered,
            timestamps.iter().map(|timestamp| timestamp.0).collect(),
        )
    }

    /// Puts checked parts together; `columns` are in the schema's order.
    pub(crate) fn from_columns(
        schema: &CollectionSchema,
        columns: Vec<WipedColumn>,
        timestamps: Vec<u64>,
    ) -> Result<Self, SegmentError> {
        Self::from_parts(schema, columns, Vec::new(), timestamps)
    }

    /// Like [`Self::from_columns`]; the fields in `dense`, which was compared with the schema, have no column.
    pub(crate) fn from_parts(
        schema: &CollectionSchema,
        columns: Vec<WipedColumn>,
        mut dense: Vec<DenseColumn>,
        timestamps: Vec<u64>,
    ) -> Result<Self, SegmentError> {
        let rows = timestamps.len();
        let primary = primary_field(schema)?;
        let (mut scalars, mut vectors) = (Vec::new(), Vec::new());
        let mut columns = columns.into_iter();
        for field in &schema.fields {
            if let Some(place) = dense.iter().position(|column| column.field == field.id) {
                let column = dense.swap_remove(place);
                if column.vectors.rows() != rows {
                    return Err(SegmentError::Rows {
                        field: field.id,
                        reason: "the number of values differs from the number of rows",
                    });
                }
                vectors.push(VectorColumn {
                    field: column.field,
                    vectors: column.vectors,
                    validity: column.validity,
                });
                continue;
            }
            let column = columns.next().ok_or(SegmentError::NoSuchField(field.id))?;
            check(field, &column, rows)?;
            if field.data_type.is_vector() {
                vectors.push(vector_column(column)?);
            } else {
                scalars.push(column);
            }
        }
        let bytes = 0;
        let chunk = Self {
            rows,
            bytes,
            scalars,
            vectors,
            timestamps,
            primary,
            lists: ChunkLists::default(),
        };
        Ok(chunk.counted())
    }

    /// Puts the rows of several chunks of one schema one after another, into buffers of exactly their size.
    pub(crate) fn concat(chunks: &[Arc<Self>]) -> Result<Self, SegmentError> {
        let Some(first) = chunks.first() else {
            return Err(SegmentError::Stopped);
        };
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let scalars = first.scalars.iter().map(|column| {
            let parts = chunks
                .iter()
                .filter_map(|chunk| chunk.column(column.field))
                .collect::<Vec<_>>();
            crate::growing::concat_columns(&parts).map(WipedColumn::new)
        });
        let vectors = first.vectors.iter().map(|column| {
            let parts = chunks
                .iter()
                .filter_map(|chunk| chunk.vector_column(column.field))
                .collect::<Vec<_>>();
            let validity = parts.iter().any(|part| part.validity.is_some()).then(|| {
                let rows = parts.iter().map(|part| (part.vectors.rows(), part.validity.as_ref()));
                Bitmap::from_bools(
                    rows.flat_map(|(rows, bits)| (0..rows).map(move |row| bits.is_none_or(|bits| bits.contains(row)))),
                )
            });
            Ok(VectorColumn {
                field: column.field,
                vectors: VectorRows::concat(parts.iter().map(|part| &part.vectors))?,
                validity,
            })
        });
        let concatenated = Self {
            rows,
            bytes: 0,
            scalars: scalars.collect::<Result<_, SegmentError>>()?,
            vectors: vectors.collect::<Result<_, SegmentError>>()?,
            timestamps: chunks
                .iter()
                .flat_map(|chunk| chunk.timestamps.iter().copied())
                .collect(),
            primary: first.primary,
            lists: ChunkLists::default(),
        };
        Ok(concatenated.counted())
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// The column of a field that is no vector.
    #[must_use]
    pub fn column(&self, field: FieldId) -> Option<&Column> {
        self.scalars
            .iter()
            .find(|column| column.field == field)
            .map(|column| &**column)
    }
    /// The vectors of a field. A row that is null holds zeros.
    #[must_use]
    pub fn vector_rows(&self, field: FieldId) -> Option<&VectorRows> {
        self.vector_column(field).map(|column| &column.vectors)
    }
    /// The vectors of a field of dense vectors. A row that is null holds zeros.
    #[must_use]
    pub fn vectors(&self, field: FieldId) -> Option<&Vectors> {
        match self.vector_rows(field)? {
            VectorRows::Dense(vectors) => Some(vectors),
            VectorRows::Binary(_) | VectorRows::Sparse(_) | VectorRows::Disk(_) => None,
        }
    }
    /// Which vectors of a field are present; `None` if all are.
    #[must_use]
    pub fn vector_validity(&self, field: FieldId) -> Option<&Bitmap> {
        self.vector_column(field).and_then(|column| column.validity.as_ref())
    }
    /// When each row was written.
    #[must_use]
    pub fn timestamps(&self) -> &[u64] {
        &self.timestamps
    }
    /// The primary key of a row.
    #[must_use]
    pub fn primary_key(&self, row: usize) -> Option<PrimaryKey> {
        key_at(self.column(self.primary)?, row)
    }
    /// The column of primary keys.
    #[must_use]
    pub fn primary_column(&self) -> Option<&Column> {
        self.column(self.primary)
    }
    /// Bytes that its values and lists take in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.lists.memory_bytes()
    }

    fn counted(mut self) -> Self {
        let scalars: usize = self.scalars.iter().map(|column| memory_bytes(&column.data)).sum();
        let vectors: usize = self.vectors.iter().map(|column| column.vectors.bytes()).sum();
        self.bytes = scalars + vectors + size_of_val(self.timestamps.as_slice());
        self
    }

    /// The values of a field in these rows; [`FieldId::TIMESTAMP`] as `Int64`. The caller has checked the numbers.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchField`]; for vectors on disk, whatever keeps them from being read.
    pub(crate) fn take(&self, field: FieldId, rows: &[usize]) -> Result<Column, SegmentError> {
        if field == FieldId::TIMESTAMP {
            let stamps = rows.iter().map(|&row| self.timestamps[row].cast_signed()).collect();
            return Ok(Column::full(field, ColumnData::Int64(stamps)));
        }
        if let Some(column) = self.column(field) {
            return Ok(column.take(rows));
        }
        let column = self.vector_column(field).ok_or(SegmentError::NoSuchField(field))?;
        let validity = column.validity.as_ref();
        let validity = validity.map(|bits| Bitmap::from_bools(rows.iter().map(|&row| bits.contains(row))));
        Ok(Column {
            field,
            data: column.vectors.take(rows)?,
            validity,
        })
    }

    fn vector_column(&self, field: FieldId) -> Option<&VectorColumn> {
        self.vectors.iter().find(|column| column.field == field)
    }
}

impl VectorRows {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(vectors) => vectors.rows(),
            Self::Binary(vectors) => vectors.rows(),
            Self::Sparse(vectors) => vectors.rows(),
            Self::Disk(vectors) => vectors.rows(),
        }
    }
    /// Elements of a row, or bits; 0 where rows have no dimension.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Dense(vectors) => vectors.dim(),
            Self::Binary(vectors) => vectors.dim(),
            Self::Sparse(_) => 0,
            Self::Disk(vectors) => vectors.dim(),
        }
    }
    /// Bytes that they take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(vectors) => vectors.bytes(),
            Self::Binary(vectors) => vectors.as_slice().len(),
            Self::Sparse(vectors) => vectors.bytes(),
            Self::Disk(_) => 0,
        }
    }
    /// The field type that such rows are of.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        let element = match self {
            Self::Dense(vectors) => vectors.element(),
            Self::Disk(vectors) => vectors.element(),
            Self::Binary(_) => return DataType::BinaryVector,
            Self::Sparse(_) => return DataType::SparseFloatVector,
        };
        match element {
            Element::F32 => DataType::FloatVector,
            Element::F16 => DataType::Float16Vector,
            Element::Bf16 => DataType::BFloat16Vector,
            Element::I8 => DataType::Int8Vector,
        }
    }

    /// Copies rows out, in this order. The caller has checked the numbers.
    fn take(&self, rows: &[usize]) -> Result<ColumnData, SegmentError> {
        macro_rules! dense {
            ($vectors:expr, $variant:ident, $column:ident) => {{
                let dim = $vectors.dim();
                let mut data = Vec::with_capacity(rows.len() * dim);
                for &row in rows {
                    if let Elements::$variant(values) = $vectors.row_elements(row) {
                        data.extend_from_slice(values);
                    }
                }
                ColumnData::$column { dim, data }
            }};
        }
        Ok(match self {
            Self::Disk(vectors) => vectors.take(rows)?,
            Self::Dense(vectors) => match vectors.element() {
                Element::F32 => {
                    let dim = vectors.dim();
                    let mut data = Vec::with_capacity(rows.len() * dim);
                    // Exact, packed or not.
                    rows.iter()
                        .for_each(|&row| vectors.row_elements(row).widen_onto(&mut data));
                    ColumnData::FloatVector { dim, data }
                }
                Element::F16 => dense!(vectors, F16, Float16Vector),
                Element::Bf16 => dense!(vectors, Bf16, BFloat16Vector),
                Element::I8 => dense!(vectors, I8, Int8Vector),
            },
            Self::Binary(vectors) => {
                let dim = vectors.dim();
                let mut data = Vec::with_capacity(rows.len() * dim / 8);
                rows.iter().for_each(|&row| data.extend_from_slice(vectors.row(row)));
                ColumnData::BinaryVector { dim, data }
            }
            Self::Sparse(vectors) => ColumnData::SparseFloatVector {
                data: rows.iter().map(|&row| vectors.as_slice()[row].clone()).collect(),
            },
        })
    }

    /// All rows of all parts, in buffers of exactly their size.
    fn concat<'a>(parts: impl Iterator<Item = &'a Self>) -> Result<Self, SegmentError> {
        let (mut dense, mut binary, mut sparse) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Dense(vectors) => dense.push(vectors),
                Self::Binary(vectors) => binary.push(vectors),
                Self::Sparse(vectors) => sparse.push(vectors.as_slice()),
                // Only rows that were never in a file are put together.
                Self::Disk(_) => return Err(SegmentError::Stopped),
            }
        }
        Ok(if !sparse.is_empty() {
            Self::Sparse(Arc::new(SparseRows::new(sparse.concat())))
        } else if dense.is_empty() {
            Self::Binary(BinaryVectors::concat(&binary)?)
        } else {
            Self::Dense(Vectors::concat(&dense)?)
        })
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The field of primary keys, which must be `Int64` or `VarChar`.
pub(crate) fn primary_field(schema: &CollectionSchema) -> Result<FieldId, SegmentError> {
    let field = schema.primary().ok_or(SegmentError::Rows {
        field: FieldId(-1),
        reason: "the schema has no primary key",
    })?;
    if !matches!(field.data_type, DataType::Int64 | DataType::VarChar) {
        return Err(SegmentError::Rows {
            field: field.id,
            reason: "a primary key is Int64 or VarChar",
        });
    }
    Ok(field.id)
}

/// The key in a row of a column of primary keys.
pub(crate) fn key_at(column: &Column, row: usize) -> Option<PrimaryKey> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other type is a primary key")]
    match &column.data {
        ColumnData::Int64(values) => values.get(row).copied().map(PrimaryKey::Int),
        ColumnData::VarChar(values) => values.get(row).cloned().map(PrimaryKey::Text),
        _ => None,
    }
}

/// Whether a column fits its field.
pub(crate) fn check(field: &FieldSchema, column: &Column, rows: usize) -> Result<(), SegmentError> {
    let fail = |reason| {
        Err(SegmentError::Rows {
            field: field.id,
            reason,
        })
    };
    if column.field != field.id || column.data.data_type() != field.data_type {
        return fail("the values have another type than the field");
    }
    if column.rows() != rows || column.validity.as_ref().is_some_and(|bits| bits.len() != rows) {
        return fail("the number of values differs from the number of rows");
    }
    if !field.nullable && column.validity.as_ref().is_some_and(|bits| bits.count_ones() != rows) {
        return fail("the field is not nullable and has a null");
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types have nothing more to check"
    )]
    match &column.data {
        ColumnData::FloatVector { dim, data } if *dim != field.dim || data.len() != rows * dim => fail(OTHER_DIMENSION),
        ColumnData::Float16Vector { dim, data } | ColumnData::BFloat16Vector { dim, data }
            if *dim != field.dim || data.len() != rows * dim =>
        {
            fail(OTHER_DIMENSION)
        }
        ColumnData::Int8Vector { dim, data } if *dim != field.dim || data.len() != rows * dim => fail(OTHER_DIMENSION),
        ColumnData::BinaryVector { dim, data } if *dim != field.dim || 8 * data.len() != rows * dim => {
            fail(OTHER_DIMENSION)
        }
        ColumnData::Array(values) => {
            let fits = |value: &ArrayValue| field.element_type.is_some_and(|element| element_fits(value, element));
            if values.iter().all(fits) {
                Ok(())
            } else {
                fail("the elements have another type than the field")
            }
        }
        _ => Ok(()),
    }
}

const OTHER_DIMENSION: &str = "the vectors have another dimension than the field";

/// Whether an array may stand in a field of this element type; an empty one of another type may (a null row's).
fn element_fits(value: &ArrayValue, element: DataType) -> bool {
    match value {
        ArrayValue::Bool(values) => values.is_empty() || element == DataType::Bool,
        ArrayValue::Int32(values) => {
            values.is_empty() || matches!(element, DataType::Int8 | DataType::Int16 | DataType::Int32)
        }
        ArrayValue::Int64(values) => values.is_empty() || element == DataType::Int64,
        ArrayValue::Float(values) => values.is_empty() || element == DataType::Float,
        ArrayValue::Double(values) => values.is_empty() || element == DataType::Double,
        ArrayValue::Text(values) => values.is_empty() || element == DataType::VarChar,
    }
}

/// Moves the values out of the column, so that nothing is copied and nothing is left to wipe.
fn vector_column(column: WipedColumn) -> Result<VectorColumn, SegmentError> {
    let field = column.field;
    let column = column.into_inner();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has checked the type")]
    let vectors = match column.data {
        ColumnData::FloatVector { dim, data } => VectorRows::Dense(Vectors::new(dim, data)?),
        ColumnData::Float16Vector { dim, data } => VectorRows::Dense(Vectors::of_f16(dim, data)?),
        ColumnData::BFloat16Vector { dim, data } => VectorRows::Dense(Vectors::of_bf16(dim, data)?),
        ColumnData::Int8Vector { dim, data } => VectorRows::Dense(Vectors::of_i8(dim, data)?),
        ColumnData::BinaryVector { dim, data } => VectorRows::Binary(BinaryVectors::new(dim, data)?),
        ColumnData::SparseFloatVector { data } => VectorRows::Sparse(Arc::new(SparseRows::new(data))),
        other => {
            return Err(SegmentError::NotAVector {
                field,
                data_type: other.data_type(),
            });
        }
    };
    Ok(VectorColumn {
        field,
        vectors,
        validity: column.validity,
    })
}

/// Bytes that values take in memory, roughly.
fn memory_bytes(data: &ColumnData) -> usize {
    fn texts(values: &[String]) -> usize {
        size_of_val(values) + values.iter().map(String::len).sum::<usize>()
    }
    match data {
        ColumnData::Bool(values) => size_of_val(values.as_slice()),
        ColumnData::Int8(values) => size_of_val(values.as_slice()),
        ColumnData::Int16(values) => size_of_val(values.as_slice()),
        ColumnData::Int32(values) => size_of_val(values.as_slice()),
        ColumnData::Int64(values) => size_of_val(values.as_slice()),
        ColumnData::Float(values) | ColumnData::FloatVector { data: values, .. } => size_of_val(values.as_slice()),
        ColumnData::Double(values) => size_of_val(values.as_slice()),
        ColumnData::Float16Vector { data, .. } | ColumnData::BFloat16Vector { data, .. } => {
            size_of_val(data.as_slice())
        }
        ColumnData::Int8Vector { data, .. } => data.len(),
        ColumnData::BinaryVector { data, .. } => data.len(),
        ColumnData::SparseFloatVector { data } => {
            size_of_val(data.as_slice()) + data.iter().map(SparseVector::bytes).sum::<usize>()
        }
        ColumnData::VarChar(values) => texts(values),
        ColumnData::Json(values) => size_of_val(values.as_slice()) + values.iter().map(Vec::len).sum::<usize>(),
        ColumnData::Array(values) => {
            let elements = values.iter().map(|value| match value {
                ArrayValue::Bool(values) => values.len(),
                ArrayValue::Int32(values) => size_of_val(values.as_slice()),
                ArrayValue::Int64(values) => size_of_val(values.as_slice()),
                ArrayValue::Float(values) => size_of_val(values.as_slice()),
                ArrayValue::Double(values) => size_of_val(values.as_slice()),
                ArrayValue::Text(values) => texts(values),
            });
            size_of_val(values.as_slice()) + elements.sum::<usize>()
        }
    }
}
