//! The engine: catalog, encryption zones, write path, flush, load, recovery and search over sealed stores.
//!
//! What it is for: everything between a decoded request and the stores. It can be used as an embedded library.
//!
//! What it deliberately does not do: no network, no Milvus wire types (`server` knows those), no cipher (keyring does
//! that), no files (storage does that).
//!
//! Start reading at [`Engine::open`]; then `zones` for how keys come and go, `opened` for a collection in use, `write`
//! for the way of a row to the disk, `searching` for the way back.
#![forbid(unsafe_code)]

mod aliases;
mod audit_stores;
mod build;
mod cipher;
mod clock;
mod codec;
mod collection;
mod collections;
mod compact;
mod config;
mod control;
mod database;
mod engine;
mod error;
mod events;
mod fetch;
mod flush;
mod index_types;
mod indexes;
mod load;
mod manifest;
mod mutate;
mod new_zone;
mod opened;
mod oracle;
mod partitions;
mod query;
mod receipts;
mod records;
mod recovery;
mod rekey;
mod relocate;
mod residency;
mod scalar_types;
mod search;
mod searching;
mod shared;
mod shred;
mod sparse_types;
mod standing_in;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod users;
mod verify;
mod write;
mod zones;

pub use audit_stores::AuditStores;
pub use clock::{Clock, SystemClock};
pub use config::EngineConfig;
pub use engine::{Engine, Stores};
pub use error::{Error, ErrorKind, Result};
pub use events::{AuditPosition, Event, EventSink, NoEvents};
pub use receipts::{AuditPlace, DestroyedKey, Receipt, ReceiptKind};
pub use rekey::{JobInfo, JobKind, JobState};
pub use relocate::{MoveRequest, Moved};
pub use saker_query::{Literal, Templates};
pub use saker_segment::FrameCacheStatus;
pub use types::*;
pub use verify::{
    CollectionReport, DatabaseReport, Finding, FindingClass, Item, ItemKind, KeyVersionReport, Verdict, Verification,
    WalkObserver, ZoneOwnerReport, ZoneReport, verify,
};
