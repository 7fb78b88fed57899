//! Query vectors: a `PlaceholderGroup` to row-major values.

use bytes::Bytes;
use prost::Message as _;
use saker_engine::Queries;
use saker_model::{
    DataType, FieldSchema, Limits,
    half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16},
};
use saker_proto::common::{PlaceholderGroup, PlaceholderType};

use super::{
    Failure,
    rows_in::{BF16_NOT_FINITE, F16_NOT_FINITE, not_finite},
    sparse::sparse_all_in,
};

/// Queries for a field, checked against its type and dimension, and how many there are.
///
/// Values of 16 and 8 bits are widened to 32-bit floats, which is exact.
///
/// # Errors
/// [`Failure`] for queries of another type than the field's, of another length, with NaN or infinity, and too many of
/// them.
pub fn queries_in(group: &Bytes, field: &FieldSchema) -> Result<(Queries, usize), Failure> {
    // From `Bytes`, so that each query stays a slice of the message until it is converted.
    let group = PlaceholderGroup::decode(group.clone());
    let group = group.map_err(|_| Failure::invalid("placeholder group cannot be decoded"))?;
    let mut placeholders = group.placeholders.into_iter();
    let (Some(placeholder), None) = (placeholders.next(), placeholders.next()) else {
        return Err(Failure::invalid(
            "placeholder group should hold exactly one placeholder",
        ));
    };
    let count = placeholder.values.len();
    if count == 0 || count > Limits::QUERIES_MAX {
        return Err(Failure::invalid(format_args!(
            "nq [{count}] is invalid, it should be in range [1, {}]",
            Limits::QUERIES_MAX
        )));
    }
    let sent = PlaceholderType::try_from(placeholder.r#type).unwrap_or(PlaceholderType::None);
    let values = placeholder.values.as_slice();
    let queries = match (sent, field.data_type) {
        (PlaceholderType::FloatVector, DataType::FloatVector | DataType::Float16Vector | DataType::BFloat16Vector) => {
            let mut floats = dense(field, values, f32::from_le_bytes)?;
            // Rounded as the field's own values are, so that a vector that was sent so is found at distance 0.
            if field.data_type == DataType::Float16Vector {
                floats
                    .iter_mut()
                    .for_each(|value| *value = f16_to_f32(f32_to_f16(*value)));
            } else if field.data_type == DataType::BFloat16Vector {
                floats
                    .iter_mut()
                    .for_each(|value| *value = bf16_to_f32(f32_to_bf16(*value)));
            }
            if floats.iter().any(|value| !value.is_finite()) {
                return Err(not_finite(&field.name));
            }
            Queries::Dense(floats)
        }
        (PlaceholderType::Float16Vector, DataType::Float16Vector) => {
            refuse_exponent(field, values, F16_NOT_FINITE)?;
            Queries::Dense(dense(field, values, |bytes| f16_to_f32(u16::from_le_bytes(bytes)))?)
        }
        (PlaceholderType::BFloat16Vector, DataType::BFloat16Vector) => {
            refuse_exponent(field, values, BF16_NOT_FINITE)?;
            Queries::Dense(dense(field, values, |bytes| bf16_to_f32(u16::from_le_bytes(bytes)))?)
        }
        (PlaceholderType::Int8Vector, DataType::Int8Vector) => {
            Queries::Dense(dense(field, values, |bytes| f32::from(i8::from_le_bytes(bytes)))?)
        }
        (PlaceholderType::BinaryVector, DataType::BinaryVector) => {
            check_lengths(field, values, field.dim / 8)?;
            Queries::Binary(values.concat())
        }
        (PlaceholderType::SparseFloatVector, DataType::SparseFloatVector) => {
            Queries::Sparse(sparse_all_in(&field.name, values)?)
        }
        (PlaceholderType::VarChar, DataType::SparseFloatVector) => Queries::Text(texts(values)?),
        (sent, expected) => {
            return Err(Failure::invalid(format_args!(
                "vector type must be the same, field {} - type {}, search info type {}",
                field.name,
                expected.name(),
                sent.as_str_name()
            )));
        }
    };
    Ok((queries, count))
}

/// Texts to search by; whether the field takes them is the engine's knowledge.
fn texts(queries: &[Bytes]) -> Result<Vec<String>, Failure> {
    let text = |bytes: &Bytes| std::str::from_utf8(bytes).map(str::to_owned);
    let texts: Result<Vec<String>, _> = queries.iter().map(text).collect();
    texts.map_err(|_| Failure::invalid("a text to search by is not UTF-8"))
}

/// All elements of all queries, of `N` bytes each.
fn dense<const N: usize>(
    field: &FieldSchema,
    queries: &[Bytes],
    value: impl Fn([u8; N]) -> f32,
) -> Result<Vec<f32>, Failure> {
    check_lengths(field, queries, field.dim * N)?;
    let mut values = Vec::with_capacity(queries.len() * field.dim);
    for query in queries {
        let (elements, _) = query.as_chunks::<N>();
        values.extend(elements.iter().map(|bytes| value(*bytes)));
    }
    Ok(values)
}

fn check_lengths(field: &FieldSchema, queries: &[Bytes], expected: usize) -> Result<(), Failure> {
    match queries.iter().position(|query| query.len() != expected) {
        Some(position) => Err(Failure::invalid(format_args!(
            "vector dimension mismatch, expected vector size(byte) {expected}, actual {} (query {position}, dimension {})",
            queries[position].len(),
            field.dim
        ))),
        None => Ok(()),
    }
}

/// Refuses 16-bit values with all bits of the exponent set: NaN and infinities.
fn refuse_exponent(field: &FieldSchema, queries: &[Bytes], exponent: u16) -> Result<(), Failure> {
    let mut values = queries.iter().flat_map(|query| query.as_chunks::<2>().0);
    if values.any(|bytes| u16::from_le_bytes(*bytes) & exponent == exponent) {
        return Err(not_finite(&field.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use saker_model::FieldId;
    use saker_proto::common::PlaceholderValue;

    use super::*;

    fn field(data_type: DataType, dim: usize) -> FieldSchema {
        FieldSchema {
            id: FieldId(101),
            name: "v".into(),
            description: String::new(),
            data_type,
            element_type: None,
            is_primary: false,
            auto_id: false,
            is_partition_key: false,
            is_dynamic: false,
            nullable: false,
            default_value: None,
            dim,
            max_length: 0,
            max_capacity: 0,
            type_params: BTreeMap::new(),
        }
    }
    fn group(vector_type: PlaceholderType, values: Vec<Vec<u8>>) -> Bytes {
        let values = values.into_iter().map(Bytes::from).collect();
        let value = PlaceholderValue {
            tag: "$0".into(),
            r#type: vector_type as i32,
            values,
            element_level: false,
        };
        PlaceholderGroup {
            placeholders: vec![value],
        }
        .encode_to_vec()
        .into()
    }
    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
    fn halves(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn vectors_of_every_type_come_through() {
        use PlaceholderType as Sent;
        let encoded = group(Sent::FloatVector, vec![floats(&[1.0, 2.0]), floats(&[3.0, -4.5])]);
        let read = queries_in(&encoded, &field(DataType::FloatVector, 2));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, 2.0, 3.0, -4.5]), 2)));
        let sixteen = [0x3c00, 0xc100, 0x0001, 0x7bff];
        let encoded = group(Sent::Float16Vector, vec![halves(&sixteen)]);
        let read = queries_in(&encoded, &field(DataType::Float16Vector, 4));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, -2.5, 2f32.powi(-24), 65_504.0]), 1)));
        // Lists of numbers come as 32-bit floats, whatever the field, and are rounded as its values are.
        let encoded = group(Sent::FloatVector, vec![floats(&[1.0, 0.1])]);
        let read = queries_in(&encoded, &field(DataType::Float16Vector, 2));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, 0.099_975_586]), 1)));
        let read = queries_in(&encoded, &field(DataType::BFloat16Vector, 2));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, 0.100_097_656]), 1)));
        let encoded = group(Sent::BFloat16Vector, vec![halves(&[0x3f80, 0xc020])]);
        let read = queries_in(&encoded, &field(DataType::BFloat16Vector, 2));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, -2.5]), 1)));
        let encoded = group(Sent::Int8Vector, vec![vec![1, 0x80], vec![0xff, 0x7f]]);
        let read = queries_in(&encoded, &field(DataType::Int8Vector, 2));
        assert_eq!(read, Ok((Queries::Dense(vec![1.0, -128.0, -1.0, 127.0]), 2)));
        let encoded = group(Sent::BinaryVector, vec![vec![1, 2], vec![3, 4]]);
        let read = queries_in(&encoded, &field(DataType::BinaryVector, 16));
        assert_eq!(read, Ok((Queries::Binary(vec![1, 2, 3, 4]), 2)));
    }

    #[test]
    fn malformed_vectors_are_refused() {
        use PlaceholderType as Sent;
        let refused = |encoded: Bytes, field: &FieldSchema, part: &str| {
            let reason = queries_in(&encoded, field).unwrap_err().reason;
            assert!(reason.contains(part), "{reason} lacks {part}");
        };
        let (float, one) = (Sent::FloatVector, field(DataType::FloatVector, 1));
        refused(group(float, vec![]), &one, "nq [0]");
        refused(
            group(float, vec![vec![0; 7]]),
            &one,
            "expected vector size(byte) 4, actual 7",
        );
        refused(group(float, vec![vec![]]), &one, "actual 0");
        refused(
            group(float, vec![floats(&[1.0]), floats(&[1.0, 2.0])]),
            &one,
            "dimension mismatch",
        );
        refused(group(float, vec![floats(&[f32::NAN])]), &one, "NaN");
        refused(group(float, vec![floats(&[f32::INFINITY])]), &one, "Inf");
        for special in [0x7c00, 0xfc00, 0x7e00] {
            let encoded = group(Sent::Float16Vector, vec![halves(&[special])]);
            refused(encoded, &field(DataType::Float16Vector, 1), "NaN");
        }
        for special in [0x7f80, 0xff80, 0x7fc0] {
            let encoded = group(Sent::BFloat16Vector, vec![halves(&[special])]);
            refused(encoded, &field(DataType::BFloat16Vector, 1), "NaN");
        }
        for data_type in [DataType::Float16Vector, DataType::BFloat16Vector] {
            let sent = if data_type == DataType::Float16Vector {
                Sent::Float16Vector
            } else {
                Sent::BFloat16Vector
            };
            refused(
                group(sent, vec![vec![0; 3]]),
                &field(data_type, 2),
                "size(byte) 4, actual 3",
            );
        }
        refused(group(Sent::BinaryVector, vec![vec![0; 8]]), &one, "BinaryVector");
        refused(
            group(float, vec![floats(&[1e9])]),
            &field(DataType::Float16Vector, 1),
            "Inf",
        );
        refused(
            group(float, vec![floats(&[1.0])]),
            &field(DataType::Int8Vector, 1),
            "type Int8Vector",
        );
        let bits = field(DataType::BinaryVector, 16);
        refused(
            group(Sent::BinaryVector, vec![vec![0; 3]]),
            &bits,
            "size(byte) 2, actual 3",
        );
        refused(
            group(Sent::Int8Vector, vec![vec![0; 2]]),
            &bits,
            "field v - type BinaryVector",
        );
        refused(
            group(float, vec![floats(&[1.0]); Limits::QUERIES_MAX + 1]),
            &one,
            "nq [16385]",
        );
        refused(Bytes::from_static(b"\xff\xff\xff"), &one, "cannot be decoded");
        refused(PlaceholderGroup::default().encode_to_vec().into(), &one, "exactly one");
        assert!(queries_in(&group(float, vec![floats(&[1.0]); Limits::QUERIES_MAX]), &one).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = queries_in(&bytes.into(), &field(DataType::FloatVector, 2));
        }
        #[test]
        fn any_placeholder_is_answered(
            kind in 99i32..107,
            dim in 1usize..5,
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10), 0..5),
        ) {
            let values = values.into_iter().map(Bytes::from).collect();
            let value = PlaceholderValue { tag: "$0".into(), r#type: kind, values, element_level: false };
            let encoded = Bytes::from(PlaceholderGroup { placeholders: vec![value] }.encode_to_vec());
            for data_type in [
                DataType::FloatVector,
                DataType::Float16Vector,
                DataType::BFloat16Vector,
                DataType::Int8Vector,
                DataType::BinaryVector,
            ] {
                let dim = if data_type == DataType::BinaryVector { 8 * dim } else { dim };
                match queries_in(&encoded, &field(data_type, dim)) {
                    Ok((Queries::Dense(values), count)) => prop_assert_eq!(values.len(), count * dim),
                    Ok((Queries::Binary(bytes), count)) => prop_assert_eq!(8 * bytes.len(), count * dim),
                    Ok(_) => prop_assert!(false, "queries of another kind"),
                    Err(_) => {}
                }
            }
        }
    }
}
