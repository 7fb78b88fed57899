//! What the control plane needs of an engine: a place for its values in the catalog, and one key asked about now.
//!
//! What the values mean is its own business; here they are bytes, sealed under the platform zone as `control/KIND/ID`.

use saker_keyring::RootKeyId;
use saker_storage::{MetaBatch, MetaKey};
use zeroize::Zeroizing;

use crate::{
    engine::Engine,
    error::{Error, Result},
    types::KeyStatus,
};

const PREFIX: &str = "control/";

impl Engine {
    /// All values of the control plane, by key, opened.
    ///
    /// # Errors
    /// As of the store; [`crate::ErrorKind::Corrupt`] for a value that fails verification;
    /// [`crate::ErrorKind::ZoneLocked`] while the platform key may not be used.
    pub async fn control_values(&self) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
        let lease = self.shared.platform_lease()?;
        let mut values = Vec::new();
        for (key, value) in self.shared.meta.scan(PREFIX).await? {
            let plain = lease.open_value(key.as_str(), &value).map_err(|error| {
                self.shared
                    .platform
                    .explain(Error::opening(error, "metadata value", &key))
            })?;
            let name = key.as_str().strip_prefix(PREFIX).unwrap_or_default();
            values.push((name.to_owned(), plain));
        }
        Ok(values)
    }
    /// Sets or removes (`None`) a value of the control plane; durable when this returns. `key` is `KIND/ID`.
    ///
    /// # Errors
    /// As of the store; [`crate::ErrorKind::ZoneLocked`] while the platform key may not be used.
    pub async fn put_control_value(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let key = MetaKey::new(format!("{PREFIX}{key}")).map_err(|error| Error::internal(error.to_string()))?;
        let mut batch = MetaBatch::new();
        match value {
            Some(plain) => {
                let sealed = self.shared.platform_lease()?.seal_value(key.as_str(), plain);
                let sealed = sealed.map_err(|error| self.shared.platform.explain(error.into()))?;
                batch.put(key, sealed);
            }
            None => {
                batch.delete(key);
            }
        }
        Ok(self.shared.meta.commit(batch).await?)
    }
    /// Asks the key service about one root key now, acts on the answer, and gives the key's state after that; `None` if
    /// nothing here is under it.
    ///
    /// # Errors
    /// None at present.
    pub async fn check_key_now(&self, root: &RootKeyId) -> Result<Option<KeyStatus>> {
        let Some(watcher) = self.known_watcher(root) else {
            return Ok(None);
        };
        watcher.check_now().await;
        Ok(self.key_states().await?.into_iter().find(|state| state.root == *root))
    }
}
