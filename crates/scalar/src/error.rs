//! Why there is no index.

use thiserror::Error;

/// Why an index was not built or not opened. Messages hold counts and limits, never a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScalarError {
    /// More values than an index counts.
    #[error("the rows hold {entries} values to index, the limit is {limit}")]
    TooManyEntries {
        /// How many there are.
        entries: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes are no saved index, or one of other rows.
    #[error("the saved index cannot be used: {reason}")]
    Corrupt {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bytes have another format version.
    #[error("the saved index has format version {found}, this version of Saker reads {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The version that this crate reads.
        known: u32,
    },
}
