//! AWS KMS, or anything that speaks its protocol, as a key service.
//!
//! What it is for: `GenerateDataKey` and `Decrypt` under a customer's key ARN, with the standard AWS configuration
//! (environment, profile, web identity, instance or container role, role with external id). Every call names service
//! and node in its user agent, so that the customer's CloudTrail shows who used the key.
//!
//! What it deliberately does not do: it administers no key, caches no plaintext and does not retry beyond its time-out;
//! probing and grace periods are keyring's. The SDK's own buffers (HTTP body, decoded JSON) cannot be zeroed from
//! outside; everything after them is.
//!
//! Start reading at [`AwsKms`], then in `verdict` for what each error means.

mod attempts;
mod roles;
mod verdict;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider, retry::RetryConfig,
    sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_kms::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, SharedCredentialsProvider,
        interceptors::BeforeTransmitInterceptorContextMut,
    },
    primitives::Blob,
    types::DataKeySpec,
};
use saker_keyring::{
    CallObserver, CallReason, EncryptionContext, GeneratedKey, KeyFuture, KeyOperation, KeyService, KeyServiceError,
    ObserverSlot, Outage, PlainKey, RootKeyId, WrappedKey,
};
use zeroize::Zeroize;

pub use self::roles::{AwsRole, CallerError};
use self::{
    attempts::{Attempts, OpenAttempts},
    roles::Roles,
};
use crate::{calls::Asked, services::KmsConfigError};

/// How to reach AWS KMS. What is `None` comes from the standard AWS configuration.
#[derive(Clone, Debug)]
pub struct AwsKmsConfig {
    /// Where KMS answers; `None`: the endpoint of the key's region (or `AWS_ENDPOINT_URL_KMS`).
    pub endpoint_url: Option<String>,
    /// Where STS answers when a role is assumed; `None`: STS's own endpoint (or `AWS_ENDPOINT_URL_STS`).
    pub sts_endpoint_url: Option<String>,
    /// The only region whose keys are used; `None`: each key's own region, from its ARN.
    pub region: Option<String>,
    /// Profile in the shared configuration; `None`: the default credential chain.
    pub profile: Option<String>,
    /// Shared credentials file; `None`: the usual place.
    pub credentials_file: Option<PathBuf>,
    /// Role to assume for every call; `None`: the credentials are used directly.
    pub role_arn: Option<String>,
    /// External id that the role's owner asks for; only with [`Self::role_arn`].
    pub external_id: Option<String>,
    /// Longest a call may take, its one retry included, in milliseconds.
    pub timeout_ms: u64,
    /// This node, as CloudTrail shall show it: up to [`Self::NODE_BYTES_MAX`] letters, digits, `.`, `_` and `-`.
    pub node: String,
}

impl AwsKmsConfig {
    /// Default of [`Self::timeout_ms`]: long enough for a far region, short enough for a probe every 5 s.
    pub const TIMEOUT_MS: u64 = 3_000;
    /// Bounds of [`Self::timeout_ms`].
    pub const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u64> = 50..=60_000;
    /// Longest node name, in bytes: STS session names hold 64, six of them `saker-`.
    pub const NODE_BYTES_MAX: usize = 58;
}

impl Default for AwsKmsConfig {
    fn default() -> Self {
        Self {
            endpoint_url: None,
            sts_endpoint_url: None,
            region: None,
            profile: None,
            credentials_file: None,
            role_arn: None,
            external_id: None,
            timeout_ms: Self::TIMEOUT_MS,
            node: "local".to_owned(),
        }
    }
}

/// The AWS KMS client. One SDK client per region and role, made at its first use.
pub struct AwsKms {
    config: AwsKmsConfig,
    shared: SdkConfig,
    credentials: Option<SharedCredentialsProvider>,
    /// Roles of single keys.
    roles: RwLock<Roles>,
    clients: Mutex<BTreeMap<(String, Option<AwsRole>), Client>>,
    observers: ObserverSlot,
}

impl AwsKms {
    /// Reads the AWS configuration. Makes no call to KMS or STS.
    ///
    /// # Errors
    /// [`KmsConfigError::Aws`] if a setting is malformed or the credentials file is not there.
    pub async fn connect(config: AwsKmsConfig) -> Result<Self, KmsConfigError> {
        check(&config)?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_timeout(timeout)
                    // Leaves room for one retry when the first attempt hangs.
                    .operation_attempt_timeout(timeout.mul_f64(0.6))
                    .connect_timeout(timeout.mul_f64(0.5))
                    .build(),
            )
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(2)
                    .with_initial_backoff(Duration::from_millis(50)),
            );
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(files) = profile_files(&config) {
            loader = loader.profile_files(files);
        }
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if config.profile.is_some() || config.credentials_file.is_some() {
            // A profile that the operator names beats credentials that happen to be in the environment.
            let mut provider = ProfileFileCredentialsProvider::builder();
            if let Some(profile) = &config.profile {
                provider = provider.profile_name(profile);
            }
            if let Some(files) = profile_files(&config) {
                provider = provider.profile_files(files);
            }
            loader = loader.credentials_provider(provider.build());
        }
        let shared = loader.load().await;
        let credentials = match &config.role_arn {
            Some(role) => Some(SharedCredentialsProvider::new(
                assumed_role(&config, &shared, role).await,
            )),
            None => shared.credentials_provider(),
        };
        Ok(Self {
            config,
            shared,
            credentials,
            roles: RwLock::default(),
            clients: Mutex::default(),
            observers: ObserverSlot::default(),
        })
    }

    fn client(&self, root: &RootKeyId) -> Result<Client, KeyServiceError> {
        let unsupported = |reason: String| KeyServiceError::Unsupported {
            root: root.clone(),
            reason,
        };
        let Some(region) = root.aws_region() else {
            return Err(unsupported("the AWS key service serves only key ARNs".to_owned()));
        };
        if let Some(configured) = self.config.region.as_deref().filter(|configured| *configured != region) {
            return Err(unsupported(format!(
                "the key is in region {region}, kms.aws.region is {configured}; use a key there or change the setting"
            )));
        }
        let assumed = self
            .roles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .of(root)
            .cloned();
        let entry = (region.to_owned(), assumed.as_ref().map(|assumed| assumed.role.clone()));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&entry) {
            return Err(unsupported(format!(
                "keys of more than {CLIENTS_MAX} regions and roles are in use"
            )));
        }
        Ok(clients
            .entry(entry)
            .or_insert_with(|| {
                let credentials = assumed.map(|assumed| assumed.credentials);
                self.new_client(region, credentials.or_else(|| self.credentials.clone()))
            })
            .clone())
    }

    fn new_client(&self, region: &str, credentials: Option<SharedCredentialsProvider>) -> Client {
        let mut builder = aws_sdk_kms::config::Builder::from(&self.shared)
            .region(Region::new(region.to_owned()))
            .interceptor(NamesNode(format!(
                "saker/{} node/{}",
                env!("CARGO_PKG_VERSION"),
                self.config.node
            )));
        if let Some(url) = &self.config.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        if let Some(credentials) = credentials {
            builder = builder.credentials_provider(credentials);
        }
        Client::from_conf(builder.build())
    }

    async fn generate(
        &self,
        root: &RootKeyId,
        context: &EncryptionContext,
        attempts: Attempts,
    ) -> Result<GeneratedKey, KeyServiceError> {
        let request = self
            .client(root)?
            .generate_data_key()
            .key_id(root.as_str())
            .key_spec(DataKeySpec::Aes256);
        let pairs = context.pairs().into_iter().collect();
        let answer = request
            .set_encryption_context(Some(pairs))
            .customize()
            .interceptor(attempts)
            .send()
            .await
            .map_err(|error| {
                tracing::debug!(root = %root, "GenerateDataKey failed");
                verdict::key_service_error(root, &error)
            })?;
        // Take the plaintext first, so that it is zeroed whatever else is wrong with the answer.
        let plain = take_plain(answer.plaintext);
        let bad = || KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::BadAnswer,
        };
        let plain = plain
            .filter(|_| answer.key_id.as_deref() == Some(root.as_str()))
            .ok_or_else(bad)?;
        let wrapped = answer
            .ciphertext_blob
            .map(Blob::into_inner)
            .and_then(WrappedKey::new)
            .ok_or_else(bad)?;
        Ok(GeneratedKey { plain, wrapped })
    }

    async fn unwrap(
        &self,
        root: &RootKeyId,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        attempts: Attempts,
    ) -> Result<PlainKey, KeyServiceError> {
        let request = self
            .client(root)?
            .decrypt()
            .key_id(root.as_str())
            .ciphertext_blob(Blob::new(wrapped.as_bytes()));
        let pairs = context.pairs().into_iter().collect();
        let answer = request
            .set_encryption_context(Some(pairs))
            .customize()
            .interceptor(attempts)
            .send()
            .await
            .map_err(|error| {
                tracing::debug!(root = %root, "Decrypt failed");
                verdict::key_service_error(root, &error)
            })?;
        let plain = take_plain(answer.plaintext);
        plain
            .filter(|_| answer.key_id.as_deref() == Some(root.as_str()))
            .ok_or_else(|| KeyServiceError::Unavailable {
                root: root.clone(),
                outage: Outage::BadAnswer,
            })
    }
}

impl std::fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsKms")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KeyService for AwsKms {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        Box::pin(async move {
            let open = OpenAttempts::begin(
                &self.observers,
                Asked {
                    operation: KeyOperation::GenerateDataKey,
                    root,
                    context,
                    why,
                },
            );
            let answer = self.generate(root, context, open.interceptor()).await;
            open.end(&answer);
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
        Box::pin(async move {
            let open = OpenAttempts::begin(
                &self.observers,
                Asked {
                    operation: KeyOperation::Decrypt,
                    root,
                    context,
                    why,
                },
            );
            let answer = self.unwrap(root, wrapped, context, open.interceptor()).await;
            open.end(&answer);
            answer
        })
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.observers.set(observer);
    }
}

/// Puts `saker/VERSION node/ID` before the SDK's own user agent, which may not hold slashes or spaces of ours.
#[derive(Debug)]
struct NamesNode(String);

impl Intercept for NamesNode {
    fn name(&self) -> &'static str {
        "NamesNode"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let headers = context.request_mut().headers_mut();
        let own = headers.get("user-agent").unwrap_or_default();
        // A retry passes here again with the name already in front.
        if !own.starts_with(&self.0) {
            let named = format!("{} {own}", self.0);
            headers.try_insert("user-agent", named)?;
        }
        Ok(())
    }
}

/// The SDK's buffer becomes the key and is zeroed; one of the wrong length is only zeroed.
fn take_plain(plaintext: Option<Blob>) -> Option<PlainKey> {
    let mut bytes = plaintext?.into_inner();
    let plain = PlainKey::take(&mut bytes);
    bytes.zeroize();
    plain
}

fn profile_files(config: &AwsKmsConfig) -> Option<EnvConfigFiles> {
    let path = config.credentials_file.as_ref()?;
    let files = EnvConfigFiles::builder().include_default_config_file(true);
    Some(files.with_file(EnvConfigFileKind::Credentials, path).build())
}

async fn assumed_role(config: &AwsKmsConfig, shared: &SdkConfig, role: &str) -> AssumeRoleProvider {
    let mut sts = shared.clone().into_builder();
    if let Some(url) = &config.sts_endpoint_url {
        sts = sts.endpoint_url(url.clone());
    }
    if shared.region().is_none() {
        sts = sts.region(Region::from_static("us-east-1"));
    }
    let mut provider = AssumeRoleProvider::builder(role)
        .configure(&sts.build())
        .session_name(format!("saker-{}", config.node));
    if let Some(external_id) = &config.external_id {
        provider = provider.external_id(external_id);
    }
    provider.build().await
}

/// More regions and roles than one cluster ever uses (a project has 20 keys); bounds the clients that key names can make.
const CLIENTS_MAX: usize = 64;

fn check(config: &AwsKmsConfig) -> Result<(), KmsConfigError> {
    let wrong = |setting, reason: String| Err(KmsConfigError::Aws { setting, reason });
    for (setting, url) in [
        ("endpoint_url", &config.endpoint_url),
        ("sts_endpoint_url", &config.sts_endpoint_url),
    ] {
        let Some(url) = url else { continue };
        let uri = url.parse::<axum::http::Uri>().ok();
        if !uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()) {
            return wrong(
                setting,
                "it must be a URL that starts with http:// or https://".to_owned(),
            );
        }
    }
    if let Some(region) = &config.region {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || !region.bytes().all(letters) {
            return wrong("region", "it must be an AWS region such as us-east-1".to_owned());
        }
    }
    if !AwsKmsConfig::TIMEOUT_MS_RANGE.contains(&config.timeout_ms) {
        let (least, most) = (
            AwsKmsConfig::TIMEOUT_MS_RANGE.start(),
            AwsKmsConfig::TIMEOUT_MS_RANGE.end(),
        );
        return wrong(
            "timeout_ms",
            format!("it must be from {least} to {most}, and is {}", config.timeout_ms),
        );
    }
    let node = config.node.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    if node.is_empty() || node.len() > AwsKmsConfig::NODE_BYTES_MAX || !node.iter().all(plain) {
        let most = AwsKmsConfig::NODE_BYTES_MAX;
        return wrong(
            "node",
            format!("a node is named by 1 to {most} letters, digits, dots, underscores and hyphens"),
        );
    }
    if config.external_id.is_some() && config.role_arn.is_none() {
        return wrong("external_id", "it has no effect without kms.aws.role_arn".to_owned());
    }
    if config
        .role_arn
        .as_ref()
        .is_some_and(|role| !role.starts_with("arn:") || !role.contains(":role/"))
    {
        return wrong(
            "role_arn",
            "it must look like arn:aws:iam::ACCOUNT:role/NAME".to_owned(),
        );
    }
    if let Some(path) = config.credentials_file.as_ref().filter(|path| !path.is_file()) {
        return wrong("credentials_file", format!("there is no file {}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_checked_by_name() {
        let setting_of = |change: fn(&mut AwsKmsConfig)| async move {
            let mut config = AwsKmsConfig::default();
            change(&mut config);
            match AwsKms::connect(config).await {
                Err(KmsConfigError::Aws { setting, .. }) => Some(setting),
                _ => None,
            }
        };
        assert_eq!(setting_of(|_| ()).await, None);
        assert_eq!(
            setting_of(|c| c.endpoint_url = Some("localhost:1".into())).await,
            Some("endpoint_url")
        );
        assert_eq!(
            setting_of(|c| c.sts_endpoint_url = Some("ftp://x".into())).await,
            Some("sts_endpoint_url")
        );
        assert_eq!(setting_of(|c| c.region = Some("US East".into())).await, Some("region"));
        assert_eq!(setting_of(|c| c.timeout_ms = 49).await, Some("timeout_ms"));
        assert_eq!(setting_of(|c| c.timeout_ms = 50).await, None);
        assert_eq!(setting_of(|c| c.timeout_ms = 60_000).await, None);
        assert_eq!(setting_of(|c| c.timeout_ms = 60_001).await, Some("timeout_ms"));
        assert_eq!(setting_of(|c| c.node = String::new()).await, Some("node"));
        assert_eq!(setting_of(|c| c.node = "a b".into()).await, Some("node"));
        assert_eq!(
            setting_of(|c| c.node = "n".repeat(AwsKmsConfig::NODE_BYTES_MAX)).await,
            None
        );
        assert_eq!(
            setting_of(|c| c.node = "n".repeat(AwsKmsConfig::NODE_BYTES_MAX + 1)).await,
            Some("node")
        );
        assert_eq!(
            setting_of(|c| c.external_id = Some("x".into())).await,
            Some("external_id")
        );
        assert_eq!(
            setting_of(|c| c.role_arn = Some("admin".into())).await,
            Some("role_arn")
        );
        assert_eq!(
            setting_of(|c| c.credentials_file = Some("/no/such".into())).await,
            Some("credentials_file")
        );
    }

    #[tokio::test]
    async fn a_region_that_is_not_configured_is_refused() {
        let config = AwsKmsConfig {
            region: Some("eu-central-1".into()),
            ..AwsKmsConfig::default()
        };
        let kms = AwsKms::connect(config).await.unwrap();
        let root: RootKeyId = "arn:aws:kms:us-east-1:000000000000:key/abc".parse().unwrap();
        let Err(KeyServiceError::Unsupported { reason, .. }) = kms.client(&root) else {
            panic!("must be refused")
        };
        assert!(
            reason.contains("us-east-1") && reason.contains("eu-central-1"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn regions_are_bounded() {
        let kms = AwsKms::connect(AwsKmsConfig::default()).await.unwrap();
        let root = |number: usize| format!("arn:aws:kms:r-{number}:000000000000:key/abc").parse().unwrap();
        for number in 0..CLIENTS_MAX {
            assert!(kms.client(&root(number)).is_ok());
        }
        assert!(kms.client(&root(CLIENTS_MAX)).is_err());
        assert!(kms.client(&root(0)).is_ok());
    }
}
