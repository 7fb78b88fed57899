//! Calls of a key service as its caller saw them, one by one, so that they can be matched with the service's own record.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use crate::{EncryptionContext, KeyServiceError, RootKeyId};

/// The two things that are ever asked of a key service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyOperation {
    /// Make a new key.
    GenerateDataKey,
    /// Unwrap a key.
    Decrypt,
}

impl KeyOperation {
    /// The name that AWS KMS has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "GenerateDataKey",
            Self::Decrypt => "Decrypt",
        }
    }
}

/// What a key service is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallReason {
    /// To learn whether the root key may still be used.
    Probe,
    /// To get a zone's keys into memory.
    Unlock,
    /// To make a new zone.
    CreateZone,
    /// To make or unwrap a new version of a zone's key, or a zone's key under another root.
    Rotate,
    /// To try a root key before it is accepted.
    Validate,
    /// To read everything back for an auditor, outside a running server.
    Verify,
}

impl CallReason {
    /// The word for it in audit records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Unlock => "unlock",
            Self::CreateZone => "create-zone",
            Self::Rotate => "rotate",
            Self::Validate => "validate",
            Self::Verify => "verify",
        }
    }
}

/// One request to a key service, after it was answered or given up. A request that is sent again makes another.
#[derive(Clone, Debug)]
pub struct KeyCall {
    /// What was asked.
    pub operation: KeyOperation,
    /// Of which key.
    pub root: RootKeyId,
    /// With which context.
    pub context: EncryptionContext,
    /// What for.
    pub why: CallReason,
    /// What came of this one request. An outage when nobody knows whether the service saw it.
    pub outcome: Result<(), KeyServiceError>,
    /// The name that the key service gave the request, by which its own record has it; `None` if no answer came, or the
    /// service names none.
    pub request_id: Option<String>,
    /// How long before this report the request was sent, in milliseconds.
    pub sent_ms_ago: u64,
    /// How long the answer took, in milliseconds.
    pub took_ms: u64,
}

/// Hears of every request to a key service. Called where the answer arrives: must return quickly and never block.
pub trait CallObserver: Send + Sync + fmt::Debug {
    /// A request was answered or given up.
    fn on_call(&self, call: &KeyCall);
}

/// Holds the observer of a key service: none at first, and never another once there is one.
#[derive(Debug, Default)]
pub struct ObserverSlot(OnceLock<Arc<dyn CallObserver>>);

impl ObserverSlot {
    /// Sets the observer. `false` if there was one already, which stays.
    pub fn set(&self, observer: Arc<dyn CallObserver>) -> bool {
        self.0.set(observer).is_ok()
    }
    /// Tells the observer, if there is one.
    pub fn tell(&self, call: &KeyCall) {
        if let Some(observer) = self.0.get() {
            observer.on_call(call);
        }
    }
}
