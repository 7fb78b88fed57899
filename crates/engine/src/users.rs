//! Users and their opaque password hashes, sealed in the catalog. What a hash means is the server's business.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use saker_keyring::{FileId, Lease};
use saker_storage::{MetaBatch, MetaKey};

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
    records::{self, UserRecord, meta_key, seal},
    shared::Shared,
};

/// All users, in memory: a request's password is checked without a read.
#[derive(Default)]
pub(crate) struct Users(RwLock<BTreeMap<String, User>>);

struct User {
    key: MetaKey,
    password_hash: String,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Users([redacted])")
    }
}

/// Most users (Milvus: 100).
const USERS_MAX: usize = 1_000;

impl Users {
    pub(crate) async fn load(shared: &Shared, lease: &Lease) -> Result<Self> {
        let mut users = BTreeMap::new();
        for (key, value) in shared.meta.scan("user/").await? {
            let record: UserRecord = records::open(lease, &key, &value)?;
            users.insert(
                record.name,
                User {
                    key,
                    password_hash: record.password_hash,
                },
            );
        }
        Ok(Self(RwLock::new(users)))
    }
    fn key(&self, name: &str) -> Option<MetaKey> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .map(|user| user.key.clone())
    }
}

impl Engine {
    /// Adds a user with an opaque password hash.
    ///
    /// # Errors
    /// [`ErrorKind::CredentialAlreadyExists`], [`ErrorKind::InvalidParameter`].
    pub async fn create_credential(&self, user: &str, password_hash: &str) -> Result<()> {
        let _changes = self.changes.lock().await;
        if user.is_empty() || user.len() > saker_model::Limits::NAME_BYTES_MAX {
            return Err(Error::invalid("username must be 1 to 255 bytes long"));
        }
        if self.users.key(user).is_some() {
            return Err(Error::new(
                ErrorKind::CredentialAlreadyExists,
                format!("user already exists: {user}"),
            ));
        }
        if self.users.0.read().unwrap_or_else(PoisonError::into_inner).len() >= USERS_MAX {
            return Err(Error::new(
                ErrorKind::QuotaExceeded,
                format!("there are {USERS_MAX} users already, the limit"),
            ));
        }
        self.put_user(meta_key("user", FileId::random())?, user, password_hash)
            .await
    }

    /// Changes a user's password hash.
    ///
    /// # Errors
    /// [`ErrorKind::CredentialNotFound`].
    pub async fn update_credential(&self, user: &str, password_hash: &str) -> Result<()> {
        let _changes = self.changes.lock().await;
        let key = self.users.key(user).ok_or_else(|| not_found(user))?;
        self.put_user(key, user, password_hash).await
    }

    /// Deletes a user; one that is not there is fine.
    ///
    /// # Errors
    /// As of the store.
    pub async fn delete_credential(&self, user: &str) -> Result<()> {
        let _changes = self.changes.lock().await;
        let Some(key) = self.users.key(user) else { return Ok(()) };
        let mut batch = MetaBatch::new();
        batch.delete(key);
        self.shared.meta.commit(batch).await?;
        self.users
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(user);
        Ok(())
    }

    /// All users, by name.
    ///
    /// # Errors
    /// None at present.
    pub async fn list_credentials(&self) -> Result<Vec<String>> {
        Ok(self
            .users
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect())
    }

    /// A user's password hash; from memory, cheap.
    #[must_use]
    pub fn credential(&self, user: &str) -> Option<String> {
        let users = self.users.0.read().unwrap_or_else(PoisonError::into_inner);
        users.get(user).map(|user| user.password_hash.clone())
    }

    async fn put_user(&self, key: MetaKey, name: &str, password_hash: &str) -> Result<()> {
        let record = UserRecord {
            name: name.to_owned(),
            password_hash: password_hash.to_owned(),
        };
        let value = seal(&self.shared.platform_lease()?, &key, &record)?;
        let mut batch = MetaBatch::new();
        batch.put(key.clone(), value);
        self.shared.meta.commit(batch).await?;
        let user = User {
            key,
            password_hash: record.password_hash,
        };
        self.users
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.name, user);
        Ok(())
    }
}

fn not_found(user: &str) -> Error {
    Error::new(ErrorKind::CredentialNotFound, format!("user not found: {user}"))
}
