//! Ids and timestamps.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);
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
    };
}
number_id!(
    /// A database of a cluster.
    DatabaseId
);
number_id!(
    /// A collection, unique in its cluster.
    CollectionId
);
number_id!(
    /// A partition, unique in its cluster.
    PartitionId
);
number_id!(
    /// A field of a collection's schema; user fields start at [`FieldId::FIRST_USER`].
    FieldId
);
number_id!(
    /// A segment, unique in its cluster.
    SegmentId
);

impl FieldId {
    /// The hidden row id.
    pub const ROW_ID: Self = Self(0);
    /// The hidden write timestamp.
    pub const TIMESTAMP: Self = Self(1);
    /// The first id that a user's field gets.
    pub const FIRST_USER: Self = Self(100);
}

/// A hybrid timestamp: milliseconds since the Unix epoch in the upper 46 bits, a counter in the lower 18, as Milvus's
/// clients decode it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Bits of the logical counter.
    pub const LOGICAL_BITS: u32 = 18;
    /// The first timestamp of this millisecond.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << Self::LOGICAL_BITS)
    }
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }
}
