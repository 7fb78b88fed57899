//! Rows, held by column.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Bitmap, DataType, FieldId, SparseVector};

/// One scalar value (a default value, an array element, a literal).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// Any integer type.
    Int(i64),
    /// Either float type.
    Double(f64),
    /// Text.
    Text(String),
}

/// One array value; all elements have the field's element type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ArrayValue {
    /// Elements of `Bool`.
    Bool(Vec<bool>),
    /// Elements of `Int8`, `Int16` or `Int32`.
    Int32(Vec<i32>),
    /// Elements of `Int64`.
    Int64(Vec<i64>),
    /// Elements of `Float`.
    Float(Vec<f32>),
    /// Elements of `Double`.
    Double(Vec<f64>),
    /// Elements of `VarChar`.
    Text(Vec<String>),
}

impl ArrayValue {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(v) => v.len(),
            Self::Int32(v) => v.len(),
            Self::Int64(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Double(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }
    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The values of one field for some rows. A row that is null holds its type's zero here.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// `Bool`.
    Bool(Vec<bool>),
    /// `Int8`.
    Int8(Vec<i8>),
    /// `Int16`.
    Int16(Vec<i16>),
    /// `Int32`.
    Int32(Vec<i32>),
    /// `Int64`.
    Int64(Vec<i64>),
    /// `Float`.
    Float(Vec<f32>),
    /// `Double`.
    Double(Vec<f64>),
    /// `VarChar`.
    VarChar(Vec<String>),
    /// `Json`: the document's UTF-8 text.
    Json(Vec<Vec<u8>>),
    /// `Array`.
    Array(Vec<ArrayValue>),
    /// `FloatVector`, row-major, `dim` elements a row.
    FloatVector {
        /// Elements a row; never 0.
        dim: usize,
        /// `rows * dim` elements.
        data: Vec<f32>,
    },
    /// `Float16Vector`, row-major.
    Float16Vector {
        /// Elements a row; never 0.
        dim: usize,
        /// `rows * dim` elements, as their bits.
        data: Vec<u16>,
    },
    /// `BFloat16Vector`, row-major.
    BFloat16Vector {
        /// Elements a row; never 0.
        dim: usize,
        /// `rows * dim` elements, as their bits.
        data: Vec<u16>,
    },
    /// `Int8Vector`, row-major.
    Int8Vector {
        /// Elements a row; never 0.
        dim: usize,
        /// `rows * dim` elements.
        data: Vec<i8>,
    },
    /// `BinaryVector`, row-major; in each byte the order of bits that the client chose.
    BinaryVector {
        /// Bits a row; a multiple of 8, never 0.
        dim: usize,
        /// `rows * dim / 8` bytes.
        data: Vec<u8>,
    },
    /// `SparseFloatVector`.
    SparseFloatVector {
        /// One a row.
        data: Vec<SparseVector>,
    },
}

/// One field's values and which of them are present.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The field.
    pub field: FieldId,
    /// Its values.
    pub data: ColumnData,
    /// One bit a row, set where there is a value; `None` where every row has one.
    pub validity: Option<Bitmap>,
}

/// Rows of one collection: columns of the same length.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RowBatch {
    rows: usize,
    columns: Vec<Column>,
}

/// Why columns do not make a batch or do not fit together.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ColumnError {
    /// Columns differ in length.
    #[error("field {field} has {actual} rows, the others have {expected}")]
    Length {
        /// The field that differs.
        field: FieldId,
        /// Rows in the first column.
        expected: usize,
        /// Rows in this one.
        actual: usize,
    },
    /// A field stands twice.
    #[error("field {0} appears twice")]
    Duplicate(FieldId),
    /// Two columns have different types.
    #[error("field {0} has another type")]
    Type(FieldId),
}

impl ColumnData {
    /// No rows of this type.
    #[must_use]
    pub fn empty(data_type: DataType, dim: usize) -> Self {
        match data_type {
            DataType::Bool => Self::Bool(Vec::new()),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::Float => Self::Float(Vec::new()),
            DataType::Double => Self::Double(Vec::new()),
            DataType::VarChar => Self::VarChar(Vec::new()),
            DataType::Json => Self::Json(Vec::new()),
            DataType::Array => Self::Array(Vec::new()),
            DataType::FloatVector => Self::FloatVector {
                dim: dim.max(1),
                data: Vec::new(),
            },
            DataType::Float16Vector => Self::Float16Vector {
                dim: dim.max(1),
                data: Vec::new(),
            },
            DataType::BFloat16Vector => Self::BFloat16Vector {
                dim: dim.max(1),
                data: Vec::new(),
            },
            DataType::Int8Vector => Self::Int8Vector {
                dim: dim.max(1),
                data: Vec::new(),
            },
            DataType::BinaryVector => Self::BinaryVector {
                dim: dim.max(8),
                data: Vec::new(),
            },
            DataType::SparseFloatVector => Self::SparseFloatVector { data: Vec::new() },
        }
    }
    /// The type of its values.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Int8(_) => DataType::Int8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::Float(_) => DataType::Float,
            Self::Double(_) => DataType::Double,
            Self::VarChar(_) => DataType::VarChar,
            Self::Json(_) => DataType::Json,
            Self::Array(_) => DataType::Array,
            Self::FloatVector { .. } => DataType::FloatVector,
            Self::Float16Vector { .. } => DataType::Float16Vector,
            Self::BFloat16Vector { .. } => DataType::BFloat16Vector,
            Self::Int8Vector { .. } => DataType::Int8Vector,
            Self::BinaryVector { .. } => DataType::BinaryVector,
            Self::SparseFloatVector { .. } => DataType::SparseFloatVector,
        }
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Bool(v) => v.len(),
            Self::Int8(v) => v.len(),
            Self::Int16(v) => v.len(),
            Self::Int32(v) => v.len(),
            Self::Int64(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Double(v) => v.len(),
            Self::VarChar(v) => v.len(),
            Self::Json(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::FloatVector { dim, data } => data.len() / (*dim).max(1),
            Self::Float16Vector { dim, data } | Self::BFloat16Vector { dim, data } => data.len() / (*dim).max(1),
            Self::Int8Vector { dim, data } => data.len() / (*dim).max(1),
            Self::BinaryVector { dim, data } => data.len() / (*dim / 8).max(1),
            Self::SparseFloatVector { data } => data.len(),
        }
    }
    /// Appends all rows of `other`.
    ///
    /// # Errors
    /// Gives `other`'s type back if the types (or dimensions) differ; nothing is appended then.
    pub fn append(&mut self, other: Self) -> Result<(), DataType> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(mut b)) => a.append(&mut b),
            (Self::Int8(a), Self::Int8(mut b)) => a.append(&mut b),
            (Self::Int16(a), Self::Int16(mut b)) => a.append(&mut b),
            (Self::Int32(a), Self::Int32(mut b)) => a.append(&mut b),
            (Self::Int64(a), Self::Int64(mut b)) => a.append(&mut b),
            (Self::Float(a), Self::Float(mut b)) => a.append(&mut b),
            (Self::Double(a), Self::Double(mut b)) => a.append(&mut b),
            (Self::VarChar(a), Self::VarChar(mut b)) => a.append(&mut b),
            (Self::Json(a), Self::Json(mut b)) => a.append(&mut b),
            (Self::Array(a), Self::Array(mut b)) => a.append(&mut b),
            (
                Self::FloatVector { dim, data },
                Self::FloatVector {
                    dim: more_dim,
                    data: mut more,
                },
            ) if *dim == more_dim => {
                data.append(&mut more);
            }
            (
                Self::Float16Vector { dim, data },
                Self::Float16Vector {
                    dim: more_dim,
                    data: mut more,
                },
            )
            | (
                Self::BFloat16Vector { dim, data },
                Self::BFloat16Vector {
                    dim: more_dim,
                    data: mut more,
                },
            ) if *dim == more_dim => data.append(&mut more),
            (
                Self::Int8Vector { dim, data },
                Self::Int8Vector {
                    dim: more_dim,
                    data: mut more,
                },
            ) if *dim == more_dim => data.append(&mut more),
            (
                Self::BinaryVector { dim, data },
                Self::BinaryVector {
                    dim: more_dim,
                    data: mut more,
                },
            ) if *dim == more_dim => data.append(&mut more),
            (Self::SparseFloatVector { data }, Self::SparseFloatVector { data: mut more }) => data.append(&mut more),
            (_, other) => return Err(other.data_type()),
        }
        Ok(())
    }
    /// The rows with these numbers, in this order. A number past the end is left out by the caller.
    ///
    /// # Panics
    /// If a row number is past the end.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|&row| values[row].clone()).collect()
        }
        fn pick_rows<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            let mut picked = Vec::with_capacity(rows.len() * width);
            rows.iter()
                .for_each(|&row| picked.extend_from_slice(&values[row * width..(row + 1) * width]));
            picked
        }
        match self {
            Self::Bool(v) => Self::Bool(pick(v, rows)),
            Self::Int8(v) => Self::Int8(pick(v, rows)),
            Self::Int16(v) => Self::Int16(pick(v, rows)),
            Self::Int32(v) => Self::Int32(pick(v, rows)),
            Self::Int64(v) => Self::Int64(pick(v, rows)),
            Self::Float(v) => Self::Float(pick(v, rows)),
            Self::Double(v) => Self::Double(pick(v, rows)),
            Self::VarChar(v) => Self::VarChar(pick(v, rows)),
            Self::Json(v) => Self::Json(pick(v, rows)),
            Self::Array(v) => Self::Array(pick(v, rows)),
            Self::FloatVector { dim, data } => Self::FloatVector {
                dim: *dim,
                data: pick_rows(data, *dim, rows),
            },
            Self::Float16Vector { dim, data } => Self::Float16Vector {
                dim: *dim,
                data: pick_rows(data, *dim, rows),
            },
            Self::BFloat16Vector { dim, data } => Self::BFloat16Vector {
                dim: *dim,
                data: pick_rows(data, *dim, rows),
            },
            Self::Int8Vector { dim, data } => Self::Int8Vector {
                dim: *dim,
                data: pick_rows(data, *dim, rows),
            },
            Self::BinaryVector { dim, data } => Self::BinaryVector {
                dim: *dim,
                data: pick_rows(data, *dim / 8, rows),
            },
            Self::SparseFloatVector { data } => Self::SparseFloatVector { data: pick(data, rows) },
        }
    }
}

impl Column {
    /// A column in which every row has a value.
    #[must_use]
    pub const fn full(field: FieldId, data: ColumnData) -> Self {
        Self {
            field,
            data,
            validity: None,
        }
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.data.rows()
    }
    /// Whether `row` has a value.
    #[must_use]
    pub fn is_valid(&self, row: usize) -> bool {
        self.validity.as_ref().is_none_or(|bits| bits.contains(row))
    }
    /// Appends all rows of `other`.
    ///
    /// # Errors
    /// [`ColumnError::Type`] if the types differ; nothing is appended then.
    pub fn append(&mut self, other: Self) -> Result<(), ColumnError> {
        let (before, more) = (self.rows(), other.rows());
        self.data
            .append(other.data)
            .map_err(|_| ColumnError::Type(self.field))?;
        if self.validity.is_some() || other.validity.is_some() {
            let validity = self.validity.get_or_insert_with(|| Bitmap::ones(before));
            for row in 0..more {
                validity.push(other.validity.as_ref().is_none_or(|bits| bits.contains(row)));
            }
        }
        Ok(())
    }
    /// The rows with these numbers, in this order.
    ///
    /// # Panics
    /// If a row number is past the end.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        Self {
            field: self.field,
            data: self.data.take(rows),
            validity: self
                .validity
                .as_ref()
                .map(|bits| Bitmap::from_bools(rows.iter().map(|&row| bits.contains(row)))),
        }
    }
}

impl RowBatch {
    /// Puts columns of the same length together.
    ///
    /// # Errors
    /// [`ColumnError`] if lengths differ or a field stands twice.
    pub fn new(columns: Vec<Column>) -> Result<Self, ColumnError> {
        let rows = columns.first().map_or(0, Column::rows);
        for (index, column) in columns.iter().enumerate() {
            let actual = column.rows();
            if actual != rows || column.validity.as_ref().is_some_and(|bits| bits.len() != rows) {
                return Err(ColumnError::Length {
                    field: column.field,
                    expected: rows,
                    actual,
                });
            }
            if columns[..index].iter().any(|other| other.field == column.field) {
                return Err(ColumnError::Duplicate(column.field));
            }
        }
        Ok(Self { rows, columns })
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// The columns, in the order given.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
    /// The column of this field.
    #[must_use]
    pub fn column(&self, field: FieldId) -> Option<&Column> {
        self.columns.iter().find(|column| column.field == field)
    }
    /// The columns themselves.
    #[must_use]
    pub fn into_columns(self) -> Vec<Column> {
        self.columns
    }
}
