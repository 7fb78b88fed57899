//! The audit log: who used which key, when and why, in a form that can be checked.
//!
//! What it is for: every call to a key service, every lock, unlock, rotation, drop and change of policy becomes a record
//! that names the hash of the record before it, sealed like everything else. The chain shows any edit, gap or cut; the
//! names that the key service gave its answers allow a comparison with the key service's own record, call by call.
//!
//! What it deliberately does not do: it decides nothing, it holds no row data, keys or tokens, and it asks no key
//! service. What an event of the engine means is translated by `server`.
//!
//! Start reading at [`AuditLog`]; then [`ChainCheck`] for what a check finds, [`reconcile`] for the comparison with a key
//! service's record. `docs/audit.md` is the customer's view.
#![forbid(unsafe_code)]

mod access;
mod calls;
mod chain;
mod cloudtrail;
mod export;
mod journal;
mod log;
mod reconcile;
mod record;
mod theirs;
mod time;

pub use access::{AccessLog, AccessRecord, AccessWriter};
pub use calls::{
    CALLS_PER_RECORD_MAX, CALLS_WITHIN_MS, CallEntry, CallOutcome, CallsDetails, KEY_CALLS, PROBE_CHANGED,
    PROBES_WITHIN_MS,
};
pub use chain::{ChainCheck, ChainReport, FAULTS_MAX, Fault, FaultKind, check_export, closing_line};
pub use cloudtrail::cloudtrail_records;
pub use export::{Exported, Walk};
pub use journal::{Journal, JournalError, LeaseSource, Place, SEGMENT_BYTES_MAX, SegmentLines};
pub use log::{
    AuditCounts, AuditLog, AuditWriter, CLOSED, CallCounts, GAP, OPENED, WAITING_BYTES_MAX, WAITING_MAX, WallClock,
};
pub use reconcile::{Difference, OurCall, Reconciliation, RecordedGap, reconcile};
pub use record::{Draft, Head, LINE_BYTES_MAX, Record, RecordError, RecordHash};
pub use theirs::{TheirCall, TheirRecords, TrailError};
pub use time::{UnixMs, from_text, to_seconds_text, to_text};
