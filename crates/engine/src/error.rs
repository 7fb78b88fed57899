//! The one error of the engine's face: a kind that tells the caller what to do, and a message for people.
//!
//! Messages never carry row data, vectors, filter text, keys or tokens.

use std::fmt;

use saker_keyring::{OpenError, RootKeyId, SealError, ZoneLocked};
use saker_query::FilterError;
use saker_segment::SegmentError;
use saker_storage::{LogError, MetaError, PathError, StoreError};

use crate::zones::Scope;

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// What happened, for people; lowercase unless Milvus's own wording is kept.
    pub message: String,
}

/// What kind of failure, so that a caller can act without reading the message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No database of this name.
    DatabaseNotFound,
    /// A database of this name is there.
    DatabaseAlreadyExists,
    /// No collection (or alias) of this name.
    CollectionNotFound,
    /// A collection of this name with another definition is there.
    CollectionAlreadyExists,
    /// The collection has to be loaded first.
    CollectionNotLoaded,
    /// No partition of this name.
    PartitionNotFound,
    /// A partition of this name is there.
    PartitionAlreadyExists,
    /// No index of this name, or none on this field.
    IndexNotFound,
    /// Another index is there already.
    IndexAlreadyExists,
    /// No alias of this name.
    AliasNotFound,
    /// An alias of this name is there.
    AliasAlreadyExists,
    /// No user of this name.
    CredentialNotFound,
    /// A user of this name is there.
    CredentialAlreadyExists,
    /// No field of this name.
    FieldNotFound,
    /// Rows do not fit the collection's schema.
    SchemaMismatch,
    /// The request is wrong in another way.
    InvalidParameter,
    /// The root key of the database, or of the collection, may not be used now. Retry once the key works again.
    ZoneLocked {
        /// The database.
        database: String,
        /// The collection, if it has a key of its own and this is about that one.
        collection: Option<String>,
        /// Its root key.
        root: RootKeyId,
        /// What the key service said.
        reason: String,
    },
    /// The root key given for a new database cannot be used.
    KeyUnusable {
        /// The key.
        root: RootKeyId,
    },
    /// A limit on how much there may be is reached.
    QuotaExceeded,
    /// Requests come too fast; retry in a moment.
    RateLimit,
    /// No space is left to store anything; nothing was lost. Retry once there is space.
    Full,
    /// Stored bytes failed verification or make no sense. The message names the object.
    Corrupt,
    /// The storage below failed; retry.
    Storage,
    /// The engine is shutting down.
    ShuttingDown,
    /// Not supported by this version.
    Unsupported,
    /// A bug.
    Internal,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }
    /// A bug.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
    pub(crate) fn database_not_found(name: &str) -> Self {
        Self::new(
            ErrorKind::DatabaseNotFound,
            format!("database not found[database={name}]"),
        )
    }
    pub(crate) fn collection_not_found(database: &str, name: &str) -> Self {
        Self::new(
            ErrorKind::CollectionNotFound,
            format!("can't find collection[database={database}][collection={name}]: collection not found"),
        )
    }
    pub(crate) fn not_loaded(name: &str) -> Self {
        Self::new(
            ErrorKind::CollectionNotLoaded,
            format!("collection not loaded[collection={name}]"),
        )
    }
    pub(crate) fn partition_not_found(name: &str) -> Self {
        Self::new(
            ErrorKind::PartitionNotFound,
            format!("partition not found[partition={name}]"),
        )
    }
    /// The refusal of a zone whose root key may not be used now.
    pub(crate) fn zone_locked(scope: &Scope, root: &RootKeyId, reason: &str) -> Self {
        let Scope { database, collection } = scope.clone();
        let (named, what) = match &collection {
            Some(name) => (format!("[database={database}][collection={name}]"), "collection"),
            None => (format!("[database={database}]"), "database"),
        };
        let message = format!(
            "access has been disabled by the administrator: kms key revoked or disabled \
             {named}[key={root}][reason={reason}]; enable the key at its key service and this {what} answers again by \
             itself"
        );
        let kind = ErrorKind::ZoneLocked {
            database,
            collection,
            root: root.clone(),
            reason: reason.to_owned(),
        };
        Self::new(kind, message)
    }
}

impl Error {
    /// Sealed bytes that did not open.
    pub(crate) fn opening(error: OpenError, what: &str, id: &dyn fmt::Display) -> Self {
        match error {
            OpenError::Locked(locked) => locked.into(),
            OpenError::Refused => Self::new(
                ErrorKind::Corrupt,
                format!("{what} {id} failed verification; restore it from a backup"),
            ),
        }
    }
    /// Whether this is a refusal that does not say yet which database is meant.
    pub(crate) fn is_unnamed_lock(&self) -> bool {
        matches!(&self.kind, ErrorKind::ZoneLocked { database, .. } if database.is_empty())
    }
}

/// Names no database yet: `Access::explain` fills it in.
impl From<ZoneLocked> for Error {
    fn from(locked: ZoneLocked) -> Self {
        let kind = ErrorKind::ZoneLocked {
            database: String::new(),
            collection: None,
            root: RootKeyId::platform_file(),
            reason: String::new(),
        };
        Self::new(kind, locked.to_string())
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Locked(locked) => locked.into(),
            SealError::TooLong { .. } => Self::invalid(error.to_string()),
            SealError::FrameLimit { .. } | SealError::Closed | SealError::Module => Self::internal(error.to_string()),
        }
    }
}

impl From<MetaError> for Error {
    fn from(error: MetaError) -> Self {
        let kind = match &error {
            MetaError::Full => ErrorKind::Full,
            MetaError::Corrupt { .. } => ErrorKind::Corrupt,
            MetaError::TooLarge { .. } => ErrorKind::QuotaExceeded,
            MetaError::Path(_) => ErrorKind::Internal,
            MetaError::Conflict { .. } | MetaError::Io { .. } => ErrorKind::Storage,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Full { .. } => ErrorKind::Full,
            StoreError::NotFound { .. } | StoreError::OutOfRange { .. } | StoreError::TooLarge { .. } => {
                ErrorKind::Corrupt
            }
            StoreError::AlreadyExists { .. } | StoreError::Path(_) => ErrorKind::Internal,
            StoreError::Io { .. } => ErrorKind::Storage,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Full { .. } => ErrorKind::Full,
            LogError::Corrupt { .. } => ErrorKind::Corrupt,
            LogError::TooLarge { .. } => ErrorKind::InvalidParameter,
            LogError::NotFound { .. }
            | LogError::Overloaded { .. }
            | LogError::Ended { .. }
            | LogError::Write { .. }
            | LogError::Io { .. } => ErrorKind::Storage,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<SegmentError> for Error {
    fn from(error: SegmentError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest are bugs or damage, told apart below"
        )]
        match error {
            SegmentError::Locked(locked) => locked.into(),
            SegmentError::Store(error) => error.into(),
            SegmentError::Seal(error) => error.into(),
            SegmentError::Refused { .. } | SegmentError::Malformed { .. } | SegmentError::Manifest { .. } => {
                Self::new(ErrorKind::Corrupt, error.to_string())
            }
            SegmentError::TooManyRows { .. } | SegmentError::NotAVector { .. } | SegmentError::NoSuchField(_) => {
                Self::invalid(error.to_string())
            }
            SegmentError::Stopped => Self::new(ErrorKind::ShuttingDown, error.to_string()),
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<FilterError> for Error {
    fn from(error: FilterError) -> Self {
        Self::invalid(format!("failed to create query plan: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
