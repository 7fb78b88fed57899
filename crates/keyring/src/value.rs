//! Small sealed values for the metadata store: a header and one piece, bound to the key path that it stands under.

use zeroize::Zeroizing;

use crate::{
    FileId, FileIdentity, FileKind, Lease, OpenError, SealError, SealedValue, Unverified,
    cipher::{AeadKey, NONCE_BYTES, OVERHEAD_BYTES, TAG_BYTES},
    header::{self, Fixed, HEADER_BYTES, Shape},
};

/// Longest plaintext of a sealed value, in bytes. A value is held in memory several times while it is written; what is
/// larger belongs into a file.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Longest identity of a value, in bytes.
pub const VALUE_IDENTITY_BYTES_MAX: usize = 4_096;

/// Bytes that sealing adds to a value.
pub const VALUE_OVERHEAD_BYTES: usize = HEADER_BYTES + OVERHEAD_BYTES;

impl Lease {
    /// Seals a metadata value under a fresh data key. `identity` (the path of its key in the metadata store) is bound:
    /// the value opens under no other.
    ///
    /// # Errors
    /// [`SealError`] if the zone is locked, or the value or the identity is too long.
    pub fn seal_value(&self, identity: &str, plain: &[u8]) -> Result<SealedValue, SealError> {
        within(plain.len(), VALUE_BYTES_MAX)?;
        within(identity.len(), VALUE_IDENTITY_BYTES_MAX)?;
        let fixed = Fixed {
            shape: Shape::Value,
            kind: FileKind::Metadata,
            frame_log2: 0,
            file: FileId::random(),
            birth: self.zone(),
        };
        self.with_keys(|keys| {
            let (header, frames) = header::seal(self.zone(), keys, &fixed)?;
            // Plaintext stands in this buffer until it is sealed in place: zeroed if that fails.
            let mut sealed = Zeroizing::new(Vec::with_capacity(VALUE_OVERHEAD_BYTES + plain.len()));
            sealed.extend_from_slice(&header);
            sealed.extend_from_slice(&[0; NONCE_BYTES]);
            sealed.extend_from_slice(plain);
            sealed.extend_from_slice(&[0; TAG_BYTES]);
            AeadKey::for_sealing(&frames)?.seal_in_place(&aad(&fixed, identity), &mut sealed[HEADER_BYTES..])?;
            Ok(SealedValue::new(std::mem::take(&mut *sealed)))
        })?
    }

    /// Opens a metadata value that [`Self::seal_value`] made for the same `identity`.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or the value does not verify.
    pub fn open_value(&self, identity: &str, value: &Unverified) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (header, body) = value
            .as_bytes()
            .split_at_checked(HEADER_BYTES)
            .ok_or(OpenError::Refused)?;
        // A value has no id that the catalog knows; its identity is the text, which its one frame binds.
        let claimed = Fixed::read(header).ok_or(OpenError::Refused)?;
        let expected = FileIdentity {
            file: claimed.file,
            kind: FileKind::Metadata,
        };
        self.with_keys(|keys| {
            let opened = header::open(self.zone(), keys, expected, Shape::Value, header)?;
            AeadKey::for_opening(&opened.frames)?.open(&aad(&opened.fixed, identity), body)
        })?
    }
}

fn aad(fixed: &Fixed, identity: &str) -> Vec<u8> {
    let mut aad = fixed.aad(0, true).to_vec();
    aad.extend_from_slice(identity.as_bytes());
    aad
}

fn within(bytes: usize, bytes_max: usize) -> Result<(), SealError> {
    if bytes > bytes_max {
        return Err(SealError::TooLong {
            bytes: bytes as u64,
            bytes_max: bytes_max as u64,
        });
    }
    Ok(())
}
