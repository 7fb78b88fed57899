//! One face over the configured key services, chosen by the kind of the root key's name.

use std::{path::PathBuf, sync::Arc};

use saker_keyring::{
    CallObserver, CallReason, EncryptionContext, GeneratedKey, KeyFuture, KeyService, KeyServiceError, PlainKey,
    RootKeyId, WrappedKey,
};
use thiserror::Error;

use crate::{
    aws::{AwsKms, AwsKmsConfig},
    file::FileKeyService,
    key_file::KeyFileError,
};

/// Which key services an installation has.
#[derive(Clone, Debug, Default)]
pub struct KeyServicesConfig {
    /// Key file of the platform root key, made at first use; `None`: every database needs a customer key.
    pub platform_key_file: Option<PathBuf>,
    /// AWS KMS, or a server that speaks its protocol; `None`: key ARNs are refused.
    pub aws: Option<AwsKmsConfig>,
}

/// Why the key services cannot be set up as configured.
#[derive(Debug, Error)]
pub enum KmsConfigError {
    /// The platform key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A setting of the AWS KMS client is wrong.
    #[error("kms.aws.{setting}: {reason}")]
    Aws {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
}

/// Routes each call to the key service that holds the root key: `file:platform` to the key file, `arn:...` to AWS KMS.
#[derive(Debug)]
pub struct KeyServices {
    file: Option<Arc<FileKeyService>>,
    aws: Option<Arc<AwsKms>>,
}

impl KeyServices {
    /// Sets the configured key services up. Makes no call to a KMS, so that a server starts while its KMS is away.
    ///
    /// # Errors
    /// [`KmsConfigError`] if the key file cannot be used or a setting is malformed.
    pub async fn connect(config: KeyServicesConfig) -> Result<Self, KmsConfigError> {
        let file = match &config.platform_key_file {
            Some(path) => Some(Arc::new(FileKeyService::open_or_create(path)?)),
            None => None,
        };
        let aws = match config.aws {
            Some(aws) => Some(Arc::new(AwsKms::connect(aws).await?)),
            None => None,
        };
        Ok(Self { file, aws })
    }

    fn service_of(&self, root: &RootKeyId) -> Result<&dyn KeyService, KeyServiceError> {
        let (service, reason) = if root.aws_region().is_some() {
            (
                self.aws.as_deref().map(|aws| aws as &dyn KeyService),
                "set kms.aws to use key ARNs",
            )
        } else if *root == RootKeyId::platform_file() {
            let file = self.file.as_deref().map(|file| file as &dyn KeyService);
            (file, "set a platform key file, or give the database a customer key")
        } else {
            (None, "this kind of key name has no provider")
        };
        service.ok_or_else(|| KeyServiceError::Unsupported {
            root: root.clone(),
            reason: reason.to_owned(),
        })
    }
}

impl KeyService for KeyServices {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        match self.service_of(root) {
            Ok(service) => service.generate_data_key(root, context, why),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        match self.service_of(root) {
            Ok(service) => service.decrypt(root, wrapped, context, why),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        if let Some(file) = &self.file {
            file.observe(Arc::clone(&observer));
        }
        if let Some(aws) = &self.aws {
            aws.observe(observer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_keyring::KeyPurpose;

    #[tokio::test]
    async fn an_unconfigured_provider_is_unsupported() {
        let services = KeyServices::connect(KeyServicesConfig::default()).await.unwrap();
        let context = EncryptionContext {
            cluster: "c".into(),
            database: "d".into(),
            purpose: KeyPurpose::Validation,
        };
        for root in [
            RootKeyId::platform_file(),
            "arn:aws:kms:us-east-1:000000000000:key/abc".parse().unwrap(),
        ] {
            let outcome = services.generate_data_key(&root, &context, CallReason::Unlock).await;
            assert!(matches!(outcome, Err(KeyServiceError::Unsupported { .. })), "{root}");
        }
    }

    #[tokio::test]
    async fn the_file_provider_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let config = KeyServicesConfig {
            platform_key_file: Some(dir.path().join("key")),
            aws: None,
        };
        let services = KeyServices::connect(config).await.unwrap();
        let context = EncryptionContext {
            cluster: "c".into(),
            database: "d".into(),
            purpose: KeyPurpose::ZoneKey,
        };
        let root = RootKeyId::platform_file();
        let made = services
            .generate_data_key(&root, &context, CallReason::Unlock)
            .await
            .unwrap();
        let plain = services
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .unwrap();
        assert_eq!(plain.expose_bytes(), made.plain.expose_bytes());
    }
}
