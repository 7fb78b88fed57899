//! The control plane's values in the main catalog, sealed under the platform zone.

use std::sync::Arc;

use async_trait::async_trait;
use saker_control::{ControlStore, ControlStoreError, ControlValue};
use saker_engine::Engine;

/// Keeps values with the engine's own.
#[derive(Debug)]
pub(crate) struct EngineStore(Arc<Engine>);

impl EngineStore {
    pub(crate) const fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }
}

#[async_trait]
impl ControlStore for EngineStore {
    async fn load(&self) -> Result<Vec<ControlValue>, ControlStoreError> {
        self.0.control_values().await.map_err(refused)
    }
    async fn save(&self, key: &str, value: Option<&[u8]>) -> Result<(), ControlStoreError> {
        self.0.put_control_value(key, value).await.map_err(refused)
    }
}

fn refused(error: saker_engine::Error) -> ControlStoreError {
    ControlStoreError::Refused(error.message)
}
