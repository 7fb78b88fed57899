//! Making an encryption zone: for a database, or for one collection that has a key of its own.
//!
//! A root key is tried before anything is stored: `GenerateDataKey` makes the zone key, `Decrypt` must give the same one
//! back, both with the encryption context that all later calls will have.

use std::{collections::BTreeMap, sync::Arc};

use saker_keyring::{
    CallReason, EncryptionContext, KeyPurpose, KeyServiceError, PlainKey, Question, RootKeyId, Zone, ZoneId,
    ZoneKeyVersion, ZoneRecord,
};

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    zones::{Access, decrypt_all, reason_of},
};

/// A zone whose key was tried and which nobody uses yet.
pub(crate) struct NewZone {
    /// To be stored sealed under the platform zone.
    pub(crate) record: ZoneRecord,
    keys: Vec<(ZoneKeyVersion, PlainKey)>,
    /// Asked of the root key's watcher, if there was one, before the key service was.
    asked: Option<Question>,
}

impl Engine {
    /// Makes a zone under `root` and tries its key. Nothing is stored.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnusable`].
    pub(crate) async fn new_zone(&self, root: &RootKeyId) -> Result<NewZone> {
        let zone = ZoneId::random();
        let context = EncryptionContext {
            cluster: self.shared.cluster.clone(),
            database: zone.to_string(),
            purpose: KeyPurpose::ZoneKey,
        };
        let service = &*self.shared.keys;
        let asked = self.known_watcher(root).map(|watcher| watcher.ask());
        let used = |operation, ok| {
            let root = root.clone();
            self.shared.emit(&Event::KeyUsed { root, operation, ok });
        };
        let generated = service.generate_data_key(root, &context, CallReason::CreateZone).await;
        used("GenerateDataKey", generated.is_ok());
        let generated = generated.map_err(|error| unusable(root, &error))?;
        let mut record = ZoneRecord {
            zone,
            root: root.clone(),
            context,
            versions: Vec::new(),
            checks: BTreeMap::new(),
        };
        record.add(ZoneKeyVersion::FIRST, &generated);
        let keys = decrypt_all(service, &record, CallReason::CreateZone).await;
        used("Decrypt", keys.is_ok());
        let keys = keys.map_err(|error| unusable(root, &error))?;
        if keys
            .iter()
            .any(|(_, key)| key.expose_bytes() != generated.plain.expose_bytes())
        {
            return Err(Error::new(
                ErrorKind::KeyUnusable { root: root.clone() },
                format!("the key service gave back another key than it made under {root}; do not use this key service"),
            ));
        }
        Ok(NewZone { record, keys, asked })
    }

    /// The new zone, unlocked and under its root key's watcher. Whoever owns it calls [`Engine::adopt`].
    ///
    /// # Errors
    /// A bug.
    pub(crate) fn use_zone(&self, zone: NewZone, database: &str, collection: Option<&str>) -> Result<Arc<Access>> {
        let unlocked = Zone::locked(zone.record.zone);
        unlocked
            .unlock(zone.keys)
            .map_err(|error| Error::internal(error.to_string()))?;
        let watcher = self.watcher(&zone.record.root);
        watcher.confirmed_or_new(zone.asked);
        Ok(Access::new(database, collection, unlocked, zone.record, &watcher))
    }
}

fn unusable(root: &RootKeyId, error: &KeyServiceError) -> Error {
    let advice = match error {
        KeyServiceError::Denied { .. } => {
            "check that the key exists, is enabled, and that its policy allows this server GenerateDataKey and Decrypt"
        }
        KeyServiceError::Unavailable { .. } => "check the way to the key service and try again",
        KeyServiceError::Unsupported { .. } => "check the server's key service settings",
    };
    Error::new(
        ErrorKind::KeyUnusable { root: root.clone() },
        format!("cannot use root key {root}: {}; {advice}", reason_of(error)),
    )
}
