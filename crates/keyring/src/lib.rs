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
mod ids;
mod secret;
mod service;

pub use blob::{BlobKey, SealError, random_key};
pub use ids::{FileId, FileKind, ZoneId, ZoneKeyVersion};
pub use secret::PlainKey;
pub use service::{
    Denial, EncryptionContext, GeneratedKey, KeyFuture, KeyPurpose, KeyService, KeyServiceError, Outage, RootKeyId,
    RootKeyIdError, WrappedKey,
};
