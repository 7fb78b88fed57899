use super::*;
use crate::sample::schema;

/// Two good rows in every field of the sample.
fn columns() -> Vec<Column> {
    let data = [
        ColumnData::Int64(vec![1, 2]),
        ColumnData::Int64(vec![30, 40]),
        ColumnData::Int8(vec![-128, 127]),
        ColumnData::Float(vec![0.5, 1.5]),
        ColumnData::Double(vec![2.5, 3.5]),
        ColumnData::VarChar(vec!["x".repeat(16), String::new()]),
        ColumnData::Bool(vec![true, false]),
        ColumnData::Json(vec![b"[1]".to_vec(), b"null".to_vec()]),
        ColumnData::Array(vec![ArrayValue::Int64(vec![1, 2, 3, 4]), ArrayValue::Int64(vec![])]),
        ColumnData::Array(vec![ArrayValue::Text(vec!["y".repeat(16)]), ArrayValue::Text(vec![])]),
        ColumnData::FloatVector {
            dim: 2,
            data: vec![0.1, 0.2, 0.3, 0.4],
        },
        ColumnData::Json(vec![b"{}".to_vec(), b" {\"a\": 1}".to_vec()]),
    ];
    data.into_iter()
        .zip(100..)
        .map(|(data, id)| Column::full(FieldId(id), data))
        .collect()
}

fn check(columns: Vec<Column>, schema: &CollectionSchema) -> Result<(), RowError> {
    RowBatch::new(columns).expect("columns of one length").check(schema)
}

/// The message when the field with this id holds this instead.
fn refused(id: i64, data: ColumnData) -> String {
    let mut columns = columns();
    let column = columns
        .iter_mut()
        .find(|column| column.field == FieldId(id))
        .expect("a field of the sample");
    column.data = data;
    check(columns, &schema())
        .expect_err("the values do not fit")
        .to_string()
}

fn with(schema: &mut CollectionSchema, name: &str, change: impl FnOnce(&mut FieldSchema)) {
    change(
        schema
            .fields
            .iter_mut()
            .find(|field| field.name == name)
            .expect("a field of the sample"),
    );
}

#[test]
fn good_rows_pass() {
    assert_eq!(check(columns(), &schema()), Ok(()));
}

#[test]
fn rows_are_limited() {
    let batch =
        |rows| RowBatch::new(vec![Column::full(FieldId(106), ColumnData::Bool(vec![true; rows]))]).expect("one column");
    let mut schema = schema();
    schema.fields.retain(|field| field.name == "flag");
    assert_eq!(batch(Limits::ROWS_MAX).check(&schema), Ok(()));
    let error = RowError::TooManyRows {
        rows: Limits::ROWS_MAX + 1,
        limit: Limits::ROWS_MAX,
    };
    assert_eq!(batch(Limits::ROWS_MAX + 1).check(&schema), Err(error));
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let mut more = columns();
    more.push(Column::full(FieldId(999), ColumnData::Bool(vec![true, true])));
    assert_eq!(
        check(more, &schema()),
        Err(RowError::UnknownField { field: FieldId(999) })
    );
    let fewer = columns()
        .into_iter()
        .filter(|column| column.field != FieldId(101))
        .collect();
    assert_eq!(
        check(fewer, &schema()).expect_err("a field is missing").to_string(),
        "fieldSchema(age) has no corresponding fieldData pass in"
    );
}

#[test]
fn types_and_nulls_are_checked() {
    assert_eq!(
        refused(101, ColumnData::Double(vec![1.0, 2.0])),
        "field 'age' is illegal, array type mismatch: need Int64, got Double"
    );
    let mut with_null = columns();
    with_null[1].validity = Some(Bitmap::from_bools([true, false]));
    let null = RowError::Null {
        name: "age".into(),
        row: 1,
    };
    assert_eq!(check(with_null.clone(), &schema()), Err(null));
    let mut nullable = schema();
    with(&mut nullable, "age", |field| field.nullable = true);
    assert_eq!(check(with_null.clone(), &nullable), Ok(()));
    let mut defaulted = schema();
    with(&mut defaulted, "age", |field| {
        field.default_value = Some(Scalar::Int(7))
    });
    assert_eq!(check(with_null, &defaulted), Ok(()));
}

#[test]
fn vectors_have_the_schema_dimension_and_numbers() {
    assert_eq!(
        refused(
            110,
            ColumnData::FloatVector {
                dim: 3,
                data: vec![0.0; 6]
            }
        ),
        "the dim (3) of field data(vector) is not equal to schema dim (2)"
    );
    for (value, kind) in [(f32::NAN, "NaN"), (f32::INFINITY, "+Inf"), (f32::NEG_INFINITY, "-Inf")] {
        assert_eq!(
            refused(
                110,
                ColumnData::FloatVector {
                    dim: 2,
                    data: vec![0.0, 0.0, 0.0, value]
                }
            ),
            format!("value '{kind}' is not a number or infinity, field vector, row 1")
        );
        assert!(refused(103, ColumnData::Float(vec![0.0, value])).contains("field score, row 1"));
        assert!(refused(104, ColumnData::Double(vec![f64::from(value), 0.0])).contains("field price, row 0"));
    }
}

#[test]
fn text_keeps_its_length() {
    assert_eq!(
        refused(105, ColumnData::VarChar(vec![String::new(), "é".repeat(9)])),
        "length of varchar field name exceeds max length, row number: 1, length: 18, max length: 16"
    );
    let tags = vec![
        ArrayValue::Text(vec!["a".into(), "b".repeat(17)]),
        ArrayValue::Text(vec![]),
    ];
    assert!(
        refused(109, ColumnData::Array(tags)).contains("row number: 0, array index: 1, length: 17, max length: 16")
    );
}

#[test]
fn arrays_keep_capacity_and_element_type() {
    let over = vec![ArrayValue::Int64(vec![]), ArrayValue::Int64(vec![0; 5])];
    assert_eq!(
        refused(108, ColumnData::Array(over)),
        "the length (5) of 1th array exceeds max capacity (4), field ints"
    );
    let other = vec![ArrayValue::Int64(vec![]), ArrayValue::Text(vec![])];
    assert!(refused(108, ColumnData::Array(other)).contains("need Int64, got VarChar"));
    let mut schema = schema();
    with(&mut schema, "ints", |field| field.element_type = Some(DataType::Int8));
    let array = |value| {
        let mut columns = columns();
        columns[8].data = ColumnData::Array(vec![ArrayValue::Int32(vec![0, value]), ArrayValue::Int32(vec![])]);
        columns
    };
    assert_eq!(check(array(127), &schema), Ok(()));
    let error = RowError::ElementRange {
        name: "ints".into(),
        row: 0,
        index: 1,
        low: -128,
        high: 127,
    };
    assert_eq!(check(array(128), &schema), Err(error));
}

#[test]
fn documents_are_json_within_their_limit() {
    let document = |length: usize| format!("\"{}\"", "a".repeat(length - 2)).into_bytes();
    let mut at_limit = columns();
    at_limit[7].data = ColumnData::Json(vec![document(Limits::JSON_BYTES_MAX), b"1".to_vec()]);
    assert_eq!(check(at_limit, &schema()), Ok(()));
    assert_eq!(
        refused(
            107,
            ColumnData::Json(vec![b"1".to_vec(), document(Limits::JSON_BYTES_MAX + 1)])
        ),
        "the length (65537) of json field (info) exceeds max length (65536), row number: 1"
    );
    for bad in [&b""[..], b"{", b"{} {}", b"\"\xff\"", b"nul"] {
        let message = refused(107, ColumnData::Json(vec![bad.to_vec(), b"1".to_vec()]));
        assert_eq!(message, "json field (info) row number: 0 is not valid JSON");
    }
    let message = refused(111, ColumnData::Json(vec![b"{}".to_vec(), b"[]".to_vec()]));
    assert_eq!(message, "json field ($meta) row number: 1 is not a JSON object");
    // Deep nesting must not cost stack.
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000)).into_bytes();
    let mut nested = columns();
    nested[7].data = ColumnData::Json(vec![deep, b"1".to_vec()]);
    assert_eq!(check(nested, &schema()), Ok(()));
}

#[test]
fn a_null_row_may_hold_anything() {
    let mut schema = schema();
    with(&mut schema, "info", |field| field.nullable = true);
    let mut columns = columns();
    columns[7].data = ColumnData::Json(vec![Vec::new(), b"1".to_vec()]);
    columns[7].validity = Some(Bitmap::from_bools([false, true]));
    assert_eq!(check(columns, &schema), Ok(()));
}

#[test]
fn completing_fills_what_is_left_out() {
    let mut schema = schema();
    with(&mut schema, "id", |field| field.auto_id = true);
    with(&mut schema, "age", |field| field.nullable = true);
    with(&mut schema, "tiny", |field| field.default_value = Some(Scalar::Int(9)));
    with(&mut schema, "name", |field| {
        field.nullable = true;
        field.default_value = Some(Scalar::Text("none".into()));
    });
    let left_out = [100, 101, 102, 111];
    let mut given: Vec<Column> = columns()
        .into_iter()
        .filter(|column| !left_out.map(FieldId).contains(&column.field))
        .collect();
    given.reverse();
    let name = given
        .iter_mut()
        .find(|column| column.field == FieldId(105))
        .expect("the name");
    name.validity = Some(Bitmap::from_bools([true, false]));
    let complete = RowBatch::new(given)
        .expect("columns of one length")
        .complete(&schema)
        .expect("good rows");
    assert_eq!(complete.rows(), 2);
    let ids: Vec<i64> = complete.columns().iter().map(|column| column.field.0).collect();
    assert_eq!(ids, (101..=111).collect::<Vec<_>>());
    let column = |id| complete.column(FieldId(id)).expect("a completed column");
    assert_eq!(column(101).validity, Some(Bitmap::zeros(2)));
    assert_eq!(column(101).data, ColumnData::Int64(vec![0, 0]));
    assert_eq!(column(102), &Column::full(FieldId(102), ColumnData::Int8(vec![9, 9])));
    let names = vec!["x".repeat(16), "none".to_owned()];
    assert_eq!(column(105), &Column::full(FieldId(105), ColumnData::VarChar(names)));
    assert_eq!(column(111).data, ColumnData::Json(vec![b"{}".to_vec(), b"{}".to_vec()]));
    assert_eq!(complete.check(&schema), Ok(()));
}

#[test]
fn completing_refuses_what_checking_refuses() {
    let fewer = columns()
        .into_iter()
        .filter(|column| column.field != FieldId(110))
        .collect();
    let batch = RowBatch::new(fewer).expect("columns of one length");
    assert_eq!(
        batch.complete(&schema()),
        Err(RowError::Missing { name: "vector".into() })
    );
}

#[test]
fn narrow_vectors_have_the_schema_dimension_and_numbers() {
    let of = |data_type: DataType, dim: usize, data: ColumnData| {
        let mut schema = schema();
        with(&mut schema, "vector", |field| {
            (field.data_type, field.dim) = (data_type, dim)
        });
        let mut columns = columns();
        columns[10].data = data;
        check(columns, &schema).map_err(|error| error.to_string())
    };
    let halves = |dim, data: [u16; 4]| ColumnData::Float16Vector { dim, data: data.into() };
    let brains = |dim, data: [u16; 4]| ColumnData::BFloat16Vector { dim, data: data.into() };
    assert_eq!(
        of(DataType::Float16Vector, 2, halves(2, [0, 0x7bff, 0xfbff, 0x8000])),
        Ok(())
    );
    assert_eq!(
        of(DataType::BFloat16Vector, 2, brains(2, [0, 0x7f7f, 0xff7f, 0x7c00])),
        Ok(())
    );
    for (bits, kind) in [(0x7c00, "+Inf"), (0xfc00, "-Inf"), (0x7c01, "NaN")] {
        let said = of(DataType::Float16Vector, 2, halves(2, [0, 0, 0, bits])).unwrap_err();
        assert_eq!(
            said,
            format!("value '{kind}' is not a number or infinity, field vector, row 1")
        );
    }
    let said = of(DataType::BFloat16Vector, 2, brains(2, [0xff80, 0, 0, 0])).unwrap_err();
    assert_eq!(said, "value '-Inf' is not a number or infinity, field vector, row 0");

    let bytes = |dim, count| ColumnData::Int8Vector {
        dim,
        data: vec![-128; count],
    };
    let bits = |dim, count| ColumnData::BinaryVector {
        dim,
        data: vec![255; count],
    };
    assert_eq!(of(DataType::Int8Vector, 3, bytes(3, 6)), Ok(()));
    assert_eq!(of(DataType::BinaryVector, 16, bits(16, 4)), Ok(()));
    for said in [
        of(DataType::Int8Vector, 3, bytes(2, 4)),
        of(DataType::BinaryVector, 16, bits(8, 2)),
        of(DataType::Float16Vector, 3, halves(2, [0; 4])),
    ] {
        assert!(said.unwrap_err().contains("is not equal to schema dim"));
    }
    let said = of(DataType::BinaryVector, 16, bytes(16, 32)).unwrap_err();
    assert!(said.contains("need BinaryVector, got Int8Vector"), "{said}");
}
