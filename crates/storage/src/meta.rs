//! The face of the metadata store: small sealed values by key, changed in atomic batches.

use std::fmt::Debug;

use async_trait::async_trait;
use saker_keyring::{SealedValue, Unverified};
use thiserror::Error;

use crate::{MetaKey, PathError};

/// Why the metadata store could not do what was asked. Holds keys and sizes, never values.
#[derive(Debug, Error)]
pub enum MetaError {
    /// A precondition does not hold; nothing was changed.
    #[error("metadata key {key} has another value than expected; read it again and retry")]
    Conflict {
        /// The first key whose precondition fails.
        key: MetaKey,
    },
    /// A batch has more in it than one transaction takes.
    #[error(
        "a metadata batch of {operations} operations and {bytes} bytes exceeds the limit of {} operations or {} bytes",
        MetaBatch::OPERATIONS_MAX,
        MetaBatch::BYTES_MAX
    )]
    TooLarge {
        /// Operations and preconditions in the batch.
        operations: usize,
        /// Bytes of its values.
        bytes: usize,
    },
    /// The disk is full. Nothing was changed; the same batch may succeed once there is space.
    #[error("no space left for metadata; free space in the data directory and try again")]
    Full,
    /// A prefix is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store's own file is damaged.
    #[error("the metadata file is damaged: {reason}; restore it from a backup")]
    Corrupt {
        /// What the store said.
        reason: String,
    },
    /// Anything else that the store met.
    #[error("metadata store failed to {action}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the operating system or the store said.
        reason: String,
    },
}

/// What a precondition wants to find.
#[derive(Clone, Debug)]
pub enum Expected {
    /// No value.
    Absent,
    /// Exactly these sealed bytes: what a reader got, or what it wrote itself. Each seal is different, so equal bytes
    /// mean the same write.
    Value(Unverified),
}

/// One change.
#[derive(Debug)]
pub enum MetaOperation {
    /// Sets a key.
    Put(MetaKey, SealedValue),
    /// Removes a key; one that is not there is fine.
    Delete(MetaKey),
}

/// Changes that happen together or not at all, if all preconditions hold.
#[derive(Debug, Default)]
pub struct MetaBatch {
    operations: Vec<MetaOperation>,
    expected: Vec<(MetaKey, Expected)>,
}

impl MetaBatch {
    /// Most operations and preconditions in a batch: one transaction stays short.
    pub const OPERATIONS_MAX: usize = 4_096;
    /// Most bytes of values in a batch: one transaction stays small in memory.
    pub const BYTES_MAX: usize = 128 << 20;

    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets `key` to `value`. Operations apply in order.
    pub fn put(&mut self, key: MetaKey, value: SealedValue) -> &mut Self {
        self.operations.push(MetaOperation::Put(key, value));
        self
    }
    /// Removes `key`.
    pub fn delete(&mut self, key: MetaKey) -> &mut Self {
        self.operations.push(MetaOperation::Delete(key));
        self
    }
    /// Demands that `key` has this value before the batch.
    pub fn expect(&mut self, key: MetaKey, value: Expected) -> &mut Self {
        self.expected.push((key, value));
        self
    }
    /// The changes, in order.
    #[must_use]
    pub fn operations(&self) -> &[MetaOperation] {
        &self.operations
    }
    /// The preconditions.
    #[must_use]
    pub fn expected(&self) -> &[(MetaKey, Expected)] {
        &self.expected
    }

    /// Checks the limits.
    pub(crate) fn check(&self) -> Result<(), MetaError> {
        let operations = self.operations.len() + self.expected.len();
        let bytes = self
            .operations
            .iter()
            .map(|operation| match operation {
                MetaOperation::Put(_, value) => value.as_bytes().len(),
                MetaOperation::Delete(_) => 0,
            })
            .sum();
        if operations > Self::OPERATIONS_MAX || bytes > Self::BYTES_MAX {
            return Err(MetaError::TooLarge { operations, bytes });
        }
        Ok(())
    }
}

/// Keeps small sealed values.
#[async_trait]
pub trait MetaStore: Send + Sync + Debug {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`MetaError::Corrupt`], [`MetaError::Io`].
    async fn get(&self, key: &MetaKey) -> Result<Option<Unverified>, MetaError>;

    /// All values whose key starts with the text `prefix`, in order of key, as of one instant. End the prefix with `/`
    /// to mean whole parts.
    ///
    /// # Errors
    /// [`MetaError::Path`], [`MetaError::Corrupt`], [`MetaError::Io`].
    async fn scan(&self, prefix: &str) -> Result<Vec<(MetaKey, Unverified)>, MetaError>;

    /// Applies a batch: all of it, durable when this returns, or none of it. If the call is cancelled, either.
    ///
    /// # Errors
    /// [`MetaError::Conflict`], [`MetaError::TooLarge`], [`MetaError::Full`]: nothing was changed.
    /// [`MetaError::Io`]: read again to learn whether it was applied.
    async fn commit(&self, batch: MetaBatch) -> Result<(), MetaError>;
}
