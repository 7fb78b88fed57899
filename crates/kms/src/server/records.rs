//! What the server keeps: keys with their materials, aliases, roles, users.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use saker_keyring::{FileId, PlainKey};
use serde::{Deserialize, Serialize};

/// Unix time in milliseconds.
pub(super) type Milliseconds = i64;

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeyState {
    Enabled,
    Disabled,
    /// Its material is destroyed at this time.
    PendingDeletion {
        at_ms: Milliseconds,
    },
}

/// A customer key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Key {
    /// UUID as text.
    pub(super) id: String,
    pub(super) created_ms: Milliseconds,
    pub(super) description: String,
    pub(super) state: KeyState,
    /// Key policy as it was put.
    pub(super) policy: String,
    pub(super) tags: BTreeMap<String, String>,
    /// Oldest first; the last one encrypts, all of them decrypt. Never empty.
    pub(super) materials: Vec<Material>,
}

/// One backing key of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Material {
    /// 1 for the first, growing by one per rotation.
    pub(super) version: u32,
    pub(super) made_ms: Milliseconds,
    /// The sealed file that holds its 32 bytes.
    pub(super) file: FileId,
}

/// A name for a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Alias {
    /// With its `alias/` prefix.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) created_ms: Milliseconds,
    pub(super) updated_ms: Milliseconds,
}

/// A role that users may assume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    /// AWS's `AROA...`; a role that is made again under the same name is another one.
    pub(super) id: String,
    pub(super) created_ms: Milliseconds,
    pub(super) description: String,
    pub(super) trust: String,
    /// Identity policies by name.
    pub(super) policies: BTreeMap<String, String>,
    pub(super) session_seconds_max: i64,
}

/// A user with one access key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) name: String,
    /// AWS's `AIDA...`.
    pub(super) id: String,
    pub(super) access_key_id: String,
    pub(super) secret: String,
    /// Identity policy.
    pub(super) policy: String,
}

/// Whose records these are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Realm {
    pub(super) region: String,
    pub(super) account: String,
}

/// Everything, as it stands in memory.
#[derive(Default)]
pub(super) struct Records {
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) aliases: BTreeMap<String, Alias>,
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) users: BTreeMap<String, User>,
    /// Unsealed material by its file; of keys in `keys` only.
    pub(super) materials: HashMap<FileId, PlainKey>,
}

impl Records {
    /// The files of all materials of all keys.
    pub(super) fn files(&self) -> BTreeSet<FileId> {
        self.keys
            .values()
            .flat_map(|key| &key.materials)
            .map(|material| material.file)
            .collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}
