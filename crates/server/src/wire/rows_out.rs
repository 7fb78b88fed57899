//! Results for a client: columns to `FieldData`, primary keys to `IDs`.

use bytes::Bytes;
use saker_engine::{OutputColumn, PrimaryKeys};
use saker_model::{ArrayValue, Bitmap, CollectionSchema, ColumnData, DataType, SparseVector};
use saker_proto::schema::{
    ArrayArray, BoolArray, DoubleArray, FieldData, FloatArray, IDs, IntArray, JsonArray, LongArray, ScalarField,
    SparseFloatArray, StringArray, VectorField, field_data::Field, i_ds::IdField, scalar_field::Data as Scalars,
    vector_field::Data as Vectors,
};

use super::schema::data_type_out;

/// Primary keys on the wire.
#[must_use]
pub fn ids_out(ids: PrimaryKeys) -> IDs {
    let id_field = match ids {
        PrimaryKeys::Int(data) => IdField::IntId(LongArray { data }),
        PrimaryKeys::Text(data) => IdField::StrId(StringArray { data }),
    };
    IDs {
        id_field: Some(id_field),
    }
}

/// One output column on the wire. The schema says what an array's elements are, even if there is no row.
#[must_use]
pub fn column_out(column: OutputColumn, schema: &CollectionSchema) -> FieldData {
    let OutputColumn {
        name,
        column,
        is_dynamic,
    } = column;
    let element = schema.field_by_id(column.field).and_then(|field| field.element_type);
    let data_type = column.data.data_type();
    let valid_data = column.validity.as_ref().map(bits).unwrap_or_default();
    let field = match vectors_out(column.data) {
        Ok((dim, vectors)) => Field::Vectors(VectorField {
            dim: i64::try_from(dim).unwrap_or(i64::MAX),
            valid_data: valid_data.clone(),
            data: Some(vectors),
        }),
        Err(scalars) => Field::Scalars(ScalarField {
            valid_data: valid_data.clone(),
            data: Some(scalars_out(scalars, element)),
        }),
    };
    FieldData {
        r#type: data_type_out(data_type) as i32,
        field_name: name,
        field_id: column.field.0,
        is_dynamic,
        // Current clients read the validity here; newer ones prefer the copy inside the field.
        valid_data,
        field: Some(field),
    }
}

/// Dimension and values of vectors; the column itself if it holds none.
fn vectors_out(data: ColumnData) -> Result<(usize, Vectors), ColumnData> {
    fn halves(values: &[u16]) -> Bytes {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "everything but vectors is a scalar on the wire"
    )]
    Ok(match data {
        ColumnData::FloatVector { dim, data } => (dim, Vectors::FloatVector(FloatArray { data })),
        ColumnData::Float16Vector { dim, data } => (dim, Vectors::Float16Vector(halves(&data))),
        ColumnData::BFloat16Vector { dim, data } => (dim, Vectors::Bfloat16Vector(halves(&data))),
        ColumnData::Int8Vector { dim, data } => {
            let bytes = data.into_iter().map(i8::cast_unsigned).collect::<Vec<_>>();
            (dim, Vectors::Int8Vector(bytes.into()))
        }
        ColumnData::BinaryVector { dim, data } => (dim, Vectors::BinaryVector(data.into())),
        ColumnData::SparseFloatVector { data } => {
            let dim = data.iter().map(SparseVector::dim).max().unwrap_or_default();
            let contents = data.iter().map(|vector| {
                let pairs = vector.pairs().iter();
                pairs
                    .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()])
                    .flatten()
                    .collect()
            });
            let sparse = SparseFloatArray {
                contents: contents.collect(),
                dim: i64::try_from(dim).unwrap_or(i64::MAX),
            };
            (dim, Vectors::SparseFloatVector(sparse))
        }
        scalars => return Err(scalars),
    })
}

/// The answer to `count(*)`: one Int64 column of that name.
#[must_use]
pub fn count_out(count: u64) -> FieldData {
    let data = vec![i64::try_from(count).unwrap_or(i64::MAX)];
    FieldData {
        r#type: data_type_out(DataType::Int64) as i32,
        field_name: COUNT_FIELD.to_owned(),
        field: Some(Field::Scalars(ScalarField {
            data: Some(Scalars::LongData(LongArray { data })),
            ..ScalarField::default()
        })),
        ..FieldData::default()
    }
}

/// Name of the field that counts rows.
pub const COUNT_FIELD: &str = "count(*)";

fn bits(bitmap: &Bitmap) -> Vec<bool> {
    (0..bitmap.len()).map(|row| bitmap.contains(row)).collect()
}

fn scalars_out(data: ColumnData, element: Option<DataType>) -> Scalars {
    fn widen<T: Into<i32>>(values: Vec<T>) -> Scalars {
        Scalars::IntData(IntArray {
            data: values.into_iter().map(Into::into).collect(),
        })
    }
    match data {
        ColumnData::Bool(data) => Scalars::BoolData(BoolArray { data }),
        ColumnData::Int8(data) => widen(data),
        ColumnData::Int16(data) => widen(data),
        ColumnData::Int32(data) => Scalars::IntData(IntArray { data }),
        ColumnData::Int64(data) => Scalars::LongData(LongArray { data }),
        ColumnData::Float(data) => Scalars::FloatData(FloatArray { data }),
        ColumnData::Double(data) => Scalars::DoubleData(DoubleArray { data }),
        ColumnData::VarChar(data) => Scalars::StringData(StringArray { data }),
        ColumnData::Json(data) => Scalars::JsonData(JsonArray {
            data: data.into_iter().map(Bytes::from).collect(),
        }),
        ColumnData::Array(rows) => {
            let element = element
                .or_else(|| rows.first().map(array_element))
                .unwrap_or(DataType::Int32);
            let data = rows.into_iter().map(array_out).collect();
            Scalars::ArrayData(ArrayArray {
                data,
                element_type: data_type_out(element) as i32,
            })
        }
        // The caller sends vectors in a vector field.
        ColumnData::FloatVector { .. }
        | ColumnData::Float16Vector { .. }
        | ColumnData::BFloat16Vector { .. }
        | ColumnData::Int8Vector { .. }
        | ColumnData::BinaryVector { .. }
        | ColumnData::SparseFloatVector { .. } => Scalars::FloatData(FloatArray::default()),
    }
}

fn array_element(value: &ArrayValue) -> DataType {
    match value {
        ArrayValue::Bool(_) => DataType::Bool,
        ArrayValue::Int32(_) => DataType::Int32,
        ArrayValue::Int64(_) => DataType::Int64,
        ArrayValue::Float(_) => DataType::Float,
        ArrayValue::Double(_) => DataType::Double,
        ArrayValue::Text(_) => DataType::VarChar,
    }
}

fn array_out(value: ArrayValue) -> ScalarField {
    let data = match value {
        ArrayValue::Bool(data) => Scalars::BoolData(BoolArray { data }),
        ArrayValue::Int32(data) => Scalars::IntData(IntArray { data }),
        ArrayValue::Int64(data) => Scalars::LongData(LongArray { data }),
        ArrayValue::Float(data) => Scalars::FloatData(FloatArray { data }),
        ArrayValue::Double(data) => Scalars::DoubleData(DoubleArray { data }),
        ArrayValue::Text(data) => Scalars::StringData(StringArray { data }),
    };
    ScalarField {
        data: Some(data),
        ..ScalarField::default()
    }
}
