//! Small values sealed under a key of their own: AES-256-GCM with the module's random nonces.
//!
//! What it is for: values that are not files (a key server's records, keys wrapped under a key file). What it
//! deliberately does not do: no framing, no streaming; a value is opened whole or not at all.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::{
    OpenError, PlainKey,
    cipher::{self, leaving_no_trace},
};

/// Seals and opens small values. Derived from a [`PlainKey`] for one purpose.
pub struct BlobKey(RandomizedNonceKey);

impl BlobKey {
    /// Derives the key for `purpose` (HKDF-SHA-512, RFC 5869; `purpose` is the info) from `key`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "fixed lengths that the functions accept")]
    pub fn new(key: &PlainKey, purpose: &str) -> Self {
        let derived = cipher::derive(key.expose_bytes(), b"saker blob v1", &[purpose.as_bytes()])
            .expect("32 bytes are within HKDF's limit");
        Self(
            leaving_no_trace(|| RandomizedNonceKey::new(&AES_256_GCM, derived.expose_bytes()))
                .expect("32 bytes are an AES-256 key"),
        )
    }

    /// Seals `plain`; `aad` must be given again to open it. The answer is nonce, ciphertext, tag.
    #[must_use]
    #[expect(clippy::expect_used, reason = "fails only beyond 2^36 bytes")]
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut body = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(aad), &mut body)
            .expect("a value fits the cipher's length limit");
        let mut sealed = Vec::with_capacity(NONCE_LEN + body.len());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        sealed
    }

    /// Opens what [`Self::seal`] made under the same key and `aad`.
    ///
    /// # Errors
    /// [`OpenError::Refused`] if anything differs.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(OpenError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Refused)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(aad), &mut body)
            .map_err(|_| OpenError::Refused)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

impl std::fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobKey([redacted])")
    }
}

/// A fresh key from the operating system's random source.
#[must_use]
#[expect(clippy::expect_used, reason = "without randomness nothing may go on")]
pub fn random_key() -> PlainKey {
    PlainKey::written_by(|bytes| leaving_no_trace(|| aws_lc_rs::rand::fill(bytes)))
        .expect("the operating system gives random bytes")
}
