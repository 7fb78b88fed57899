//! The types that stand between this crate and storage: sealed bytes that only this crate can make, and bytes from
//! storage that nobody has verified yet.

use std::fmt;

use bytes::Bytes;

use crate::FileId;

/// Bytes that came from storage. Anybody may make one; only this crate turns it into plaintext.
#[derive(Clone, PartialEq, Eq)]
pub struct Unverified(Bytes);

impl Unverified {
    /// Marks `bytes` as not verified.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }
    /// The bytes as they are. Parse nothing out of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The shared buffer, to store or send the same sealed bytes again.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The part `range` (shares the buffer), or `None` where it does not lie within.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Option<Self> {
        (range.start <= range.end && range.end <= self.0.len()).then(|| Self(self.0.slice(range)))
    }
}

impl From<Bytes> for Unverified {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified({} bytes)", self.0.len())
    }
}

macro_rules! sealed_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Bytes);

        impl $name {
            pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
                Self(bytes.into())
            }
            /// The sealed bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
            /// The sealed bytes, without a copy.
            #[must_use]
            pub fn into_bytes(self) -> Bytes {
                self.0
            }
            /// As if read back from storage.
            #[must_use]
            pub fn into_unverified(self) -> Unverified {
                Unverified(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}
sealed_bytes!(
    /// A sealed metadata value. (The one exception is the bootstrap value, which holds only wrapped keys: see
    /// [`ZoneRecord`](crate::ZoneRecord).)
    SealedValue
);
sealed_bytes!(
    /// One sealed record of a log segment.
    SealedRecord
);
sealed_bytes!(
    /// The header of a log segment.
    SealedLogHeader
);
sealed_bytes!(
    /// A header with its data key wrapped anew; replaces the first [`HEADER_BYTES`](crate::HEADER_BYTES) of its file.
    SealedHeader
);

impl SealedHeader {
    /// A header that was made by a rewrap and kept since, to be written later. `None` if the bytes are no header. Where it
    /// is written, the store refuses a header of another file.
    #[must_use]
    pub fn kept(bytes: &[u8]) -> Option<Self> {
        crate::header::is_header(bytes).then(|| Self::new(bytes.to_vec()))
    }
}

/// A whole sealed file, in chunks to be written one after the other.
#[derive(Clone)]
pub struct SealedObject {
    file: FileId,
    chunks: Vec<Bytes>,
}

impl SealedObject {
    pub(crate) fn new(file: FileId, chunks: Vec<Bytes>) -> Self {
        Self { file, chunks }
    }
    /// Which file this is.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }
    /// The chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }
    /// The chunks, in order, without a copy.
    #[must_use]
    pub fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }
    /// Length in bytes; never 0, since there is always a header.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }
    /// As if read back from storage in one piece. Copies.
    #[must_use]
    pub fn to_unverified(&self) -> Unverified {
        Unverified(self.chunks.concat().into())
    }
}

impl fmt::Debug for SealedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedObject({}, {} bytes)", self.file, self.len())
    }
}
