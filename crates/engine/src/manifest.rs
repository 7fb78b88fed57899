//! Changing which files a collection consists of: one compare-and-swap per change.
//!
//! Each manifest carries the hash of the sealed one before it and a version that grows by one, so that a chain that was
//! tampered with shows.

use saker_keyring::Unverified;
use saker_storage::{Expected, MetaBatch, MetaError};

use crate::{
    error::{Error, Result},
    opened::Opened,
    records::{Manifest, hash, meta_key, seal},
};

/// The manifest and how it is stored.
#[derive(Debug)]
pub(crate) struct ManifestState {
    pub(crate) manifest: Manifest,
    pub(crate) stored: Unverified,
}

impl Opened {
    /// Stores `next` in place of the manifest in `state`. Whoever fails here with anything else than "full" or "locked"
    /// does not know what is stored: the collection is shut and opened again from what is there.
    ///
    /// # Errors
    /// As of the metadata store; [`Error`] of a locked zone.
    pub(crate) async fn commit_manifest(&self, state: &mut ManifestState, mut next: Manifest) -> Result<()> {
        let key = meta_key("manifest", self.collection)?;
        next.version = state.manifest.version + 1;
        next.previous = hash(&state.stored);
        let value = seal(&self.lease, &key, &next)?;
        let stored = value.clone().into_unverified();
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Value(state.stored.clone()));
        batch.put(key, value);
        if self.stop.is_cancelled() {
            return Err(crate::opened::interrupted(self));
        }
        match self.shared.meta.commit(batch).await {
            Ok(()) => {
                state.manifest = next;
                state.stored = stored;
                Ok(())
            }
            Err(error) => {
                if !matches!(error, MetaError::Full | MetaError::TooLarge { .. }) {
                    tracing::error!(collection = %self.collection, "manifest not stored: {error}");
                    self.shut();
                }
                Err(Error::from(error))
            }
        }
    }
}
