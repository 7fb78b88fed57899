//! The face of a key management service, as Saker needs it: make a wrapped key, unwrap a key. Nothing broader.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{CallObserver, CallReason, PlainKey, RootKeyId};

/// Why a root key is used; part of the encryption context, so that the KMS's own log shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPurpose {
    /// Wraps a zone key.
    ZoneKey,
    /// Validates a key before it is accepted.
    Validation,
}

impl KeyPurpose {
    /// The text that stands in the encryption context.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZoneKey => "zone-key",
            Self::Validation => "validation",
        }
    }
}

/// What a wrapped key is bound to at the KMS (AWS: encryption context). Values are ids, never names or data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionContext {
    /// Cluster id, under `saker:cluster`.
    pub cluster: String,
    /// Database (zone) id, under `saker:database`.
    pub database: String,
    /// Why, under `saker:purpose`.
    pub purpose: KeyPurpose,
}

impl EncryptionContext {
    /// The pairs that go to the KMS, in key order.
    #[must_use]
    pub fn pairs(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("saker:cluster".to_owned(), self.cluster.clone()),
            ("saker:database".to_owned(), self.database.clone()),
            ("saker:purpose".to_owned(), self.purpose.as_str().to_owned()),
        ])
    }
}

/// A key as the KMS wrapped it; opaque, safe to store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// Longest ciphertext accepted from a KMS, in bytes (AWS: 6,144).
    pub const BYTES_MAX: usize = 6_144;
    /// Takes the KMS's ciphertext. `None` if it is empty or longer than [`Self::BYTES_MAX`].
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= Self::BYTES_MAX).then_some(Self(bytes))
    }
    /// The ciphertext.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.0.len())
    }
}

/// A new 256-bit key, in the clear and as the KMS wrapped it.
#[derive(Debug)]
pub struct GeneratedKey {
    /// For memory only.
    pub plain: PlainKey,
    /// For storage.
    pub wrapped: WrappedKey,
}

/// A definite no: the KMS answered, and the key may not be used. Locks at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    /// The key is disabled.
    #[error("the key is disabled")]
    Disabled,
    /// The key is scheduled for deletion.
    #[error("the key is pending deletion")]
    PendingDeletion,
    /// There is no such key.
    #[error("the key does not exist")]
    NotFound,
    /// Policy, grant or credentials do not allow the call.
    #[error("access to the key is denied")]
    AccessDenied,
    /// The key is in another state that forbids use (pending import, creating, unavailable by its owner's act).
    #[error("the key's state does not allow its use")]
    InvalidState,
    /// The KMS does not accept the wrapped key: made under another key or context, or altered.
    #[error("the wrapped key is not valid under this key and context")]
    InvalidCiphertext,
}

/// No usable answer: an outage, not a revocation. Served through until the grace period ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Outage {
    /// No answer in time.
    #[error("the key service did not answer in time")]
    Timeout,
    /// No connection.
    #[error("the key service could not be reached")]
    Unreachable,
    /// Too many requests.
    #[error("the key service is throttling requests")]
    Throttled,
    /// An error of the service itself, including an external key store that it cannot reach.
    #[error("the key service failed")]
    Failed,
    /// An answer that makes no sense (wrong length, wrong key id).
    #[error("the key service gave an answer that cannot be used")]
    BadAnswer,
    /// A key, but not the one that it was asked to unwrap.
    #[error("the key service gave back another key than it made; it was not used")]
    WrongKey,
}

/// Why a call to a key service gave no key. The two kinds are handled differently and are never merged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyServiceError {
    /// A definite no.
    #[error("{denial} ({root})")]
    Denied {
        /// The key asked for.
        root: RootKeyId,
        /// What the KMS said.
        denial: Denial,
    },
    /// No usable answer.
    #[error("{outage} ({root})")]
    Unavailable {
        /// The key asked for.
        root: RootKeyId,
        /// What happened.
        outage: Outage,
    },
    /// No provider is configured for this kind of key name, or its region is another.
    #[error("no key service is configured for {root}: {reason}")]
    Unsupported {
        /// The key asked for.
        root: RootKeyId,
        /// What would have to be configured.
        reason: String,
    },
}

/// The future that a key service returns; boxed so that services of several kinds can stand behind one face.
pub type KeyFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyServiceError>> + Send + 'a>>;

/// A key management service. Only `GenerateDataKey` and `Decrypt` are ever needed.
///
/// An implementation has its own time-out per call and does not retry longer than that.
pub trait KeyService: Send + Sync + fmt::Debug {
    /// Makes a new 256-bit key and returns it in the clear and wrapped under `root`, bound to `context`. `why` is for the
    /// observer alone.
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey>;

    /// Unwraps a key that [`Self::generate_data_key`] made under the same root and context. `why` is for the observer
    /// alone.
    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey>;

    /// From now on `observer` hears of every request, one by one, retries included; of one that is given up while it
    /// runs, too. The first observer stays.
    fn observe(&self, observer: Arc<dyn CallObserver>);
}
