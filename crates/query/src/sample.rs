//! A schema with a field of every kind, for tests.

use std::collections::BTreeMap;

use saker_model::{CollectionSchema, DataType, FieldId, FieldSchema, Scalar};

pub(crate) const ID: FieldId = FieldId(100);
pub(crate) const AGE: FieldId = FieldId(101);
pub(crate) const TINY: FieldId = FieldId(102);
pub(crate) const SCORE: FieldId = FieldId(103);
pub(crate) const PRICE: FieldId = FieldId(104);
pub(crate) const NAME: FieldId = FieldId(105);
pub(crate) const FLAG: FieldId = FieldId(106);
pub(crate) const INFO: FieldId = FieldId(107);
pub(crate) const INTS: FieldId = FieldId(108);
pub(crate) const TAGS: FieldId = FieldId(109);
pub(crate) const VECTOR: FieldId = FieldId(110);
pub(crate) const META: FieldId = FieldId(111);

/// One field, with the parameters that its type needs.
pub(crate) fn field(id: FieldId, name: &str, data_type: DataType, element_type: Option<DataType>) -> FieldSchema {
    let text = data_type == DataType::VarChar || element_type == Some(DataType::VarChar);
    FieldSchema {
        id,
        name: name.to_owned(),
        description: String::new(),
        data_type,
        element_type,
        is_primary: id == ID,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: id == META,
        nullable: id != ID && id != META && !data_type.is_vector(),
        default_value: None::<Scalar>,
        dim: if data_type.is_vector() { 2 } else { 0 },
        max_length: if text { 256 } else { 0 },
        max_capacity: if data_type == DataType::Array { 16 } else { 0 },
        type_params: BTreeMap::new(),
    }
}

/// `id` is the key; `age`, `tiny` (8 bits), `score` (32-bit float), `price`, `name`, `flag`, `info` (JSON), `ints`,
/// `tags`, `vector`, and a dynamic field.
pub(crate) fn schema() -> CollectionSchema {
    CollectionSchema {
        name: "sample".to_owned(),
        description: String::new(),
        fields: vec![
            field(ID, "id", DataType::Int64, None),
            field(AGE, "age", DataType::Int64, None),
            field(TINY, "tiny", DataType::Int8, None),
            field(SCORE, "score", DataType::Float, None),
            field(PRICE, "price", DataType::Double, None),
            field(NAME, "name", DataType::VarChar, None),
            field(FLAG, "flag", DataType::Bool, None),
            field(INFO, "info", DataType::Json, None),
            field(INTS, "ints", DataType::Array, Some(DataType::Int64)),
            field(TAGS, "tags", DataType::Array, Some(DataType::VarChar)),
            field(VECTOR, "vector", DataType::FloatVector, None),
            field(META, "$meta", DataType::Json, None),
        ],
        enable_dynamic_field: true,
        functions: Vec::new(),
    }
}
