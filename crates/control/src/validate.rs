//! Whether a root key works: tried for real before anything depends on it.

use saker_keyring::{CallReason, EncryptionContext, KeyPurpose, KeyService, KeyServiceError, RootKeyId, ZoneId};
use thiserror::Error;

/// Why a key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValidationError {
    /// Its key service refused or did not answer.
    #[error("key {root} was tried ({operation}) and does not work: {error}; {}", advice(.error))]
    Refused {
        /// The key.
        root: RootKeyId,
        /// What was asked.
        operation: &'static str,
        /// What came of it.
        error: KeyServiceError,
    },
    /// Its key service gave back another key than it had made.
    #[error(
        "key {root} was tried and its key service gave back another key than it had made; do not use this key service"
    )]
    WrongKey {
        /// The key.
        root: RootKeyId,
    },
}

impl ValidationError {
    /// Whether the key service gave no answer, rather than no.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                error: KeyServiceError::Unavailable { .. },
                ..
            }
        )
    }
}

fn advice(error: &KeyServiceError) -> &'static str {
    match error {
        KeyServiceError::Denied { .. } => {
            "check that it exists, is enabled, and that its policy and role allow GenerateDataKey and Decrypt: `saker key \
             policy` prints what is needed"
        }
        KeyServiceError::Unavailable { .. } => "check the way to the key service and try again",
        KeyServiceError::Unsupported { .. } => "check the server's key service settings",
    }
}

/// Tries a key: makes a data key under it and has it decrypted, both with the encryption context of this cluster.
///
/// # Errors
/// [`ValidationError`] that says which of the two did not work and why.
pub async fn validate(keys: &dyn KeyService, root: &RootKeyId, cluster: &str) -> Result<(), ValidationError> {
    let context = EncryptionContext {
        cluster: cluster.to_owned(),
        // No database of this id will ever be.
        database: ZoneId::random().to_string(),
        purpose: KeyPurpose::Validation,
    };
    let refused = |operation| {
        move |error| ValidationError::Refused {
            root: root.clone(),
            operation,
            error,
        }
    };
    let made = keys
        .generate_data_key(root, &context, CallReason::Validate)
        .await
        .map_err(refused("GenerateDataKey"))?;
    let opened = keys
        .decrypt(root, &made.wrapped, &context, CallReason::Validate)
        .await
        .map_err(refused("Decrypt"))?;
    if opened.expose_bytes() != made.plain.expose_bytes() {
        return Err(ValidationError::WrongKey { root: root.clone() });
    }
    Ok(())
}
