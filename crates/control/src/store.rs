//! Where the control plane's values are kept: the face that its host provides.

use std::fmt::Debug;

use async_trait::async_trait;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a value could not be read or kept. Holds no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlStoreError {
    /// The store said no; the same may work later.
    #[error("the control plane's state cannot be kept at the moment: {0}")]
    Refused(String),
    /// A stored value makes no sense.
    #[error(
        "stored value {key} of the control plane cannot be read; use the version that wrote it, or restore the metadata"
    )]
    Unreadable {
        /// Its key.
        key: String,
    },
}

impl ControlStoreError {
    /// Whether the same may work later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A key and its value, opened.
pub type ControlValue = (String, Zeroizing<Vec<u8>>);

/// Keeps small values by key, sealed. Keys are `KIND/ID`.
#[async_trait]
pub trait ControlStore: Send + Sync + Debug {
    /// All values.
    ///
    /// # Errors
    /// [`ControlStoreError::Refused`].
    async fn load(&self) -> Result<Vec<ControlValue>, ControlStoreError>;
    /// Sets or removes (`None`) a value; durable when this returns.
    ///
    /// # Errors
    /// [`ControlStoreError::Refused`]: nothing was changed, as far as is known.
    async fn save(&self, key: &str, value: Option<&[u8]>) -> Result<(), ControlStoreError>;
}
