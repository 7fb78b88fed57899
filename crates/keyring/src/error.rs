//! Failures of sealing and opening. An opening that fails says nothing about why.

use thiserror::Error;

use crate::{ZoneId, ZoneKeyVersion};

/// The zone's keys are not in memory, or were locked away since the lease was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("encryption zone {zone} is locked; its root key must be usable at the key service before data can be used")]
pub struct ZoneLocked {
    /// The zone.
    pub zone: ZoneId,
}

/// Why sealed data was not opened. Authentication failures are one opaque case: which check failed is not told, because
/// a reader could act on nothing but "these bytes are not what was sealed here", and an attacker could learn from more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No key: the zone is locked. The data may be fine.
    #[error(transparent)]
    Locked(#[from] ZoneLocked),
    /// The bytes are not what was sealed under this identity and zone: altered, cut, moved, or of another file.
    #[error("sealed data failed verification")]
    Refused,
}

/// Why data was not sealed. Nothing was handed out; the plaintext is the caller's still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// No key: the zone is locked.
    #[error(transparent)]
    Locked(#[from] ZoneLocked),
    /// The plaintext is longer than the format allows.
    #[error("{bytes} bytes are too long to be sealed in one piece; the limit is {bytes_max} bytes")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// One data key may seal no more frames or records: start a new file or log segment.
    #[error("a data key seals at most {frames_max} frames; start a new file")]
    FrameLimit {
        /// The limit.
        frames_max: u64,
    },
    /// The log segment was closed: start a new one.
    #[error("the log segment is closed; start a new one")]
    Closed,
    /// The cryptographic module refused to work. A bug or a broken machine.
    #[error("the cryptographic module failed to seal")]
    Module,
}

/// Why a header was not wrapped anew. The old header is as good as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RewrapError {
    /// The old header could not be opened.
    #[error("the old header was not opened: {0}")]
    Open(#[from] OpenError),
    /// The new header could not be sealed.
    #[error("the new header was not sealed: {0}")]
    Seal(#[from] SealError),
}

/// Why a zone was not unlocked. It is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnlockError {
    /// No key was given.
    #[error("encryption zone {zone} has no key to unlock it with")]
    NoKeys {
        /// The zone.
        zone: ZoneId,
    },
    /// Two keys with one version.
    #[error("encryption zone {zone} was given two keys of version {}", version.number())]
    DuplicateVersion {
        /// The zone.
        zone: ZoneId,
        /// The version.
        version: ZoneKeyVersion,
    },
}

/// Why a key was not added to a zone. It is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddKeyError {
    /// The zone is locked, or was locked since the lease was given.
    #[error(transparent)]
    Locked(#[from] ZoneLocked),
    /// It has a key of this version.
    #[error("encryption zone {zone} has a key of version {} already", version.number())]
    DuplicateVersion {
        /// The zone.
        zone: ZoneId,
        /// The version.
        version: ZoneKeyVersion,
    },
}
