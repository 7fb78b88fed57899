//! Sealed log segments: a header, then records that are opened strictly in order.
//!
//! A record that was altered, left out in the middle, repeated or moved is refused. A segment that simply ends early is
//! not: that is what a crash leaves behind. A segment that was finished on purpose ends in a closing record that binds
//! the number of records; [`LogOpener::is_closed`] tells whether it was seen.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    FileId, FileIdentity, FileKind, Lease, OpenError, PlainKey, SealError, SealedLogHeader, SealedRecord, Unverified,
    cipher::{AeadKey, NONCE_BYTES, OVERHEAD_BYTES, TAG_BYTES},
    header::{self, FRAMES_MAX, Fixed, Shape},
};

/// Longest plaintext of a log record, in bytes: four of the largest requests.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Bytes that sealing adds to a record: its type, nonce and tag.
pub const RECORD_OVERHEAD_BYTES: usize = 1 + OVERHEAD_BYTES;

/// Bytes of room before the plaintext that [`LogSealer::seal_in_place`] takes: for type and nonce. Room for the tag behind
/// it is what [`RECORD_OVERHEAD_BYTES`] has beyond this.
pub const RECORD_ROOM_BYTES: usize = 1 + NONCE_BYTES;

/// Seals the records of one log segment, in call order.
///
/// A record that was sealed has its place: if it cannot be stored, the segment ends before it, and a new segment (with a
/// fresh data key) goes on. That is why this type is not made again for a segment that exists.
pub struct LogSealer {
    lease: Lease,
    fixed: Fixed,
    /// A segment is open for long: the cipher's own form of the key is made for each record and lives no longer.
    key: PlainKey,
    records: u64,
    records_max: u64,
    closed: bool,
}

/// Opens the records of one log segment, strictly in order.
pub struct LogOpener {
    lease: Lease,
    fixed: Fixed,
    key: PlainKey,
    records: u64,
    closed: bool,
}

impl Lease {
    /// Starts a log segment under a fresh data key.
    ///
    /// # Errors
    /// [`SealError`] if the zone is locked.
    pub fn log_sealer(&self, segment: FileId) -> Result<(SealedLogHeader, LogSealer), SealError> {
        let fixed = Fixed {
            shape: Shape::Log,
            kind: FileKind::Log,
            frame_log2: 0,
            file: segment,
            birth: self.zone(),
        };
        let (header, key) = self.with_keys(|keys| header::seal(self.zone(), keys, &fixed))??;
        let sealer = LogSealer {
            lease: self.clone(),
            fixed,
            key,
            records: 0,
            records_max: FRAMES_MAX,
            closed: false,
        };
        Ok((SealedLogHeader::new(header.to_vec()), sealer))
    }

    /// Opens the log segment `segment`, whose first [`HEADER_BYTES`](crate::HEADER_BYTES) bytes are `header`.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or the header does not verify.
    pub fn open_log(&self, segment: FileId, header: &Unverified) -> Result<LogOpener, OpenError> {
        let expected = FileIdentity {
            file: segment,
            kind: FileKind::Log,
        };
        let opened =
            self.with_keys(|keys| header::open(self.zone(), keys, expected, Shape::Log, header.as_bytes()))??;
        Ok(LogOpener {
            lease: self.clone(),
            fixed: opened.fixed,
            key: opened.frames,
            records: 0,
            closed: false,
        })
    }
}

impl LogSealer {
    /// Seals the next record.
    ///
    /// # Errors
    /// [`SealError`] if the zone is locked, the record is too long, the segment is full or closed.
    pub fn seal(&mut self, plain: &[u8]) -> Result<SealedRecord, SealError> {
        self.admit(plain.len())?;
        self.seal_record(RecordType::Data, plain)
    }

    /// Like [`Self::seal`], without a copy: `room` is [`RECORD_ROOM_BYTES`] bytes of any value, then the plaintext, in a
    /// buffer that should have capacity for the tag: it is copied once more if it has not.
    ///
    /// # Errors
    /// As of [`Self::seal`]; [`SealError::Module`] if `room` is shorter than that. What was in it is zeroed then.
    pub fn seal_in_place(&mut self, room: Zeroizing<Vec<u8>>) -> Result<SealedRecord, SealError> {
        let plain_bytes = room.len().checked_sub(RECORD_ROOM_BYTES).ok_or(SealError::Module)?;
        self.admit(plain_bytes)?;
        self.seal_room(RecordType::Data, room)
    }

    fn admit(&self, plain_bytes: usize) -> Result<(), SealError> {
        if plain_bytes > RECORD_BYTES_MAX {
            return Err(SealError::TooLong {
                bytes: plain_bytes as u64,
                bytes_max: RECORD_BYTES_MAX as u64,
            });
        }
        // The last index is kept for the closing record.
        if self.records + 1 >= self.records_max {
            return Err(SealError::FrameLimit {
                frames_max: self.records_max,
            });
        }
        Ok(())
    }

    /// Seals the closing record, which binds how many records came before it. Nothing can be sealed after it.
    ///
    /// # Errors
    /// [`SealError`] if the zone is locked or the segment was closed before.
    pub fn close(&mut self) -> Result<SealedRecord, SealError> {
        let record = self.seal_record(RecordType::Closing, &self.records.to_le_bytes())?;
        self.closed = true;
        Ok(record)
    }

    /// The segment.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.fixed.file
    }

    /// Records sealed so far, the closing record included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The lease that the segment is sealed under.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    fn seal_record(&mut self, record_type: RecordType, plain: &[u8]) -> Result<SealedRecord, SealError> {
        let mut room = Zeroizing::new(Vec::with_capacity(RECORD_OVERHEAD_BYTES + plain.len()));
        room.extend_from_slice(&[0; RECORD_ROOM_BYTES]);
        room.extend_from_slice(plain);
        self.seal_room(record_type, room)
    }

    /// Plaintext stands in `sealed` until it is sealed in place: zeroed if that fails.
    fn seal_room(
        &mut self,
        record_type: RecordType,
        mut sealed: Zeroizing<Vec<u8>>,
    ) -> Result<SealedRecord, SealError> {
        if self.closed {
            return Err(SealError::Closed);
        }
        let aad = self.fixed.aad(self.records, record_type.is_last());
        if sealed.capacity() - sealed.len() < TAG_BYTES {
            // Growing would leave the plaintext behind in a buffer that nobody wipes.
            let mut larger = Zeroizing::new(Vec::with_capacity(sealed.len() + TAG_BYTES));
            larger.extend_from_slice(&sealed);
            sealed = larger;
        }
        sealed[0] = record_type.code();
        sealed.extend_from_slice(&[0; TAG_BYTES]);
        self.lease
            .with_keys(|_| AeadKey::for_sealing(&self.key)?.seal_in_place(&aad, &mut sealed[1..]))??;
        self.records += 1;
        Ok(SealedRecord::new(std::mem::take(&mut *sealed)))
    }
}

impl LogOpener {
    /// Opens the next record. `None`: it is the closing record, and the segment is complete.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked, or the bytes are not the next record of this segment.
    pub fn open(&mut self, record: &Unverified) -> Result<Option<Zeroizing<Vec<u8>>>, OpenError> {
        let (&code, sealed) = record.as_bytes().split_first().ok_or(OpenError::Refused)?;
        let record_type = RecordType::from_code(code).ok_or(OpenError::Refused)?;
        if self.closed || sealed.len() > OVERHEAD_BYTES + RECORD_BYTES_MAX {
            return Err(OpenError::Refused);
        }
        let aad = self.fixed.aad(self.records, record_type.is_last());
        let plain = self
            .lease
            .with_keys(|_| AeadKey::for_opening(&self.key)?.open(&aad, sealed))??;
        match record_type {
            RecordType::Data => {
                self.records += 1;
                Ok(Some(plain))
            }
            RecordType::Closing => {
                if plain[..] != self.records.to_le_bytes() {
                    return Err(OpenError::Refused);
                }
                self.records += 1;
                self.closed = true;
                Ok(None)
            }
        }
    }

    /// Whether the closing record was opened: the segment is complete. If not, its writer crashed, or somebody cut it
    /// at a border between records.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The segment.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.fixed.file
    }

    /// Records opened so far, the closing record included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RecordType {
    Data,
    Closing,
}

impl RecordType {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Closing => 2,
        }
    }
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Closing,
            _ => return None,
        })
    }
    /// Goes into the associated data as the last-frame flag, so that the type byte cannot be altered.
    const fn is_last(self) -> bool {
        matches!(self, Self::Closing)
    }
}

impl fmt::Debug for LogSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSealer")
            .field("file", &self.fixed.file)
            .field("records", &self.records)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LogOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOpener")
            .field("file", &self.fixed.file)
            .field("records", &self.records)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
