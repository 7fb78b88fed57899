//! An object that stays open to be read at random.
//!
//! What it is for: files that are larger than memory are read a frame at a time, by threads that compute and cannot wait
//! for an async call. What it deliberately does not do: it verifies nothing and keeps nothing; the bytes it gives are
//! sealed, as all that storage has.

use std::{fmt::Debug, ops::Range};

use saker_keyring::Unverified;

use crate::{ObjectPath, StoreError};

/// An open object. Whoever holds one reads the same object to the end, even if its path is given up meanwhile.
pub trait ObjectReader: Send + Sync + Debug {
    /// Its sealed length in bytes when it was opened.
    fn bytes(&self) -> u64;

    /// Fills `out` with the sealed bytes from `at` on. Blocks until they are there: not for async threads.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`], [`StoreError::Io`]; `out` may hold some of the bytes then.
    fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), StoreError>;

    /// Says that these bytes will be read soon, so that a disk can begin. Changes nothing but speed.
    fn will_read(&self, _range: Range<u64>) {}
}

/// An object whose sealed bytes are all in memory: what a store gives that cannot read in place.
#[derive(Debug)]
pub struct HeldObject {
    path: ObjectPath,
    sealed: Unverified,
}

impl HeldObject {
    /// Serves `sealed`, which was read from `path`.
    #[must_use]
    pub fn new(path: ObjectPath, sealed: Unverified) -> Self {
        Self { path, sealed }
    }
}

impl ObjectReader for HeldObject {
    fn bytes(&self) -> u64 {
        self.sealed.len() as u64
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let start = usize::try_from(at).ok();
        let found = start.and_then(|start| self.sealed.as_bytes().get(start..start.checked_add(out.len())?));
        out.copy_from_slice(found.ok_or_else(|| StoreError::OutOfRange {
            path: self.path.clone(),
            start: at,
            end: at.saturating_add(out.len() as u64),
        })?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_objects_give_what_is_there_and_nothing_else() {
        let held = HeldObject::new(
            ObjectPath::new("a/b").unwrap(),
            Unverified::new(vec![1, 2, 3, 4].into()),
        );
        assert_eq!(held.bytes(), 4);
        let mut out = [0; 2];
        held.read_at(2, &mut out).unwrap();
        assert_eq!(out, [3, 4]);
        held.read_at(4, &mut []).unwrap();
        for at in [3, 4, 5, u64::MAX] {
            assert!(
                matches!(held.read_at(at, &mut out), Err(StoreError::OutOfRange { .. })),
                "{at}"
            );
        }
    }
}
