//! `saker.toml`: the settings of `saker serve`. An unknown key is an error, so that a typing mistake cannot switch
//! something off unnoticed.
//!
//! Start reading at [`Config::read`]. `docs/operations.md` has the table for operators.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use saker_engine::EngineConfig;
use saker_keyring::{KeyProvider, LeasePolicy, RootKeyId};
use saker_kms::{AwsKmsConfig, KeyServicesConfig, Pkcs11KmsConfig, VaultKmsConfig, VaultLogin};
use serde::Deserialize;
use thiserror::Error;

use crate::{audit::AuditSection, listen::TlsFiles, running::ControlSettings};

/// Everything in `saker.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database's port.
    #[serde(default)]
    pub server: ServerSection,
    /// Where data lies.
    pub data: DataSection,
    /// Who may use it.
    #[serde(default)]
    pub auth: AuthSection,
    /// TLS; absent: in the clear.
    pub tls: Option<TlsSection>,
    /// Root keys.
    #[serde(default)]
    pub kms: KmsSection,
    /// Projects, registered keys, clusters.
    #[serde(default)]
    pub control: ControlSection,
    /// Sizes and threads of the engine.
    #[serde(default)]
    pub engine: EngineSection,
    /// What is recorded beside the audit log.
    #[serde(default)]
    pub audit: AuditSection,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Address for gRPC and HTTP.
    pub listen: SocketAddr,
}

/// `[data]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Data directory; made if it is not there. One server per directory.
    pub dir: PathBuf,
}

/// `[auth]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Whether clients have to say user and password.
    pub enabled: bool,
}

/// `[control]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSection {
    /// Whether databases of the server's own cluster need keys that are registered with its project.
    pub registered_keys_only: bool,
    /// The AWS user or role that customers' roles have to trust; absent: whoever STS says that this server is.
    pub aws_principal: Option<String>,
}

/// `[tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM certificates that client certificates have to come from; absent: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// `[kms]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KmsSection {
    /// File of the platform root key, made at the first start; back it up apart from the data.
    pub platform_key_file: Option<PathBuf>,
    /// Platform root key at a key service, instead of a file.
    pub platform_key: Option<RootKeyId>,
    /// Root key of new databases that name none.
    pub default_key: Option<RootKeyId>,
    /// Milliseconds between two probes of a root key, 1,000 to 600,000.
    pub probe_interval_ms: u64,
    /// Milliseconds that a key goes on serving while its key service gives no answer; 0 locks at once.
    pub grace_ms: u64,
    /// Calls per second to all key services together, 1 to 10,000.
    pub calls_per_second_max: u32,
    /// AWS KMS or what speaks its protocol; absent: key ARNs are refused.
    pub aws: Option<AwsSection>,
    /// HashiCorp Vault or OpenBao; absent: `vault://` names are refused.
    pub vault: Option<VaultSection>,
    /// An HSM behind PKCS#11; absent: `pkcs11:` names are refused.
    pub pkcs11: Option<Pkcs11Section>,
}

/// `[kms.aws]`; what is absent comes from the standard AWS configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsSection {
    /// Where KMS answers.
    pub endpoint_url: Option<String>,
    /// Where STS answers.
    pub sts_endpoint_url: Option<String>,
    /// The only region whose keys are used.
    pub region: Option<String>,
    /// Profile in the shared configuration.
    pub profile: Option<String>,
    /// Shared credentials file.
    pub credentials_file: Option<PathBuf>,
    /// Role to assume for every call.
    pub role_arn: Option<String>,
    /// External id that the role's owner asks for.
    pub external_id: Option<String>,
    /// Longest a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// This node's name in CloudTrail.
    pub node: String,
}

/// `[kms.vault]`; either `token_file`, or `role_id` and `secret_id_file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSection {
    /// Where the server answers: `https://HOST:PORT`.
    pub address: String,
    /// Namespace of all mounts.
    pub namespace: Option<String>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Id of the AppRole.
    pub role_id: Option<String>,
    /// File with the AppRole's secret id.
    pub secret_id_file: Option<PathBuf>,
    /// Where the AppRole auth method is mounted, without `auth/`.
    pub approle_mount: Option<String>,
    /// PEM certificates that the server's has to come from.
    pub ca_file: Option<PathBuf>,
    /// Longest a call may take, in milliseconds.
    #[serde(default = "vault_timeout_ms")]
    pub timeout_ms: u64,
    /// This node's name in the server's audit log.
    #[serde(default = "node")]
    pub node: String,
}

/// `[kms.pkcs11]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Section {
    /// The PKCS#11 library of the HSM's maker.
    pub module: PathBuf,
    /// File with the user PIN.
    pub pin_file: PathBuf,
    /// Longest a call may take, in milliseconds.
    #[serde(default = "pkcs11_timeout_ms")]
    pub timeout_ms: u64,
}

/// `[engine]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Bytes in memory at which a growing segment is sealed.
    pub segment_bytes_max: usize,
    /// Bytes in memory at which a growing segment is sealed whose vectors stay on disk.
    pub disk_segment_bytes_max: usize,
    /// Bytes of opened frames that are kept of files that stay on disk.
    pub frame_cache_bytes_max: usize,
    /// Bytes at which a log segment is closed.
    pub log_segment_bytes_max: u64,
    /// Fewest rows of a segment for which a graph index is built.
    pub index_rows_min: usize,
    /// Threads that build indexes; 0 for half of the processors.
    pub index_threads: usize,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 19_530)),
        }
    }
}

impl Default for KmsSection {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            platform_key_file: None,
            platform_key: None,
            default_key: None,
            probe_interval_ms: engine.lease.probe_interval_ms,
            grace_ms: engine.lease.grace_ms,
            calls_per_second_max: KeyServicesConfig::CALLS_PER_SECOND_MAX,
            aws: None,
            vault: None,
            pkcs11: None,
        }
    }
}

impl Default for AwsSection {
    fn default() -> Self {
        let AwsKmsConfig {
            endpoint_url,
            sts_endpoint_url,
            region,
            profile,
            credentials_file,
            role_arn,
            external_id,
            timeout_ms,
            node,
        } = AwsKmsConfig::default();
        Self {
            endpoint_url,
            sts_endpoint_url,
            region,
            profile,
            credentials_file,
            role_arn,
            external_id,
            timeout_ms,
            node,
        }
    }
}

impl Default for EngineSection {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            segment_bytes_max: engine.segment_bytes_max,
            disk_segment_bytes_max: engine.disk_segment_bytes_max,
            frame_cache_bytes_max: engine.frame_cache_bytes_max,
            log_segment_bytes_max: engine.log_segment_bytes_max,
            index_rows_min: engine.index_rows_min,
            index_threads: engine.index_threads,
        }
    }
}

impl From<AwsSection> for AwsKmsConfig {
    fn from(section: AwsSection) -> Self {
        Self {
            endpoint_url: section.endpoint_url,
            sts_endpoint_url: section.sts_endpoint_url,
            region: section.region,
            profile: section.profile,
            credentials_file: section.credentials_file,
            role_arn: section.role_arn,
            external_id: section.external_id,
            timeout_ms: section.timeout_ms,
            node: section.node,
        }
    }
}

impl VaultSection {
    /// How to log in, if exactly one way is given.
    fn login(&self) -> Option<VaultLogin> {
        match (
            &self.token_file,
            &self.role_id,
            &self.secret_id_file,
            &self.approle_mount,
        ) {
            (Some(token_file), None, None, None) => Some(VaultLogin::TokenFile(token_file.clone())),
            (None, Some(role_id), Some(secret_id_file), mount) => Some(VaultLogin::AppRole {
                mount: mount.clone().unwrap_or_else(|| VaultLogin::APPROLE_MOUNT.to_owned()),
                role_id: role_id.clone(),
                secret_id_file: secret_id_file.clone(),
            }),
            _ => None,
        }
    }
    /// `None` if it is not told how to log in, which [`Config::check`] refuses.
    fn key_service_config(&self) -> Option<VaultKmsConfig> {
        Some(VaultKmsConfig {
            address: self.address.clone(),
            namespace: self.namespace.clone(),
            login: self.login()?,
            ca_file: self.ca_file.clone(),
            timeout_ms: self.timeout_ms,
            node: self.node.clone(),
        })
    }
}

impl From<Pkcs11Section> for Pkcs11KmsConfig {
    fn from(section: Pkcs11Section) -> Self {
        Self {
            module: section.module,
            pin_file: section.pin_file,
            timeout_ms: section.timeout_ms,
        }
    }
}

fn vault_timeout_ms() -> u64 {
    VaultKmsConfig::TIMEOUT_MS
}

fn pkcs11_timeout_ms() -> u64 {
    Pkcs11KmsConfig::TIMEOUT_MS
}

fn node() -> String {
    AwsKmsConfig::default().node
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not as it should be.
    #[error("{}: {reason}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// A value is out of its range or does not fit another one.
    #[error("{setting}: {reason}")]
    Value {
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file. Paths in it that are not absolute count from the file's directory.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file and the setting.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        config.make_absolute(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }
    /// The engine's part.
    #[must_use]
    pub fn engine_config(&self) -> EngineConfig {
        EngineConfig {
            lease: LeasePolicy {
                probe_interval_ms: self.kms.probe_interval_ms,
                grace_ms: self.kms.grace_ms,
                ..LeasePolicy::default()
            },
            default_key: self.kms.default_key.clone(),
            kms_calls_per_second: self.kms.calls_per_second_max,
            segment_bytes_max: self.engine.segment_bytes_max,
            disk_segment_bytes_max: self.engine.disk_segment_bytes_max,
            frame_cache_bytes_max: self.engine.frame_cache_bytes_max,
            log_segment_bytes_max: self.engine.log_segment_bytes_max,
            index_rows_min: self.engine.index_rows_min,
            index_threads: self.engine.index_threads,
            ..EngineConfig::default()
        }
    }
    /// The key services' part.
    #[must_use]
    pub fn key_services_config(&self) -> KeyServicesConfig {
        KeyServicesConfig {
            platform_key_file: self.kms.platform_key_file.clone(),
            aws: self.kms.aws.clone().map(AwsKmsConfig::from),
            vault: self.kms.vault.as_ref().and_then(VaultSection::key_service_config),
            pkcs11: self.kms.pkcs11.clone().map(Pkcs11KmsConfig::from),
            calls_per_second_max: self.kms.calls_per_second_max,
        }
    }
    /// The root key of the cluster's own zone.
    #[must_use]
    pub fn platform_root(&self) -> RootKeyId {
        self.kms.platform_key.clone().unwrap_or_else(RootKeyId::platform_file)
    }
    /// The control plane's part.
    #[must_use]
    pub fn control_settings(&self) -> ControlSettings {
        ControlSettings {
            registered_keys_only: self.control.registered_keys_only,
            aws_principal: self.control.aws_principal.clone(),
        }
    }
    /// The TLS files, if TLS is on.
    #[must_use]
    pub fn tls_files(&self) -> Option<TlsFiles> {
        self.tls.clone().map(|section| TlsFiles {
            certificate: section.certificate,
            key: section.key,
            client_ca: section.client_ca,
        })
    }

    fn make_absolute(&mut self, base: &Path) {
        let absolute = |path: &mut PathBuf| *path = base.join(&*path);
        absolute(&mut self.data.dir);
        self.kms.platform_key_file.iter_mut().for_each(absolute);
        if let Some(tls) = &mut self.tls {
            absolute(&mut tls.certificate);
            absolute(&mut tls.key);
            tls.client_ca.iter_mut().for_each(absolute);
        }
        if let Some(aws) = &mut self.kms.aws {
            aws.credentials_file.iter_mut().for_each(absolute);
        }
        if let Some(vault) = &mut self.kms.vault {
            for file in [&mut vault.token_file, &mut vault.secret_id_file, &mut vault.ca_file] {
                file.iter_mut().for_each(absolute);
            }
        }
        if let Some(pkcs11) = &mut self.kms.pkcs11 {
            absolute(&mut pkcs11.module);
            absolute(&mut pkcs11.pin_file);
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        match (&self.kms.platform_key, &self.kms.platform_key_file) {
            (None, None) => {
                return fail(
                    "kms.platform_key_file",
                    "set it, or kms.platform_key, so that the catalog can be sealed".into(),
                );
            }
            (Some(_), Some(_)) => {
                return fail(
                    "kms.platform_key",
                    "set either it or kms.platform_key_file, not both".into(),
                );
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        for (setting, key) in [
            ("kms.platform_key", &self.kms.platform_key),
            ("kms.default_key", &self.kms.default_key),
        ] {
            let missing = match key.as_ref().map(RootKeyId::provider) {
                Some(KeyProvider::Aws) if self.kms.aws.is_none() => "a key ARN needs a section [kms.aws]",
                Some(KeyProvider::Vault) if self.kms.vault.is_none() => "a vault:// key needs a section [kms.vault]",
                Some(KeyProvider::Pkcs11) if self.kms.pkcs11.is_none() => "a pkcs11: key needs a section [kms.pkcs11]",
                Some(KeyProvider::Aws | KeyProvider::Vault | KeyProvider::Pkcs11 | KeyProvider::PlatformFile)
                | None => {
                    continue;
                }
            };
            return fail(setting, missing.into());
        }
        if self.kms.vault.as_ref().is_some_and(|vault| vault.login().is_none()) {
            return fail(
                "kms.vault",
                "set either token_file, or role_id and secret_id_file (and approle_mount if it is not approle)".into(),
            );
        }
        let budget_range = KeyServicesConfig::CALLS_PER_SECOND_MAX_RANGE;
        if !budget_range.contains(&self.kms.calls_per_second_max) {
            return fail("kms.calls_per_second_max", format!("must be in {budget_range:?}"));
        }
        let access_range = AuditSection::ACCESS_BYTES_MAX_RANGE;
        if !access_range.contains(&self.audit.access_bytes_max) {
            return fail("audit.access_bytes_max", format!("must be in {access_range:?}"));
        }
        let probe_range = LeasePolicy::PROBE_INTERVAL_MS_MIN..=LeasePolicy::PROBE_INTERVAL_MS_MAX;
        if !probe_range.contains(&self.kms.probe_interval_ms) {
            return fail("kms.probe_interval_ms", format!("must be in {probe_range:?}"));
        }
        if self.kms.grace_ms > LeasePolicy::GRACE_MS_MAX {
            return fail("kms.grace_ms", format!("must be at most {}", LeasePolicy::GRACE_MS_MAX));
        }
        let principal = self.control.aws_principal.as_deref();
        if principal.is_some_and(|principal| !saker_control::policy::is_principal(principal)) {
            return fail(
                "control.aws_principal",
                "it must look like arn:aws:iam::ACCOUNT:user/NAME or arn:aws:iam::ACCOUNT:role/NAME".into(),
            );
        }
        if self.engine.segment_bytes_max < SEGMENT_BYTES_MIN {
            return fail(
                "engine.segment_bytes_max",
                format!("must be at least {SEGMENT_BYTES_MIN}"),
            );
        }
        if self.engine.disk_segment_bytes_max < SEGMENT_BYTES_MIN {
            return fail(
                "engine.disk_segment_bytes_max",
                format!("must be at least {SEGMENT_BYTES_MIN}"),
            );
        }
        if self.engine.log_segment_bytes_max < LOG_SEGMENT_BYTES_MIN {
            return fail(
                "engine.log_segment_bytes_max",
                format!("must be at least {LOG_SEGMENT_BYTES_MIN}"),
            );
        }
        Ok(())
    }
}

/// Smaller segments would make a file per handful of rows.
const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// Smaller log segments would make a data key per handful of inserts.
const LOG_SEGMENT_BYTES_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test writes its own configuration file")]
    fn read(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("saker.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }
    fn refused(text: &str, part: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    }
    const SMALLEST: &str = "[data]\ndir = \"d\"\n[kms]\nplatform_key_file = \"platform.key\"\n";

    #[test]
    fn the_smallest_file_has_defaults() {
        let config = read(SMALLEST).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:19530");
        assert!(config.data.dir.is_absolute() && config.data.dir.ends_with("d"));
        assert!(!config.auth.enabled);
        assert_eq!(config.platform_root(), RootKeyId::platform_file());
        assert_eq!(config.engine_config().lease.probe_interval_ms, 5_000);
        assert_eq!(config.engine_config().lease.grace_ms, 60_000);
        assert!(config.tls_files().is_none());
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [server]
            listen = "0.0.0.0:1"
            [data]
            dir = "/d"
            [auth]
            enabled = true
            [tls]
            certificate = "c.pem"
            key = "/k.pem"
            client_ca = "ca.pem"
            [kms]
            platform_key = "arn:aws:kms:us-east-1:000000000000:key/p"
            default_key = "arn:aws:kms:us-east-1:000000000000:key/d"
            probe_interval_ms = 1000
            grace_ms = 0
            calls_per_second_max = 7
            [kms.aws]
            endpoint_url = "http://127.0.0.1:1"
            sts_endpoint_url = "http://127.0.0.1:2"
            region = "us-east-1"
            profile = "p"
            credentials_file = "c"
            role_arn = "arn:aws:iam::000000000000:role/r"
            external_id = "e"
            timeout_ms = 100
            node = "n"
            [kms.vault]
            address = "https://127.0.0.1:8200"
            namespace = "team"
            role_id = "r"
            secret_id_file = "secret-id"
            approle_mount = "roles"
            ca_file = "/ca.pem"
            timeout_ms = 200
            node = "n2"
            [kms.pkcs11]
            module = "/usr/lib/hsm.so"
            pin_file = "pin"
            timeout_ms = 300
            [engine]
            segment_bytes_max = 1048576
            disk_segment_bytes_max = 1048576
            frame_cache_bytes_max = 0
            log_segment_bytes_max = 1048576
            index_rows_min = 1
            index_threads = 2
        "#;
        let config = read(text).unwrap();
        assert!(config.auth.enabled);
        assert_eq!(
            (
                config.engine_config().lease.grace_ms,
                config.engine_config().index_threads
            ),
            (0, 2)
        );
        let aws = config.key_services_config().aws.unwrap();
        assert_eq!(
            (aws.timeout_ms, aws.node.as_str(), aws.external_id.as_deref()),
            (100, "n", Some("e"))
        );
        let keys = config.key_services_config();
        assert_eq!(keys.calls_per_second_max, 7);
        let vault = keys.vault.unwrap();
        assert_eq!((vault.timeout_ms, vault.node.as_str()), (200, "n2"));
        assert_eq!(vault.namespace.as_deref(), Some("team"));
        assert_eq!(vault.ca_file.as_deref(), Some(Path::new("/ca.pem")));
        let VaultLogin::AppRole {
            mount, secret_id_file, ..
        } = vault.login
        else {
            panic!("{:?}", vault.login);
        };
        assert!(mount == "roles" && secret_id_file.is_absolute());
        let pkcs11 = keys.pkcs11.unwrap();
        assert_eq!(pkcs11.timeout_ms, 300);
        assert!(pkcs11.pin_file.is_absolute() && pkcs11.module == Path::new("/usr/lib/hsm.so"));
        assert!(config.tls_files().unwrap().certificate.ends_with("c.pem"));
        assert_eq!(config.data.dir, Path::new("/d"));
    }

    #[test]
    fn mistakes_are_named() {
        refused("[data]\ndir = \"d\"\n", "kms.platform_key_file");
        refused(&format!("{SMALLEST}grace = 1\n"), "unknown field");
        refused(&format!("{SMALLEST}[nonsense]\n"), "unknown field");
        refused(&format!("{SMALLEST}probe_interval_ms = 999\n"), "kms.probe_interval_ms");
        refused(
            &format!("{SMALLEST}probe_interval_ms = 600001\n"),
            "kms.probe_interval_ms",
        );
        assert!(read(&format!("{SMALLEST}probe_interval_ms = 600000\n")).is_ok());
        refused(
            &format!("{SMALLEST}default_key = \"arn:aws:kms:us-east-1:000000000000:key/d\"\n"),
            "[kms.aws]",
        );
        refused(
            &format!("{SMALLEST}default_key = \"arn:aws:kms:us-east-1:000000000000:alias/d\"\n"),
            "alias",
        );
        refused(
            &format!("{SMALLEST}[engine]\nsegment_bytes_max = 1\n"),
            "engine.segment_bytes_max",
        );
        refused(
            &format!("{SMALLEST}[engine]\ndisk_segment_bytes_max = 1\n"),
            "engine.disk_segment_bytes_max",
        );
        refused(
            &format!("{SMALLEST}default_key = \"vault://transit/d\"\n"),
            "[kms.vault]",
        );
        refused(
            &format!("{SMALLEST}default_key = \"pkcs11:token=t;object=o\"\n"),
            "[kms.pkcs11]",
        );
        refused(
            &format!("{SMALLEST}calls_per_second_max = 0\n"),
            "kms.calls_per_second_max",
        );
        let vault = format!("{SMALLEST}[kms.vault]\naddress = \"https://127.0.0.1:8200\"\n");
        refused(&vault, "token_file");
        refused(&format!("{vault}role_id = \"r\"\n"), "token_file");
        refused(&format!("{vault}token_file = \"t\"\nrole_id = \"r\"\n"), "token_file");
        refused(&format!("{vault}token = \"t\"\n"), "unknown field");
        assert!(read(&format!("{vault}token_file = \"t\"\n")).is_ok());
        refused(&format!("{SMALLEST}[kms.pkcs11]\nmodule = \"m\"\n"), "pin_file");
        refused(
            &format!("{SMALLEST}[audit]\naccess = true\naccess_bytes_max = 1000\n"),
            "audit.access_bytes_max",
        );
        refused("[kms]\nplatform_key_file = \"p\"\n", "data");
        assert!(matches!(
            Config::read(Path::new("/nowhere/saker.toml")),
            Err(ConfigError::Read { .. })
        ));
    }
}
