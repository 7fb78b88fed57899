use super::*;
use crate::sample::{field, schema};

fn refused(change: impl FnOnce(&mut CollectionSchema)) -> String {
    let mut schema = schema();
    schema.validate().expect("the sample is valid");
    change(&mut schema);
    schema.validate().expect_err("the change breaks a rule").to_string()
}

fn accepted(change: impl FnOnce(&mut CollectionSchema)) {
    let mut schema = schema();
    change(&mut schema);
    schema.validate().expect("the change keeps the rules");
}

fn at<'a>(schema: &'a mut CollectionSchema, name: &str) -> &'a mut FieldSchema {
    schema
        .fields
        .iter_mut()
        .find(|field| field.name == name)
        .expect("a field of the sample")
}

#[test]
fn names_follow_the_rule() {
    let long = "a".repeat(Limits::NAME_BYTES_MAX);
    for good in ["a", "_", "_9", "Az_09", &long] {
        assert_eq!(CollectionSchema::check_name("field", good), Ok(()), "{good}");
    }
    let longer = "a".repeat(Limits::NAME_BYTES_MAX + 1);
    for (bad, reason) in [
        ("", "should not be empty"),
        (longer.as_str(), "must be less than 255 characters"),
        ("9a", "must be an underscore or letter"),
        ("$a", "must be an underscore or letter"),
        ("é", "must be an underscore or letter"),
        ("a-b", "can only contain numbers, letters and underscores"),
        ("a b", "can only contain numbers, letters and underscores"),
        ("añ", "can only contain numbers, letters and underscores"),
    ] {
        let message = CollectionSchema::check_name("field", bad)
            .expect_err("a bad name")
            .to_string();
        assert!(
            message.contains(reason) && message.starts_with("Invalid field name: "),
            "{message}"
        );
    }
}

#[test]
fn there_is_one_primary_key() {
    assert_eq!(
        refused(|schema| at(schema, "id").is_primary = false),
        "primary key is not specified"
    );
    assert_eq!(
        refused(|schema| at(schema, "age").is_primary = true),
        "there are more than one primary key, field name = id, age"
    );
    let wrong_type = "the data type of primary key should be Int64 or VarChar";
    assert_eq!(
        refused(|schema| at(schema, "id").data_type = DataType::Int32),
        wrong_type
    );
    accepted(|schema| {
        at(schema, "id").data_type = DataType::VarChar;
        at(schema, "id").max_length = 10;
    });
    assert_eq!(
        refused(|schema| at(schema, "id").nullable = true),
        "primary field not support null"
    );
    assert_eq!(
        refused(|schema| at(schema, "id").default_value = Some(Scalar::Int(1))),
        "primary field not support default_value"
    );
    accepted(|schema| at(schema, "id").auto_id = true);
    assert_eq!(
        refused(|schema| at(schema, "age").auto_id = true),
        "only primary field can speficy AutoID with true, field name = age"
    );
}

#[test]
fn fields_are_unique_and_limited() {
    assert_eq!(
        refused(|schema| at(schema, "age").name = "id".into()),
        "duplicated field name id found"
    );
    assert_eq!(
        refused(|schema| at(schema, "age").id = crate::FieldId(100)),
        "duplicate field ids: 100"
    );
    let fill = |schema: &mut CollectionSchema, count: usize| {
        let dynamic = schema.fields.pop().expect("the dynamic field");
        while schema.fields.len() < count {
            let number = i64::try_from(schema.fields.len()).expect("small");
            schema
                .fields
                .push(field(1_000 + number, &format!("extra_{number}"), DataType::Bool, None));
        }
        schema.fields.push(dynamic);
    };
    accepted(|schema| fill(schema, Limits::FIELDS_MAX));
    assert_eq!(
        refused(|schema| fill(schema, Limits::FIELDS_MAX + 1)),
        "maximum field's number should be limited to 64"
    );
    assert!(refused(|schema| at(schema, "age").name = "a-b".into()).starts_with("Invalid field name: a-b."));
    assert!(refused(|schema| schema.name = String::new()).contains("collection name should not be empty"));
}

#[test]
fn vector_fields_are_there_and_limited() {
    assert_eq!(
        refused(|schema| schema.fields.retain(|field| !field.data_type.is_vector())),
        "schema does not contain vector field"
    );
    let add = |schema: &mut CollectionSchema, count: i64| {
        for number in 1..count {
            schema.fields.push(field(
                2_000 + number,
                &format!("vector_{number}"),
                DataType::FloatVector,
                None,
            ));
        }
    };
    accepted(|schema| add(schema, 10));
    assert_eq!(
        refused(|schema| add(schema, 11)),
        "maximum vector field's number should be limited to 10"
    );
    assert!(refused(|schema| at(schema, "vector").dim = 0).starts_with("dimension is not defined"));
    accepted(|schema| at(schema, "vector").dim = 1);
    accepted(|schema| at(schema, "vector").dim = Limits::DIMENSION_MAX);
    assert_eq!(
        refused(|schema| at(schema, "vector").dim = Limits::DIMENSION_MAX + 1),
        "invalid dimension: 32769 of field vector. float vector dimension should be in range 1 ~ 32768"
    );
    let binary = |dim| {
        move |schema: &mut CollectionSchema| {
            let field = at(schema, "vector");
            (field.data_type, field.dim) = (DataType::BinaryVector, dim);
        }
    };
    accepted(binary(8));
    accepted(binary(Limits::BINARY_DIMENSION_MAX));
    for (dim, said) in [
        (0, "dimension is not defined"),
        (4, "should be multiple of 8"),
        (
            Limits::BINARY_DIMENSION_MAX + 8,
            "binary vector dimension should be in range 1 ~ 262144",
        ),
    ] {
        assert!(refused(binary(dim)).contains(said), "{dim}");
    }
    assert!(refused(|schema| at(schema, "vector").nullable = true).starts_with("vector type not support null"));
}

#[test]
fn text_has_a_length() {
    assert_eq!(
        refused(|schema| at(schema, "name").max_length = 0),
        "type param(max_length) should be specified for varChar field(name) of collection sample"
    );
    accepted(|schema| at(schema, "name").max_length = Limits::VARCHAR_BYTES_MAX);
    assert_eq!(
        refused(|schema| at(schema, "name").max_length = Limits::VARCHAR_BYTES_MAX + 1),
        "the maximum length specified for a VarChar field(name) should be in (0, 65535], but got 65536 instead"
    );
    assert!(refused(|schema| at(schema, "tags").max_length = 0).contains("varChar field(tags)"));
}

#[test]
fn arrays_have_elements_and_a_capacity() {
    assert!(refused(|schema| at(schema, "ints").element_type = None).contains("element data type None"));
    for element in [DataType::Array, DataType::Json, DataType::FloatVector] {
        assert_eq!(
            refused(|schema| at(schema, "ints").element_type = Some(element)),
            format!("element type {} is not supported", element.name())
        );
    }
    assert!(refused(|schema| at(schema, "ints").max_capacity = 0).contains("type param(max_capacity)"));
    accepted(|schema| at(schema, "ints").max_capacity = Limits::ARRAY_CAPACITY_MAX);
    assert_eq!(
        refused(|schema| at(schema, "ints").max_capacity = Limits::ARRAY_CAPACITY_MAX + 1),
        "the maximum capacity specified for a Array should be in (0, 4096]"
    );
}

#[test]
fn a_partition_key_is_one_plain_field() {
    accepted(|schema| at(schema, "age").is_partition_key = true);
    assert_eq!(
        refused(|schema| at(schema, "id").is_partition_key = true),
        "the partition key field must not be primary field"
    );
    assert_eq!(
        refused(|schema| at(schema, "flag").is_partition_key = true),
        "the data type of partition key should be Int64 or VarChar"
    );
    assert!(
        refused(|schema| {
            at(schema, "age").is_partition_key = true;
            at(schema, "name").is_partition_key = true;
        })
        .starts_with("there are more than one partition key")
    );
    assert!(
        refused(|schema| {
            at(schema, "age").is_partition_key = true;
            at(schema, "age").nullable = true;
        })
        .starts_with("partition key field not support nullable")
    );
}

#[test]
fn the_dynamic_field_goes_with_its_switch() {
    accepted(|schema| {
        schema.enable_dynamic_field = false;
        schema.fields.retain(|field| !field.is_dynamic);
    });
    assert!(refused(|schema| schema.enable_dynamic_field = false).contains("exactly if enable_dynamic_field"));
    assert!(
        refused(|schema| schema.fields.retain(|field| !field.is_dynamic)).contains("exactly if enable_dynamic_field")
    );
    assert_eq!(
        refused(|schema| at(schema, "$meta").name = "other".into()),
        "cannot explicitly set a field as a dynamic field"
    );
    assert!(refused(|schema| at(schema, "info").is_dynamic = true).contains("exactly if enable_dynamic_field"));
}

#[test]
fn defaults_fit_their_field() {
    let set = |name: &'static str, value: Scalar| {
        move |schema: &mut CollectionSchema| {
            at(schema, name).default_value = Some(value);
        }
    };
    accepted(set("tiny", Scalar::Int(127)));
    accepted(set("tiny", Scalar::Int(-128)));
    assert_eq!(
        refused(set("tiny", Scalar::Int(128))),
        "default_value of field tiny is out of range: [-128, 127]"
    );
    accepted(set("age", Scalar::Int(i64::MIN)));
    accepted(set("score", Scalar::Double(f64::from(f32::MAX))));
    assert!(refused(set("score", Scalar::Double(1e39))).contains("range of Float"));
    assert!(refused(set("price", Scalar::Double(f64::NAN))).contains("range of Double"));
    accepted(set("flag", Scalar::Bool(true)));
    accepted(set("name", Scalar::Text("x".repeat(16))));
    assert_eq!(
        refused(set("name", Scalar::Text("x".repeat(17)))),
        "the length (17) of string exceeds max length (16)"
    );
    assert_eq!(
        refused(set("age", Scalar::Text("1".into()))),
        "type (Int64) of field (age) is not equal to the type(VarChar) of default_value"
    );
    for name in ["info", "ints", "vector"] {
        assert!(refused(set(name, Scalar::Int(1))).starts_with("type not support default_value"));
    }
}
