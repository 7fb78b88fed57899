use bytes::Bytes;
use proptest::prelude::*;
use saker_engine::OutputColumn;
use saker_model::FieldId;
use saker_proto::schema::{
    ArrayArray, BoolArray, DataType as WireType, FloatArray, IntArray, JsonArray, LongArray, StringArray, VectorField,
};

use super::*;
use crate::wire::rows_out::column_out;

fn field(id: i64, name: &str, data_type: DataType) -> FieldSchema {
    FieldSchema {
        id: FieldId(id),
        name: name.into(),
        description: String::new(),
        data_type,
        element_type: None,
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: false,
        default_value: None,
        dim: if data_type.is_vector() { 2 } else { 0 },
        max_length: if data_type == DataType::VarChar { 8 } else { 0 },
        max_capacity: 0,
        type_params: Default::default(),
    }
}

fn schema() -> CollectionSchema {
    let fields = vec![
        FieldSchema {
            is_primary: true,
            ..field(100, "id", DataType::Int64)
        },
        field(101, "vector", DataType::FloatVector),
        FieldSchema {
            nullable: true,
            ..field(102, "title", DataType::VarChar)
        },
        FieldSchema {
            default_value: Some(Scalar::Int(7)),
            ..field(103, "size", DataType::Int8)
        },
        FieldSchema {
            element_type: Some(DataType::Int16),
            max_capacity: 3,
            nullable: true,
            ..field(104, "marks", DataType::Array)
        },
        FieldSchema {
            nullable: true,
            ..field(105, "notes", DataType::Json)
        },
        FieldSchema {
            is_dynamic: true,
            ..field(106, "$meta", DataType::Json)
        },
    ];
    CollectionSchema {
        name: "c".into(),
        description: String::new(),
        fields,
        enable_dynamic_field: true,
        functions: Vec::new(),
    }
}

fn scalars(name: &str, wire: WireType, data: Scalars, valid: &[bool]) -> FieldData {
    FieldData {
        r#type: wire as i32,
        field_name: name.into(),
        valid_data: valid.to_vec(),
        field: Some(Field::Scalars(ScalarField {
            data: Some(data),
            ..ScalarField::default()
        })),
        ..FieldData::default()
    }
}
fn ids(values: &[i64]) -> FieldData {
    scalars(
        "id",
        WireType::Int64,
        Scalars::LongData(LongArray { data: values.to_vec() }),
        &[],
    )
}
fn vectors(values: &[f32]) -> FieldData {
    FieldData {
        r#type: WireType::FloatVector as i32,
        field_name: "vector".into(),
        field: Some(Field::Vectors(VectorField {
            dim: 2,
            data: Some(Vectors::FloatVector(FloatArray { data: values.to_vec() })),
            ..VectorField::default()
        })),
        ..FieldData::default()
    }
}
fn titles(values: &[&str], valid: &[bool]) -> FieldData {
    let data = values.iter().map(|text| (*text).to_owned()).collect();
    scalars(
        "title",
        WireType::VarChar,
        Scalars::StringData(StringArray { data }),
        valid,
    )
}
fn read(fields: Vec<FieldData>, rows: u32) -> Result<RowBatch, Failure> {
    rows_in(&schema(), fields, rows, Write::Insert)
}
fn refused(fields: Vec<FieldData>, rows: u32, part: &str) {
    let reason = read(fields, rows).unwrap_err().reason;
    assert!(reason.contains(part), "{reason} lacks {part}");
}

#[test]
fn rows_come_in_and_what_was_left_out_is_filled() {
    let batch = read(vec![vectors(&[1.0, 2.0, 3.0, 4.0]), ids(&[1, 2])], 2).unwrap();
    assert_eq!(batch.rows(), 2);
    let column = |id| batch.column(FieldId(id)).unwrap().clone();
    assert_eq!(column(100).data, ColumnData::Int64(vec![1, 2]));
    assert_eq!(
        column(101).data,
        ColumnData::FloatVector {
            dim: 2,
            data: vec![1.0, 2.0, 3.0, 4.0]
        }
    );
    assert_eq!(column(102).validity, Some(Bitmap::zeros(2)));
    assert_eq!(
        (column(103).data, column(103).validity),
        (ColumnData::Int8(vec![7, 7]), None)
    );
    assert_eq!(column(106).data, ColumnData::Json(vec![b"{}".to_vec(); 2]));
}

#[test]
fn nulls_come_compact_or_aligned() {
    let expected = Column {
        field: FieldId(102),
        data: ColumnData::VarChar(vec![String::new(), "b".into()]),
        validity: Some(Bitmap::from_bools([false, true])),
    };
    for sent in [
        titles(&["b"], &[false, true]),
        titles(&["ignored", "b"], &[false, true]),
    ] {
        let batch = read(vec![vectors(&[0.0; 4]), ids(&[1, 2]), sent], 2).unwrap();
        assert_eq!(batch.column(FieldId(102)).unwrap(), &expected);
    }
    let inner = FieldData {
        field: Some(Field::Scalars(ScalarField {
            valid_data: vec![false, true],
            data: Some(Scalars::StringData(StringArray { data: vec!["b".into()] })),
        })),
        ..titles(&[], &[])
    };
    let batch = read(vec![vectors(&[0.0; 4]), ids(&[1, 2]), inner], 2).unwrap();
    assert_eq!(batch.column(FieldId(102)).unwrap(), &expected);
    refused(
        vec![
            vectors(&[0.0; 4]),
            ids(&[1, 2]),
            titles(&["a", "b", "c"], &[false, true]),
        ],
        2,
        "number of values",
    );
    refused(
        vec![vectors(&[0.0; 4]), ids(&[1, 2]), titles(&["a"], &[true])],
        2,
        "valid data",
    );
}

#[test]
fn a_null_takes_the_default() {
    let sent = scalars(
        "size",
        WireType::Int8,
        Scalars::IntData(IntArray { data: vec![3] }),
        &[false, true],
    );
    let batch = read(vec![vectors(&[0.0; 4]), ids(&[1, 2]), sent], 2).unwrap();
    let column = batch.column(FieldId(103)).unwrap();
    assert_eq!((&column.data, &column.validity), (&ColumnData::Int8(vec![7, 3]), &None));
}

#[test]
fn bad_rows_are_refused() {
    let good = || vec![vectors(&[0.0, 0.0]), ids(&[1])];
    let with = |extra: FieldData| {
        let mut fields = good();
        fields.push(extra);
        fields
    };
    assert!(read(good(), 1).is_ok());
    refused(good(), 0, "num_rows");
    refused(good(), 2, "number of rows");
    refused(
        vec![vectors(&[0.0; 2])],
        1,
        "fieldSchema(id) has no corresponding fieldData",
    );
    refused(vec![ids(&[1])], 1, "fieldSchema(vector)");
    refused(vec![vectors(&[0.0; 3]), ids(&[1])], 1, "divide the dim(2)");
    refused(vec![vectors(&[0.0, f32::NAN]), ids(&[1])], 1, "NaN");
    refused(vec![vectors(&[0.0, f32::NEG_INFINITY]), ids(&[1])], 1, "NaN or Inf");
    let mut wrong_dim = vectors(&[0.0; 3]);
    if let Some(Field::Vectors(field)) = &mut wrong_dim.field {
        field.dim = 3;
    }
    refused(
        vec![wrong_dim, ids(&[1])],
        1,
        "the dim (3) of field data(vector) is not equal to schema dim (2)",
    );
    refused(with(titles(&["123456789"], &[])), 1, "exceeds max length");
    assert!(read(with(titles(&["12345678"], &[])), 1).is_ok());
    refused(
        with(FieldData {
            field_name: "colour".into(),
            ..titles(&["x"], &[])
        }),
        1,
        "field colour does not exist",
    );
    refused(with(ids(&[1])), 1, "duplicated field id");
    let wide = scalars(
        "size",
        WireType::Int8,
        Scalars::IntData(IntArray { data: vec![300] }),
        &[],
    );
    refused(with(wide), 1, "out of range for Int8");
    let mistyped = scalars(
        "size",
        WireType::VarChar,
        Scalars::StringData(StringArray { data: vec!["x".into()] }),
        &[],
    );
    refused(with(mistyped), 1, "data type of field size");
    let swapped = scalars(
        "size",
        WireType::Int8,
        Scalars::BoolData(BoolArray { data: vec![true] }),
        &[],
    );
    refused(with(swapped), 1, "carries no Int8 values");
    let json = |name: &str, text: &str| {
        scalars(
            name,
            WireType::Json,
            Scalars::JsonData(JsonArray {
                data: vec![Bytes::from(text.to_owned())],
            }),
            &[],
        )
    };
    refused(with(json("notes", "{")), 1, "not a valid JSON document");
    refused(with(json("$meta", "[1]")), 1, "not a valid JSON document");
    refused(with(json("$meta", r#"{"$meta": 1}"#)), 1, "cannot include $meta");
    let document = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(read(with(json("notes", &document(Limits::JSON_BYTES_MAX))), 1).is_ok());
    refused(
        with(json("notes", &document(Limits::JSON_BYTES_MAX + 1))),
        1,
        "exceeds max length",
    );
    let marks = |values: Vec<i32>| {
        let row = ScalarField {
            data: Some(Scalars::IntData(IntArray { data: values })),
            ..ScalarField::default()
        };
        let array = ArrayArray {
            data: vec![row],
            element_type: WireType::Int16 as i32,
        };
        scalars("marks", WireType::Array, Scalars::ArrayData(array), &[])
    };
    assert!(read(with(marks(vec![1, 2, 3])), 1).is_ok());
    refused(with(marks(vec![1, 2, 3, 4])), 1, "exceeds max capacity (3)");
    refused(with(marks(vec![40_000])), 1, "out of range for Int16");
}

#[test]
fn the_server_makes_keys_only_where_it_should() {
    let mut schema = schema();
    schema.fields[0].auto_id = true;
    let made = rows_in(&schema, vec![vectors(&[0.0; 2])], 1, Write::Insert).unwrap();
    assert!(made.column(FieldId(100)).is_none());
    assert!(rows_in(&schema, vec![vectors(&[0.0; 2]), ids(&[1])], 1, Write::Insert).is_err());
    assert!(rows_in(&schema, vec![vectors(&[0.0; 2]), ids(&[1])], 1, Write::Upsert).is_ok());
    assert!(rows_in(&schema, vec![vectors(&[0.0; 2])], 1, Write::Upsert).is_err());
}

fn round_trip(values: Vec<FieldData>, rows: u32) {
    let schema = schema();
    let batch = rows_in(&schema, values.clone(), rows, Write::Insert).unwrap();
    let out: Vec<FieldData> = batch
        .into_columns()
        .into_iter()
        .map(|column| {
            let field = schema.field_by_id(column.field).unwrap();
            column_out(
                OutputColumn {
                    name: field.name.clone(),
                    is_dynamic: field.is_dynamic,
                    column,
                },
                &schema,
            )
        })
        .collect();
    let again = rows_in(&schema, out.clone(), rows, Write::Insert).unwrap();
    let expected = rows_in(&schema, values, rows, Write::Insert).unwrap();
    assert_eq!(again, expected);
    assert!(out.iter().all(|data| data.field.is_some()));
}

proptest! {
    #[test]
    fn rows_survive_the_way_out_and_in(
        rows in prop::collection::vec(
            (any::<i64>(), -1e30f32..1e30, prop::option::of("[a-z]{0,8}"), any::<i8>(),
             prop::option::of(prop::collection::vec(any::<i16>(), 0..3))),
            1..20,
        )
    ) {
        let count = u32::try_from(rows.len()).unwrap();
        let valid: Vec<bool> = rows.iter().map(|row| row.2.is_some()).collect();
        let texts: Vec<&str> = rows.iter().filter_map(|row| row.2.as_deref()).collect();
        let arrays = rows.iter().filter_map(|row| row.4.as_ref()).map(|items| ScalarField {
            data: Some(Scalars::IntData(IntArray { data: items.iter().map(|&item| i32::from(item)).collect() })),
            ..ScalarField::default()
        });
        let array = ArrayArray { data: arrays.collect(), element_type: WireType::Int16 as i32 };
        let array_valid: Vec<bool> = rows.iter().map(|row| row.4.is_some()).collect();
        let sizes = IntArray { data: rows.iter().map(|row| i32::from(row.3)).collect() };
        round_trip(
            vec![
                ids(&rows.iter().map(|row| row.0).collect::<Vec<_>>()),
                vectors(&rows.iter().flat_map(|row| [row.1, -row.1]).collect::<Vec<_>>()),
                titles(&texts, &valid),
                scalars("size", WireType::Int8, Scalars::IntData(sizes), &[]),
                scalars("marks", WireType::Array, Scalars::ArrayData(array), &array_valid),
            ],
            count,
        );
    }

    #[test]
    fn any_columns_are_answered(
        kind in -1i32..210,
        name in prop::sample::select(vec!["id", "vector", "title", "size", "marks", "notes", "$meta", "other"]),
        ints in prop::collection::vec(any::<i32>(), 0..4),
        valid in prop::collection::vec(any::<bool>(), 0..4),
        rows in 0u32..4,
        shape in 0u8..5,
    ) {
        let field = match shape {
            0 => None,
            1 => Some(Field::Scalars(ScalarField { data: Some(Scalars::IntData(IntArray { data: ints })), valid_data: valid.clone() })),
            2 => Some(Field::Scalars(ScalarField::default())),
            3 => Some(Field::Vectors(VectorField { dim: i64::from(rows), valid_data: vec![], data: Some(Vectors::Int8Vector(Bytes::new())) })),
            _ => Some(Field::Vectors(VectorField {
                dim: 2,
                valid_data: vec![],
                data: Some(Vectors::FloatVector(FloatArray { data: vec![0.5; ints.len()] })),
            })),
        };
        let data = FieldData { r#type: kind, field_name: name.into(), valid_data: valid, field, ..FieldData::default() };
        let _ = read(vec![ids(&vec![1; rows as usize]), vectors(&vec![0.0; rows as usize * 2]), data.clone()], rows);
        let _ = read(vec![data], rows);
    }
}
