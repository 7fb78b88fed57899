//! Sparse vectors on the wire: for each element 4 bytes of index and 4 bytes of value, little endian.

use bytes::Bytes;
use saker_model::SparseVector;

use super::Failure;

/// A sparse vector. It may be empty.
///
/// # Errors
/// [`Failure`] in Milvus's words for bytes that are no pairs, indices that do not ascend, values that are not finite.
pub fn sparse_in(bytes: &[u8]) -> Result<SparseVector, Failure> {
    let (pairs, []) = bytes.as_chunks::<8>() else {
        return Err(Failure::invalid(format_args!(
            "invalid data length in sparse float vector: {}",
            bytes.len()
        )));
    };
    let pair = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
        (
            u32::from_le_bytes([*a, *b, *c, *d]),
            f32::from_le_bytes([*e, *f, *g, *h]),
        )
    };
    SparseVector::new(pairs.iter().map(pair).collect()).map_err(Failure::invalid)
}

/// Many of them; the failure names the field.
///
/// # Errors
/// As [`sparse_in`].
pub fn sparse_all_in(field: &str, all: &[Bytes]) -> Result<Vec<SparseVector>, Failure> {
    let vectors = all.iter().map(|bytes| sparse_in(bytes));
    vectors
        .collect::<Result<_, _>>()
        .map_err(|failure| Failure::invalid(format_args!("{}, field {field}", failure.reason)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(pairs: &[(u32, f32)]) -> Vec<u8> {
        pairs
            .iter()
            .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()])
            .flatten()
            .collect()
    }

    #[test]
    fn malformed_vectors_are_refused_in_milvus_s_words() {
        assert_eq!(sparse_in(&[]).unwrap(), SparseVector::default());
        let pairs = [(0, 1.5), (7, -2.0), (u32::MAX - 1, 0.0)];
        assert_eq!(sparse_in(&bytes(&pairs)).unwrap().pairs(), pairs);
        let refused = |bytes: &[u8], part: &str| {
            let reason = sparse_in(bytes).unwrap_err().reason;
            assert!(reason.contains(part), "{reason} lacks {part}");
        };
        refused(&[0; 7], "invalid data length in sparse float vector: 7");
        refused(
            &bytes(&[(2, 1.0), (1, 1.0)]),
            "unsorted or same indices in sparse float vector",
        );
        refused(
            &bytes(&[(2, 1.0), (2, 1.0)]),
            "unsorted or same indices in sparse float vector",
        );
        refused(&bytes(&[(u32::MAX, 1.0)]), "must be less than 2^32-1");
        refused(&bytes(&[(1, f32::NAN)]), "NaN");
        refused(&bytes(&[(1, f32::INFINITY)]), "infinite");
        let reason = sparse_all_in("terms", &[Bytes::new(), Bytes::from_static(&[1])])
            .unwrap_err()
            .reason;
        assert!(reason.contains("field terms"), "{reason}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(given in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(vector) = sparse_in(&given) {
                prop_assert_eq!(bytes(vector.pairs()), given);
            }
        }
    }
}
