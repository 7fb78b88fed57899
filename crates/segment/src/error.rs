//! What can go wrong with segments. Messages carry ids and sizes, never values.

use saker_index::IndexError;
use saker_keyring::{FileId, OpenError, SealError, ZoneLocked};
use saker_model::{ColumnError, DataType, FieldId, SegmentId};
use saker_storage::{PathError, StoreError};
use thiserror::Error;

/// A failure of a segment operation.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// The zone is locked: no key, no answer.
    #[error(transparent)]
    Locked(#[from] ZoneLocked),
    /// A sealed file did not verify.
    #[error("sealed file {file} of segment {segment} failed verification; restore it from a backup")]
    Refused {
        /// Which segment.
        segment: SegmentId,
        /// Which file.
        file: FileId,
    },
    /// A file verified, but does not hold what manifest and schema say. A bug, or a manifest of another segment.
    #[error("file {file} of segment {segment} does not hold what it should: {reason}")]
    Malformed {
        /// Which segment.
        segment: SegmentId,
        /// Which file.
        file: FileId,
        /// Which check failed.
        reason: &'static str,
    },
    /// The manifest does not fit the schema.
    #[error("segment {segment} does not fit the collection's schema: {reason} (field {field})")]
    Manifest {
        /// Which segment.
        segment: SegmentId,
        /// Which field.
        field: FieldId,
        /// Which check failed.
        reason: &'static str,
    },
    /// Rows do not fit the schema.
    #[error("rows do not fit the collection's schema: {reason} (field {field})")]
    Rows {
        /// Which field.
        field: FieldId,
        /// Which check failed.
        reason: &'static str,
    },
    /// More rows than a segment takes.
    #[error("{rows} rows exceed the limit of {rows_max} rows of a segment; split them")]
    TooManyRows {
        /// Rows it would have.
        rows: usize,
        /// The limit.
        rows_max: usize,
    },
    /// There is no such field here.
    #[error("field {0} is not in the segment")]
    NoSuchField(FieldId),
    /// The field cannot be searched.
    #[error("field {field} of type {} cannot be searched; search a vector field", .data_type.name())]
    NotAVector {
        /// Which field.
        field: FieldId,
        /// Its type.
        data_type: DataType,
    },
    /// The query has another form than the field's vectors, or the metric does not compare such vectors.
    #[error("the query does not fit field {field} of type {}", .data_type.name())]
    QueryKind {
        /// Which field.
        field: FieldId,
        /// Its type.
        data_type: DataType,
    },
    /// A row number past the end.
    #[error("row {row} is not below {rows}, the number of rows of the segment")]
    NoSuchRow {
        /// The row.
        row: usize,
        /// Rows of the segment.
        rows: usize,
    },
    /// Sealing failed.
    #[error("sealing failed: {0}")]
    Seal(SealError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Columns do not fit together.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// A prefix or name is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A task on the blocking pool was stopped: the server is shutting down, or there is a bug.
    #[error("the work was stopped before it was done")]
    Stopped,
}

impl From<SealError> for SegmentError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Locked(locked) => Self::Locked(locked),
            other @ (SealError::TooLong { .. }
            | SealError::FrameLimit { .. }
            | SealError::Closed
            | SealError::Module) => Self::Seal(other),
        }
    }
}

impl SegmentError {
    /// Names the file that did not open.
    pub(crate) fn opening(error: OpenError, segment: SegmentId, file: FileId) -> Self {
        match error {
            OpenError::Locked(locked) => Self::Locked(locked),
            OpenError::Refused => Self::Refused { segment, file },
        }
    }
}
