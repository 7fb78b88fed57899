//! A schema with a field of every kind, for tests.

use std::collections::BTreeMap;

use crate::{CollectionSchema, DataType, FieldId, FieldSchema};

/// One field, with the parameters that its type needs: 16 bytes of text, 4 elements, 2 dimensions.
pub(crate) fn field(id: i64, name: &str, data_type: DataType, element_type: Option<DataType>) -> FieldSchema {
    let text = data_type == DataType::VarChar || element_type == Some(DataType::VarChar);
    FieldSchema {
        id: FieldId(id),
        name: name.to_owned(),
        description: String::new(),
        data_type,
        element_type,
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: name == CollectionSchema::DYNAMIC_FIELD_NAME,
        nullable: false,
        default_value: None,
        dim: if data_type.is_vector() { 2 } else { 0 },
        max_length: if text { 16 } else { 0 },
        max_capacity: if data_type == DataType::Array { 4 } else { 0 },
        type_params: BTreeMap::new(),
    }
}

/// `id` is the key; no field is nullable or has a default.
pub(crate) fn schema() -> CollectionSchema {
    let mut fields = vec![
        field(100, "id", DataType::Int64, None),
        field(101, "age", DataType::Int64, None),
        field(102, "tiny", DataType::Int8, None),
        field(103, "score", DataType::Float, None),
        field(104, "price", DataType::Double, None),
        field(105, "name", DataType::VarChar, None),
        field(106, "flag", DataType::Bool, None),
        field(107, "info", DataType::Json, None),
        field(108, "ints", DataType::Array, Some(DataType::Int64)),
        field(109, "tags", DataType::Array, Some(DataType::VarChar)),
        field(110, "vector", DataType::FloatVector, None),
        field(111, CollectionSchema::DYNAMIC_FIELD_NAME, DataType::Json, None),
    ];
    fields[0].is_primary = true;
    CollectionSchema {
        name: "sample".into(),
        description: String::new(),
        fields,
        enable_dynamic_field: true,
        functions: Vec::new(),
    }
}
