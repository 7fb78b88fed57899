//! Query vectors: a `PlaceholderGroup` to row-major floats.

use prost::Message as _;
use saker_model::Limits;
use saker_proto::common::{PlaceholderGroup, PlaceholderType};

use super::Failure;

/// Query vectors as they came, all of the same dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Queries {
    /// Row-major values.
    pub values: Vec<f32>,
    /// Number of queries, at least 1.
    pub count: usize,
    /// Values a query.
    pub dim: usize,
}

/// The float vectors of a placeholder group.
///
/// # Errors
/// [`Failure`] for other vector types, ragged or cut vectors, NaN and infinity, and too many queries.
pub fn queries_in(group: &[u8], field: &str) -> Result<Queries, Failure> {
    let group = PlaceholderGroup::decode(group).map_err(|_| Failure::invalid("placeholder group cannot be decoded"))?;
    let mut placeholders = group.placeholders.into_iter();
    let (Some(placeholder), None) = (placeholders.next(), placeholders.next()) else {
        return Err(Failure::invalid(
            "placeholder group should hold exactly one placeholder",
        ));
    };
    let sent = PlaceholderType::try_from(placeholder.r#type).unwrap_or(PlaceholderType::None);
    if sent != PlaceholderType::FloatVector {
        return Err(Failure::invalid(format_args!(
            "vector type must be the same, field {field} - type FloatVector, search info type {}",
            sent.as_str_name()
        )));
    }
    let count = placeholder.values.len();
    if count == 0 || count > Limits::QUERIES_MAX {
        return Err(Failure::invalid(format_args!(
            "nq [{count}] is invalid, it should be in range [1, {}]",
            Limits::QUERIES_MAX
        )));
    }
    let bytes_each = placeholder.values[0].len();
    if bytes_each == 0 || bytes_each % 4 != 0 {
        return Err(Failure::invalid(format_args!(
            "a float vector of {bytes_each} bytes is malformed: its length should be a multiple of 4"
        )));
    }
    let mut values = Vec::with_capacity(count * bytes_each / 4);
    for (query, bytes) in placeholder.values.iter().enumerate() {
        if bytes.len() != bytes_each {
            return Err(Failure::mismatch(
                format_args!("{bytes_each} bytes as in the first"),
                format_args!("{} bytes", bytes.len()),
                format_args!("vector dimension mismatch: query {query}"),
            ));
        }
        let (chunks, _) = bytes.as_chunks::<4>();
        values.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(super::rows_in::not_finite(field));
    }
    Ok(Queries {
        values,
        count,
        dim: bytes_each / 4,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use saker_proto::common::PlaceholderValue;

    use super::*;

    fn group(vector_type: PlaceholderType, values: Vec<Vec<u8>>) -> Vec<u8> {
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
    }
    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn vectors_come_through() {
        let encoded = group(
            PlaceholderType::FloatVector,
            vec![floats(&[1.0, 2.0]), floats(&[3.0, -4.5])],
        );
        let expected = Queries {
            values: vec![1.0, 2.0, 3.0, -4.5],
            count: 2,
            dim: 2,
        };
        assert_eq!(queries_in(&encoded, "v"), Ok(expected));
    }

    #[test]
    fn malformed_vectors_are_refused() {
        let refused = |encoded: Vec<u8>, part: &str| {
            let reason = queries_in(&encoded, "v").unwrap_err().reason;
            assert!(reason.contains(part), "{reason} lacks {part}");
        };
        let float = PlaceholderType::FloatVector;
        refused(group(float, vec![]), "nq [0]");
        refused(group(float, vec![vec![0; 7]]), "multiple of 4");
        refused(group(float, vec![vec![]]), "multiple of 4");
        refused(
            group(float, vec![floats(&[1.0]), floats(&[1.0, 2.0])]),
            "dimension mismatch",
        );
        refused(group(float, vec![floats(&[f32::NAN])]), "NaN");
        refused(group(float, vec![floats(&[f32::INFINITY])]), "Inf");
        refused(group(PlaceholderType::BinaryVector, vec![vec![0; 8]]), "BinaryVector");
        refused(
            group(float, vec![floats(&[1.0]); Limits::QUERIES_MAX + 1]),
            "nq [16385]",
        );
        refused(b"\xff\xff\xff".to_vec(), "cannot be decoded");
        refused(PlaceholderGroup::default().encode_to_vec(), "exactly one");
        assert!(queries_in(&group(float, vec![floats(&[1.0]); Limits::QUERIES_MAX]), "v").is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = queries_in(&bytes, "v");
        }
        #[test]
        fn any_placeholder_is_answered(
            kind in -5i32..400,
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
        ) {
            let values = values.into_iter().map(Bytes::from).collect();
            let value = PlaceholderValue { tag: "$0".into(), r#type: kind, values, element_level: false };
            let encoded = PlaceholderGroup { placeholders: vec![value] }.encode_to_vec();
            if let Ok(queries) = queries_in(&encoded, "v") {
                prop_assert_eq!(queries.values.len(), queries.count * queries.dim);
            }
        }
    }
}
