//! How to reach Vault or OpenBao, and how to log in.

use std::path::PathBuf;

use axum::http::Uri;

use crate::services::KmsConfigError;

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct VaultKmsConfig {
    /// Where it answers: `https://HOST:PORT`, without a path. `http://` is for a loopback or private interface only.
    pub address: String,
    /// Namespace of all mounts; `None`: the root namespace.
    pub namespace: Option<String>,
    /// How to log in.
    pub login: VaultLogin,
    /// PEM certificates that the server's has to come from; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Longest a call may take, a login included, in milliseconds.
    pub timeout_ms: u64,
    /// This node, as the server's audit log may show it; see [`crate::AwsKmsConfig::node`].
    pub node: String,
}

/// How to log in. Secrets are read from files at each use, so that they can be renewed without a restart.
#[derive(Clone, Debug)]
pub enum VaultLogin {
    /// A token in a file, as an agent keeps it.
    TokenFile(PathBuf),
    /// An AppRole.
    AppRole {
        /// Path of the auth method, without `auth/`.
        mount: String,
        /// The role's id. No secret.
        role_id: String,
        /// File with the secret id.
        secret_id_file: PathBuf,
    },
}

impl VaultLogin {
    /// Where an AppRole auth method is mounted by default.
    pub const APPROLE_MOUNT: &'static str = "approle";
}

impl VaultKmsConfig {
    /// Default of [`Self::timeout_ms`].
    pub const TIMEOUT_MS: u64 = 3_000;
    /// Bounds of [`Self::timeout_ms`].
    pub const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u64> = 50..=60_000;

    /// The address, if all settings are well-formed.
    pub(super) fn checked(&self) -> Result<Uri, KmsConfigError> {
        let address = self.address.trim_end_matches('/').parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
                && uri
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
        });
        let Some(address) = address else {
            return wrong(
                "address",
                "it must be https://HOST:PORT, without user and path".to_owned(),
            );
        };
        if self.ca_file.is_some() && address.scheme_str() == Some("http") {
            return wrong("ca_file", "it has no effect with an http:// address".to_owned());
        }
        if self.namespace.as_deref().is_some_and(|namespace| !is_path(namespace)) {
            return wrong("namespace", PATH_RULE.to_owned());
        }
        if let VaultLogin::AppRole { mount, role_id, .. } = &self.login {
            if !is_path(mount) {
                return wrong("approle_mount", PATH_RULE.to_owned());
            }
            if role_id.is_empty() || role_id.len() > ROLE_ID_BYTES_MAX {
                return wrong("role_id", format!("it has 1 to {ROLE_ID_BYTES_MAX} bytes"));
            }
        }
        if !Self::TIMEOUT_MS_RANGE.contains(&self.timeout_ms) {
            let (least, most) = (Self::TIMEOUT_MS_RANGE.start(), Self::TIMEOUT_MS_RANGE.end());
            return wrong(
                "timeout_ms",
                format!("it must be from {least} to {most}, and is {}", self.timeout_ms),
            );
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.node.is_empty()
            || self.node.len() > crate::AwsKmsConfig::NODE_BYTES_MAX
            || !self.node.bytes().all(plain)
        {
            return wrong(
                "node",
                "a node is named by letters, digits, dots, underscores and hyphens".to_owned(),
            );
        }
        Ok(address)
    }
}

/// Parts of letters, digits, `.`, `_` and `-`, with slashes between them.
fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let part = |part: &str| !part.is_empty() && part.bytes().all(plain) && !part.bytes().all(|byte| byte == b'.');
    text.len() <= PATH_BYTES_MAX && text.trim_end_matches('/').split('/').all(part)
}

pub(super) fn wrong<T>(setting: &'static str, reason: String) -> Result<T, KmsConfigError> {
    Err(KmsConfigError::Vault { setting, reason })
}

const PATH_RULE: &str = "it may hold only letters, digits, dots, underscores, hyphens, and slashes between them";
/// Longest namespace or mount.
const PATH_BYTES_MAX: usize = 256;
/// Longest role id; the server's own have 36.
const ROLE_ID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VaultKmsConfig {
        VaultKmsConfig {
            address: "https://127.0.0.1:8200".into(),
            namespace: Some("team/a".into()),
            login: VaultLogin::AppRole {
                mount: VaultLogin::APPROLE_MOUNT.into(),
                role_id: "r".into(),
                secret_id_file: "s".into(),
            },
            ca_file: Some("ca.pem".into()),
            timeout_ms: VaultKmsConfig::TIMEOUT_MS,
            node: "n1".into(),
        }
    }
    fn refused(change: impl FnOnce(&mut VaultKmsConfig), part: &str) {
        let mut config = config();
        change(&mut config);
        let error = config.checked().unwrap_err().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    }

    #[test]
    fn settings_are_checked() {
        assert!(config().checked().is_ok());
        for address in [
            "",
            "127.0.0.1:8200",
            "ftp://h:1",
            "https://h:1/v1",
            "https://u:p@h:1",
            "https://h:1/?x=1",
        ] {
            refused(|config| config.address = address.into(), "kms.vault.address");
        }
        refused(
            |config| config.address = "http://127.0.0.1:8200".into(),
            "kms.vault.ca_file",
        );
        refused(|config| config.namespace = Some("../x".into()), "kms.vault.namespace");
        refused(|config| config.namespace = Some("a b".into()), "kms.vault.namespace");
        refused(|config| config.timeout_ms = 49, "kms.vault.timeout_ms");
        refused(|config| config.timeout_ms = 60_001, "kms.vault.timeout_ms");
        refused(|config| config.node = "a b".into(), "kms.vault.node");
        let role = |mount: &str, role_id: &str| VaultLogin::AppRole {
            mount: mount.into(),
            role_id: role_id.into(),
            secret_id_file: "s".into(),
        };
        refused(|config| config.login = role("approle", ""), "kms.vault.role_id");
        refused(|config| config.login = role("a//b", "r"), "kms.vault.approle_mount");
    }
}
