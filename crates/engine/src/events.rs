//! What happens in the engine, for audit and metrics. Events carry ids, names and counts, never row data.

use std::fmt;

use saker_keyring::RootKeyId;

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
    /// A database's data went dark.
    ZoneLocked {
        /// The database.
        database: String,
        /// Its root key.
        root: RootKeyId,
        /// What the key service said.
        reason: String,
    },
    /// A database's data can be used again.
    ZoneUnlocked {
        /// The database.
        database: String,
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
    /// A request was refused because its zone is locked.
    Refused {
        /// The database.
        database: String,
    },
}

/// Hears what happens. Called on the engine's own threads: must return quickly and never block.
pub trait EventSink: Send + Sync + fmt::Debug {
    /// Something happened.
    fn on_event(&self, event: &Event);
}

/// Hears nothing.
#[derive(Debug)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn on_event(&self, _event: &Event) {}
}
