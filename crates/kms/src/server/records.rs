//! What the server keeps: keys with their materials, aliases, roles, users.

use std::collections::BTreeMap;

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
    /// 32 key bytes sealed under the root secret, bound to key id and version, in hexadecimal.
    pub(super) sealed: String,
}

/// A name for a key, with its `alias/` prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Alias {
    pub(super) key: String,
    pub(super) created_ms: Milliseconds,
    pub(super) updated_ms: Milliseconds,
}

/// A role that users may assume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Role {
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
#[derive(Clone, Default)]
pub(super) struct Records {
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) aliases: BTreeMap<String, Alias>,
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) users: BTreeMap<String, User>,
}

impl Drop for User {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}
