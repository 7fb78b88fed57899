//! What happens in the engine, for audit and metrics. Events carry ids, names and counts, never row data.

use std::fmt;

use futures::future::BoxFuture;
use saker_keyring::RootKeyId;

use crate::receipts::Receipt;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A database was made.
    DatabaseCreated {
        /// Its name.
        database: String,
        /// Its root key.
        root: RootKeyId,
    },
    /// A database and its keys are gone.
    DatabaseDropped {
        /// Its name.
        database: String,
    },
    /// A collection was made.
    CollectionCreated {
        /// Its database.
        database: String,
        /// Its name.
        collection: String,
    },
    /// A collection and its keys are gone.
    CollectionDropped {
        /// Its database.
        database: String,
        /// Its name.
        collection: String,
    },
    /// A collection was moved to another database.
    CollectionMoved {
        /// The database that it was in.
        from_database: String,
        /// The name that it had there.
        from_collection: String,
        /// The database that it is in.
        database: String,
        /// Its name there.
        collection: String,
        /// Headers of files and log segments that were wrapped anew; 0 if it has a key of its own.
        headers: u64,
    },
    /// Keys were destroyed for good: the receipt of a drop.
    Shredded {
        /// What was destroyed.
        receipt: Box<Receipt>,
    },
    /// A search was answered.
    Searched {
        /// Its database.
        database: String,
        /// Queries in it.
        queries: usize,
    },
    /// A query by filter was answered.
    Queried {
        /// Its database.
        database: String,
        /// Rows returned.
        rows: usize,
    },
    /// Rows were written durably.
    Inserted {
        /// Their database.
        database: String,
        /// How many.
        rows: u64,
    },
    /// Rows were deleted durably.
    Deleted {
        /// Their database.
        database: String,
        /// How many.
        rows: u64,
    },
    /// Growing rows became sealed files.
    Flushed {
        /// Their database.
        database: String,
        /// How many rows.
        rows: u64,
    },
    /// An index was built on a segment.
    IndexBuilt {
        /// Its database.
        database: String,
        /// Rows of the segment.
        rows: u64,
        /// Milliseconds it took.
        millis: u64,
    },
    /// A key service was asked whether a root key may be used.
    KeyProbed {
        /// The key.
        root: RootKeyId,
        /// `None` if it may; what the key service said if not.
        failure: Option<String>,
        /// Whether the failure is a definite no (not an outage).
        denied: bool,
    },
    /// A key service was called other than for a probe (new database, unlock).
    KeyUsed {
        /// The key.
        root: RootKeyId,
        /// `GenerateDataKey` or `Decrypt`.
        operation: &'static str,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The data of a database, or of a collection with a key of its own, went dark.
    ZoneLocked {
        /// The database.
        database: String,
        /// The collection, if it is one with a key of its own.
        collection: Option<String>,
        /// Its root key.
        root: RootKeyId,
        /// What the key service said.
        reason: String,
    },
    /// The data of a database, or of a collection with a key of its own, can be used again.
    ZoneUnlocked {
        /// The database.
        database: String,
        /// The collection, if it is one with a key of its own.
        collection: Option<String>,
        /// Its root key.
        root: RootKeyId,
    },
    /// Stored bytes failed verification.
    VerificationFailed {
        /// The database, if known.
        database: Option<String>,
        /// Which object, stream or value.
        object: String,
    },
    /// A zone got a newer key, and everything under older ones is being wrapped anew.
    RotationStarted {
        /// The job.
        job: i64,
        /// `rotate`, `rewrap` or `change-key`.
        kind: &'static str,
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// The root key of the new zone key.
        root: RootKeyId,
        /// The root key that the zone leaves.
        from: Option<RootKeyId>,
        /// Version of the new zone key.
        key_version: u32,
    },
    /// A job that changes keys, or writes data under fresh ones, is done.
    RotationFinished {
        /// The job.
        job: i64,
        /// `rotate`, `rewrap`, `change-key` or `reencrypt`.
        kind: &'static str,
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// The root key.
        root: RootKeyId,
        /// Version of the new zone key, if there is one.
        key_version: Option<u32>,
        /// Files, log segments and values that it went over; bytes for `reencrypt`.
        total: u64,
    },
    /// A job that changes keys stopped and can be tried again. No key was destroyed.
    KeyJobFailed {
        /// The job.
        job: i64,
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// Why.
        reason: String,
    },
    /// A wrapped zone key was destroyed: nothing is under it any more.
    KeyVersionDestroyed {
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// Id of the zone.
        zone: String,
        /// The version.
        key_version: u32,
        /// The root key that it was wrapped under.
        root: RootKeyId,
        /// SHA-256 of the wrapped key, in hexadecimal.
        wrapped_sha256: String,
    },
    /// A zone is under another root key now.
    RootChanged {
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// The root key that it was under.
        from: RootKeyId,
        /// The root key that it is under.
        to: RootKeyId,
    },
    /// A request was refused because its zone is locked.
    Refused {
        /// The database.
        database: String,
        /// The collection, if it is one with a key of its own.
        collection: Option<String>,
    },
}

/// Hears what happens. Called on the engine's own threads: must return quickly and never block.
pub trait EventSink: Send + Sync + fmt::Debug {
    /// Something happened.
    fn on_event(&self, event: &Event);

    /// Something happened that is to be on record before it is reported. Resolves once its record is durable, with its
    /// place; with `None` if it is not on record (no audit log, or its disk or key does not answer in time).
    fn on_record(&self, event: &Event) -> BoxFuture<'static, Option<AuditPosition>> {
        self.on_event(event);
        Box::pin(std::future::ready(None))
    }
}

/// A record's place in the audit log, by which its customer finds it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPosition {
    /// Its number, from 1.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// Hears nothing.
#[derive(Debug)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn on_event(&self, _event: &Event) {}
}
