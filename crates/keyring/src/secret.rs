//! Plaintext key bytes.

use std::fmt;

use saker_arena::{SLOT_BYTES, Slot};
use zeroize::Zeroize;

/// A plaintext 256-bit key, in memory that is locked and left out of core dumps. Zeroed on drop; cannot be cloned, printed
/// or serialised.
pub struct PlainKey(Slot);

impl PlainKey {
    /// Length of every key, in bytes.
    pub const BYTES: usize = SLOT_BYTES;

    /// Takes key bytes that a key service returned, and zeroes the caller's copy.
    ///
    /// # Errors
    /// Gives `None` if `bytes` is not exactly [`Self::BYTES`] long (the bytes are zeroed all the same).
    #[must_use]
    pub fn take(bytes: &mut [u8]) -> Option<Self> {
        let key = (bytes.len() == Self::BYTES).then(|| {
            let mut slot = Slot::zeroed();
            slot.bytes_mut().copy_from_slice(bytes);
            Self(slot)
        });
        bytes.zeroize();
        key
    }

    /// A key that `write` writes in its place, so that no copy of it is made on the way.
    pub(crate) fn written_by<E>(write: impl FnOnce(&mut [u8; Self::BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let mut slot = Slot::zeroed();
        write(slot.bytes_mut())?;
        Ok(Self(slot))
    }

    /// The key bytes, for a cipher or for the wire of a key server. Lowers protection: copies are the caller's to zero.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; Self::BYTES] {
        self.0.bytes()
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey([redacted])")
    }
}
