//! Identifiers that are bound into every seal.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One encryption zone: a database, or the cluster's own catalog.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ZoneId(Uuid);

/// One sealed file or log segment, for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(Uuid);

/// Version of a zone key, starting at 1 and growing by one per rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ZoneKeyVersion(u32);

/// What a sealed file holds; bound into its seal so that one kind cannot stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum FileKind {
    /// One column of a sealed segment.
    Column = 1,
    /// A vector or scalar index of a sealed segment.
    Index = 2,
    /// Deletes that apply to a sealed segment.
    Deletes = 3,
    /// A segment's or collection's manifest.
    Manifest = 4,
    /// A message log segment.
    Log = 5,
    /// A metadata value.
    Metadata = 6,
    /// An audit log segment.
    Audit = 7,
    /// A key server's stored key material.
    KeyMaterial = 8,
}

macro_rules! uuid_id {
    ($name:ident) => {
        impl $name {
            /// A fresh random id (UUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
            /// The id with these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
            /// The 16 bytes that are bound into seals.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}
uuid_id!(ZoneId);
uuid_id!(FileId);

impl ZoneKeyVersion {
    /// The version that a new zone starts with.
    pub const FIRST: Self = Self(1);
    /// The version with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl FileKind {
    /// The kind with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Column,
            2 => Self::Index,
            3 => Self::Deletes,
            4 => Self::Manifest,
            5 => Self::Log,
            6 => Self::Metadata,
            7 => Self::Audit,
            8 => Self::KeyMaterial,
            _ => return None,
        })
    }
    /// The code that is written to disk.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}
