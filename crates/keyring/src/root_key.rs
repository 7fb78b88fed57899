//! Names of root keys.
//!
//! A name is canonical: two different texts never name the same key at the same provider, so names can be compared and
//! counted as they are. Aliases are refused: an alias can be pointed at another key without anybody's knowledge.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names a root key at its provider: an AWS KMS key ARN, `vault://MOUNT/KEY` (HashiCorp Vault or OpenBao Transit),
/// `pkcs11:token=LABEL;object=LABEL` (RFC 7512), or `file:platform` for the platform key file.
///
/// Parsed once at the edge; holds only well-formed names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootKeyId(Arc<str>);

/// Whose key service holds a root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyProvider {
    /// AWS KMS, or what speaks its protocol.
    Aws,
    /// The Transit engine of HashiCorp Vault or OpenBao.
    Vault,
    /// A hardware security module behind PKCS#11.
    Pkcs11,
    /// The platform key file of the installation.
    PlatformFile,
}

impl KeyProvider {
    /// The word for it in settings, answers and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Vault => "vault",
            Self::Pkcs11 => "pkcs11",
            Self::PlatformFile => "platform-file",
        }
    }
}

impl fmt::Display for KeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text does not name a root key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "malformed key name: {reason}; expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID, vault://MOUNT/KEY or \
     pkcs11:token=LABEL;object=LABEL"
)]
pub struct RootKeyIdError {
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Where a Transit key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultKey<'a> {
    /// Path of the Transit engine, without slashes at its ends; may hold some.
    pub mount: &'a str,
    /// Name of the key.
    pub key: &'a str,
}

/// Where a key lies behind PKCS#11.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Key {
    /// Label of the token.
    pub token: String,
    /// Label (`CKA_LABEL`) of the key objects.
    pub object: String,
}

impl RootKeyId {
    /// Longest name, in bytes. An ARN has about 80, a PKCS#11 label may be percent-encoded.
    pub const BYTES_MAX: usize = 512;

    /// The platform key of an installation whose root is a key file.
    #[must_use]
    pub fn platform_file() -> Self {
        Self(PLATFORM_FILE.into())
    }
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whose key service holds the key.
    #[must_use]
    pub fn provider(&self) -> KeyProvider {
        if self.0.starts_with("arn:") {
            KeyProvider::Aws
        } else if self.0.starts_with(VAULT) {
            KeyProvider::Vault
        } else if self.0.starts_with(PKCS11) {
            KeyProvider::Pkcs11
        } else {
            KeyProvider::PlatformFile
        }
    }
    /// The AWS region in the ARN, if this is an ARN.
    #[must_use]
    pub fn aws_region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2))
    }
    /// Where the key is held, as far as its name tells: an AWS key's region. The other providers have none.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.aws_region()
    }
    /// Mount and key, if this is a Transit key.
    #[must_use]
    pub fn vault_key(&self) -> Option<VaultKey<'_>> {
        let (mount, key) = self.0.strip_prefix(VAULT)?.rsplit_once('/')?;
        Some(VaultKey { mount, key })
    }
    /// Token and object, if this is a key behind PKCS#11.
    #[must_use]
    pub fn pkcs11_key(&self) -> Option<Pkcs11Key> {
        let (token, object) = self.0.strip_prefix(PKCS11)?.split_once(';')?;
        Some(Pkcs11Key {
            token: percent_decoded(token.strip_prefix("token=")?)?,
            object: percent_decoded(object.strip_prefix("object=")?)?,
        })
    }
}

impl std::str::FromStr for RootKeyId {
    type Err = RootKeyIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::BYTES_MAX {
            return fail("it is longer than 512 bytes");
        }
        if text.starts_with(VAULT) {
            check_vault(text)?;
        } else if text.starts_with(PKCS11) {
            check_pkcs11(text)?;
        } else if text != PLATFORM_FILE {
            check_arn(text)?;
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

fn fail<T>(reason: &'static str) -> Result<T, RootKeyIdError> {
    Err(RootKeyIdError { reason })
}

fn check_arn(text: &str) -> Result<(), RootKeyIdError> {
    let parts: Vec<&str> = text.split(':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else {
        return fail("an ARN has six parts separated by colons");
    };
    if arn != "arn" || !partition.starts_with("aws") || service != "kms" {
        return fail("it must start with arn:aws:kms:");
    }
    let in_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if region.is_empty() || !region.bytes().all(in_region) {
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
    Ok(())
}

fn check_vault(text: &str) -> Result<(), RootKeyIdError> {
    let path = text.strip_prefix(VAULT).unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() < 2 {
        return fail("after vault:// come the mount of the Transit engine and the key's name");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    for part in parts {
        if part.is_empty() || !part.bytes().all(plain) {
            return fail("mount and key name may hold only letters, digits, hyphens, underscores and dots");
        }
        // The server would resolve them: two names of one key, or a path outside the mount.
        if part.bytes().all(|b| b == b'.') {
            return fail("a part of mount or key name may not be dots alone");
        }
    }
    Ok(())
}

fn check_pkcs11(text: &str) -> Result<(), RootKeyIdError> {
    let path = text.strip_prefix(PKCS11).unwrap_or_default();
    let parts: Vec<&str> = path.split(';').collect();
    let [token, object] = parts[..] else {
        return fail("a PKCS#11 key is named by token=LABEL;object=LABEL and nothing else");
    };
    let (Some(token), Some(object)) = (token.strip_prefix("token="), object.strip_prefix("object=")) else {
        return fail("a PKCS#11 key is named by token=LABEL;object=LABEL, in this order");
    };
    for (label, bytes_max) in [(token, TOKEN_LABEL_BYTES_MAX), (object, OBJECT_LABEL_BYTES_MAX)] {
        let Some(decoded) = percent_decoded(label) else {
            return fail("a PKCS#11 label holds a malformed percent-encoding");
        };
        if decoded.is_empty() || decoded.len() > bytes_max {
            return fail("a token label has 1 to 32 bytes, an object label 1 to 128");
        }
        // A token's label is padded with blanks, so those at its end are not part of it.
        if decoded.chars().any(char::is_control) || decoded.ends_with(' ') {
            return fail("a PKCS#11 label may not hold control characters or end with a blank");
        }
        if percent_encoded(&decoded) != label {
            return fail("a PKCS#11 label is written with %XX for all but letters, digits and -._~ and nothing else");
        }
    }
    Ok(())
}

/// RFC 3986's unreserved characters stay, all others become `%XX`: one text for each label.
fn percent_encoded(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for byte in label.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
    text
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

const PLATFORM_FILE: &str = "file:platform";
const VAULT: &str = "vault://";
const PKCS11: &str = "pkcs11:";
/// PKCS#11's own limit (`CK_TOKEN_INFO.label`).
const TOKEN_LABEL_BYTES_MAX: usize = 32;
/// So that a name percent-encoded to its triple stays below [`RootKeyId::BYTES_MAX`].
const OBJECT_LABEL_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<RootKeyId, RootKeyIdError> {
        text.parse()
    }
    fn refused(text: &str, part: &str) {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    }

    #[test]
    fn arns() {
        let root = parse("arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab").unwrap();
        assert_eq!((root.provider(), root.region()), (KeyProvider::Aws, Some("eu-west-1")));
        assert!(root.vault_key().is_none() && root.pkcs11_key().is_none());
        assert!(parse("arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1").is_ok());
        for (text, part) in [
            ("", "six parts"),
            ("arn:aws:kms:us-east-1:123456789012:alias/x", "alias"),
            ("arn:aws:kms:us-east-1:123456789012:x/1", "key/KEY-ID"),
            ("arn:aws:kms:us-east-1:123456789012:key/", "key id"),
            ("arn:aws:kms:us-east-1:123456789012:key/a b", "key id"),
            ("arn:aws:kms:US:123456789012:key/a", "region"),
            ("arn:aws:kms:us-east-1:12345678901:key/a", "12 digits"),
            ("arn:aws:s3:us-east-1:123456789012:key/a", "arn:aws:kms:"),
            ("alias/x", "six parts"),
        ] {
            refused(text, part);
        }
    }

    #[test]
    fn transit_keys() {
        let root = parse("vault://transit/orders").unwrap();
        assert_eq!((root.provider(), root.region()), (KeyProvider::Vault, None));
        let (mount, key) = ("transit", "orders");
        assert_eq!(root.vault_key(), Some(VaultKey { mount, key }));
        let root = parse("vault://teams/a.b/transit_2/k-1").unwrap();
        let (mount, key) = ("teams/a.b/transit_2", "k-1");
        assert_eq!(root.vault_key(), Some(VaultKey { mount, key }));
        for (text, part) in [
            ("vault://", "come the mount"),
            ("vault://transit", "come the mount"),
            ("vault:///k", "letters"),
            ("vault://transit/", "letters"),
            ("vault://transit//k", "letters"),
            ("vault://transit/../sys/k", "dots alone"),
            ("vault://transit/.", "dots alone"),
            ("vault://transit/k?x=1", "letters"),
            ("vault://transit/k%2e", "letters"),
            ("vault://user@host:8200/transit/k", "letters"),
            ("VAULT://transit/k", "six parts"),
        ] {
            refused(text, part);
        }
        refused(&format!("vault://transit/{}", "k".repeat(512)), "512");
    }

    #[test]
    fn hsm_keys() {
        let root = parse("pkcs11:token=prod;object=orders").unwrap();
        assert_eq!((root.provider(), root.region()), (KeyProvider::Pkcs11, None));
        let key = |token: &str, object: &str| Pkcs11Key {
            token: token.into(),
            object: object.into(),
        };
        assert_eq!(root.pkcs11_key(), Some(key("prod", "orders")));
        let spaced = parse("pkcs11:token=My%20HSM%3B1;object=caf%C3%A9").unwrap();
        assert_eq!(spaced.pkcs11_key(), Some(key("My HSM;1", "caf\u{e9}")));
        for (text, part) in [
            ("pkcs11:token=a", "nothing else"),
            ("pkcs11:token=a;object=b;id=%01", "nothing else"),
            ("pkcs11:object=b;token=a", "this order"),
            ("pkcs11:token=a;object=b?pin-value=1234", "%XX"),
            ("pkcs11:token=a b;object=b", "%XX"),
            ("pkcs11:token=%61;object=b", "%XX"),
            ("pkcs11:token=%c3%a9;object=b", "%XX"),
            ("pkcs11:token=%C3;object=b", "malformed"),
            ("pkcs11:token=%4;object=b", "malformed"),
            ("pkcs11:token=;object=b", "1 to 32"),
            ("pkcs11:token=a;object=", "1 to 32"),
            ("pkcs11:token=a;object=b%00", "control"),
            ("pkcs11:token=a%20;object=b", "blank"),
        ] {
            refused(text, part);
        }
        assert!(parse(&format!("pkcs11:token={};object={}", "t".repeat(32), "o".repeat(128))).is_ok());
        refused(&format!("pkcs11:token={};object=o", "t".repeat(33)), "1 to 32");
        refused(&format!("pkcs11:token=t;object={}", "o".repeat(129)), "1 to 32");
        // A PIN that somebody put into the name does not come back in the error.
        assert!(
            !parse("pkcs11:token=a;object=b?pin-value=98765")
                .unwrap_err()
                .to_string()
                .contains("98765")
        );
    }

    #[test]
    fn the_platform_file() {
        assert_eq!(parse("file:platform").unwrap(), RootKeyId::platform_file());
        assert_eq!(RootKeyId::platform_file().provider(), KeyProvider::PlatformFile);
        refused("file:other", "six parts");
    }

    proptest! {
        #[test]
        fn labels_survive_their_encoding(label in "\\PC{1,8}[a-z]") {
            prop_assert_eq!(percent_decoded(&percent_encoded(&label)), Some(label.clone()));
            let text = format!("pkcs11:token=t;object={}", percent_encoded(&label));
            let root = parse(&text).unwrap();
            prop_assert_eq!(root.pkcs11_key().unwrap().object, label);
        }
        #[test]
        fn any_text_parses_or_is_refused(text in "(vault://|pkcs11:|pkcs11:token=|arn:)?\\PC{0,40}") {
            if let Ok(root) = parse(&text) {
                prop_assert_eq!(root.as_str(), text.as_str());
                prop_assert_eq!(root.provider() == KeyProvider::Vault, root.vault_key().is_some());
                prop_assert_eq!(root.provider() == KeyProvider::Pkcs11, root.pkcs11_key().is_some());
            }
        }
    }
}
