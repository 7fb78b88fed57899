//! An error as AWS words it: a code, an HTTP status, a message.

use serde_json::{Value, json};

/// What the caller is told. Never holds plaintext, ciphertext or secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// AWS's error name, such as `DisabledException`.
    pub(super) code: &'static str,
    /// AWS's wording where its clients or users depend on it.
    pub(super) message: String,
    /// HTTP status.
    pub(super) status: u16,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            status: 400,
        }
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new("NotFoundException", message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", message)
    }

    /// AWS gives no message with this one.
    pub(super) fn invalid_ciphertext() -> Self {
        Self::new("InvalidCiphertextException", "")
    }

    /// A failure of this server; the cause is in its own log, not in the answer.
    pub(super) fn internal() -> Self {
        Self::new(
            "KMSInternalException",
            "An internal error occurred. See the key server's log.",
        )
        .with_status(500)
    }

    /// The body in the JSON protocol.
    pub(super) fn json(&self) -> Value {
        json!({ "__type": self.code, "message": self.message })
    }
}
