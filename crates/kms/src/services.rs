//! One face over the configured key services, chosen by the kind of the root key's name.

use std::{path::PathBuf, sync::Arc};

use saker_keyring::{
    CallObserver, CallReason, EncryptionContext, GeneratedKey, KeyFuture, KeyProvider, KeyService, KeyServiceError,
    PlainKey, RootKeyId, WrappedKey,
};
use thiserror::Error;

use crate::{
    aws::{AwsKms, AwsKmsConfig, AwsRole, CallerError},
    budget::CallBudget,
    file::FileKeyService,
    key_file::KeyFileError,
    pkcs11::{Pkcs11Kms, Pkcs11KmsConfig},
    vault::{VaultKms, VaultKmsConfig},
};

/// Which key services an installation has.
#[derive(Clone, Debug)]
pub struct KeyServicesConfig {
    /// Key file of the platform root key, made at first use; `None`: every database needs a customer key.
    pub platform_key_file: Option<PathBuf>,
    /// AWS KMS, or a server that speaks its protocol; `None`: key ARNs are refused.
    pub aws: Option<AwsKmsConfig>,
    /// HashiCorp Vault or OpenBao; `None`: `vault://` names are refused.
    pub vault: Option<VaultKmsConfig>,
    /// An HSM behind PKCS#11; `None`: `pkcs11:` names are refused.
    pub pkcs11: Option<Pkcs11KmsConfig>,
    /// Most calls per second to all key services together; the platform key file is none.
    pub calls_per_second_max: u32,
}

impl KeyServicesConfig {
    /// Default of [`Self::calls_per_second_max`]: 1,000 keys probed every 5 s, far below AWS's limit of 5,500 or more.
    pub const CALLS_PER_SECOND_MAX: u32 = 200;
    /// Bounds of [`Self::calls_per_second_max`].
    pub const CALLS_PER_SECOND_MAX_RANGE: std::ops::RangeInclusive<u32> = 1..=10_000;
}

impl Default for KeyServicesConfig {
    fn default() -> Self {
        Self {
            platform_key_file: None,
            aws: None,
            vault: None,
            pkcs11: None,
            calls_per_second_max: Self::CALLS_PER_SECOND_MAX,
        }
    }
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
    /// A setting of the Vault client is wrong.
    #[error("kms.vault.{setting}: {reason}")]
    Vault {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A setting of the PKCS#11 client is wrong.
    #[error("kms.pkcs11.{setting}: {reason}")]
    Pkcs11 {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The budget of calls is out of its range.
    #[error("kms.calls_per_second_max: it must be from 1 to 10000, and is {calls_per_second_max}")]
    CallsPerSecond {
        /// What is set.
        calls_per_second_max: u32,
    },
}

/// Routes each call to the key service that holds the root key, by the provider in its name, within one budget of calls.
#[derive(Debug)]
pub struct KeyServices {
    file: Option<Arc<FileKeyService>>,
    aws: Option<Arc<AwsKms>>,
    vault: Option<Arc<VaultKms>>,
    pkcs11: Option<Arc<Pkcs11Kms>>,
    budget: CallBudget,
}

impl KeyServices {
    /// Sets the configured key services up. Makes no call to a KMS, so that a server starts while its KMS is away.
    ///
    /// # Errors
    /// [`KmsConfigError`] if the key file cannot be used or a setting is malformed.
    pub async fn connect(config: KeyServicesConfig) -> Result<Self, KmsConfigError> {
        let calls_per_second_max = config.calls_per_second_max;
        if !KeyServicesConfig::CALLS_PER_SECOND_MAX_RANGE.contains(&calls_per_second_max) {
            return Err(KmsConfigError::CallsPerSecond { calls_per_second_max });
        }
        let file = match &config.platform_key_file {
            Some(path) => Some(Arc::new(FileKeyService::open_or_create(path)?)),
            None => None,
        };
        let aws = match config.aws {
            Some(aws) => Some(Arc::new(AwsKms::connect(aws).await?)),
            None => None,
        };
        let vault = config.vault.map(VaultKms::connect).transpose()?.map(Arc::new);
        let pkcs11 = config.pkcs11.map(Pkcs11Kms::connect).transpose()?.map(Arc::new);
        Ok(Self {
            file,
            aws,
            vault,
            pkcs11,
            budget: CallBudget::new(calls_per_second_max),
        })
    }

    /// From now on, this AWS key is used with a session of this role; `None`: with the server's own identity. Makes no
    /// call; without an AWS key service nothing happens.
    pub async fn set_aws_role(&self, root: &RootKeyId, role: Option<AwsRole>) {
        if let Some(aws) = &self.aws {
            aws.set_role(root, role).await;
        }
    }

    /// The ARN under which AWS knows this server, before it takes on the role of a key.
    ///
    /// # Errors
    /// [`CallerError`].
    pub async fn aws_caller_arn(&self) -> Result<String, CallerError> {
        match &self.aws {
            Some(aws) => aws.caller_arn().await,
            None => Err(CallerError::NotConfigured),
        }
    }

    fn service_of(&self, root: &RootKeyId) -> Result<&dyn KeyService, KeyServiceError> {
        fn face<S: KeyService>(service: &Option<Arc<S>>) -> Option<&dyn KeyService> {
            service.as_deref().map(|service| service as &dyn KeyService)
        }
        let (service, reason) = match root.provider() {
            KeyProvider::Aws => (face(&self.aws), "set kms.aws to use key ARNs"),
            KeyProvider::Vault => (face(&self.vault), "set kms.vault to use vault:// keys"),
            KeyProvider::Pkcs11 => (face(&self.pkcs11), "set kms.pkcs11 to use pkcs11: keys"),
            KeyProvider::PlatformFile => (
                face(&self.file),
                "set a platform key file, or give the database a customer key",
            ),
        };
        service.ok_or_else(|| KeyServiceError::Unsupported {
            root: root.clone(),
            reason: reason.to_owned(),
        })
    }

    /// Waits for the budget. The key file is no service that could be asked too much.
    async fn take(&self, root: &RootKeyId) {
        if root.provider() != KeyProvider::PlatformFile {
            self.budget.take().await;
        }
    }
}

impl KeyService for KeyServices {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        Box::pin(async move {
            let service = self.service_of(root)?;
            self.take(root).await;
            service.generate_data_key(root, context, why).await
        })
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        Box::pin(async move {
            let service = self.service_of(root)?;
            self.take(root).await;
            service.decrypt(root, wrapped, context, why).await
        })
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        if let Some(file) = &self.file {
            file.observe(Arc::clone(&observer));
        }
        if let Some(aws) = &self.aws {
            aws.observe(Arc::clone(&observer));
        }
        if let Some(vault) = &self.vault {
            vault.observe(Arc::clone(&observer));
        }
        if let Some(pkcs11) = &self.pkcs11 {
            pkcs11.observe(observer);
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
            "vault://transit/orders".parse().unwrap(),
            "pkcs11:token=prod;object=orders".parse().unwrap(),
        ] {
            let outcome = services.generate_data_key(&root, &context, CallReason::Unlock).await;
            let Err(KeyServiceError::Unsupported { reason, .. }) = outcome else {
                panic!("{root}");
            };
            assert!(reason.contains("set "), "{reason}");
        }
    }

    #[tokio::test]
    async fn the_budget_has_bounds() {
        for (calls_per_second_max, accepted) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            let config = KeyServicesConfig {
                calls_per_second_max,
                ..KeyServicesConfig::default()
            };
            assert_eq!(KeyServices::connect(config).await.is_ok(), accepted);
        }
    }

    #[tokio::test]
    async fn the_file_provider_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let config = KeyServicesConfig {
            platform_key_file: Some(dir.path().join("key")),
            ..KeyServicesConfig::default()
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
