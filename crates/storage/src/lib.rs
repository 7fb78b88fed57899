//! The one door to bytes at rest: sealed objects, a log and metadata values.
//!
//! What it is for: it keeps bytes that `keyring` sealed, durably and in order, and gives them back as [`Unverified`]
//! bytes. The traits take only types that `keyring` alone can build ([`SealedObject`], [`SealedRecord`],
//! [`SealedValue`]), so plaintext cannot reach a disk or a wire through here by mistake.
//!
//! What it deliberately does not do: it holds no key, verifies no seal and parses no content. Its checksums find torn
//! writes and decayed disks, not forgery; that is the seal's work. It does not know collections or segments: paths, keys
//! and streams are ids that the engine chooses, never names that a user gave.
//!
//! Start reading at the traits [`ObjectStore`], [`MetaStore`] and [`Log`], then [`EmbeddedStores`] for the back ends on
//! a local directory.
#![forbid(unsafe_code)]

mod directory;
mod embedded;
mod log;
mod meta;
mod object;
mod path;
mod reader;

pub use directory::{DirectoryError, DirectoryLock, StoreId};
pub use embedded::{
    BrokenTail, EmbeddedStores, EntryKind, LocalLog, LocalMeta, LocalObjects, Place, ReadError, ReadOnlyFile,
    ReadOnlySegment, ReadOnlyStores, StoredEntry, erase_data_directory,
};
pub use log::{Log, LogAppend, LogAppender, LogError, LogReady, LogSegmentContents, LogSegmentInfo, LogSequence, Tail};
pub use meta::{Expected, MetaBatch, MetaError, MetaOperation, MetaStore};
pub use object::{ObjectInfo, ObjectStore, StoreError};
pub use path::{MetaKey, ObjectPath, PathError, StreamId};
pub use reader::{HeldObject, ObjectReader};

// What callers of the traits need to hold; only `keyring` can build the sealed ones.
pub use saker_keyring::{FileId, SealedHeader, SealedLogHeader, SealedObject, SealedRecord, SealedValue, Unverified};
