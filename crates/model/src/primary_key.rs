//! The value by which a row is found.

use std::fmt;

/// A row's primary key. `Debug` shows its kind only: keys are row data and stay out of logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrimaryKey {
    /// Of an `Int64` field.
    Int(i64),
    /// Of a `VarChar` field.
    Text(String),
}

impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(_) => f.write_str("Int([redacted])"),
            Self::Text(_) => f.write_str("Text([redacted])"),
        }
    }
}
