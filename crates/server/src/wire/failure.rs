//! Failures as Milvus's clients understand them: a code, an old error code and a reason.

use saker_proto::common::{ErrorCode, Status};

/// Milvus's numeric codes. Clients match on some of them, so they are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    /// The server is not ready to serve this yet.
    pub const NOT_READY: Self = Self(1);
    /// A fault of the server.
    pub const INTERNAL: Self = Self(5);
    /// Too many requests; clients retry.
    pub const RATE_LIMIT: Self = Self(8);
    /// Refused by quota or by the administrator: a locked zone is this.
    pub const FORCE_DENY: Self = Self(9);
    /// No such collection.
    pub const COLLECTION_NOT_FOUND: Self = Self(100);
    /// The collection is there, but not loaded.
    pub const COLLECTION_NOT_LOADED: Self = Self(101);
    /// The client's copy of the schema is not the current one; clients fetch it and try again.
    pub const SCHEMA_MISMATCH: Self = Self(109);
    /// No such partition.
    pub const PARTITION_NOT_FOUND: Self = Self(200);
    /// No such index.
    pub const INDEX_NOT_FOUND: Self = Self(700);
    /// The field has another index.
    pub const INDEX_DUPLICATE: Self = Self(702);
    /// No such database.
    pub const DATABASE_NOT_FOUND: Self = Self(800);
    /// The store is full or failed.
    pub const IO_FAILED: Self = Self(1001);
    /// The request is wrong.
    pub const INVALID_PARAMETER: Self = Self(1100);
    /// The request is too large.
    pub const PARAMETER_TOO_LARGE: Self = Self(1102);
    /// No such alias.
    pub const ALIAS_NOT_FOUND: Self = Self(1600);
    /// An alias and a collection would have the same name.
    pub const ALIAS_CONFLICT: Self = Self(1601);
    /// The alias is there already, for another collection.
    pub const ALIAS_EXISTS: Self = Self(1602);
    /// No such field.
    pub const FIELD_NOT_FOUND: Self = Self(1700);
    /// Anything else.
    pub const UNEXPECTED: Self = Self(65_535);
}

/// Why a request was refused, ready for the wire.
///
/// The reason carries names, ids, sizes and limits; never row data, vectors, filter text or secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that current clients read.
    pub code: Code,
    /// The code that older clients read.
    pub old_code: ErrorCode,
    /// What is wrong and what to do.
    pub reason: String,
    /// Whether the same request may succeed later.
    pub retriable: bool,
}

impl Failure {
    /// A failure with these codes that a retry does not cure.
    #[must_use]
    pub fn new(code: Code, old_code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            old_code,
            reason: reason.into(),
            retriable: false,
        }
    }
    /// The request is wrong. Milvus's prefix is kept, since users search for it.
    #[must_use]
    pub fn invalid(reason: impl std::fmt::Display) -> Self {
        Self::new(
            Code::INVALID_PARAMETER,
            ErrorCode::IllegalArgument,
            format!("{reason}: invalid parameter"),
        )
    }
    /// The request is wrong in a way that has a fixed form in Milvus: what was expected, what came.
    #[must_use]
    pub fn mismatch(
        expected: impl std::fmt::Display,
        actual: impl std::fmt::Display,
        what: impl std::fmt::Display,
    ) -> Self {
        Self::invalid(format_args!("{what}: expected {expected}, actual {actual}"))
    }
    /// The collection is not there.
    #[must_use]
    pub fn collection_not_found(database: &str, collection: &str) -> Self {
        let reason =
            format!("can't find collection[database={database}][collection={collection}]: collection not found");
        Self::new(Code::COLLECTION_NOT_FOUND, ErrorCode::CollectionNotExists, reason)
    }
    /// The database is not there.
    #[must_use]
    pub fn database_not_found(database: &str) -> Self {
        let reason = format!("database not found[database={database}]");
        Self::new(Code::DATABASE_NOT_FOUND, ErrorCode::UnexpectedError, reason)
    }
    /// The index is not there.
    #[must_use]
    pub fn index_not_found(name: &str, collection: &str) -> Self {
        let reason = format!("index not found[indexName={name}][collection={collection}]");
        Self::new(Code::INDEX_NOT_FOUND, ErrorCode::IndexNotExist, reason)
    }
    /// The field is not in the schema.
    #[must_use]
    pub fn field_not_found(field: &str) -> Self {
        Self::new(
            Code::FIELD_NOT_FOUND,
            ErrorCode::UnexpectedError,
            format!("field not found[field={field}]"),
        )
    }
    /// A feature that this server does not have.
    #[must_use]
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::invalid(format_args!("{what} is not supported by this server"))
    }
    /// The wire status.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let mut status = Status {
            reason: self.reason.clone(),
            code: self.code.0,
            retriable: self.retriable,
            detail: self.reason.clone(),
            ..Status::default()
        };
        self.set_old_code(&mut status);
        if self.code == Code::INVALID_PARAMETER {
            status.extra_info.insert("is_input_error".to_owned(), "true".to_owned());
        }
        status
    }

    #[expect(deprecated, reason = "older clients read only this field, so both are always sent")]
    fn set_old_code(&self, status: &mut Status) {
        status.error_code = self.old_code as i32;
    }
}

impl From<saker_engine::Error> for Failure {
    fn from(error: saker_engine::Error) -> Self {
        use saker_engine::ErrorKind as Kind;
        let (code, old_code, retriable) = match &error.kind {
            Kind::DatabaseNotFound => (Code::DATABASE_NOT_FOUND, ErrorCode::UnexpectedError, false),
            Kind::CollectionNotFound => (Code::COLLECTION_NOT_FOUND, ErrorCode::CollectionNotExists, false),
            Kind::CollectionNotLoaded => (Code::COLLECTION_NOT_LOADED, ErrorCode::UnexpectedError, false),
            Kind::PartitionNotFound => (Code::PARTITION_NOT_FOUND, ErrorCode::MetaFailed, false),
            Kind::IndexNotFound => (Code::INDEX_NOT_FOUND, ErrorCode::IndexNotExist, false),
            Kind::AliasNotFound => (Code::ALIAS_NOT_FOUND, ErrorCode::UnexpectedError, false),
            Kind::AliasAlreadyExists => (Code::ALIAS_EXISTS, ErrorCode::UnexpectedError, false),
            Kind::FieldNotFound => (Code::FIELD_NOT_FOUND, ErrorCode::UnexpectedError, false),
            Kind::CollectionAlreadyExists
            | Kind::PartitionAlreadyExists
            | Kind::IndexAlreadyExists
            | Kind::CredentialAlreadyExists
            | Kind::CredentialNotFound => (Code::UNEXPECTED, ErrorCode::UnexpectedError, false),
            Kind::DatabaseAlreadyExists
            | Kind::SchemaMismatch
            | Kind::InvalidParameter
            | Kind::KeyUnusable { .. }
            | Kind::Unsupported => (Code::INVALID_PARAMETER, ErrorCode::IllegalArgument, false),
            Kind::ZoneLocked { .. } | Kind::QuotaExceeded => (Code::FORCE_DENY, ErrorCode::ForceDeny, false),
            Kind::RateLimit => (Code::RATE_LIMIT, ErrorCode::RateLimit, true),
            Kind::Full => (Code::IO_FAILED, ErrorCode::DiskQuotaExhausted, true),
            Kind::Storage => (Code::IO_FAILED, ErrorCode::UnexpectedError, true),
            Kind::Corrupt => (Code::IO_FAILED, ErrorCode::UnexpectedError, false),
            Kind::ShuttingDown => (Code::NOT_READY, ErrorCode::NotReadyServe, true),
            Kind::Internal => (Code::INTERNAL, ErrorCode::UnexpectedError, false),
            _ => (Code::UNEXPECTED, ErrorCode::UnexpectedError, false),
        };
        Self {
            code,
            old_code,
            reason: error.message,
            retriable,
        }
    }
}

/// The status of an answer that succeeded.
#[must_use]
pub fn success() -> Status {
    Status::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(deprecated, reason = "the test reads what older clients read")]
    fn both_codes_are_sent() {
        let status = Failure::collection_not_found("default", "books").to_status();
        assert_eq!(
            (status.code, status.error_code),
            (100, ErrorCode::CollectionNotExists as i32)
        );
        assert!(
            status
                .reason
                .starts_with("can't find collection[database=default][collection=books]")
        );
        assert!(status.reason.contains("collection not found"));
        assert_eq!((success().code, success().error_code), (0, 0));
    }
}
