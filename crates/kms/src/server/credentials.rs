//! The two users that a new server makes, and the AWS shared-credentials file that hands their keys out.

use std::{fs, io, path::Path};

use zeroize::Zeroizing;

use super::{names::Names, records::User};
use crate::key_file;

/// Profile and user that owns the keys.
pub(super) const CUSTOMER: &str = "customer";
/// Profile and user that the database uses.
pub(super) const SAKER: &str = "saker";

/// First line of a file that this server wrote; a file without it is never overwritten.
const MARK: &str = "# Written by saker kms serve; for development and air-gapped use.";

const CUSTOMER_POLICY: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const SAKER_POLICY: &str = concat!(
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","#,
    r#""Action":["kms:Decrypt","kms:GenerateDataKey"],"Resource":"*"}]}"#
);

/// A fresh user: `customer` may do everything in the account, `saker` only what the database needs.
pub(super) fn new_user(name: &str) -> User {
    let policy = if name == CUSTOMER {
        CUSTOMER_POLICY
    } else {
        SAKER_POLICY
    };
    User {
        name: name.to_owned(),
        id: format!("AIDA{}", random_text(17, ID_LETTERS)),
        access_key_id: format!("AKIA{}", random_text(16, ID_LETTERS)),
        secret: random_text(40, SECRET_LETTERS),
        policy: policy.to_owned(),
    }
}

const ID_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `letters` letters from `alphabet` (whose length divides 256), each equally likely.
pub(super) fn random_text(letters: usize, alphabet: &[u8]) -> String {
    let mut text = String::with_capacity(letters);
    while text.len() < letters {
        let bytes = saker_keyring::random_key();
        let missing = letters - text.len();
        let picked = bytes.expose_bytes().iter().take(missing);
        text.extend(picked.map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])));
    }
    text
}

/// A random id as AWS writes those of roles and sessions.
pub(super) fn random_id(prefix: &str) -> String {
    format!("{prefix}{}", random_text(16, ID_LETTERS))
}

/// A random 40-letter secret.
pub(super) fn random_secret() -> String {
    random_text(40, SECRET_LETTERS)
}

/// Writes the credentials file, whole or not at all.
///
/// An older file of this server's is replaced; any other file is left alone and is an error.
pub(super) fn write_file(path: &Path, names: &Names, users: &[&User]) -> io::Result<()> {
    let mut text = Zeroizing::new(format!("{MARK}\n"));
    for user in users {
        text.push_str(&format!(
            "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {}\n",
            user.name, user.access_key_id, user.secret, names.region
        ));
    }
    match fs::read_to_string(path) {
        Ok(existing) if existing == *text => return Ok(()),
        Ok(existing) if !existing.starts_with(MARK) => {
            let reason = format!("{} exists and is not this server's; name another file", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    key_file::make_private_directory(directory)?;
    let draft = directory.join(format!(".aws-credentials-{}", uuid::Uuid::new_v4()));
    let placed = key_file::write_new_private(&draft, text.as_bytes()).and_then(|()| fs::rename(&draft, path));
    if placed.is_err() {
        // The draft holds secrets; if it cannot be removed either, the first error is the one to report.
        let _ = fs::remove_file(&draft);
    }
    placed.and_then(|()| key_file::sync_directory(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_its_own_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names {
            region: "us-east-1".into(),
            account: "000000000000".into(),
        };
        let path = dir.path().join("deep/credentials");
        let (one, two) = (new_user(CUSTOMER), new_user(SAKER));
        write_file(&path, &names, &[&one]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write_file(&path, &names, &[&one, &two]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&one.secret) && text.contains(&two.secret) && text.contains("[saker]"));
        let foreign = dir.path().join("foreign");
        key_file::write_new_private(&foreign, b"[default]\n").unwrap();
        let refused = write_file(&foreign, &names, &[&one]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "[default]\n");
    }

    #[test]
    fn random_texts_have_their_length_and_differ() {
        let (one, two) = (random_text(40, SECRET_LETTERS), random_text(40, SECRET_LETTERS));
        assert_eq!(one.len(), 40);
        assert_ne!(one, two);
    }
}
