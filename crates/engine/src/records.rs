//! What the catalog keeps, and where: values in the metadata store, sealed under the platform zone or under a
//! database's own zone. Keys hold ids only, never names.
//!
//! | key | sealed under | holds |
//! |---|---|---|
//! | `cluster/platform` | nothing (wrapped keys only) | the platform zone's record |
//! | `cluster/record` | platform zone | [`ClusterRecord`] |
//! | `cluster/clock` | platform zone | [`ClockRecord`] |
//! | `database/ID` | platform zone | [`DatabaseRecord`]: its wrapped zone keys are here and nowhere else |
//! | `collection/ID` | platform zone | [`CollectionRecord`]: what list and drop need while the zone is locked |
//! | `body/ID` | the collection's zone | [`CollectionBody`] |
//! | `manifest/ID` | the collection's zone | [`Manifest`] |
//! | `move/ID`, `move/ID/N` | platform zone | a move to another database that is not finished: see `relocate` |
//! | `receipt/UUID` | platform zone | [`Receipt`](crate::Receipt) of a drop |
//! | `user/UUID` | platform zone | [`UserRecord`] |
//!
//! The collection's zone is its database's, unless it has one of its own.
//!
//! Values are JSON inside their seal; each seal binds the key, so that values cannot be exchanged.

use std::collections::BTreeMap;

use saker_keyring::{FileId, Lease, SealedValue, Unverified, ZoneRecord};
use saker_model::{CollectionId, CollectionSchema, ConsistencyLevel, DatabaseId, IndexSpec, PartitionId, Timestamp};
use saker_segment::SegmentManifest;
use saker_storage::MetaKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Says whose data this is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) format: u32,
    pub(crate) cluster: String,
    pub(crate) created: Timestamp,
}

impl ClusterRecord {
    pub(crate) const FORMAT: u32 = 1;
}

/// The oracle's high-water mark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClockRecord {
    pub(crate) last: Timestamp,
}

/// A database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DatabaseRecord {
    pub(crate) id: DatabaseId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) zone: ZoneRecord,
    pub(crate) customer_key: bool,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) dropping: bool,
    /// While it moves to another root key: the one it had, with the zone keys that are wrapped under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retiring: Option<ZoneRecord>,
}

/// What is known of a collection without its database's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CollectionRecord {
    pub(crate) id: CollectionId,
    pub(crate) database: DatabaseId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) aliases: Vec<String>,
    pub(crate) load_wanted: bool,
    pub(crate) dropping: bool,
    /// Its own zone, if it has a key of its own: its wrapped zone keys are here and nowhere else. `None`: it is sealed
    /// under its database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<ZoneRecord>,
    /// As of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retiring: Option<ZoneRecord>,
    /// The receipt of the drop that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<String>,
}

/// A partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PartitionRecord {
    pub(crate) id: PartitionId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
}

/// A collection's definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CollectionBody {
    pub(crate) schema: CollectionSchema,
    pub(crate) shards: i32,
    pub(crate) consistency: ConsistencyLevel,
    pub(crate) properties: BTreeMap<String, String>,
    /// In order of creation; the first is the default one. With a partition key, rows are spread over all of them.
    pub(crate) partitions: Vec<PartitionRecord>,
    pub(crate) indexes: Vec<IndexSpec>,
    pub(crate) updated: Timestamp,
}

/// A place in a collection's log: segment number and record number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub(crate) struct LogPosition {
    pub(crate) sequence: u64,
    pub(crate) record: u64,
}

/// Deletes by primary key that apply to all sealed segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyDeletesEntry {
    pub(crate) file: FileId,
    pub(crate) entries: u64,
}

/// Which sealed files a collection consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Grows by one with each change.
    pub(crate) version: u64,
    /// SHA-256 of the sealed manifest before this one, in hex; empty for the first.
    pub(crate) previous: String,
    /// Log records up to and with this one are in the files; `None` if none is.
    pub(crate) flushed: Option<LogPosition>,
    /// The latest timestamp and id that any record up to there used.
    pub(crate) last_timestamp: Timestamp,
    pub(crate) segments: Vec<SegmentManifest>,
    pub(crate) key_deletes: Vec<KeyDeletesEntry>,
}

impl Manifest {
    pub(crate) fn first() -> Self {
        Self {
            version: 1,
            previous: String::new(),
            flushed: None,
            last_timestamp: Timestamp(0),
            segments: Vec::new(),
            key_deletes: Vec::new(),
        }
    }
}

/// A user and an opaque password hash.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) name: String,
    pub(crate) password_hash: String,
}

/// The key of a record; `part` is an id.
pub(crate) fn meta_key(kind: &str, part: impl std::fmt::Display) -> Result<MetaKey> {
    MetaKey::new(format!("{kind}/{part}")).map_err(|error| Error::internal(error.to_string()))
}

pub(crate) fn seal<T: Serialize>(lease: &Lease, key: &MetaKey, record: &T) -> Result<SealedValue> {
    let plain = serde_json::to_vec(record).map_err(|_| Error::internal(format!("record {key} cannot be encoded")))?;
    let plain = Zeroizing::new(plain);
    lease.seal_value(key.as_str(), &plain).map_err(Error::from)
}

pub(crate) fn open<T: DeserializeOwned>(lease: &Lease, key: &MetaKey, value: &Unverified) -> Result<T> {
    let plain = lease
        .open_value(key.as_str(), value)
        .map_err(|error| Error::opening(error, "metadata value", key))?;
    serde_json::from_slice(&plain).map_err(|_| {
        // The decoder's message would quote the record.
        Error::new(
            ErrorKind::Corrupt,
            format!("metadata value {key} is authentic but of another version; use the version that wrote it"),
        )
    })
}

/// SHA-256 of sealed bytes, in hex.
pub(crate) fn hash(value: &Unverified) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
