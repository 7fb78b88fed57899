//! The platform root key in a key file, for databases without a customer key.
//!
//! What it is for: an installation that has no KMS still seals everything; the root is then a file that the operator
//! keeps. What it deliberately does not do: there is no revocation short of taking the file away, and nobody but
//! Saker itself keeps a log of its use.

use std::{path::Path, sync::Arc};

use saker_keyring::{
    BlobKey, CallObserver, CallReason, Denial, EncryptionContext, GeneratedKey, KeyFuture, KeyOperation, KeyService,
    KeyServiceError, ObserverSlot, Outage, PlainKey, RootKeyId, WrappedKey, random_key,
};

use crate::{
    calls::{Asked, OpenCall},
    context,
    key_file::{self, KeyFileError},
};

/// Wraps data keys under [`RootKeyId::platform_file`]: AES-256-GCM under a key derived from the file's key, with the
/// encryption context as associated data.
pub struct FileKeyService {
    key: BlobKey,
    observers: ObserverSlot,
}

/// First byte of a wrapped key, so that the format can change.
const WRAPPED_VERSION: u8 = 1;
const PURPOSE: &str = "saker platform file: data keys v1";

impl FileKeyService {
    /// Opens the key file at `path`; makes it with a fresh key if there is none.
    ///
    /// # Errors
    /// [`KeyFileError`] if the file cannot be read or made, is readable by others, or holds no key.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyFileError> {
        Ok(Self {
            key: BlobKey::new(&key_file::open_or_create(path)?, PURPOSE),
            observers: ObserverSlot::default(),
        })
    }

    fn generate(&self, root: &RootKeyId, context: &EncryptionContext) -> Result<GeneratedKey, KeyServiceError> {
        only_platform(root)?;
        let plain = random_key();
        let mut wrapped = vec![WRAPPED_VERSION];
        wrapped.extend(self.key.seal(&associated(context), plain.expose_bytes()));
        let wrapped = WrappedKey::new(wrapped).ok_or_else(|| KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::BadAnswer,
        })?;
        Ok(GeneratedKey { plain, wrapped })
    }

    fn unwrap(
        &self,
        root: &RootKeyId,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
    ) -> Result<PlainKey, KeyServiceError> {
        only_platform(root)?;
        let invalid = || KeyServiceError::Denied {
            root: root.clone(),
            denial: Denial::InvalidCiphertext,
        };
        let Some((&WRAPPED_VERSION, sealed)) = wrapped.as_bytes().split_first() else {
            return Err(invalid());
        };
        let mut plain = self.key.open(&associated(context), sealed).map_err(|_| invalid())?;
        PlainKey::take(&mut plain).ok_or_else(invalid)
    }
}

impl std::fmt::Debug for FileKeyService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKeyService")
    }
}

impl KeyService for FileKeyService {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        let asked = Asked {
            operation: KeyOperation::GenerateDataKey,
            root,
            context,
            why,
        };
        Box::pin(async move {
            let open = OpenCall::begin(&self.observers, asked);
            let answer = self.generate(root, context);
            open.end(&answer, None);
            answer
        })
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        let asked = Asked {
            operation: KeyOperation::Decrypt,
            root,
            context,
            why,
        };
        Box::pin(async move {
            let open = OpenCall::begin(&self.observers, asked);
            let answer = self.unwrap(root, wrapped, context);
            open.end(&answer, None);
            answer
        })
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.observers.set(observer);
    }
}

fn only_platform(root: &RootKeyId) -> Result<(), KeyServiceError> {
    if *root == RootKeyId::platform_file() {
        return Ok(());
    }
    let reason = "the key file serves only file:platform".to_owned();
    Err(KeyServiceError::Unsupported {
        root: root.clone(),
        reason,
    })
}

fn associated(context: &EncryptionContext) -> Vec<u8> {
    context::canonical(PURPOSE, &context.pairs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_keyring::KeyPurpose;

    fn zone(database: &str, purpose: KeyPurpose) -> EncryptionContext {
        EncryptionContext {
            cluster: "c1".to_owned(),
            database: database.to_owned(),
            purpose,
        }
    }

    #[tokio::test]
    async fn wraps_and_unwraps_across_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("platform");
        let root = RootKeyId::platform_file();
        let context = zone("d1", KeyPurpose::ZoneKey);
        let made = FileKeyService::open_or_create(&path)
            .unwrap()
            .generate_data_key(&root, &context, CallReason::Unlock)
            .await
            .unwrap();
        let again = FileKeyService::open_or_create(&path).unwrap();
        let plain = again
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .unwrap();
        assert_eq!(plain.expose_bytes(), made.plain.expose_bytes());
    }

    #[tokio::test]
    async fn another_context_file_or_byte_is_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let service = FileKeyService::open_or_create(&dir.path().join("one")).unwrap();
        let other = FileKeyService::open_or_create(&dir.path().join("two")).unwrap();
        let root = RootKeyId::platform_file();
        let context = zone("d1", KeyPurpose::ZoneKey);
        let wrapped = service
            .generate_data_key(&root, &context, CallReason::Unlock)
            .await
            .unwrap()
            .wrapped;
        let invalid = |outcome| {
            matches!(
                outcome,
                Err(KeyServiceError::Denied {
                    denial: Denial::InvalidCiphertext,
                    ..
                })
            )
        };
        assert!(invalid(
            service
                .decrypt(&root, &wrapped, &zone("d2", KeyPurpose::ZoneKey), CallReason::Unlock)
                .await
        ));
        assert!(invalid(
            service
                .decrypt(&root, &wrapped, &zone("d1", KeyPurpose::Validation), CallReason::Unlock)
                .await
        ));
        assert!(invalid(
            other.decrypt(&root, &wrapped, &context, CallReason::Unlock).await
        ));
        for bit in 0..wrapped.as_bytes().len() * 8 {
            let mut bytes = wrapped.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let altered = WrappedKey::new(bytes).unwrap();
            assert!(
                invalid(service.decrypt(&root, &altered, &context, CallReason::Unlock).await),
                "bit {bit}"
            );
        }
        for length in 1..wrapped.as_bytes().len() {
            let cut = WrappedKey::new(wrapped.as_bytes()[..length].to_vec()).unwrap();
            assert!(
                invalid(service.decrypt(&root, &cut, &context, CallReason::Unlock).await),
                "length {length}"
            );
        }
    }

    #[tokio::test]
    async fn serves_no_other_root() {
        let dir = tempfile::tempdir().unwrap();
        let service = FileKeyService::open_or_create(&dir.path().join("one")).unwrap();
        let root = "arn:aws:kms:us-east-1:000000000000:key/abc".parse().unwrap();
        let outcome = service
            .generate_data_key(&root, &zone("d1", KeyPurpose::ZoneKey), CallReason::Unlock)
            .await;
        assert!(matches!(outcome, Err(KeyServiceError::Unsupported { .. })));
    }
}
