//! Any bytes as the plaintext of a column file, of any type of field, in pieces of any size: refused, or as many rows as
//! were asked for.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use saker_model::{DataType, FieldId, FieldSchema};
use saker_segment::fuzzing;

const TYPES: [DataType; 16] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Float,
    DataType::Double,
    DataType::VarChar,
    DataType::Json,
    DataType::Array,
    DataType::FloatVector,
    DataType::Float16Vector,
    DataType::BFloat16Vector,
    DataType::Int8Vector,
    DataType::BinaryVector,
    DataType::SparseFloatVector,
];
/// Rows that a file claims, as far as a fuzzer will go.
const ROWS_MAX: usize = 200;

fn field(data_type: DataType, element_type: DataType, nullable: bool) -> FieldSchema {
    FieldSchema {
        id: FieldId(101),
        name: "field".to_owned(),
        description: String::new(),
        data_type,
        element_type: (data_type == DataType::Array).then_some(element_type),
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable,
        default_value: None,
        dim: if data_type == DataType::BinaryVector { 24 } else { 3 },
        max_length: 0,
        max_capacity: 0,
        type_params: BTreeMap::new(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([kind, element, rows, flags, piece], bytes)) = data.split_first_chunk() else { return };
    let rows = usize::from(*rows).min(ROWS_MAX);
    let data_type = TYPES[usize::from(*kind) % TYPES.len()];
    let field = field(data_type, TYPES[usize::from(*element) % 8], flags & 1 != 0);
    // Mostly behind a header that fits, for the rest is what is worth looking at.
    let mut file = if flags & 4 == 0 { fuzzing::column_header(&field, rows, flags & 2 != 0) } else { Vec::new() };
    file.extend_from_slice(bytes);
    if let Ok(column) = fuzzing::column(&file, &field, rows, usize::from(*piece)) {
        assert!(column.rows() == rows && column.field == field.id && column.data.data_type() == data_type);
        assert!(column.validity.is_none_or(|bits| bits.len() == rows));
    }
    let _ = fuzzing::deletes(bytes, rows);
    let _ = fuzzing::index_header(bytes, field.id, rows, field.dim);
});
