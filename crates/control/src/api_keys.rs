//! API keys: 256 random bits that are shown once; only their hash is kept.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    ApiKeyId, ControlError, Registry, Scope, check_name,
    ids::random_bytes,
    records::ApiKeyRecord,
    registry::{API_KEY, read},
};

/// Most API keys; each request with one is a look-up in memory.
const API_KEYS_MAX: usize = 1_000;
/// What every secret starts with, so that people and scanners know one when they see it.
const PREFIX: &str = "sk-";

/// An API key as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyInfo {
    /// Its id.
    pub id: ApiKeyId,
    /// What it was called.
    pub name: String,
    /// What it may be used for.
    pub scope: Scope,
    /// When it was made; Unix time in milliseconds.
    pub created_ms: u64,
    /// When it was last used since the server's start; Unix time in milliseconds.
    pub used_ms: Option<u64>,
}

/// A new API key. Its secret is nowhere else.
pub struct IssuedApiKey {
    /// What lists will show.
    pub info: ApiKeyInfo,
    /// What the holder sends.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for IssuedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedApiKey")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// All API keys, by the hash of their secret.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys(HashMap<String, Arc<ApiKey>>);

#[derive(Debug)]
struct ApiKey {
    record: ApiKeyRecord,
    used_ms: AtomicU64,
}

impl ApiKeys {
    pub(crate) fn insert(&mut self, record: ApiKeyRecord) {
        let key = ApiKey {
            record,
            used_ms: AtomicU64::new(0),
        };
        self.0.insert(key.record.secret_sha256.clone(), Arc::new(key));
    }
}

impl ApiKey {
    fn info(&self) -> ApiKeyInfo {
        ApiKeyInfo {
            id: self.record.id.clone(),
            name: self.record.name.clone(),
            scope: self.record.scope.clone(),
            created_ms: self.record.created_ms,
            used_ms: Some(self.used_ms.load(Ordering::Relaxed)).filter(|&at| at != 0),
        }
    }
}

fn hash(secret: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

impl Registry {
    /// Whether a secret looks like an API key's.
    #[must_use]
    pub fn is_api_key(secret: &str) -> bool {
        secret.starts_with(PREFIX)
    }
    /// Makes an API key.
    ///
    /// # Errors
    /// [`ControlError::Malformed`], [`ControlError::ProjectNotFound`], [`ControlError::Limit`], [`ControlError::Store`].
    pub async fn create_api_key(&self, name: &str, scope: Scope, now_ms: u64) -> Result<IssuedApiKey, ControlError> {
        check_name("API key name", name)?;
        let _changes = self.changes.lock().await;
        if let Scope::Project(project) = &scope {
            self.project(project.as_str())?;
        }
        if read(&self.state).api_keys.0.len() >= API_KEYS_MAX {
            return Err(ControlError::Limit {
                what: "API keys",
                limit: API_KEYS_MAX,
                remedy: "revoke one that nobody uses with `saker api-key revoke`",
            });
        }
        let random = Zeroizing::new(random_bytes::<32>()?);
        let secret = Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(URL_SAFE_NO_PAD.encode(*random))));
        let record = ApiKeyRecord {
            id: ApiKeyId::random()?,
            name: name.to_owned(),
            scope,
            created_ms: now_ms,
            secret_sha256: hash(&secret),
        };
        self.save(API_KEY, record.id.as_str(), Some(&record)).await?;
        let info = ApiKeyInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            scope: record.scope.clone(),
            created_ms: now_ms,
            used_ms: None,
        };
        self.write().api_keys.insert(record);
        Ok(IssuedApiKey { info, secret })
    }
    /// All API keys, oldest first.
    #[must_use]
    pub fn api_keys(&self) -> Vec<ApiKeyInfo> {
        let mut keys: Vec<_> = read(&self.state).api_keys.0.values().map(|key| key.info()).collect();
        keys.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        keys
    }
    /// Makes an API key worthless, at once and for good.
    ///
    /// # Errors
    /// [`ControlError::ApiKeyNotFound`], [`ControlError::Store`].
    pub async fn revoke_api_key(&self, id: &str) -> Result<ApiKeyInfo, ControlError> {
        let _changes = self.changes.lock().await;
        let found = read(&self.state)
            .api_keys
            .0
            .values()
            .find(|key| key.record.id.as_str() == id)
            .cloned();
        let found = found.ok_or_else(|| ControlError::ApiKeyNotFound(shown(id)))?;
        // Out of memory first: it must not serve while it is taken off the disk.
        self.write().api_keys.0.remove(&found.record.secret_sha256);
        if let Err(error) = self.save::<ApiKeyRecord>(API_KEY, id, None).await {
            self.write()
                .api_keys
                .0
                .insert(found.record.secret_sha256.clone(), found);
            return Err(error);
        }
        Ok(found.info())
    }
    /// Whose secret this is, if it is an API key's.
    #[must_use]
    pub fn authenticate(&self, secret: &str, now_ms: u64) -> Option<ApiKeyInfo> {
        // A look-up by hash tells nothing about how much of a wrong secret was right.
        let state = read(&self.state);
        let key = state.api_keys.0.get(&hash(secret))?;
        key.used_ms.store(now_ms, Ordering::Relaxed);
        Some(key.info())
    }
}

/// A caller's text as it may stand in a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}
