//! Which rows a schema takes, and what stands where a row leaves a field out.
//!
//! Messages follow Milvus's. They name fields, row numbers, lengths and limits, never a value.

use serde::de::IgnoredAny;
use thiserror::Error;

use crate::{
    ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, Limits, RowBatch, Scalar,
    SparseVector,
};

/// Why rows do not fit their collection's schema.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    /// More rows than one request may bring.
    #[error("{rows} rows in one request, the limit is {limit}")]
    TooManyRows {
        /// Rows given.
        rows: usize,
        /// The limit.
        limit: usize,
    },
    /// A column of no field of the schema.
    #[error("field {field} not exist")]
    UnknownField {
        /// The id given.
        field: FieldId,
    },
    /// A field without a column that must have one.
    #[error("fieldSchema({name}) has no corresponding fieldData pass in")]
    Missing {
        /// The field.
        name: String,
    },
    /// Values for a field that a function makes.
    #[error("field {name} is the output of a function: the server makes its values, leave it out")]
    FunctionOutput {
        /// The field.
        name: String,
    },
    /// Values of another type.
    #[error("field '{name}' is illegal, array type mismatch: need {expected}, got {actual}")]
    Type {
        /// The field.
        name: String,
        /// Type of the field.
        expected: &'static str,
        /// Type of the values.
        actual: &'static str,
    },
    /// A null in a field that takes none.
    #[error("field {name} is not nullable, but row {row} is null")]
    Null {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
    },
    /// Vectors of another dimension.
    #[error("the dim ({actual}) of field data({name}) is not equal to schema dim ({expected})")]
    Dimension {
        /// The field.
        name: String,
        /// Dimension of the field.
        expected: usize,
        /// Dimension of the values.
        actual: usize,
    },
    /// A float that is none.
    #[error("value '{kind}' is not a number or infinity, field {name}, row {row}")]
    NotFinite {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// `NaN`, `+Inf` or `-Inf`.
        kind: &'static str,
    },
    /// Text over the field's length.
    #[error(
        "length of varchar field {name} exceeds max length, row number: {row}, length: {length}, max length: {limit}"
    )]
    TextLength {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// Its length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Text in an array over the field's length.
    #[error(
        "length of Array array field \"{name}\" exceeds max length, row number: {row}, array index: {index}, length: {length}, max length: {limit}"
    )]
    ElementLength {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// The element in it.
        index: usize,
        /// Its length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An array over the field's capacity.
    #[error("the length ({length}) of {row}th array exceeds max capacity ({limit}), field {name}")]
    Capacity {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// Its elements.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// An integer in an array outside its element type's range.
    #[error("the {index}th element of row {row} is out of range: [{low}, {high}], field {name}")]
    ElementRange {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// The element in it.
        index: usize,
        /// Smallest allowed.
        low: i32,
        /// Largest allowed.
        high: i32,
    },
    /// A JSON document over the limit.
    #[error("the length ({length}) of json field ({name}) exceeds max length ({limit}), row number: {row}")]
    JsonLength {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// Its length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Bytes that are not JSON, or a dynamic document that is no object.
    #[error("json field ({name}) row number: {row} is not {expected}")]
    Json {
        /// The field.
        name: String,
        /// The first such row.
        row: usize,
        /// What was expected.
        expected: &'static str,
    },
}

impl RowBatch {
    /// Checks every column against its field: presence, type, nulls, ranges, lengths. A column may be absent if its field is
    /// nullable, has a default, is the dynamic field, or is a primary key that the server makes; the output of a function
    /// must be.
    ///
    /// # Errors
    /// [`RowError`] for the first fault, in the order of the schema.
    pub fn check(&self, schema: &CollectionSchema) -> Result<(), RowError> {
        if self.rows() > Limits::ROWS_MAX {
            return Err(RowError::TooManyRows {
                rows: self.rows(),
                limit: Limits::ROWS_MAX,
            });
        }
        if let Some(column) = self
            .columns()
            .iter()
            .find(|column| schema.field_by_id(column.field).is_none())
        {
            return Err(RowError::UnknownField { field: column.field });
        }
        for field in &schema.fields {
            match self.column(field.id) {
                Some(_) if schema.is_function_output(field) => {
                    return Err(RowError::FunctionOutput {
                        name: field.name.clone(),
                    });
                }
                Some(column) => check_column(field, column)?,
                None if may_be_absent(field) || schema.is_function_output(field) => {}
                None => {
                    return Err(RowError::Missing {
                        name: field.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Checks the batch, then puts columns in the schema's order and fills in what rows leave out: the default value, else
    /// null, else an empty document of the dynamic field, else an empty output of a function. A primary key that the
    /// server makes stays absent.
    ///
    /// # Errors
    /// [`RowError`] as for [`Self::check`].
    pub fn complete(self, schema: &CollectionSchema) -> Result<Self, RowError> {
        self.check(schema)?;
        let rows = self.rows();
        let mut given: Vec<Option<Column>> = self.into_columns().into_iter().map(Some).collect();
        let mut columns = Vec::with_capacity(schema.fields.len());
        for field in &schema.fields {
            let found = given
                .iter_mut()
                .find(|column| column.as_ref().is_some_and(|column| column.field == field.id));
            match found.and_then(Option::take) {
                Some(column) => columns.push(fill_nulls(field, column)),
                None if field.auto_id => {}
                None => columns.push(absent(field, rows)),
            }
        }
        // The columns were of one length before, and every new one has it.
        Ok(Self::new(columns).unwrap_or_default())
    }
}

fn may_be_absent(field: &FieldSchema) -> bool {
    field.nullable || field.default_value.is_some() || field.is_dynamic || field.auto_id
}

/// A whole column for a field that was left out.
fn absent(field: &FieldSchema, rows: usize) -> Column {
    let validity = (field.default_value.is_none() && field.nullable).then(|| Bitmap::zeros(rows));
    Column {
        field: field.id,
        data: filler(field, rows),
        validity,
    }
}

/// Puts the default value where a row is null, if the field has one.
fn fill_nulls(field: &FieldSchema, column: Column) -> Column {
    let (Some(validity), true) = (&column.validity, field.default_value.is_some()) else {
        return column;
    };
    let rows = column.rows();
    let mut data = column.data;
    // The default goes behind the rows, and a null row takes it from there.
    if data.append(filler(field, 1)).is_ok() {
        let picks: Vec<usize> = (0..rows)
            .map(|row| if validity.contains(row) { row } else { rows })
            .collect();
        data = data.take(&picks);
    }
    Column {
        field: field.id,
        data,
        validity: None,
    }
}

/// The default value, or the type's zero, in every row.
fn filler(field: &FieldSchema, rows: usize) -> ColumnData {
    fn int<T: TryFrom<i64> + Default + Clone>(default: Option<&Scalar>, rows: usize) -> Vec<T> {
        let value = if let Some(Scalar::Int(value)) = default {
            T::try_from(*value).ok()
        } else {
            None
        };
        vec![value.unwrap_or_default(); rows]
    }
    let default = field.default_value.as_ref();
    let double = if let Some(Scalar::Double(value)) = default {
        *value
    } else {
        0.0
    };
    match field.data_type {
        DataType::Bool => ColumnData::Bool(vec![default == Some(&Scalar::Bool(true)); rows]),
        DataType::Int8 => ColumnData::Int8(int(default, rows)),
        DataType::Int16 => ColumnData::Int16(int(default, rows)),
        DataType::Int32 => ColumnData::Int32(int(default, rows)),
        DataType::Int64 => ColumnData::Int64(int(default, rows)),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a valid schema's default is in range; rounding is right"
        )]
        DataType::Float => ColumnData::Float(vec![double as f32; rows]),
        DataType::Double => ColumnData::Double(vec![double; rows]),
        DataType::VarChar => {
            let text = if let Some(Scalar::Text(text)) = default {
                text.clone()
            } else {
                String::new()
            };
            ColumnData::VarChar(vec![text; rows])
        }
        DataType::Json => {
            let document: &[u8] = if field.is_dynamic { b"{}" } else { b"" };
            ColumnData::Json(vec![document.to_vec(); rows])
        }
        DataType::Array => ColumnData::Array(vec![empty_array(field.element_type); rows]),
        DataType::FloatVector => ColumnData::FloatVector {
            dim: field.dim.max(1),
            data: vec![0.0; rows * field.dim.max(1)],
        },
        DataType::Float16Vector => ColumnData::Float16Vector {
            dim: field.dim.max(1),
            data: vec![0; rows * field.dim.max(1)],
        },
        DataType::BFloat16Vector => ColumnData::BFloat16Vector {
            dim: field.dim.max(1),
            data: vec![0; rows * field.dim.max(1)],
        },
        DataType::Int8Vector => ColumnData::Int8Vector {
            dim: field.dim.max(1),
            data: vec![0; rows * field.dim.max(1)],
        },
        DataType::BinaryVector => ColumnData::BinaryVector {
            dim: field.dim.max(8),
            data: vec![0; rows * field.dim.max(8) / 8],
        },
        DataType::SparseFloatVector => ColumnData::SparseFloatVector {
            data: vec![SparseVector::default(); rows],
        },
    }
}

fn empty_array(element: Option<DataType>) -> ArrayValue {
    match element {
        Some(DataType::Bool) => ArrayValue::Bool(Vec::new()),
        Some(DataType::Int8 | DataType::Int16 | DataType::Int32) => ArrayValue::Int32(Vec::new()),
        Some(DataType::Float) => ArrayValue::Float(Vec::new()),
        Some(DataType::Double) => ArrayValue::Double(Vec::new()),
        Some(DataType::VarChar) => ArrayValue::Text(Vec::new()),
        Some(
            DataType::Int64
            | DataType::Json
            | DataType::Array
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector,
        )
        | None => ArrayValue::Int64(Vec::new()),
    }
}

fn check_column(field: &FieldSchema, column: &Column) -> Result<(), RowError> {
    let name = || field.name.clone();
    if column.data.data_type() != field.data_type {
        let (expected, actual) = (field.data_type.name(), column.data.data_type().name());
        return Err(RowError::Type {
            name: name(),
            expected,
            actual,
        });
    }
    if !field.nullable
        && field.default_value.is_none()
        && let Some(row) = (0..column.rows()).find(|&row| !column.is_valid(row))
    {
        return Err(RowError::Null { name: name(), row });
    }
    let valid = |row: &usize| column.is_valid(*row);
    let rows = || (0..column.rows()).filter(valid);
    let not_finite = |row: usize, kind| {
        Err(RowError::NotFinite {
            name: name(),
            row,
            kind,
        })
    };
    match &column.data {
        ColumnData::Bool(_)
        | ColumnData::Int8(_)
        | ColumnData::Int16(_)
        | ColumnData::Int32(_)
        | ColumnData::Int64(_) => Ok(()),
        ColumnData::Float(values) => match rows().find_map(|row| Some((row, fault(f64::from(values[row]))?))) {
            Some((row, kind)) => not_finite(row, kind),
            None => Ok(()),
        },
        ColumnData::Double(values) => match rows().find_map(|row| Some((row, fault(values[row])?))) {
            Some((row, kind)) => not_finite(row, kind),
            None => Ok(()),
        },
        ColumnData::VarChar(values) => match rows().find(|&row| values[row].len() > field.max_length) {
            Some(row) => Err(RowError::TextLength {
                name: name(),
                row,
                length: values[row].len(),
                limit: field.max_length,
            }),
            None => Ok(()),
        },
        ColumnData::Json(documents) => rows().try_for_each(|row| check_document(field, row, &documents[row])),
        ColumnData::Array(values) => rows().try_for_each(|row| check_array(field, row, &values[row])),
        ColumnData::FloatVector { dim, data } => {
            if *dim != field.dim || data.len() % dim.max(&1) != 0 {
                return Err(RowError::Dimension {
                    name: name(),
                    expected: field.dim,
                    actual: *dim,
                });
            }
            // Which one it is, only where there is one.
            if all_finite(data) {
                return Ok(());
            }
            match data
                .iter()
                .enumerate()
                .find_map(|(index, value)| Some((index, fault(f64::from(*value))?)))
            {
                Some((index, kind)) => not_finite(index / dim.max(&1), kind),
                None => Ok(()),
            }
        }
        ColumnData::Float16Vector { dim, data } | ColumnData::BFloat16Vector { dim, data } => {
            check_width(field, *dim, data.len(), *dim)?;
            let infinity = if field.data_type == DataType::Float16Vector {
                FLOAT16_INFINITY
            } else {
                BFLOAT16_INFINITY
            };
            match data
                .iter()
                .enumerate()
                .find_map(|(index, bits)| Some((index, fault_of_bits(*bits, infinity)?)))
            {
                Some((index, kind)) => not_finite(index / dim.max(&1), kind),
                None => Ok(()),
            }
        }
        ColumnData::Int8Vector { dim, data } => check_width(field, *dim, data.len(), *dim),
        ColumnData::BinaryVector { dim, data } => check_width(field, *dim, data.len(), dim / 8),
        // Its type admits nothing else.
        ColumnData::SparseFloatVector { .. } => Ok(()),
    }
}

/// Whether no value is NaN or infinite. Many are looked at together, without a way out for each, for a batch has millions.
#[must_use]
pub fn all_finite(values: &[f32]) -> bool {
    let of_part = |part: &[f32]| part.iter().fold(true, |all, value| all & value.is_finite());
    values.chunks(FINITE_AT_ONCE).all(of_part)
}

/// Values that are looked at before it is decided whether to go on.
const FINITE_AT_ONCE: usize = 1_024;

/// Whether vectors of `dim` elements that take `width` values a row fill `values` values.
fn check_width(field: &FieldSchema, dim: usize, values: usize, width: usize) -> Result<(), RowError> {
    if dim == field.dim && values.is_multiple_of(width.max(1)) {
        return Ok(());
    }
    Err(RowError::Dimension {
        name: field.name.clone(),
        expected: field.dim,
        actual: dim,
    })
}

/// Infinity in 16-bit IEEE 754 and as a brain float; whatever is above it, but for the sign, is no number.
const FLOAT16_INFINITY: u16 = 0x7C00;
const BFLOAT16_INFINITY: u16 = 0x7F80;

/// What keeps a 16-bit float from being a number.
fn fault_of_bits(bits: u16, infinity: u16) -> Option<&'static str> {
    match bits & 0x7FFF {
        magnitude if magnitude < infinity => None,
        magnitude if magnitude > infinity => Some("NaN"),
        _ if bits >> 15 == 0 => Some("+Inf"),
        _ => Some("-Inf"),
    }
}

/// What keeps a float from being a number.
fn fault(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_finite() => None,
        _ if value.is_nan() => Some("NaN"),
        _ if value > 0.0 => Some("+Inf"),
        _ => Some("-Inf"),
    }
}

fn check_document(field: &FieldSchema, row: usize, document: &[u8]) -> Result<(), RowError> {
    let name = field.name.clone();
    if document.len() > Limits::JSON_BYTES_MAX {
        return Err(RowError::JsonLength {
            name,
            row,
            length: document.len(),
            limit: Limits::JSON_BYTES_MAX,
        });
    }
    // Skipping a value does not look into strings, so their encoding is checked apart.
    let valid = std::str::from_utf8(document).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if !valid {
        return Err(RowError::Json {
            name,
            row,
            expected: "valid JSON",
        });
    }
    let first = document.iter().find(|byte| !byte.is_ascii_whitespace());
    if field.is_dynamic && first != Some(&b'{') {
        return Err(RowError::Json {
            name,
            row,
            expected: "a JSON object",
        });
    }
    Ok(())
}

fn check_array(field: &FieldSchema, row: usize, array: &ArrayValue) -> Result<(), RowError> {
    let name = || field.name.clone();
    let (element, actual) = (field.element_type.map_or("None", DataType::name), element_name(array));
    let fits = match array {
        ArrayValue::Int32(_) => {
            matches!(
                field.element_type,
                Some(DataType::Int8 | DataType::Int16 | DataType::Int32)
            )
        }
        ArrayValue::Bool(_)
        | ArrayValue::Int64(_)
        | ArrayValue::Float(_)
        | ArrayValue::Double(_)
        | ArrayValue::Text(_) => element == actual,
    };
    if !fits {
        return Err(RowError::Type {
            name: name(),
            expected: element,
            actual,
        });
    }
    if array.len() > field.max_capacity {
        return Err(RowError::Capacity {
            name: name(),
            row,
            length: array.len(),
            limit: field.max_capacity,
        });
    }
    match array {
        ArrayValue::Bool(_) | ArrayValue::Int64(_) => Ok(()),
        ArrayValue::Int32(values) => {
            let (low, high) = match field.element_type {
                Some(DataType::Int8) => (i32::from(i8::MIN), i32::from(i8::MAX)),
                Some(DataType::Int16) => (i32::from(i16::MIN), i32::from(i16::MAX)),
                _ => return Ok(()),
            };
            match values.iter().position(|value| !(low..=high).contains(value)) {
                Some(index) => Err(RowError::ElementRange {
                    name: name(),
                    row,
                    index,
                    low,
                    high,
                }),
                None => Ok(()),
            }
        }
        ArrayValue::Float(values) => match values.iter().find_map(|value| fault(f64::from(*value))) {
            Some(kind) => Err(RowError::NotFinite {
                name: name(),
                row,
                kind,
            }),
            None => Ok(()),
        },
        ArrayValue::Double(values) => match values.iter().find_map(|value| fault(*value)) {
            Some(kind) => Err(RowError::NotFinite {
                name: name(),
                row,
                kind,
            }),
            None => Ok(()),
        },
        ArrayValue::Text(values) => match values.iter().position(|text| text.len() > field.max_length) {
            Some(index) => {
                let (length, limit) = (values[index].len(), field.max_length);
                Err(RowError::ElementLength {
                    name: name(),
                    row,
                    index,
                    length,
                    limit,
                })
            }
            None => Ok(()),
        },
    }
}

fn element_name(array: &ArrayValue) -> &'static str {
    match array {
        ArrayValue::Bool(_) => DataType::Bool.name(),
        ArrayValue::Int32(_) => DataType::Int32.name(),
        ArrayValue::Int64(_) => DataType::Int64.name(),
        ArrayValue::Float(_) => DataType::Float.name(),
        ArrayValue::Double(_) => DataType::Double.name(),
        ArrayValue::Text(_) => DataType::VarChar.name(),
    }
}

#[cfg(test)]
mod tests;
