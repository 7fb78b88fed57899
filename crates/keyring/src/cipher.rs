//! The three primitives that every sealed format uses, each called in one place: AES-256-GCM with nonces that the
//! module draws itself, HKDF-SHA-512, and HMAC-SHA-256.
//!
//! What becomes of keys: keys themselves are [`PlainKey`]s. An AES key schedule lives in a heap block of the module
//! (`EVP_AEAD_CTX`), and AWS-LC's `OPENSSL_free` overwrites a block before it frees it, so dropping [`AeadKey`] zeroes
//! the schedule; nothing that lives longer than one file's reading or writing keeps one. The HKDF secret is copied into
//! a buffer that `aws-lc-rs` zeroes on drop, and an HMAC context is overwritten by `HMAC_CTX_cleanup`. What all of them
//! leave on the stack (hash blocks, moved keys, the last bytes of a plaintext) is overwritten by [`leaving_no_trace`].

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA512, KeyType, Salt},
    hmac,
};
use zeroize::{Zeroize, Zeroizing};

use crate::{OpenError, PlainKey, SealError};

/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes of an authentication tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes that sealing adds to a plaintext: nonce before, tag behind.
pub(crate) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// An AES-256-GCM key that draws its own nonces.
pub(crate) struct AeadKey(RandomizedNonceKey);

impl AeadKey {
    pub(crate) fn new(key: &[u8; PlainKey::BYTES]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        leaving_no_trace(|| RandomizedNonceKey::new(&AES_256_GCM, key).map(Self))
    }

    pub(crate) fn for_sealing(key: &PlainKey) -> Result<Self, SealError> {
        Self::new(key.expose_bytes()).map_err(|_| SealError::Module)
    }

    pub(crate) fn for_opening(key: &PlainKey) -> Result<Self, OpenError> {
        Self::new(key.expose_bytes()).map_err(|_| OpenError::Refused)
    }

    /// Seals in place. `sealed` has room for the nonce, then the plaintext, then room for the tag.
    pub(crate) fn seal_in_place(&self, aad: &[u8], sealed: &mut [u8]) -> Result<(), SealError> {
        let (nonce_room, rest) = sealed.split_at_mut_checked(NONCE_BYTES).ok_or(SealError::Module)?;
        let plain_bytes = rest.len().checked_sub(TAG_BYTES).ok_or(SealError::Module)?;
        let (plain, tag_room) = rest.split_at_mut(plain_bytes);
        let (nonce, tag) = leaving_no_trace(|| self.0.seal_in_place_separate_tag(Aad::from(aad), plain))
            .map_err(|_| SealError::Module)?;
        nonce_room.copy_from_slice(nonce.as_ref());
        tag_room.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens in place. `in_out` is ciphertext and tag; the plaintext stands at its start afterwards. If anything is
    /// wrong, `in_out` is zeroed.
    pub(crate) fn open_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<(), OpenError> {
        let nonce = Nonce::from(nonce);
        if leaving_no_trace(|| self.0.open_in_place(nonce, Aad::from(aad), in_out).is_err()) {
            in_out.zeroize();
            return Err(OpenError::Refused);
        }
        Ok(())
    }

    /// Opens nonce, ciphertext and tag into a buffer of its own.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Refused)?;
        let plain_bytes = body.len().checked_sub(TAG_BYTES).ok_or(OpenError::Refused)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        self.open_in_place(nonce, aad, &mut buffer)?;
        buffer.truncate(plain_bytes);
        Ok(buffer)
    }
}

/// HKDF-SHA-512 (RFC 5869) of `secret`, to 32 bytes. `info` parts are concatenated: all but the last have fixed lengths.
pub(crate) fn derive(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> Result<PlainKey, aws_lc_rs::error::Unspecified> {
    struct Bytes32;
    impl KeyType for Bytes32 {
        fn len(&self) -> usize {
            PlainKey::BYTES
        }
    }
    PlainKey::written_by(|derived| {
        leaving_no_trace(|| {
            Salt::new(HKDF_SHA512, salt)
                .extract(secret)
                .expand(info, Bytes32)?
                .fill(derived)
        })
    })
}

/// HMAC-SHA-256 of `message`.
pub(crate) fn mac(key: &[u8; PlainKey::BYTES], message: &[u8]) -> [u8; 32] {
    let mut tag = [0_u8; 32];
    leaving_no_trace(|| {
        tag.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    });
    tag
}

/// Runs `work`, which calls the module, and overwrites the stack that it used.
pub(crate) fn leaving_no_trace<T>(work: impl FnOnce() -> T) -> T {
    saker_arena::leaving_no_trace::<STACK_BYTES, T>(work)
}

/// Stack that a call of the module uses, with room to spare. Writing it takes a few hundredths of the time of a frame.
const STACK_BYTES: usize = 16 << 10;

/// Compares in constant time.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> Result<(), OpenError> {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).map_err(|_| OpenError::Refused)
}

#[cfg(test)]
mod tests;
