//! Plaintext key bytes.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A plaintext 256-bit key. Zeroed on drop; cannot be cloned, printed or serialised.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PlainKey(Box<[u8; Self::BYTES]>);

impl PlainKey {
    /// Length of every key, in bytes.
    pub const BYTES: usize = 32;

    /// Takes key bytes that a key service returned, and zeroes the caller's copy.
    ///
    /// # Errors
    /// Gives `None` if `bytes` is not exactly [`Self::BYTES`] long (the bytes are zeroed all the same).
    #[must_use]
    pub fn take(bytes: &mut [u8]) -> Option<Self> {
        let key = <[u8; Self::BYTES]>::try_from(&*bytes)
            .ok()
            .map(|key| Self(Box::new(key)));
        bytes.zeroize();
        key
    }

    /// The key bytes, for a cipher or for the wire of a key server. Lowers protection: copies are the caller's to zero.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey([redacted])")
    }
}
