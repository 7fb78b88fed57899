//! The server's state and what every operation needs of it: who calls, which key is meant, whether it is allowed.
//!
//! All of it is synchronous: a call holds the records' lock from its decision until its change is on disk, so two calls
//! never decide on the same old state.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicI64, Ordering},
};

use saker_keyring::{BlobKey, FileId};
use serde_json::{Value, json};

use super::{
    ciphertext::Pairs,
    fault::Fault,
    names::{KeyName, Names, printable},
    policy::{Asker, Decision, Kind, Policy, Values, key_allows},
    records::{Key, KeyState, Material, Milliseconds, Records},
    store::{Change, Store, hashed},
    trail::Trail,
};

/// Unix time in milliseconds, from whoever knows it.
pub(super) type Clock = Arc<dyn Fn() -> Milliseconds + Send + Sync>;

/// Everything that calls share.
pub(super) struct Core {
    pub(super) names: Names,
    pub(super) clock: Clock,
    pub(super) trail: Trail,
    store: Store,
    records: RwLock<Records>,
    /// Seals session tokens, so that sessions need no record and survive a restart.
    pub(super) sessions: BlobKey,
    next_destruction_ms: AtomicI64,
}

/// An authenticated caller.
pub(super) struct Caller {
    pub(super) asker: Asker,
    /// What policies may ask about the caller.
    pub(super) values: Values,
    /// As the call log shows it.
    pub(super) identity: Value,
    /// `UserId` of `GetCallerIdentity`.
    pub(super) user_id: String,
}

/// One call while it is being worked on.
pub(super) struct Call<'a> {
    pub(super) core: &'a Core,
    pub(super) caller: &'a Caller,
    pub(super) now_ms: Milliseconds,
    /// What the call log lists as used: ARN and type.
    pub(super) used: Vec<(String, &'static str)>,
}

/// What the key for session tokens is derived for.
pub(super) const SESSION_PURPOSE: &str = "saker key server: session tokens v1";

impl Core {
    pub(super) fn new(
        names: Names,
        clock: Clock,
        trail: Trail,
        store: Store,
        records: Records,
        sessions: BlobKey,
    ) -> Self {
        let core = Self {
            names,
            clock,
            trail,
            store,
            records: RwLock::new(records),
            sessions,
            next_destruction_ms: AtomicI64::new(Milliseconds::MAX),
        };
        core.note_next_destruction(&core.read());
        core
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Records> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes durable. Whoever calls this changes the memory only after it succeeded.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        self.store.commit(changes).map_err(|error| {
            tracing::error!(%error, "cannot write records");
            Fault::internal()
        })
    }

    /// Writes a key, then shows it.
    pub(super) fn put_key(&self, records: &mut Records, key: Key) -> Result<(), Fault> {
        self.commit(vec![Change::put(format!("key/{}", key.id), &key)])?;
        records.keys.insert(key.id.clone(), key);
        self.note_next_destruction(records);
        Ok(())
    }

    /// Writes a key together with fresh material of version `version`, then shows it.
    pub(super) fn put_key_with_new_material(
        &self,
        records: &mut Records,
        mut key: Key,
        version: u32,
        now_ms: Milliseconds,
    ) -> Result<(), Fault> {
        let plain = saker_keyring::random_key();
        let file = self.store.put_material(&plain).map_err(|error| {
            tracing::error!(%error, "cannot write key material");
            Fault::internal()
        })?;
        key.materials.push(Material {
            version,
            made_ms: now_ms,
            file,
        });
        // If this fails, the file stays behind without a key and is destroyed at the next start.
        self.put_key(records, key)?;
        records.materials.insert(file, plain);
        Ok(())
    }

    /// Destroys the keys whose waiting period is over. Cheap when there is none.
    pub(super) fn destroy_due_keys(&self, now_ms: Milliseconds) -> Result<(), Fault> {
        if now_ms < self.next_destruction_ms.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut records = self.write();
        let due: Vec<String> = records
            .keys
            .values()
            .filter(|key| is_due(key.state, now_ms))
            .map(|key| key.id.clone())
            .collect();
        if !due.is_empty() {
            let aliases: Vec<String> = records
                .aliases
                .iter()
                .filter(|(_, alias)| due.contains(&alias.key))
                .map(|(name, _)| name.clone())
                .collect();
            let files: Vec<FileId> = due
                .iter()
                .filter_map(|id| records.keys.get(id))
                .flat_map(|key| key.materials.iter().map(|material| material.file))
                .collect();
            let keys = due.iter().map(|id| Change::Remove(format!("key/{id}")));
            let names = aliases.iter().map(|name| Change::Remove(hashed("alias", name)));
            self.commit(keys.chain(names).collect())?;
            records.keys.retain(|id, _| !due.contains(id));
            records.aliases.retain(|name, _| !aliases.contains(name));
            for file in files {
                records.materials.remove(&file);
                if let Err(error) = self.store.shred_material(file) {
                    tracing::warn!(%error, "cannot destroy a material file; the next start tries again");
                }
            }
            tracing::info!(keys = due.len(), "destroyed keys whose waiting period was over");
        }
        self.note_next_destruction(&records);
        Ok(())
    }

    fn note_next_destruction(&self, records: &Records) {
        let next = records
            .keys
            .values()
            .filter_map(|key| match key.state {
                KeyState::PendingDeletion { at_ms } => Some(at_ms),
                KeyState::Enabled | KeyState::Disabled => None,
            })
            .min();
        self.next_destruction_ms
            .store(next.unwrap_or(Milliseconds::MAX), Ordering::Relaxed);
    }
}

fn is_due(state: KeyState, now_ms: Milliseconds) -> bool {
    matches!(state, KeyState::PendingDeletion { at_ms } if at_ms <= now_ms)
}

impl Call<'_> {
    /// The key that `text` names (id, ARN, alias or alias ARN), noted as used. `by_alias` says whether an alias may.
    pub(super) fn find_key<'r>(&mut self, records: &'r Records, text: &str, by_alias: bool) -> Result<&'r Key, Fault> {
        let names = &self.core.names;
        let id = match names.parse_key(text)? {
            KeyName::Id(id) => id,
            KeyName::Alias(alias) if by_alias => match records.aliases.get(&alias) {
                Some(target) => target.key.clone(),
                None => {
                    return Err(Fault::not_found(format!(
                        "Alias {} is not found.",
                        names.alias_arn(&alias)
                    )));
                }
            },
            KeyName::Alias(alias) => {
                return Err(Fault::not_found(format!("Invalid keyId '{}'", printable(&alias))));
            }
        };
        let key = records
            .keys
            .get(&id)
            .ok_or_else(|| Fault::not_found(format!("Key '{}' does not exist", names.key_arn(&id))))?;
        self.note_key(&key.id);
        Ok(key)
    }

    pub(super) fn note_key(&mut self, id: &str) {
        let arn = self.core.names.key_arn(id);
        if !self.used.iter().any(|(used, _)| *used == arn) {
            self.used.push((arn, "AWS::KMS::Key"));
        }
    }

    /// What policies may ask about this call: the caller, the key, the request.
    pub(super) fn values(&self, records: &Records, key: Option<&Key>, request: &Asked<'_>) -> Values {
        let mut values = self.caller.values.clone();
        values.set("kms:KeySpec", "SYMMETRIC_DEFAULT");
        values.set("kms:KeyUsage", "ENCRYPT_DECRYPT");
        values.set("kms:KeyOrigin", "AWS_KMS");
        if let Some(key) = key {
            let aliases = records.aliases.iter().filter(|(_, alias)| alias.key == key.id);
            values.set_all("kms:ResourceAliases", aliases.map(|(name, _)| name.clone()).collect());
            for (name, value) in &key.tags {
                values.set(&format!("aws:ResourceTag/{name}"), value.clone());
            }
        }
        if let Some(named) = request.named.filter(|named| named.contains("alias/"))
            && let Ok(KeyName::Alias(alias)) = self.core.names.parse_key(named)
        {
            values.set("kms:RequestAlias", alias);
        }
        if let Some(context) = request.context {
            values.set("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT");
            values.set_all("kms:EncryptionContextKeys", context.keys().cloned().collect());
            for (name, value) in context {
                values.set(&format!("kms:EncryptionContext:{name}"), value.clone());
            }
        }
        if let Some(bypass) = request.bypass {
            values.set("kms:BypassPolicyLockoutSafetyCheck", bypass.to_string());
        }
        values
    }

    /// Asks the key's policy and the caller's for `action` (with its `kms:` prefix).
    pub(super) fn authorise(&self, records: &Records, key: &Key, action: &str, asked: &Asked<'_>) -> Result<(), Fault> {
        let policy = Policy::parse(&key.policy, Kind::Key).map_err(|fault| {
            tracing::error!(key = %key.id, reason = %fault.0, "a stored key policy cannot be understood");
            Fault::internal()
        })?;
        let arn = self.core.names.key_arn(&key.id);
        let values = self.values(records, Some(key), asked);
        self.refuse(
            action,
            &arn,
            key_allows(&policy, &self.caller.asker, action, &arn, &values),
        )
    }

    /// Turns a decision into AWS's wording.
    pub(super) fn refuse(&self, action: &str, resource: &str, decision: Decision) -> Result<(), Fault> {
        let because = match decision {
            Decision::Allowed => return Ok(()),
            Decision::ExplicitDeny { by_resource: true } => {
                "with an explicit deny in a resource-based policy".to_owned()
            }
            Decision::ExplicitDeny { by_resource: false } => {
                "with an explicit deny in an identity-based policy".to_owned()
            }
            Decision::NoResourcePolicy => format!("because no resource-based policy allows the {action} action"),
            Decision::NoIdentityPolicy => format!("because no identity-based policy allows the {action} action"),
        };
        Err(Fault::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: {action} on resource: {resource} {because}",
                self.caller.asker.arn
            ),
        ))
    }
}

/// The parts of a request that policies may ask about.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    /// The key as the caller named it.
    pub(super) named: Option<&'a str>,
    /// Encryption context of a cryptographic operation (empty if none was given).
    pub(super) context: Option<&'a Pairs>,
    pub(super) bypass: Option<bool>,
}

/// `userIdentity` of a caller that could not be authenticated.
pub(super) fn unknown_identity(access_key_id: Option<&str>) -> Value {
    match access_key_id {
        Some(id) => json!({ "type": "Unknown", "accessKeyId": printable(id) }),
        None => json!({ "type": "Unknown" }),
    }
}
