//! What this server returns as a ciphertext: which key and which of its materials, then the sealed plaintext.
//!
//! Layout, version 1: one byte version, 16 bytes key id (UUID), four bytes material version (big endian), sealed blob.
//! The first 21 bytes and the encryption context are associated data, so neither can be exchanged.

use std::collections::BTreeMap;

use saker_keyring::{BlobKey, PlainKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::context;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 21;
const PURPOSE: &str = "saker key server: ciphertext v1";

/// A ciphertext's plain part; says what is needed to open it, proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: Uuid,
    pub(super) material_version: u32,
}

/// Encryption context as it comes over the wire.
pub(super) type Pairs = BTreeMap<String, String>;

impl Header {
    /// `None`: not a ciphertext of this server.
    pub(super) fn parse(ciphertext: &[u8]) -> Option<(Self, &[u8])> {
        let (header, sealed) = ciphertext.split_at_checked(HEADER_BYTES)?;
        let (&VERSION, header) = header.split_first()? else {
            return None;
        };
        let (key, version) = header.split_at_checked(16)?;
        let key = Uuid::from_slice(key).ok()?;
        let material_version = u32::from_be_bytes(version.try_into().ok()?);
        Some((Self { key, material_version }, sealed))
    }

    fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [VERSION; HEADER_BYTES];
        bytes[1..17].copy_from_slice(self.key.as_bytes());
        bytes[17..].copy_from_slice(&self.material_version.to_be_bytes());
        bytes
    }

    fn associated(self, context: &Pairs) -> Vec<u8> {
        let mut associated = self.bytes().to_vec();
        associated.extend(context::canonical(PURPOSE, context));
        associated
    }
}

/// Seals `plain` under `material`, bound to `header` and `context`.
pub(super) fn seal(material: &PlainKey, header: Header, context: &Pairs, plain: &[u8]) -> Vec<u8> {
    let mut ciphertext = header.bytes().to_vec();
    ciphertext.extend(BlobKey::new(material, PURPOSE).seal(&header.associated(context), plain));
    ciphertext
}

/// Opens the sealed part of a ciphertext; `None` if anything differs from when it was sealed.
pub(super) fn open(material: &PlainKey, header: Header, context: &Pairs, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    BlobKey::new(material, PURPOSE)
        .open(&header.associated(context), sealed)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_keyring::random_key;

    #[test]
    fn every_bit_context_and_length_counts() {
        let material = random_key();
        let header = Header {
            key: Uuid::new_v4(),
            material_version: 3,
        };
        let context = Pairs::from([("a".to_owned(), "b".to_owned())]);
        let ciphertext = seal(&material, header, &context, b"plain");
        let opened = |ciphertext: &[u8], context: &Pairs| {
            let (header, sealed) = Header::parse(ciphertext)?;
            open(&material, header, context, sealed)
        };
        assert_eq!(opened(&ciphertext, &context).unwrap().as_slice(), b"plain");
        assert!(opened(&ciphertext, &Pairs::new()).is_none());
        for bit in 0..ciphertext.len() * 8 {
            let mut altered = ciphertext.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&altered, &context).is_none(), "bit {bit}");
        }
        for length in 0..ciphertext.len() {
            assert!(opened(&ciphertext[..length], &context).is_none(), "length {length}");
        }
        let longer = [&ciphertext[..], &[0]].concat();
        assert!(opened(&longer, &context).is_none());
    }
}
