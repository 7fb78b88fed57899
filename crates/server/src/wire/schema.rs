//! Collection schemas: Milvus's to ours and back.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use saker_model::{CollectionSchema, ConsistencyLevel, DataType, FieldId, FieldSchema, Limits, Scalar};
use saker_proto::{
    common::ConsistencyLevel as WireConsistency,
    schema::{
        CollectionSchema as WireSchema, DataType as WireType, FieldSchema as WireField, ValueField, type_schema,
        value_field::Data as DefaultValue,
    },
};

use super::{Failure, functions, pairs};

/// Our type for a wire type.
///
/// # Errors
/// [`Failure`] that names the type, if it is unknown or not supported.
pub fn data_type_in(wire: i32, field: &str) -> Result<DataType, Failure> {
    let known = WireType::try_from(wire).map_err(|_| {
        Failure::invalid(format_args!(
            "data type {wire} of field {} is unknown",
            pairs::shorten(field)
        ))
    })?;
    supported_type(known).ok_or_else(|| {
        Failure::unsupported(format_args!(
            "data type {} of field {}",
            known.as_str_name(),
            pairs::shorten(field)
        ))
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "new wire types are unsupported until listed"
)]
fn supported_type(wire: WireType) -> Option<DataType> {
    Some(match wire {
        WireType::Bool => DataType::Bool,
        WireType::Int8 => DataType::Int8,
        WireType::Int16 => DataType::Int16,
        WireType::Int32 => DataType::Int32,
        WireType::Int64 => DataType::Int64,
        WireType::Float => DataType::Float,
        WireType::Double => DataType::Double,
        WireType::VarChar | WireType::String => DataType::VarChar,
        WireType::Json => DataType::Json,
        WireType::Array => DataType::Array,
        WireType::FloatVector => DataType::FloatVector,
        WireType::Float16Vector => DataType::Float16Vector,
        WireType::BFloat16Vector => DataType::BFloat16Vector,
        WireType::Int8Vector => DataType::Int8Vector,
        WireType::BinaryVector => DataType::BinaryVector,
        WireType::SparseFloatVector => DataType::SparseFloatVector,
        _ => return None,
    })
}

/// The wire type for our type.
#[must_use]
pub const fn data_type_out(data_type: DataType) -> WireType {
    match data_type {
        DataType::Bool => WireType::Bool,
        DataType::Int8 => WireType::Int8,
        DataType::Int16 => WireType::Int16,
        DataType::Int32 => WireType::Int32,
        DataType::Int64 => WireType::Int64,
        DataType::Float => WireType::Float,
        DataType::Double => WireType::Double,
        DataType::VarChar => WireType::VarChar,
        DataType::Json => WireType::Json,
        DataType::Array => WireType::Array,
        DataType::FloatVector => WireType::FloatVector,
        DataType::Float16Vector => WireType::Float16Vector,
        DataType::BFloat16Vector => WireType::BFloat16Vector,
        DataType::Int8Vector => WireType::Int8Vector,
        DataType::BinaryVector => WireType::BinaryVector,
        DataType::SparseFloatVector => WireType::SparseFloatVector,
    }
}

/// Our consistency level for the wire's; unknown ones are the default.
#[must_use]
pub fn consistency_in(wire: i32) -> ConsistencyLevel {
    match WireConsistency::try_from(wire) {
        Ok(WireConsistency::Strong) => ConsistencyLevel::Strong,
        Ok(WireConsistency::Session) => ConsistencyLevel::Session,
        Ok(WireConsistency::Bounded) | Err(_) => ConsistencyLevel::Bounded,
        Ok(WireConsistency::Eventually) => ConsistencyLevel::Eventually,
        Ok(WireConsistency::Customized) => ConsistencyLevel::Customized,
    }
}

/// The wire's consistency level for ours.
#[must_use]
pub const fn consistency_out(level: ConsistencyLevel) -> WireConsistency {
    match level {
        ConsistencyLevel::Strong => WireConsistency::Strong,
        ConsistencyLevel::Session => WireConsistency::Session,
        ConsistencyLevel::Bounded => WireConsistency::Bounded,
        ConsistencyLevel::Eventually => WireConsistency::Eventually,
        ConsistencyLevel::Customized => WireConsistency::Customized,
    }
}

/// A checked schema from the encoded one in a create request. The collection's name is the request's.
///
/// # Errors
/// [`Failure`] that says which rule the schema breaks.
pub fn schema_in(encoded: &[u8], collection: &str) -> Result<CollectionSchema, Failure> {
    let wire =
        WireSchema::decode(encoded).map_err(|_| Failure::invalid("schema of the collection cannot be decoded"))?;
    CollectionSchema::check_name("collection", collection).map_err(Failure::invalid)?;
    if !wire.struct_array_fields.is_empty() {
        return Err(Failure::unsupported("a struct array field"));
    }
    if wire.enable_namespace {
        return Err(Failure::unsupported("a namespace"));
    }
    if !wire.external_source.is_empty() {
        return Err(Failure::unsupported("an external collection"));
    }
    if wire.fields.len() > Limits::FIELDS_MAX {
        return Err(Failure::invalid(format_args!(
            "maximum field's number should be limited to {}",
            Limits::FIELDS_MAX
        )));
    }
    let mut fields = Vec::with_capacity(wire.fields.len());
    for (id, wire_field) in (FieldId::FIRST_USER.0..).zip(wire.fields) {
        let mut field = field_in(wire_field, collection)?;
        field.id = FieldId(id);
        fields.push(field);
    }
    let schema = CollectionSchema {
        name: collection.to_owned(),
        description: wire.description,
        fields,
        enable_dynamic_field: wire.enable_dynamic_field,
        functions: functions::functions_in(wire.functions)?,
    };
    check_fields(&schema)?;
    Ok(schema)
}

fn check_fields(schema: &CollectionSchema) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for field in &schema.fields {
        if !names.insert(field.name.as_str()) {
            return Err(Failure::invalid(format_args!("duplicated field name {}", field.name)));
        }
    }
    let primaries: Vec<&FieldSchema> = schema.fields.iter().filter(|field| field.is_primary).collect();
    let primary = match primaries[..] {
        [] => return Err(Failure::invalid("primary key is not specified")),
        [primary] => primary,
        [first, second, ..] => {
            let names = format_args!(
                "there are more than one primary key, field name = {}, {}",
                first.name, second.name
            )
            .to_string();
            return Err(Failure::invalid(names));
        }
    };
    if !matches!(primary.data_type, DataType::Int64 | DataType::VarChar) {
        return Err(Failure::invalid(
            "the data type of primary key should be Int64 or VarChar",
        ));
    }
    if primary.nullable {
        return Err(Failure::invalid(format_args!(
            "primary field not support null, field name = {}",
            primary.name
        )));
    }
    for field in &schema.fields {
        if field.auto_id && !field.is_primary {
            return Err(Failure::invalid("only primary field can speficy AutoID with true"));
        }
        if field.data_type.is_vector() && field.nullable {
            return Err(Failure::invalid(format_args!(
                "vector type not support null, field name = {}",
                field.name
            )));
        }
        if field.is_partition_key && !matches!(field.data_type, DataType::Int64 | DataType::VarChar) {
            return Err(Failure::invalid(
                "the data type of partition key should be Int64 or VarChar",
            ));
        }
        if field.is_partition_key && field.is_primary {
            return Err(Failure::invalid(format_args!(
                "the partition key field must not be primary field, field name = {}",
                field.name
            )));
        }
    }
    if schema.fields.iter().filter(|field| field.is_partition_key).count() > 1 {
        return Err(Failure::invalid("there are more than one partition key"));
    }
    match schema.vectors().count() {
        0 => Err(Failure::invalid("schema does not contain vector field")),
        count if count > Limits::VECTOR_FIELDS_MAX => Err(Failure::invalid(format_args!(
            "maximum vector field's number should be limited to {}",
            Limits::VECTOR_FIELDS_MAX
        ))),
        _ => Ok(()),
    }
}

fn field_in(wire: WireField, collection: &str) -> Result<FieldSchema, Failure> {
    let name = wire.name.clone();
    if wire.is_dynamic && name == CollectionSchema::DYNAMIC_FIELD_NAME {
        return Err(Failure::invalid(
            "set enable_dynamic_field instead of declaring the field $meta",
        ));
    }
    CollectionSchema::check_name("field", &name).map_err(Failure::invalid)?;
    let data_type = data_type_in(wire.data_type, &name)?;
    let type_params = pairs::to_map(wire.type_params.clone())?;
    let element_type = if data_type == DataType::Array {
        Some(element_type_in(&wire)?)
    } else {
        None
    };
    let default_value = match &wire.default_value {
        Some(value) => default_in(value, data_type, &name)?,
        None => None,
    };
    let number = |key: &str, most: usize| number_param(&type_params, key, most, &name, collection);
    let holds_text = data_type == DataType::VarChar || element_type == Some(DataType::VarChar);
    Ok(FieldSchema {
        id: FieldId(0),
        description: wire.description,
        data_type,
        element_type,
        is_primary: wire.is_primary_key,
        auto_id: wire.auto_id,
        is_partition_key: wire.is_partition_key,
        is_dynamic: false,
        nullable: wire.nullable,
        default_value,
        dim: if data_type.is_vector() {
            dimension_in(&type_params, data_type, &name, collection)?
        } else {
            0
        },
        max_length: if holds_text {
            number("max_length", Limits::VARCHAR_BYTES_MAX)?
        } else {
            0
        },
        max_capacity: if data_type == DataType::Array {
            number("max_capacity", Limits::ARRAY_CAPACITY_MAX)?
        } else {
            0
        },
        name,
        type_params,
    })
}

fn element_type_in(wire: &WireField) -> Result<DataType, Failure> {
    let mut element = wire.element_type;
    if element == WireType::None as i32
        && let Some(type_schema::Kind::ArrayElement(inner)) =
            wire.type_schema.as_ref().and_then(|kind| kind.kind.as_ref())
        && let Some(type_schema::Kind::LeafType(leaf)) = inner.kind
    {
        element = leaf;
    }
    let element = data_type_in(element, &wire.name)?;
    if element.is_vector() || matches!(element, DataType::Json | DataType::Array) {
        return Err(Failure::invalid(format_args!(
            "element type {} is not supported",
            element.name()
        )));
    }
    Ok(element)
}

/// The dimension of vectors; sparse ones have none.
fn dimension_in(
    params: &BTreeMap<String, String>,
    data_type: DataType,
    field: &str,
    collection: &str,
) -> Result<usize, Failure> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are vectors of floats, as the caller says"
    )]
    let (kind, most) = match data_type {
        DataType::BinaryVector => ("binary", Limits::BINARY_DIMENSION_MAX),
        DataType::SparseFloatVector if params.contains_key("dim") => {
            return Err(Failure::invalid(format_args!(
                "dim should not be specified for sparse vector field {field}"
            )));
        }
        DataType::SparseFloatVector => return Ok(0),
        DataType::Int8Vector => ("int", Limits::DIMENSION_MAX),
        _ => ("float", Limits::DIMENSION_MAX),
    };
    let dim = number_param(params, "dim", u32::MAX as usize, field, collection)?;
    if dim > most {
        return Err(Failure::invalid(format_args!(
            "invalid dimension: {dim} of field {field}. {kind} vector dimension should be in range 1 ~ {most}"
        )));
    }
    if kind == "binary" && dim % 8 != 0 {
        return Err(Failure::invalid(format_args!(
            "invalid dimension: {dim} of field {field}. binary vector dimension should be multiple of 8. "
        )));
    }
    Ok(dim)
}

fn number_param(
    params: &BTreeMap<String, String>,
    key: &str,
    most: usize,
    field: &str,
    collection: &str,
) -> Result<usize, Failure> {
    let Some(text) = params.get(key) else {
        return Err(Failure::invalid(format_args!(
            "type param({key}) should be specified for the field({field}) of collection {collection}"
        )));
    };
    match text.trim().parse::<usize>() {
        Ok(value) if (1..=most).contains(&value) => Ok(value),
        _ => Err(Failure::invalid(format_args!(
            "the {key} specified for the field({field}) should be in (0, {most}], but got {} instead",
            pairs::shorten(text)
        ))),
    }
}

fn default_in(value: &ValueField, data_type: DataType, field: &str) -> Result<Option<Scalar>, Failure> {
    let Some(data) = &value.data else { return Ok(None) };
    let scalar = match (data_type, data) {
        (DataType::Bool, DefaultValue::BoolData(value)) => Scalar::Bool(*value),
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, DefaultValue::IntData(value)) => {
            Scalar::Int(i64::from(*value))
        }
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, DefaultValue::LongData(value)) => {
            Scalar::Int(*value)
        }
        (DataType::Float | DataType::Double, DefaultValue::FloatData(value)) => Scalar::Double(f64::from(*value)),
        (DataType::Float | DataType::Double, DefaultValue::DoubleData(value)) => Scalar::Double(*value),
        (DataType::VarChar, DefaultValue::StringData(value)) => Scalar::Text(value.clone()),
        _ => {
            return Err(Failure::invalid(format_args!(
                "type ({}) of field ({field}) is not equal to the type of its default value",
                data_type.name()
            )));
        }
    };
    let fits = match (&scalar, data_type) {
        (Scalar::Int(value), DataType::Int8) => i8::try_from(*value).is_ok(),
        (Scalar::Int(value), DataType::Int16) => i16::try_from(*value).is_ok(),
        (Scalar::Int(value), DataType::Int32) => i32::try_from(*value).is_ok(),
        _ => true,
    };
    if fits {
        Ok(Some(scalar))
    } else {
        Err(Failure::invalid(format_args!(
            "default value of field ({field}) is out of range"
        )))
    }
}

/// The schema as Describe shows it: the dynamic field is hidden.
#[must_use]
pub fn schema_out(schema: &CollectionSchema, name: &str) -> WireSchema {
    WireSchema {
        name: name.to_owned(),
        description: schema.description.clone(),
        fields: schema
            .fields
            .iter()
            .filter(|field| !field.is_dynamic)
            .map(|field| WireField {
                is_function_output: schema.is_function_output(field),
                ..field_out(field)
            })
            .collect(),
        enable_dynamic_field: schema.enable_dynamic_field,
        functions: functions::functions_out(schema),
        ..WireSchema::default()
    }
}

fn field_out(field: &FieldSchema) -> WireField {
    WireField {
        field_id: field.id.0,
        name: field.name.clone(),
        is_primary_key: field.is_primary,
        description: field.description.clone(),
        data_type: data_type_out(field.data_type) as i32,
        type_params: pairs::from_map(&field.type_params),
        auto_id: field.auto_id,
        element_type: field.element_type.map_or(WireType::None, data_type_out) as i32,
        default_value: field
            .default_value
            .as_ref()
            .map(|value| default_out(value, field.data_type)),
        is_dynamic: field.is_dynamic,
        is_partition_key: field.is_partition_key,
        nullable: field.nullable,
        ..WireField::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was checked against its type when it came in"
)]
fn default_out(value: &Scalar, data_type: DataType) -> ValueField {
    let data = match value {
        Scalar::Bool(value) => DefaultValue::BoolData(*value),
        Scalar::Int(value) if data_type == DataType::Int64 => DefaultValue::LongData(*value),
        Scalar::Int(value) => DefaultValue::IntData(*value as i32),
        Scalar::Double(value) if data_type == DataType::Float => DefaultValue::FloatData(*value as f32),
        Scalar::Double(value) => DefaultValue::DoubleData(*value),
        Scalar::Text(value) => DefaultValue::StringData(value.clone()),
    };
    ValueField { data: Some(data) }
}

#[cfg(test)]
mod tests {
    use saker_proto::common::KeyValuePair;

    use super::*;

    fn field(name: &str, data_type: WireType, params: &[(&str, &str)]) -> WireField {
        let type_params = params
            .iter()
            .map(|(key, value)| KeyValuePair {
                key: (*key).into(),
                value: (*value).into(),
            })
            .collect();
        WireField {
            name: name.into(),
            data_type: data_type as i32,
            type_params,
            ..WireField::default()
        }
    }
    fn primary() -> WireField {
        WireField {
            is_primary_key: true,
            ..field("id", WireType::Int64, &[])
        }
    }
    fn vector(dim: &str) -> WireField {
        field("vector", WireType::FloatVector, &[("dim", dim)])
    }
    fn read(fields: Vec<WireField>) -> Result<CollectionSchema, Failure> {
        schema_in(
            &WireSchema {
                fields,
                ..WireSchema::default()
            }
            .encode_to_vec(),
            "books",
        )
    }

    #[test]
    fn a_schema_comes_back_as_it_went_in() {
        let fields = vec![
            primary(),
            vector("8"),
            WireField {
                nullable: true,
                default_value: Some(ValueField {
                    data: Some(DefaultValue::StringData("none".into())),
                }),
                ..field("title", WireType::VarChar, &[("max_length", "64")])
            },
            WireField {
                element_type: WireType::VarChar as i32,
                ..field("tags", WireType::Array, &[("max_capacity", "4"), ("max_length", "16")])
            },
        ];
        let schema = read(fields.clone()).unwrap();
        let back = schema_out(&schema, "books").fields;
        for (index, (mut sent, shown)) in fields.into_iter().zip(back).enumerate() {
            sent.field_id = FieldId::FIRST_USER.0 + i64::try_from(index).unwrap();
            sent.type_params.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(sent, shown);
        }
        assert_eq!(
            (
                schema.fields[1].dim,
                schema.fields[2].max_length,
                schema.fields[3].max_capacity
            ),
            (8, 64, 4)
        );
    }

    #[test]
    fn rules_are_kept() {
        let refused = |fields: Vec<WireField>, part: &str| {
            let failure = read(fields).unwrap_err();
            assert!(failure.reason.contains(part), "{} lacks {part}", failure.reason);
        };
        refused(vec![vector("8")], "primary key is not specified");
        refused(vec![primary(), primary()], "duplicated field name");
        refused(
            vec![
                primary(),
                WireField {
                    name: "b".into(),
                    ..primary()
                },
                vector("8"),
            ],
            "more than one primary key",
        );
        refused(vec![primary()], "does not contain vector field");
        refused(vec![primary(), vector("0")], "dim");
        refused(vec![primary(), vector("32769")], "32768");
        refused(vec![primary(), vector("x")], "dim");
        refused(
            vec![primary(), field("vector", WireType::FloatVector, &[])],
            "type param(dim)",
        );
        refused(
            vec![primary(), vector("8"), field("t", WireType::VarChar, &[])],
            "max_length",
        );
        let of = |data_type, dim: &str| vec![primary(), field("b", data_type, &[("dim", dim)])];
        refused(
            of(WireType::BinaryVector, "12"),
            "binary vector dimension should be multiple of 8",
        );
        refused(of(WireType::BinaryVector, "262152"), "range 1 ~ 262144");
        assert_eq!(
            read(of(WireType::BinaryVector, "262144")).unwrap().fields[1].dim,
            262_144
        );
        for narrow in [WireType::Float16Vector, WireType::BFloat16Vector, WireType::Int8Vector] {
            refused(of(narrow, "32769"), "vector dimension should be in range 1 ~ 32768");
            refused(of(narrow, "0"), "dim");
            assert_eq!(read(of(narrow, "32768")).unwrap().fields[1].dim, 32_768);
        }
        refused(
            vec![primary(), vector("8"), field("9x", WireType::Bool, &[])],
            "Invalid field name",
        );
        refused(
            vec![
                primary(),
                WireField {
                    nullable: true,
                    ..vector("8")
                },
            ],
            "not support null",
        );
        assert!(read(vec![primary(), vector("32768")]).is_ok());
        assert!(schema_in(b"\xff\xff", "books").is_err());
    }
}
