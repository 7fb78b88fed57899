//! The face of a store of sealed objects: written once, read by range, deleted or shredded.

use std::{fmt::Debug, ops::Range, sync::Arc};

use async_trait::async_trait;
use saker_keyring::{SealedHeader, SealedObject, Unverified};
use thiserror::Error;

use crate::{HeldObject, ObjectPath, ObjectReader, PathError};

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Where it lies.
    pub path: ObjectPath,
    /// Its sealed length, in bytes.
    pub bytes: u64,
}

/// Why a store of objects could not do what was asked. Holds paths and sizes, never content.
#[derive(Debug, Error)]
pub enum StoreError {
    /// An object lies there already; objects are never overwritten.
    #[error("object {path} exists already; objects are written once, use a new file id")]
    AlreadyExists {
        /// Where.
        path: ObjectPath,
    },
    /// There is no such object.
    #[error("object {path} does not exist")]
    NotFound {
        /// Where.
        path: ObjectPath,
    },
    /// The range does not lie in the object.
    #[error("bytes {start}..{end} are not inside object {path}")]
    OutOfRange {
        /// Which object.
        path: ObjectPath,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
    },
    /// Too long to be read at once.
    #[error("object {path} is {bytes} bytes long, at most {bytes_max} are read at once; read it by range")]
    TooLarge {
        /// Which object.
        path: ObjectPath,
        /// Its length.
        bytes: u64,
        /// Most bytes read at once.
        bytes_max: u64,
    },
    /// The disk is full. Nothing was stored; the same call may succeed once there is space.
    #[error("no space left for object {path}; free space in the data directory and try again")]
    Full {
        /// Which object.
        path: ObjectPath,
    },
    /// A prefix is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Anything else that the store met.
    #[error("object store failed to {action} {path}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which object or prefix.
        path: String,
        /// What the operating system or the store said.
        reason: String,
    },
}

/// Limits of every object store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectStoreLimits;

impl ObjectStoreLimits {
    /// Most bytes read into memory by one call: above the largest sealed file that a segment may have, so that only a
    /// store that was tampered with reaches it.
    pub(crate) const READ_BYTES_MAX: u64 = 8 << 30;
}

/// Keeps sealed objects. Every call may be cancelled; what that leaves behind stands at each method.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Stores an object where none is yet. When this returns, the object survives power loss.
    ///
    /// If the call is cancelled the object may be there whole, or not at all.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::Full`], [`StoreError::Io`].
    async fn put(&self, path: &ObjectPath, object: SealedObject) -> Result<(), StoreError>;

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::TooLarge`], [`StoreError::Io`].
    async fn get(&self, path: &ObjectPath) -> Result<Unverified, StoreError>;

    /// Exactly these bytes of the object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::OutOfRange`], [`StoreError::TooLarge`], [`StoreError::Io`].
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Unverified, StoreError>;

    /// Opens the object to be read at random by threads that compute. A store that cannot read in place holds all of the
    /// sealed bytes in memory for as long.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::TooLarge`], [`StoreError::Io`].
    async fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ObjectReader>, StoreError> {
        Ok(Arc::new(HeldObject::new(path.clone(), self.get(path).await?)))
    }

    /// The object's sealed length, in bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Io`].
    async fn size(&self, path: &ObjectPath) -> Result<u64, StoreError>;

    /// All objects whose path starts with the parts of `prefix` (`a/b` finds `a/b/c`, not `a/bc`), in order of path.
    /// Objects that are being written do not show.
    ///
    /// # Errors
    /// [`StoreError::Path`], [`StoreError::Io`].
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Removes an object; one that is not there is fine, so that a caller may repeat this after a crash.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError>;

    /// Overwrites the sealed header (and with it the wrapped data key), makes that durable, then deletes the object.
    /// Where a file system or a disk writes to another place instead of over the old bytes, old bytes may remain until
    /// they are reused: destroying the zone's key is what makes data unreadable for certain.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    async fn shred(&self, path: &ObjectPath) -> Result<(), StoreError>;

    /// Replaces the sealed headers of objects (their data keys wrapped anew), over the old ones and durably; bodies stay
    /// as they are. Readers see an object's old header or its new one. Objects that are not there, or are being
    /// shredded, are passed over. How many were replaced.
    ///
    /// If the call fails or is cancelled, or the power fails, each object has its old header or its new one.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`]; also for a header that is of another file.
    async fn replace_headers(&self, headers: Vec<(ObjectPath, SealedHeader)>) -> Result<usize, StoreError>;

    /// As [`Self::replace_headers`], of one object.
    ///
    /// # Errors
    /// As there, and [`StoreError::NotFound`].
    async fn replace_header(&self, path: &ObjectPath, header: SealedHeader) -> Result<(), StoreError> {
        match self.replace_headers(vec![(path.clone(), header)]).await? {
            0 => Err(StoreError::NotFound { path: path.clone() }),
            _ => Ok(()),
        }
    }
}
