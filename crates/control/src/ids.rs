//! Identifiers and names. An id is made once and never given again; a name is what people type.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ControlError;

/// Why a text is no id or name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "malformed {what}: use 1 to {bytes_max} lowercase letters, digits and hyphens, with a letter or digit first and last"
)]
pub struct IdError {
    /// What it was to be.
    pub what: &'static str,
    /// Longest text allowed, in bytes.
    pub bytes_max: usize,
}

/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Longest name, in bytes: an IAM role's name holds 64, which have to take `saker-`, the name and a part of the id.
const NAME_BYTES_MAX: usize = 40;

fn check(what: &'static str, text: &str, bytes_max: usize) -> Result<(), IdError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let fine = bytes.len() <= bytes_max
        && ends.is_some_and(|(first, last)| plain(*first) && plain(*last))
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-');
    if fine { Ok(()) } else { Err(IdError { what, bytes_max }) }
}

/// Checks a name of a project, a cluster or an API key.
///
/// # Errors
/// [`ControlError::Malformed`] with the rule.
pub fn check_name(what: &'static str, text: &str) -> Result<(), ControlError> {
    Ok(check(what, text, NAME_BYTES_MAX)?)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text, ID_BYTES_MAX)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
id_type!(
    /// A project.
    ProjectId,
    "project id"
);
id_type!(
    /// A cluster: what its encryption contexts carry as `saker:cluster`, and the folder that its data lies in.
    ClusterId,
    "cluster id"
);
id_type!(
    /// An API key: its name in lists, not its secret.
    ApiKeyId,
    "API key id"
);

impl ProjectId {
    /// A fresh id.
    ///
    /// # Errors
    /// [`ControlError::NoRandomness`].
    pub(crate) fn random() -> Result<Self, ControlError> {
        Ok(Self(format!("proj-{}", random_hex::<8>()?)))
    }
}

impl ClusterId {
    /// A fresh id of a cluster of this project. It starts with the project's, so that one pattern in a key's policy
    /// covers the clusters that a project has and will have, and nothing else.
    ///
    /// # Errors
    /// [`ControlError::NoRandomness`].
    pub(crate) fn random(project: &ProjectId) -> Result<Self, ControlError> {
        Ok(Self(format!("{project}-{}", random_hex::<6>()?)))
    }
}

impl ApiKeyId {
    /// A fresh id.
    ///
    /// # Errors
    /// [`ControlError::NoRandomness`].
    pub(crate) fn random() -> Result<Self, ControlError> {
        Ok(Self(format!("key-{}", random_hex::<6>()?)))
    }
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], ControlError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ControlError::NoRandomness)?;
    Ok(bytes)
}

pub(crate) fn random_hex<const N: usize>() -> Result<String, ControlError> {
    Ok(hex::encode(random_bytes::<N>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_have_one_form() {
        for good in ["a", "a-1", "proj-0123456789abcdef", &"a".repeat(NAME_BYTES_MAX)] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a b",
            "a/b",
            "..",
            "a.b",
            "ä",
            &"a".repeat(NAME_BYTES_MAX + 1),
        ] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
        assert!("a".repeat(ID_BYTES_MAX).parse::<ClusterId>().is_ok());
        assert!("a".repeat(ID_BYTES_MAX + 1).parse::<ClusterId>().is_err());
        assert!(serde_json::from_str::<ClusterId>("\"../x\"").is_err());
    }

    #[test]
    fn a_clusters_id_starts_with_its_projects() {
        let project = ProjectId::random().unwrap();
        let (one, other) = (
            ClusterId::random(&project).unwrap(),
            ClusterId::random(&project).unwrap(),
        );
        assert_ne!(one, other);
        assert!(one.as_str().starts_with(&format!("{project}-")));
        assert_eq!(one.as_str().parse::<ClusterId>(), Ok(one));
    }
}
