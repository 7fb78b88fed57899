//! Rows that a client sends: `FieldData` columns to a `RowBatch`, with every size, shape and range checked.
//!
//! Values are moved, not copied, wherever the wire's type is ours already (text, 64-bit integers, floats, vectors).

use std::collections::BTreeSet;

use saker_model::half::{f32_to_bf16, f32_to_f16};
use saker_model::{
    ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldSchema, Limits, RowBatch, Scalar,
    SparseVector, all_finite,
};
use saker_proto::schema::{
    FieldData, ScalarField, field_data::Field, scalar_field::Data as Scalars, vector_field::Data as Vectors,
};

use super::{Failure, sparse::sparse_all_in};

/// Whether rows are new or replace others: an upsert carries the primary key even if the server makes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// New rows.
    Insert,
    /// Rows in place of those with the same key.
    Upsert,
}

/// Checked rows in the order of the schema.
///
/// Fields that a client may leave out (nullable, with a default, the dynamic field) are filled in. The column of a
/// primary key that the server makes is absent, and so are those that functions make.
///
/// # Errors
/// [`Failure`] that names the field and what is wrong with it; never a value.
pub fn rows_in(
    schema: &CollectionSchema,
    fields: Vec<FieldData>,
    rows: u32,
    write: Write,
) -> Result<RowBatch, Failure> {
    let rows = rows as usize;
    if rows == 0 {
        return Err(Failure::invalid("num_rows should be greater than 0"));
    }
    let mut given: Vec<Option<FieldData>> = (0..schema.fields.len()).map(|_| None).collect();
    let mut seen = BTreeSet::new();
    for data in fields {
        let name = if data.is_dynamic {
            CollectionSchema::DYNAMIC_FIELD_NAME
        } else {
            data.field_name.as_str()
        };
        let Some(position) = schema.fields.iter().position(|field| field.name == name) else {
            return Err(unknown_field(name));
        };
        if !seen.insert(position) {
            return Err(Failure::invalid(format_args!("duplicated field {name}")));
        }
        given[position] = Some(data);
    }
    let mut columns = Vec::with_capacity(schema.fields.len());
    for (field, data) in schema.fields.iter().zip(given) {
        match data {
            Some(_) if field.auto_id && write == Write::Insert => {
                return Err(Failure::invalid(format_args!(
                    "the value of field {} is made by the server (autoID): leave it out",
                    field.name
                )));
            }
            Some(_) if schema.is_function_output(field) => {
                return Err(Failure::invalid(format_args!(
                    "field {} is the output of a function: the server makes its values, leave it out",
                    field.name
                )));
            }
            Some(data) => columns.push(column_in(field, data, rows)?),
            None if schema.is_function_output(field) => {}
            None if field.auto_id && write == Write::Insert => {}
            None => columns.push(absent(field, rows)?),
        }
    }
    RowBatch::new(columns).map_err(Failure::invalid)
}

fn unknown_field(name: &str) -> Failure {
    let shown: String = name.chars().take(64).collect();
    Failure::invalid(format_args!("field {shown} does not exist in the collection's schema"))
}

/// The column of a field that the client left out.
fn absent(field: &FieldSchema, rows: usize) -> Result<Column, Failure> {
    if field.is_dynamic {
        return Ok(Column::full(field.id, ColumnData::Json(vec![b"{}".to_vec(); rows])));
    }
    if !field.nullable && field.default_value.is_none() {
        return Err(Failure::invalid(format_args!(
            "fieldSchema({}) has no corresponding fieldData pass in",
            field.name
        )));
    }
    let mut column = Column::full(field.id, filler(field, rows));
    if field.default_value.is_none() {
        column.validity = Some(Bitmap::zeros(rows));
    }
    Ok(column)
}

fn column_in(field: &FieldSchema, data: FieldData, rows: usize) -> Result<Column, Failure> {
    let sent = super::schema::data_type_in(data.r#type, &field.name)?;
    if sent != field.data_type {
        return Err(Failure::mismatch(
            field.data_type.name(),
            sent.name(),
            format_args!("data type of field {}", field.name),
        ));
    }
    let (values, validity) = match data.field {
        Some(Field::Scalars(scalars)) if !field.data_type.is_vector() => {
            let ScalarField {
                valid_data,
                data: values,
            } = scalars;
            let validity = if valid_data.is_empty() {
                data.valid_data
            } else {
                valid_data
            };
            (scalars_in(field, values)?, validity)
        }
        Some(Field::Vectors(vectors)) if field.data_type.is_vector() => {
            let validity = if vectors.valid_data.is_empty() {
                data.valid_data
            } else {
                vectors.valid_data
            };
            (vectors_in(field, vectors.dim, vectors.data)?, validity)
        }
        // An all-null column of a client that sends no payload for nulls.
        None if !data.valid_data.is_empty() => (empty(field), data.valid_data),
        Some(_) | None => {
            return Err(Failure::invalid(format_args!(
                "field {} carries no values of its type",
                field.name
            )));
        }
    };
    let column = with_validity(field, values, validity, rows)?;
    check_values(field, &column)?;
    Ok(column)
}

/// Lines values up with rows. Clients send nulls either compactly (values of the valid rows only) or aligned.
fn with_validity(field: &FieldSchema, values: ColumnData, valid: Vec<bool>, rows: usize) -> Result<Column, Failure> {
    let sent = values.rows();
    if valid.is_empty() {
        if sent != rows {
            return Err(Failure::mismatch(
                rows,
                sent,
                format_args!("number of rows in field {}", field.name),
            ));
        }
        return Ok(Column::full(field.id, values));
    }
    if valid.len() != rows {
        return Err(Failure::mismatch(
            rows,
            valid.len(),
            format_args!("length of valid data of field {}", field.name),
        ));
    }
    let present = valid.iter().filter(|&&is| is).count();
    if present == rows && sent == rows {
        return Ok(Column::full(field.id, values));
    }
    if !field.nullable && field.default_value.is_none() {
        return Err(Failure::invalid(format_args!(
            "the field {} is not nullable, but null is given",
            field.name
        )));
    }
    let aligned = if sent == rows {
        blank_nulls(values, filler(field, 1), &valid)
    } else if sent == present {
        spread(values, filler(field, 1), &valid)
    } else {
        return Err(Failure::mismatch(
            format_args!("{rows} or {present}"),
            sent,
            format_args!("number of values in field {}", field.name),
        ));
    };
    let mut column = Column::full(field.id, aligned);
    if field.default_value.is_none() {
        column.validity = Some(Bitmap::from_bools(valid));
    }
    Ok(column)
}

/// Puts one value per valid row where it belongs, the filler elsewhere.
fn spread(values: ColumnData, filler: ColumnData, valid: &[bool]) -> ColumnData {
    let present = values.rows();
    let mut all = values;
    // Same type by construction, so nothing is given back.
    let _ = all.append(filler);
    let mut next = 0;
    let places: Vec<usize> = valid
        .iter()
        .map(|&is| {
            if is {
                next += 1;
                next - 1
            } else {
                present
            }
        })
        .collect();
    all.take(&places)
}

/// Replaces what an aligned sender put in null rows by the filler.
fn blank_nulls(values: ColumnData, filler: ColumnData, valid: &[bool]) -> ColumnData {
    let rows = values.rows();
    let mut all = values;
    let _ = all.append(filler);
    let places: Vec<usize> = valid
        .iter()
        .enumerate()
        .map(|(row, &is)| if is { row } else { rows })
        .collect();
    all.take(&places)
}

/// `rows` times the default value, or the type's zero.
fn filler(field: &FieldSchema, rows: usize) -> ColumnData {
    let default = field.default_value.as_ref();
    let int = match default {
        Some(Scalar::Int(value)) => *value,
        _ => 0,
    };
    let double = match default {
        Some(Scalar::Double(value)) => *value,
        _ => 0.0,
    };
    match field.data_type {
        DataType::Bool => ColumnData::Bool(vec![default == Some(&Scalar::Bool(true)); rows]),
        DataType::Int8 => ColumnData::Int8(vec![i8::try_from(int).unwrap_or_default(); rows]),
        DataType::Int16 => ColumnData::Int16(vec![i16::try_from(int).unwrap_or_default(); rows]),
        DataType::Int32 => ColumnData::Int32(vec![i32::try_from(int).unwrap_or_default(); rows]),
        DataType::Int64 => ColumnData::Int64(vec![int; rows]),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a default of a Float field is a 32-bit value"
        )]
        DataType::Float => ColumnData::Float(vec![double as f32; rows]),
        DataType::Double => ColumnData::Double(vec![double; rows]),
        DataType::VarChar => {
            let text = match default {
                Some(Scalar::Text(text)) => text.clone(),
                _ => String::new(),
            };
            ColumnData::VarChar(vec![text; rows])
        }
        DataType::Json => ColumnData::Json(vec![b"null".to_vec(); rows]),
        DataType::Array => ColumnData::Array(vec![empty_array(field.element_type); rows]),
        DataType::FloatVector => ColumnData::FloatVector {
            dim: field.dim,
            data: vec![0.0; rows * field.dim],
        },
        DataType::Float16Vector => ColumnData::Float16Vector {
            dim: field.dim,
            data: vec![0; rows * field.dim],
        },
        DataType::BFloat16Vector => ColumnData::BFloat16Vector {
            dim: field.dim,
            data: vec![0; rows * field.dim],
        },
        DataType::Int8Vector => ColumnData::Int8Vector {
            dim: field.dim,
            data: vec![0; rows * field.dim],
        },
        DataType::BinaryVector => ColumnData::BinaryVector {
            dim: field.dim,
            data: vec![0; rows * field.dim / 8],
        },
        DataType::SparseFloatVector => ColumnData::SparseFloatVector {
            data: vec![SparseVector::default(); rows],
        },
    }
}

fn empty(field: &FieldSchema) -> ColumnData {
    ColumnData::empty(field.data_type, field.dim)
}

fn empty_array(element: Option<DataType>) -> ArrayValue {
    match element {
        Some(DataType::Bool) => ArrayValue::Bool(Vec::new()),
        Some(DataType::Int64) => ArrayValue::Int64(Vec::new()),
        Some(DataType::Float) => ArrayValue::Float(Vec::new()),
        Some(DataType::Double) => ArrayValue::Double(Vec::new()),
        Some(DataType::VarChar) => ArrayValue::Text(Vec::new()),
        Some(
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Json
            | DataType::Array
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector,
        )
        | None => ArrayValue::Int32(Vec::new()),
    }
}

fn scalars_in(field: &FieldSchema, data: Option<Scalars>) -> Result<ColumnData, Failure> {
    let wrong = || {
        Failure::invalid(format_args!(
            "field {} carries no {} values",
            field.name,
            field.data_type.name()
        ))
    };
    let out_of_range = |_| {
        Failure::invalid(format_args!(
            "the value of field {} is out of range for {}",
            field.name,
            field.data_type.name()
        ))
    };
    let Some(data) = data else { return Ok(empty(field)) };
    Ok(match (field.data_type, data) {
        (DataType::Bool, Scalars::BoolData(values)) => ColumnData::Bool(values.data),
        (DataType::Int8, Scalars::IntData(values)) => {
            let narrow: Result<Vec<i8>, _> = values.data.into_iter().map(i8::try_from).collect();
            ColumnData::Int8(narrow.map_err(out_of_range)?)
        }
        (DataType::Int16, Scalars::IntData(values)) => {
            let narrow: Result<Vec<i16>, _> = values.data.into_iter().map(i16::try_from).collect();
            ColumnData::Int16(narrow.map_err(out_of_range)?)
        }
        (DataType::Int32, Scalars::IntData(values)) => ColumnData::Int32(values.data),
        (DataType::Int64, Scalars::LongData(values)) => ColumnData::Int64(values.data),
        (DataType::Float, Scalars::FloatData(values)) => ColumnData::Float(values.data),
        (DataType::Double, Scalars::DoubleData(values)) => ColumnData::Double(values.data),
        (DataType::VarChar, Scalars::StringData(values)) => ColumnData::VarChar(values.data),
        (DataType::Json, Scalars::JsonData(values)) => {
            ColumnData::Json(values.data.into_iter().map(|text| text.to_vec()).collect())
        }
        (DataType::Array, Scalars::ArrayData(values)) => {
            let rows: Result<Vec<ArrayValue>, Failure> =
                values.data.into_iter().map(|row| array_in(field, row.data)).collect();
            ColumnData::Array(rows?)
        }
        _ => return Err(wrong()),
    })
}

fn array_in(field: &FieldSchema, data: Option<Scalars>) -> Result<ArrayValue, Failure> {
    let element = field.element_type.unwrap_or(DataType::Int32);
    let Some(data) = data else {
        return Ok(empty_array(field.element_type));
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only the narrow types have a range of their own"
    )]
    let range = match element {
        DataType::Int8 => i32::from(i8::MIN)..=i32::from(i8::MAX),
        DataType::Int16 => i32::from(i16::MIN)..=i32::from(i16::MAX),
        _ => i32::MIN..=i32::MAX,
    };
    Ok(match (element, data) {
        (DataType::Bool, Scalars::BoolData(values)) => ArrayValue::Bool(values.data),
        (DataType::Int8 | DataType::Int16 | DataType::Int32, Scalars::IntData(values)) => {
            if values.data.iter().any(|value| !range.contains(value)) {
                return Err(Failure::invalid(format_args!(
                    "an element of field {} is out of range for {}",
                    field.name,
                    element.name()
                )));
            }
            ArrayValue::Int32(values.data)
        }
        (DataType::Int64, Scalars::LongData(values)) => ArrayValue::Int64(values.data),
        (DataType::Float, Scalars::FloatData(values)) => ArrayValue::Float(values.data),
        (DataType::Double, Scalars::DoubleData(values)) => ArrayValue::Double(values.data),
        (DataType::VarChar, Scalars::StringData(values)) => ArrayValue::Text(values.data),
        _ => {
            return Err(Failure::invalid(format_args!(
                "insert data does not match the element type {} of field {}",
                element.name(),
                field.name
            )));
        }
    })
}

fn vectors_in(field: &FieldSchema, dim: i64, data: Option<Vectors>) -> Result<ColumnData, Failure> {
    let dim = usize::try_from(dim).unwrap_or_default();
    Ok(match (field.data_type, data) {
        (DataType::FloatVector, Some(Vectors::FloatVector(values))) => {
            check_dimension(field, dim, values.data.len())?;
            if !all_finite(&values.data) {
                return Err(not_finite(&field.name));
            }
            ColumnData::FloatVector {
                dim: field.dim,
                data: values.data,
            }
        }
        (DataType::Float16Vector, Some(Vectors::Float16Vector(bytes))) => ColumnData::Float16Vector {
            dim: field.dim,
            data: halves(field, dim, &bytes, F16_NOT_FINITE)?,
        },
        (DataType::BFloat16Vector, Some(Vectors::Bfloat16Vector(bytes))) => ColumnData::BFloat16Vector {
            dim: field.dim,
            data: halves(field, dim, &bytes, BF16_NOT_FINITE)?,
        },
        // What Python clients send for lists of numbers.
        (DataType::Float16Vector, Some(Vectors::FloatVector(values))) => ColumnData::Float16Vector {
            dim: field.dim,
            data: narrowed(field, dim, &values.data, f32_to_f16, F16_NOT_FINITE)?,
        },
        (DataType::BFloat16Vector, Some(Vectors::FloatVector(values))) => ColumnData::BFloat16Vector {
            dim: field.dim,
            data: narrowed(field, dim, &values.data, f32_to_bf16, BF16_NOT_FINITE)?,
        },
        (DataType::Int8Vector, Some(Vectors::Int8Vector(bytes))) => {
            check_dimension(field, dim, bytes.len())?;
            ColumnData::Int8Vector {
                dim: field.dim,
                data: bytes.iter().map(|byte| byte.cast_signed()).collect(),
            }
        }
        (DataType::BinaryVector, Some(Vectors::BinaryVector(bytes))) => {
            check_dimension(field, dim, 8 * bytes.len())?;
            ColumnData::BinaryVector {
                dim: field.dim,
                data: bytes.into(),
            }
        }
        // Clients in Python say the dimension of the last element that they met, so it tells nothing.
        (DataType::SparseFloatVector, Some(Vectors::SparseFloatVector(values))) => ColumnData::SparseFloatVector {
            data: sparse_all_in(&field.name, &values.contents)?,
        },
        (data_type, _) => {
            return Err(Failure::invalid(format_args!(
                "field {} carries no vectors of type {}",
                field.name,
                data_type.name()
            )));
        }
    })
}

/// Values of 16 bits, none of them NaN or infinite: those have all bits of `exponent` set.
fn halves(field: &FieldSchema, dim: usize, bytes: &[u8], exponent: u16) -> Result<Vec<u16>, Failure> {
    let (halves, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Failure::invalid(format_args!(
            "the length ({}) of the data of field {} is not a multiple of 2 bytes",
            bytes.len(),
            field.name
        )));
    }
    check_dimension(field, dim, halves.len())?;
    let values: Vec<u16> = halves.iter().map(|half| u16::from_le_bytes(*half)).collect();
    if values.iter().any(|value| value & exponent == exponent) {
        return Err(not_finite(&field.name));
    }
    Ok(values)
}

/// Values rounded to 16 bits, none of them NaN, infinite, or too large.
fn narrowed(
    field: &FieldSchema,
    dim: usize,
    values: &[f32],
    narrow: fn(f32) -> u16,
    exponent: u16,
) -> Result<Vec<u16>, Failure> {
    check_dimension(field, dim, values.len())?;
    let values: Vec<u16> = values.iter().map(|value| narrow(*value)).collect();
    if values.iter().any(|value| value & exponent == exponent) {
        return Err(not_finite(&field.name));
    }
    Ok(values)
}

/// The exponent of a 16-bit IEEE 754 float that is no number, ...
pub(super) const F16_NOT_FINITE: u16 = 0x7c00;
/// ... and that of the upper half of such an `f32`.
pub(super) const BF16_NOT_FINITE: u16 = 0x7f80;

fn check_dimension(field: &FieldSchema, dim: usize, values: usize) -> Result<(), Failure> {
    // A client that leaves the dimension out still has to send whole vectors.
    if dim != 0 && dim != field.dim {
        return Err(Failure::invalid(format_args!(
            "the dim ({dim}) of field data({}) is not equal to schema dim ({})",
            field.name, field.dim
        )));
    }
    if !values.is_multiple_of(field.dim) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the last of the dense types, as the caller says"
        )]
        let kind = match field.data_type {
            DataType::BinaryVector => "binary",
            DataType::Int8Vector => "int8",
            DataType::Float16Vector => "float16",
            DataType::BFloat16Vector => "bfloat16",
            _ => "float",
        };
        return Err(Failure::invalid(format_args!(
            "the length of {kind} data should divide the dim({}) of field {}, got {values} values",
            field.dim, field.name
        )));
    }
    Ok(())
}

/// The refusal of NaN and infinity in a vector.
pub(super) fn not_finite(field: &str) -> Failure {
    Failure::invalid(format_args!(
        "value of vector field {field} is not a number or infinite (NaN or Inf)"
    ))
}

fn check_values(field: &FieldSchema, column: &Column) -> Result<(), Failure> {
    let too_long = |bytes: usize, row: usize, most: usize| {
        Failure::invalid(format_args!(
            "length of varchar field {} exceeds max length, row number: {row}, length: {bytes}, max length: {most}",
            field.name
        ))
    };
    match &column.data {
        ColumnData::VarChar(texts) => match texts.iter().position(|text| text.len() > field.max_length) {
            Some(row) => Err(too_long(texts[row].len(), row, field.max_length)),
            None => Ok(()),
        },
        ColumnData::Json(documents) => documents.iter().enumerate().try_for_each(|(row, document)| {
            if column.is_valid(row) {
                check_json(field, document, row)
            } else {
                Ok(())
            }
        }),
        ColumnData::Array(arrays) => arrays.iter().enumerate().try_for_each(|(row, array)| {
            let (length, longest) = array_size(array);
            if length > field.max_capacity {
                return Err(Failure::invalid(format_args!(
                    "the length ({length}) of array field {} exceeds max capacity ({}), row number: {row}",
                    field.name, field.max_capacity
                )));
            }
            if longest > field.max_length && matches!(array, ArrayValue::Text(_)) {
                return Err(too_long(longest, row, field.max_length));
            }
            Ok(())
        }),
        ColumnData::Float(values) if values.iter().any(|value| !value.is_finite()) => Err(scalar_not_finite(field)),
        ColumnData::Double(values) if values.iter().any(|value| !value.is_finite()) => Err(scalar_not_finite(field)),
        ColumnData::Float(_)
        | ColumnData::Double(_)
        | ColumnData::Bool(_)
        | ColumnData::Int8(_)
        | ColumnData::Int16(_)
        | ColumnData::Int32(_)
        | ColumnData::Int64(_)
        | ColumnData::FloatVector { .. }
        | ColumnData::Float16Vector { .. }
        | ColumnData::BFloat16Vector { .. }
        | ColumnData::Int8Vector { .. }
        | ColumnData::BinaryVector { .. }
        | ColumnData::SparseFloatVector { .. } => Ok(()),
    }
}

fn scalar_not_finite(field: &FieldSchema) -> Failure {
    Failure::invalid(format_args!(
        "value of field {} is not a number or infinite",
        field.name
    ))
}

fn array_size(array: &ArrayValue) -> (usize, usize) {
    match array {
        ArrayValue::Bool(values) => (values.len(), 0),
        ArrayValue::Int32(values) => (values.len(), 0),
        ArrayValue::Int64(values) => (values.len(), 0),
        ArrayValue::Float(values) => (values.len(), 0),
        ArrayValue::Double(values) => (values.len(), 0),
        ArrayValue::Text(values) => (values.len(), values.iter().map(String::len).max().unwrap_or(0)),
    }
}

fn check_json(field: &FieldSchema, document: &[u8], row: usize) -> Result<(), Failure> {
    if document.len() > Limits::JSON_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "the length ({}) of json field ({}) exceeds max length ({}), row number: {row}",
            document.len(),
            field.name,
            Limits::JSON_BYTES_MAX
        )));
    }
    let malformed = || {
        Failure::invalid(format_args!(
            "the data of json field ({}) is not a valid JSON document, row number: {row}",
            field.name
        ))
    };
    if field.is_dynamic {
        let keys: std::collections::BTreeMap<String, serde::de::IgnoredAny> =
            serde_json::from_slice(document).map_err(|_| malformed())?;
        if keys.contains_key(CollectionSchema::DYNAMIC_FIELD_NAME) {
            return Err(Failure::invalid("use dynamic field name cannot include $meta"));
        }
        return Ok(());
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(document)
        .map(|_| ())
        .map_err(|_| malformed())
}

#[cfg(test)]
mod tests;
