//! One record of the audit log: a line of JSON that names the SHA-256 of the line before it.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::time::{self, UnixMs};

/// SHA-256 of a record's bytes (its line without the line feed).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// What the first record names as the one before it.
    pub const NONE: Self = Self([0; 32]);
    /// The hash of these bytes.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, line).as_ref());
        Self(hash)
    }
    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({self})")
    }
}

impl FromStr for RecordHash {
    type Err = RecordError;
    fn from_str(text: &str) -> Result<Self, RecordError> {
        let mut hash = [0; 32];
        // Lower case alone, so that a hash has one spelling.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(text, &mut hash).is_err() {
            return Err(RecordError::Hash);
        }
        Ok(Self(hash))
    }
}

/// The newest record of a log: its number and its hash. Whoever keeps this elsewhere can tell later whether anything up
/// to it was changed or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the record, from 1; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// Before the first record.
    pub const NONE: Self = Self {
        sequence: 0,
        hash: RecordHash::NONE,
    };
}

/// `SEQUENCE:HASH`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl FromStr for Head {
    type Err = RecordError;
    fn from_str(text: &str) -> Result<Self, RecordError> {
        let (sequence, hash) = text.split_once(':').ok_or(RecordError::Head)?;
        Ok(Self {
            sequence: sequence.parse().map_err(|_| RecordError::Head)?,
            hash: hash.parse()?,
        })
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("it is not the JSON of a record")]
    Json,
    /// A time that is none.
    #[error("its time is not of the form 2026-01-31T12:00:00.000Z")]
    Time,
    /// A hash that is none.
    #[error("a hash has 64 lower-case hexadecimal digits")]
    Hash,
    /// A head that is none.
    #[error("a head is SEQUENCE:HASH, as `saker audit head` prints it")]
    Head,
}

/// What is to be recorded, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// When it happened.
    pub time_ms: UnixMs,
    /// What happened: lower-case words joined by hyphens.
    pub event: String,
    /// Ids, names and counts; never row data, keys or tokens.
    pub details: Map<String, Value>,
}

impl Draft {
    /// A draft of these details, which must be a JSON object; anything else is left out.
    #[must_use]
    pub fn new(time_ms: UnixMs, event: &str, details: Value) -> Self {
        let details = match details {
            Value::Object(details) => details,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        };
        Self {
            time_ms,
            event: event.to_owned(),
            details,
        }
    }

    /// The line of this record as the next one after `head`, and the head that it makes.
    #[must_use]
    pub fn chained(&self, head: Head) -> (Vec<u8>, Head) {
        let sequence = head.sequence + 1;
        let line = self.line(sequence, head.hash, &self.details);
        let line = if line.len() > LINE_BYTES_MAX {
            let mut cut = Map::new();
            cut.insert("omittedBytes".to_owned(), line.len().into());
            self.line(sequence, head.hash, &cut)
        } else {
            line
        };
        let hash = RecordHash::of(&line);
        (line, Head { sequence, hash })
    }

    fn line(&self, sequence: u64, previous: RecordHash, details: &Map<String, Value>) -> Vec<u8> {
        let written = Written {
            seq: sequence,
            time: time::to_text(self.time_ms),
            previous: previous.to_string(),
            event: self.event.clone(),
            details: details.clone(),
        };
        // Strings, numbers and maps with string keys: there is nothing in it that JSON cannot say.
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

/// A record with its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When it happened.
    pub time_ms: UnixMs,
    /// Hash of the record before it.
    pub previous: RecordHash,
    /// Hash of its own bytes.
    pub hash: RecordHash,
    /// What happened.
    pub event: String,
    /// Ids, names and counts.
    pub details: Map<String, Value>,
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// [`RecordError`] if it is no record.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let written: Written = serde_json::from_slice(line).map_err(|_| RecordError::Json)?;
        Ok(Self {
            sequence: written.seq,
            time_ms: time::from_text(&written.time).ok_or(RecordError::Time)?,
            previous: written.previous.parse()?,
            hash: RecordHash::of(line),
            event: written.event,
            details: written.details,
        })
    }
    /// The head that this record is.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            hash: self.hash,
        }
    }
}

/// Longest line, in bytes: room for the receipt of a drop of 100,000 files.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// A line, in the order of its fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    seq: u64,
    time: String,
    previous: String,
    event: String,
    details: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let draft = Draft::new(1_768_000_000_123, "zone-locked", json!({ "database": "d", "key": "k" }));
        let (line, head) = draft.chained(Head::NONE);
        let record = Record::parse(&line).unwrap();
        assert_eq!((record.sequence, record.previous), (1, RecordHash::NONE));
        assert_eq!((record.time_ms, record.head()), (draft.time_ms, head));
        assert_eq!(record.details, draft.details);
        let (_, next) = draft.chained(head);
        assert_eq!(next.sequence, 2);
        assert_ne!(next.hash, head.hash);
    }

    #[test]
    fn heads_are_spelled_in_one_way() {
        let (_, head) = Draft::new(0, "e", json!({})).chained(Head::NONE);
        let text = head.to_string();
        assert_eq!(text.parse::<Head>().unwrap(), head);
        for bad in ["", "1", "1:", ":ab", "x:00"] {
            assert!(bad.parse::<Head>().is_err(), "{bad}");
        }
        assert!(text.to_uppercase().parse::<Head>().is_err());
    }

    #[test]
    fn too_long_details_are_left_out() {
        let at = |bytes: usize| Draft::new(0, "e", json!({ "x": "y".repeat(bytes) }));
        let overhead = at(0).chained(Head::NONE).0.len();
        for (bytes, kept) in [
            (LINE_BYTES_MAX - overhead, true),
            (LINE_BYTES_MAX - overhead + 1, false),
        ] {
            let record = Record::parse(&at(bytes).chained(Head::NONE).0).unwrap();
            assert_eq!(record.details.contains_key("x"), kept);
            assert_eq!(record.details.contains_key("omittedBytes"), !kept);
        }
    }
}
