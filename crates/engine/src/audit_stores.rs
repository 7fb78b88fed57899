//! What the audit log needs of the engine: the log, and the right to seal in it under the cluster's own zone.

use std::sync::Arc;

use saker_keyring::{KeyService, Lease, RootKeyId, Zone};
use saker_storage::Log;

use crate::{
    engine::{Engine, Stores, platform_refused, stored_platform},
    error::{Error, Result},
    zones::decrypt_all,
};

/// Log streams of the cluster's own zone: the audit log, and the log of requests.
pub(crate) const AUDIT_STREAMS: [&str; 2] = ["audit", "access"];

/// Where the audit log lies, and the key to it.
#[derive(Clone)]
pub struct AuditStores {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The right to use the cluster's own zone; `None` while it is locked. Refusals are not reported as events.
    pub lease: Arc<dyn Fn() -> Option<Lease> + Send + Sync>,
}

impl std::fmt::Debug for AuditStores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditStores")
    }
}

impl Engine {
    /// Log and lease for the audit log. What is written there is the caller's; the streams `audit` and `access` are
    /// reserved for it.
    #[must_use]
    pub fn audit_stores(&self) -> AuditStores {
        let platform = Arc::clone(&self.shared.platform);
        AuditStores {
            log: Arc::clone(&self.shared.log),
            lease: Arc::new(move || platform.zone.lease().ok()),
        }
    }

    /// Opens the audit log of stores that no engine uses, with Decrypt alone. The root key is the one that they were made
    /// with.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnusable`](crate::ErrorKind::KeyUnusable) if its root key cannot be used.
    pub async fn audit_stores_offline(stores: &Stores, keys: &dyn KeyService) -> Result<(AuditStores, RootKeyId)> {
        let record = stored_platform(&*stores.meta)
            .await?
            .ok_or_else(|| Error::invalid("the data directory is empty: no cluster was ever started in it"))?;
        let root = record.root.clone();
        let plain = decrypt_all(keys, &record, saker_keyring::CallReason::Verify)
            .await
            .map_err(|error| platform_refused(&root, &error))?;
        let zone = Zone::locked(record.zone);
        zone.unlock(plain).map_err(|error| Error::internal(error.to_string()))?;
        let offline = AuditStores {
            log: Arc::clone(&stores.log),
            lease: Arc::new(move || zone.lease().ok()),
        };
        Ok((offline, root))
    }
}
