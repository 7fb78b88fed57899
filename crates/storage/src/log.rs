//! The face of the log: streams of segments, each an ordered run of sealed records.
//!
//! The rule that all of it serves: **the records of a segment on disk are always a prefix of the calls to
//! [`LogAppender::append`]**. Records are sealed with their index in call order, so a gap would make everything after it
//! unreadable. Therefore the first append that fails ends the appender: it and every later one fail, the file is cut
//! back to the last durable record, and the owner goes on with a new segment (and a fresh data key), which succeeds as
//! soon as the cause is gone.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use futures::future::BoxFuture;
use saker_keyring::{FileId, SealedHeader, SealedLogHeader, SealedRecord, Unverified};
use thiserror::Error;

use crate::StreamId;

/// Number of a segment in its stream: from 1, growing, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogSequence(pub u64);

impl fmt::Display for LogSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A segment of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSegmentInfo {
    /// The id that the file claims; the seal decides whether that is true.
    pub file: FileId,
    /// Its number.
    pub sequence: LogSequence,
    /// Its length on disk, in bytes.
    pub bytes: u64,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With its last durable record.
    Clean,
    /// With a write that a crash interrupted; it was never acknowledged and has been cut off.
    Torn {
        /// Bytes that were cut off.
        bytes_cut: u64,
    },
}

/// All records of a segment.
#[derive(Clone, Debug)]
pub struct LogSegmentContents {
    /// The id that the file claims.
    pub file: FileId,
    /// The sealed header.
    pub header: Unverified,
    /// The sealed records, in order of appending.
    pub records: Vec<Unverified>,
    /// How the segment ends.
    pub tail: Tail,
}

/// Why the log could not do what was asked. Holds ids, positions and sizes, never content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// Bytes in the middle of a segment are damaged: records after them were acknowledged, so nothing is skipped.
    #[error(
        "log segment {sequence} of stream {stream} is damaged at byte {offset}: {reason}; nothing after it can be trusted, restore the file from a backup or a replica"
    )]
    Corrupt {
        /// Which stream.
        stream: StreamId,
        /// Which segment.
        sequence: LogSequence,
        /// Where the damage begins, in bytes from the start of the file.
        offset: u64,
        /// Which check failed.
        reason: &'static str,
    },
    /// There is no such segment.
    #[error("log segment {sequence} of stream {stream} does not exist")]
    NotFound {
        /// Which stream.
        stream: StreamId,
        /// Which segment.
        sequence: LogSequence,
    },
    /// The disk is full. Nothing of this append was kept; create a new segment once there is space.
    #[error("no space left for the log of stream {stream}; free space in the data directory and try again")]
    Full {
        /// Which stream.
        stream: StreamId,
    },
    /// More is waiting to be written than allowed.
    #[error(
        "{records} records of {bytes} bytes wait for the log of stream {stream}, which exceeds the limit; wait for `ready` before appending"
    )]
    Overloaded {
        /// Which stream.
        stream: StreamId,
        /// Records that wait.
        records: usize,
        /// Bytes that wait.
        bytes: usize,
    },
    /// A record, or the segment with it, would be longer than allowed.
    #[error("{bytes} bytes exceed the limit of {bytes_max} bytes for one {what} of the log")]
    TooLarge {
        /// Record or segment.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// Longest length allowed.
        bytes_max: u64,
    },
    /// An earlier append failed, or the segment was removed. Create a new segment.
    #[error("log segment {sequence} of stream {stream} takes no more records: {reason}; create a new segment")]
    Ended {
        /// Which stream.
        stream: StreamId,
        /// Which segment.
        sequence: LogSequence,
        /// What ended it.
        reason: String,
    },
    /// Writing failed; whether the records of this append are on disk is not known. The segment takes no more.
    #[error(
        "writing log segment {sequence} of stream {stream} failed: {reason}; check the disk, then create a new segment"
    )]
    Write {
        /// Which stream.
        stream: StreamId,
        /// Which segment.
        sequence: LogSequence,
        /// What the operating system said.
        reason: String,
    },
    /// Anything else that the log met.
    #[error("the log failed to {action} in stream {stream}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which stream.
        stream: String,
        /// What the operating system said.
        reason: String,
    },
}

/// Resolves once the record survives power loss, or will never be there.
pub type LogAppend = BoxFuture<'static, Result<(), LogError>>;

/// Resolves once there is room for another append.
pub type LogReady = BoxFuture<'static, ()>;

/// Writes records to the end of one segment. Dropping it still writes what was appended.
pub trait LogAppender: Send + Sync + Debug {
    /// Queues a record at once (call order is disk order) and resolves after it is durable. Concurrent appends share one
    /// sync. Dropping the future does not take the record back.
    ///
    /// # Errors
    /// Any of [`LogError`]. After the first error every append fails; see the module's rule.
    fn append(&self, record: SealedRecord) -> LogAppend;

    /// Resolves once the queue is short enough for another append, at once if it is. Wait for it **before** sealing a
    /// record: [`LogError::Overloaded`] ends the segment like every other error.
    fn ready(&self) -> LogReady;

    /// The segment's number in its stream.
    fn sequence(&self) -> LogSequence;

    /// Bytes on disk and in the queue: for deciding when to go on with a new segment.
    fn bytes(&self) -> u64;

    /// Why this appender takes no more records, if it does not.
    fn ended(&self) -> Option<LogError>;

    /// How often a group of records was made durable: one sync each.
    fn commits(&self) -> u64;
}

/// Keeps streams of sealed records.
#[async_trait]
pub trait Log: Send + Sync + Debug {
    /// Begins a new, last segment of the stream, durably. The one before it gets no more records: an appender that is
    /// still open on it is ended after what it has in its queue, and a torn tail of it is cut off.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Corrupt`] (of the segment before), [`LogError::Io`].
    async fn create_segment(
        &self,
        stream: &StreamId,
        header: SealedLogHeader,
        file: FileId,
    ) -> Result<Box<dyn LogAppender>, LogError>;

    /// The stream's segments in order; none if there is no such stream.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    async fn segments(&self, stream: &StreamId) -> Result<Vec<LogSegmentInfo>, LogError>;

    /// All durable records of a segment. A torn tail of the stream's last segment is cut off, on disk too.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::Corrupt`], [`LogError::TooLarge`], [`LogError::Io`].
    async fn read_segment(&self, stream: &StreamId, sequence: LogSequence) -> Result<LogSegmentContents, LogError>;

    /// Removes the segments before `sequence`, their headers (and wrapped data keys) first. Numbers are not reused.
    ///
    /// # Errors
    /// [`LogError::Io`]; repeat it then.
    async fn remove_segments_below(&self, stream: &StreamId, sequence: LogSequence) -> Result<(), LogError>;

    /// Removes a stream: overwrites the headers of all its segments, and with them the wrapped data keys, then deletes.
    /// A stream that is not there is fine.
    ///
    /// # Errors
    /// [`LogError::Io`]; repeat it then.
    async fn remove_stream(&self, stream: &StreamId) -> Result<(), LogError>;

    /// All streams that exist, in order.
    ///
    /// # Errors
    /// [`LogError::Io`].
    async fn streams(&self) -> Result<Vec<StreamId>, LogError>;

    /// Replaces the sealed header of a segment (its data key wrapped anew), over the old one and durably, also while the
    /// segment is being appended to; its records stay as they are.
    ///
    /// If the call fails or is cancelled, or the power fails, the segment has its old header or its new one.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::Corrupt`], [`LogError::Full`], [`LogError::Io`]; also for a header that is of
    /// another segment.
    async fn replace_header(
        &self,
        stream: &StreamId,
        sequence: LogSequence,
        header: SealedHeader,
    ) -> Result<(), LogError>;

    /// The sealed header of a segment, without its records.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::Corrupt`], [`LogError::Io`].
    async fn read_header(&self, stream: &StreamId, sequence: LogSequence) -> Result<(FileId, Unverified), LogError>;
}
