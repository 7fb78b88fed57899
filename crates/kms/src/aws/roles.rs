//! Roles that are taken on for single keys, and who Saker is without one.
//!
//! A customer lets Saker use a key by a role in the key's account. Each such key is called for with a session of its own
//! role; every other with the identity that the configuration gives.

use std::{collections::BTreeMap, sync::PoisonError};

use aws_config::{Region, SdkConfig, sts::AssumeRoleProvider};
use aws_sdk_kms::config::SharedCredentialsProvider;
use saker_keyring::RootKeyId;
use thiserror::Error;

use super::AwsKms;

/// A role to take on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AwsRole {
    /// Its ARN.
    pub role_arn: String,
    /// What its owner asks for.
    pub external_id: Option<String>,
}

/// Why STS did not say who this server is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallerError {
    /// There is no AWS key service.
    #[error("set kms.aws to use AWS keys")]
    NotConfigured,
    /// STS did not answer with an ARN.
    #[error("STS did not tell this server's identity: {0}")]
    Failed(String),
}

/// Which key is used with which role.
#[derive(Default)]
pub(super) struct Roles(BTreeMap<RootKeyId, Assumed>);

#[derive(Clone)]
pub(super) struct Assumed {
    pub(super) role: AwsRole,
    pub(super) credentials: SharedCredentialsProvider,
}

impl Roles {
    pub(super) fn of(&self, root: &RootKeyId) -> Option<&Assumed> {
        self.0.get(root)
    }
}

impl AwsKms {
    /// From now on, this key is used with a session of this role; `None`: with the server's own identity. Makes no call.
    pub async fn set_role(&self, root: &RootKeyId, role: Option<AwsRole>) {
        let lock = || self.roles.write().unwrap_or_else(PoisonError::into_inner);
        let Some(role) = role else {
            lock().0.remove(root);
            return;
        };
        let known = lock().0.values().find(|assumed| assumed.role == role).cloned();
        let assumed = match known {
            Some(assumed) => assumed,
            None => {
                let mut provider = AssumeRoleProvider::builder(&role.role_arn)
                    .configure(&self.sts_config())
                    .session_name(format!("saker-{}", self.config.node));
                if let Some(external_id) = &role.external_id {
                    provider = provider.external_id(external_id);
                }
                Assumed {
                    credentials: SharedCredentialsProvider::new(provider.build().await),
                    role,
                }
            }
        };
        lock().0.insert(root.clone(), assumed);
    }
    /// The ARN under which AWS knows this server, before it takes on the role of a key.
    ///
    /// # Errors
    /// [`CallerError::Failed`].
    pub async fn caller_arn(&self) -> Result<String, CallerError> {
        let client = aws_sdk_sts::Client::new(&self.sts_config());
        let answer = client.get_caller_identity().send().await;
        let identity = answer.map_err(|error| {
            // The error's chain says what is wrong with network or credentials, and names no secret.
            let source = std::error::Error::source(&error).map(ToString::to_string);
            CallerError::Failed(source.unwrap_or_else(|| error.to_string()))
        })?;
        let arn = identity.arn().map(str::to_owned);
        arn.ok_or_else(|| CallerError::Failed("the answer has no ARN".to_owned()))
    }

    /// How STS is reached, with the server's own identity.
    fn sts_config(&self) -> SdkConfig {
        let mut builder = self.shared.clone().into_builder();
        if let Some(url) = &self.config.sts_endpoint_url {
            builder = builder.endpoint_url(url.clone());
        }
        if self.shared.region().is_none() {
            builder = builder.region(Region::from_static("us-east-1"));
        }
        if let Some(credentials) = &self.credentials {
            builder = builder.credentials_provider(credentials.clone());
        }
        builder.build()
    }
}
