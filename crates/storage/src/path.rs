//! Names of stored things: paths of objects, keys of metadata values, log streams. Ids only, never users' names.
//!
//! Validated once when made, so that no name can leave the data directory or mean two things on some file system.

use std::fmt;

use thiserror::Error;

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "malformed {what}: {reason}; use at most {bytes_max} bytes of letters, digits, `.`, `_` and `-`, in parts separated by `/`"
)]
pub struct PathError {
    /// What it was to be.
    pub what: &'static str,
    /// The rule it breaks.
    pub reason: &'static str,
    /// Longest text allowed, in bytes.
    pub bytes_max: usize,
}

/// Where a sealed object lies, relative to its store: parts of `[A-Za-z0-9._-]` separated by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectPath(String);

/// The key of a metadata value: parts of `[A-Za-z0-9._-]` separated by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetaKey(String);

/// A log stream: one part of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(String);

/// Longest path or key, in bytes: below every file system's and the metadata store's own limit.
const PATH_BYTES_MAX: usize = 512;
/// Longest part of a path, in bytes: file systems allow 255, and staged files need a suffix.
const PART_BYTES_MAX: usize = 128;

fn check(what: &'static str, text: &str, parts_max: usize) -> Result<(), PathError> {
    let fail = |reason| {
        Err(PathError {
            what,
            reason,
            bytes_max: PATH_BYTES_MAX,
        })
    };
    if text.len() > PATH_BYTES_MAX {
        return fail("it is too long");
    }
    for (index, part) in text.split('/').enumerate() {
        if index >= parts_max {
            return fail("it may not hold `/`");
        }
        if part.is_empty() {
            return fail("it has an empty part");
        }
        if part.len() > PART_BYTES_MAX {
            return fail("a part is longer than 128 bytes");
        }
        if part.starts_with('.') {
            return fail("a part starts with `.`");
        }
        if !part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            return fail("it holds a character that is not allowed");
        }
    }
    Ok(())
}

/// Whether `prefix` can stand before a path: empty, or a path with or without a last `/`.
pub(crate) fn check_prefix(what: &'static str, prefix: &str) -> Result<(), PathError> {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" => Ok(()),
        rest => check(what, rest, usize::MAX),
    }
}

macro_rules! path_type {
    ($name:ident, $what:literal, $parts_max:expr) => {
        impl $name {
            /// Longest text, in bytes.
            pub const BYTES_MAX: usize = PATH_BYTES_MAX;
            /// Checks and keeps a path.
            ///
            /// # Errors
            /// [`PathError`] with the rule that it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, PathError> {
                let text = text.into();
                check($what, &text, $parts_max)?;
                Ok(Self(text))
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = PathError;
            fn from_str(text: &str) -> Result<Self, PathError> {
                Self::new(text)
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
path_type!(ObjectPath, "object path", usize::MAX);
path_type!(MetaKey, "metadata key", usize::MAX);
path_type!(StreamId, "log stream", 1);

impl ObjectPath {
    /// The path of `name` under `prefix` (with or without a last `/`).
    ///
    /// # Errors
    /// [`PathError`] with the rule that it breaks.
    pub fn join(prefix: &str, name: &str) -> Result<Self, PathError> {
        match prefix.trim_end_matches('/') {
            "" => Self::new(name),
            prefix => Self::new(format!("{prefix}/{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ids_and_refuses_escapes() {
        for good in ["a", "zone/7/segments/12/3f.col", "A-Z_0.9", &"a".repeat(128)] {
            assert!(ObjectPath::new(good).is_ok(), "{good}");
            assert!(MetaKey::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            ".hidden",
            "a b",
            "a#1",
            "a\\b",
            "ü",
            "a\0",
            "a:b",
            "*",
            &"a".repeat(129),
            &["a"; 300].join("/"),
        ] {
            assert!(ObjectPath::new(bad).is_err(), "{bad}");
            assert!(MetaKey::new(bad).is_err(), "{bad}");
            assert!(StreamId::new(bad).is_err(), "{bad}");
        }
        assert!(StreamId::new("a/b").is_err());
        assert!(StreamId::new("collection-7").is_ok());
    }

    #[test]
    fn length_limit_is_exact() {
        let longest = format!(
            "{}/{}/{}/{}",
            "a".repeat(128),
            "b".repeat(128),
            "c".repeat(128),
            "d".repeat(125)
        );
        assert_eq!(longest.len(), ObjectPath::BYTES_MAX);
        assert!(ObjectPath::new(longest.clone()).is_ok());
        assert!(ObjectPath::new(format!("{longest}e")).is_err());
        assert!(ObjectPath::new(&longest[..longest.len() - 1]).is_ok());
    }

    #[test]
    fn prefixes() {
        for good in ["", "a", "a/", "a/b", "a/b/"] {
            assert!(check_prefix("prefix", good).is_ok(), "{good}");
        }
        for bad in ["/a", "a//", "..", "a/../", " "] {
            assert!(check_prefix("prefix", bad).is_err(), "{bad}");
        }
        assert_eq!(ObjectPath::join("a/b/", "c").unwrap().as_str(), "a/b/c");
        assert_eq!(ObjectPath::join("", "c").unwrap().as_str(), "c");
        assert!(ObjectPath::join("a", "../c").is_err());
    }
}
