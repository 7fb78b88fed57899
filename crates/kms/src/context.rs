//! The canonical bytes of an encryption context, as they are bound into wrapped keys.
//!
//! Not the wire form: only what both ends of one seal must agree on. Pairs come in key order (the map's own), each text
//! preceded by its length, so no two contexts give the same bytes.

use std::collections::BTreeMap;

/// Encodes `pairs` after `domain`, a text that tells one use of the encoding from another.
pub(crate) fn canonical(domain: &str, pairs: &BTreeMap<String, String>) -> Vec<u8> {
    let texts: usize = pairs.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
    let mut bytes = Vec::with_capacity(domain.len() + 16 + texts);
    push(&mut bytes, domain);
    bytes.extend_from_slice(&(pairs.len() as u64).to_be_bytes());
    for (key, value) in pairs {
        push(&mut bytes, key);
        push(&mut bytes, value);
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn different_contexts_never_share_bytes(
            one in prop::collection::btree_map("[ab=:]{0,3}", "[ab=:]{0,3}", 0..4),
            two in prop::collection::btree_map("[ab=:]{0,3}", "[ab=:]{0,3}", 0..4),
        ) {
            prop_assert_eq!(one == two, canonical("d", &one) == canonical("d", &two));
        }
    }

    #[test]
    fn the_domain_separates_uses() {
        let pairs = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_ne!(canonical("one", &pairs), canonical("two", &pairs));
    }
}
