//! The face of a key management service, as Saker needs it: make a wrapped key, unwrap a key. Nothing broader.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PlainKey;

/// Names a root key at its provider: an AWS KMS key ARN, `vault://mount/key`, or `file:` for the platform key file.
///
/// Parsed once at the edge; holds only well-formed names. Aliases are refused: an alias can be pointed at another key
/// without anybody's knowledge.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootKeyId(Arc<str>);

/// Why a text does not name a root key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed key name: {reason}; expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID")]
pub struct RootKeyIdError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl RootKeyId {
    /// The platform key of an installation whose root is a key file.
    #[must_use]
    pub fn platform_file() -> Self {
        Self("file:platform".into())
    }
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The AWS region in the ARN, if this is an ARN.
    #[must_use]
    pub fn aws_region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2))
    }
}

impl std::str::FromStr for RootKeyId {
    type Err = RootKeyIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| Err(RootKeyIdError { reason });
        if text == "file:platform" {
            return Ok(Self(text.into()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, region, account, resource] = parts[..] else {
            return fail("an ARN has six parts separated by colons");
        };
        if arn != "arn" || !partition.starts_with("aws") || service != "kms" {
            return fail("it must start with arn:aws:kms:");
        }
        if region.is_empty()
            || !region
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return fail("the region is not an AWS region");
        }
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return fail("the account must be 12 digits");
        }
        if resource.starts_with("alias/") {
            return fail("an alias can be re-pointed; use the ARN of the key itself");
        }
        let Some(id) = resource.strip_prefix("key/") else {
            return fail("the resource must be key/KEY-ID");
        };
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return fail("the key id may hold only letters, digits and hyphens");
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for RootKeyId {
    type Error = RootKeyIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RootKeyId> for String {
    fn from(id: RootKeyId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RootKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RootKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKeyId({})", self.0)
    }
}

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
    /// Makes a new 256-bit key and returns it in the clear and wrapped under `root`, bound to `context`.
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
    ) -> KeyFuture<'a, GeneratedKey>;

    /// Unwraps a key that [`Self::generate_data_key`] made under the same root and context.
    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
    ) -> KeyFuture<'a, PlainKey>;
}
