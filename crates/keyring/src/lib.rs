//! The key hierarchy and everything that is sealed under it.
//!
//! What it is for: a customer's root key (in the customer's KMS) wraps one zone key per database, which wraps one data
//! key per file. This crate holds those keys, seals and opens files, log segments and metadata values with them, and
//! decides by leases whether a zone may be used right now.
//!
//! What it deliberately does not do: it opens no file or socket, starts no task and reads no clock. Callers hand in
//! time and bytes; the `kms` crate implements [`KeyService`].
//!
//! Start reading at [`KeyService`], then the sealed file format in `docs/formats.md`.
#![forbid(unsafe_code)]

mod blob;
mod calls;
mod cipher;
mod error;
mod file;
mod header;
mod ids;
mod lease;
mod log;
mod root_key;
mod sealed;
mod secret;
mod service;
mod value;
mod zone;
mod zone_record;

/// For work on what was opened, as the ciphers do it for theirs.
pub use saker_arena::{STACK_BYTES, give_back as give_back_memory, leaving_no_trace, overwrite_stack};

pub use blob::{BlobKey, random_key};
pub use calls::{CallObserver, CallReason, KeyCall, KeyOperation, ObserverSlot};
pub use error::{AddKeyError, OpenError, RewrapError, SealError, UnlockError, ZoneLocked};
pub use file::{FileIdentity, FileOpener, FileSealer, FrameSize, KeptFile, UnverifiedFile};
pub use header::{HEADER_BYTES, HEADER_FIXED_BYTES, wrapping_version};
pub use ids::{FileId, FileKind, ZoneId, ZoneKeyVersion};
pub use lease::{LeaseMachine, LeasePolicy, LeasePolicyError, LeaseState, LockReason, Question, Transition};
pub use log::{LogOpener, LogSealer, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES, RECORD_ROOM_BYTES};
pub use root_key::{KeyProvider, Pkcs11Key, RootKeyId, RootKeyIdError, VaultKey};
pub use sealed::{SealedHeader, SealedLogHeader, SealedObject, SealedRecord, SealedValue, Unverified};
pub use secret::PlainKey;
pub use service::{
    Denial, EncryptionContext, GeneratedKey, KeyFuture, KeyPurpose, KeyService, KeyServiceError, Outage, WrappedKey,
};
pub use value::{VALUE_BYTES_MAX, VALUE_IDENTITY_BYTES_MAX, VALUE_OVERHEAD_BYTES};
pub use zone::{Lease, Zone};
pub use zone_record::{KeyCheck, ZoneRecord, ZoneRecordError};
