//! Databases: each an encryption zone. Making, dropping, describing them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use saker_keyring::{
    CallReason, EncryptionContext, KeyPurpose, KeyServiceError, RootKeyId, Unverified, Zone, ZoneId, ZoneKeyVersion,
    ZoneRecord,
};
use saker_model::{CollectionSchema, DatabaseId, Limits, Timestamp};
use saker_storage::{Expected, MetaBatch};

use crate::{
    collection::Collection,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    records::{DatabaseRecord, meta_key, seal},
    types::{DatabaseInfo, Properties},
    zones::{Access, ZoneOwner, bounded, decrypt_all, reason_of},
};

/// A database in the running engine.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) id: DatabaseId,
    pub(crate) access: Arc<Access>,
    pub(crate) customer_key: bool,
    created: Timestamp,
    details: RwLock<Details>,
    names: RwLock<Names>,
    /// Held while names change.
    pub(crate) changes: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Details {
    record: DatabaseRecord,
    stored: Unverified,
}

/// Collections by name and by alias.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) collections: BTreeMap<String, Arc<Collection>>,
    pub(crate) aliases: BTreeMap<String, Arc<Collection>>,
}

impl Database {
    pub(crate) fn new(record: DatabaseRecord, stored: Unverified, access: Arc<Access>) -> Arc<Self> {
        Arc::new(Self {
            id: record.id,
            access,
            customer_key: record.customer_key,
            created: record.created,
            details: RwLock::new(Details { record, stored }),
            names: RwLock::default(),
            changes: tokio::sync::Mutex::new(()),
        })
    }
    pub(crate) fn name(&self) -> &str {
        &self.access.name
    }
    pub(crate) fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn names_mut(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// A collection by name or alias.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`].
    pub(crate) fn collection(&self, name: &str) -> Result<Arc<Collection>> {
        let names = self.names();
        let found = names.collections.get(name).or_else(|| names.aliases.get(name));
        found
            .cloned()
            .ok_or_else(|| Error::collection_not_found(self.name(), name))
    }
    fn describe(&self) -> DatabaseInfo {
        let details = self.details.read().unwrap_or_else(PoisonError::into_inner);
        let mut properties = details.record.properties.clone();
        if self.customer_key {
            properties.insert(CIPHER_ENABLED.to_owned(), "true".to_owned());
            properties.insert(CIPHER_KEY.to_owned(), self.access.root.to_string());
            properties.insert(CIPHER_ZONE.to_owned(), self.access.zone.id().to_string());
        }
        DatabaseInfo {
            id: self.id,
            name: self.name().to_owned(),
            created: self.created,
            properties,
            root: self.access.root.clone(),
            customer_key: self.customer_key,
            lock: self.access.status(),
        }
    }
}

impl ZoneOwner for Database {
    fn went_dark(&self) {
        let collections: Vec<_> = self.names().collections.values().cloned().collect();
        collections.iter().for_each(|collection| collection.close());
    }
    fn came_back(self: Arc<Self>) {
        let collections: Vec<_> = self.names().collections.values().cloned().collect();
        collections
            .iter()
            .filter(|collection| collection.record().load_wanted)
            .for_each(Collection::start_load);
    }
}

const CIPHER_PREFIX: &str = "cipher.";
const CIPHER_ENABLED: &str = "cipher.enabled";
const CIPHER_KEY: &str = "cipher.key";
const CIPHER_ZONE: &str = "cipher.ezID";
/// The database that is always there.
pub(crate) const DEFAULT_DATABASE: &str = "default";

impl Engine {
    /// Makes a database, under the customer's root key if `cipher.key` or a default key is given. The key is tried
    /// (`GenerateDataKey`, `Decrypt`) before anything is stored.
    ///
    /// # Errors
    /// A bad name or property; [`ErrorKind::DatabaseAlreadyExists`]; [`ErrorKind::KeyUnusable`].
    pub async fn create_database(&self, name: &str, properties: Properties) -> Result<DatabaseInfo> {
        CollectionSchema::check_name("database", name).map_err(|error| Error::invalid(error.to_string()))?;
        let cipher = Cipher::parse(&properties, self.shared.config.default_key.as_ref())?;
        let _changes = self.changes.lock().await;
        if self.databases().contains_key(name) {
            return Err(Error::new(
                ErrorKind::DatabaseAlreadyExists,
                format!("database already exist: {name}; choose another name"),
            ));
        }
        if self.databases().len() > Limits::DATABASES_MAX {
            return Err(Error::new(
                ErrorKind::QuotaExceeded,
                format!("exceeded the limit number of database, limit={}", Limits::DATABASES_MAX),
            ));
        }
        let (root, customer_key) = match cipher {
            Cipher::Customer(root) => (root, true),
            Cipher::Platform => (self.shared.platform.root.clone(), false),
        };
        let properties = properties
            .into_iter()
            .filter(|(key, _)| !key.starts_with(CIPHER_PREFIX))
            .collect();
        let database = self.new_database(name, root, customer_key, properties).await?;
        let info = database.describe();
        self.databases_mut().insert(name.to_owned(), database);
        self.shared.emit(&Event::DatabaseCreated {
            database: name.to_owned(),
            root: info.root.clone(),
        });
        Ok(info)
    }

    /// Makes a zone, tries its key and stores the database. The caller holds the catalog's lock.
    pub(crate) async fn new_database(
        &self,
        name: &str,
        root: RootKeyId,
        customer_key: bool,
        properties: Properties,
    ) -> Result<Arc<Database>> {
        let platform = self.shared.platform_lease()?;
        let zone = Zone::locked(ZoneId::random());
        let context = EncryptionContext {
            cluster: self.shared.cluster.clone(),
            database: zone.id().to_string(),
            purpose: KeyPurpose::ZoneKey,
        };
        let used = |operation, ok| {
            self.shared.emit(&Event::KeyUsed {
                root: root.clone(),
                operation,
                ok,
            });
        };
        let generated = bounded(
            &root,
            self.shared
                .keys
                .generate_data_key(&root, &context, CallReason::CreateZone),
        )
        .await;
        used("GenerateDataKey", generated.is_ok());
        let generated = generated.map_err(|error| unusable(&root, &error))?;
        let versions = vec![(ZoneKeyVersion::FIRST, generated.wrapped)];
        let record = ZoneRecord {
            zone: zone.id(),
            root: root.clone(),
            context,
            versions,
        };
        let keys = decrypt_all(&*self.shared.keys, &record, CallReason::CreateZone).await;
        used("Decrypt", keys.is_ok());
        let keys = keys.map_err(|error| unusable(&root, &error))?;
        if keys
            .iter()
            .any(|(_, key)| key.expose_bytes() != generated.plain.expose_bytes())
        {
            return Err(Error::new(
                ErrorKind::KeyUnusable { root: root.clone() },
                format!("the key service gave back another key than it made under {root}; do not use this key service"),
            ));
        }
        let record = DatabaseRecord {
            id: DatabaseId(self.shared.oracle.id()),
            name: name.to_owned(),
            created: self.shared.oracle.now(),
            zone: record,
            customer_key,
            properties,
            dropping: false,
        };
        let key = meta_key("database", record.id)?;
        let value = seal(&platform, &key, &record).map_err(|error| self.shared.platform.explain(error))?;
        let stored = value.clone().into_unverified();
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Absent).put(key, value);
        self.shared.meta.commit(batch).await?;
        zone.unlock(keys).map_err(|error| Error::internal(error.to_string()))?;
        let watcher = self.watcher(&root);
        watcher.confirmed();
        let access = Access::new(name, zone, record.zone.clone(), &watcher);
        let database = Database::new(record, stored, access);
        self.adopt(&database);
        Ok(database)
    }

    /// Drops an empty database: its wrapped keys are destroyed first, then its name is free.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`]; [`ErrorKind::InvalidParameter`] for the default one or one with collections.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        if name == DEFAULT_DATABASE {
            return Err(Error::invalid("can not drop default database"));
        }
        let _changes = self.changes.lock().await;
        let database = self.database(name)?;
        let _names = database.changes.lock().await;
        if !database.names().collections.is_empty() {
            return Err(Error::invalid(format!(
                "database:{name} not empty, must drop all collections before drop database"
            )));
        }
        let mut batch = MetaBatch::new();
        // The wrapped zone keys are in this value and nowhere else.
        batch.delete(meta_key("database", database.id)?);
        self.shared.meta.commit(batch).await?;
        database.access.zone.lock();
        self.disown(&database);
        self.databases_mut().remove(name);
        self.shared.emit(&Event::DatabaseDropped {
            database: name.to_owned(),
        });
        Ok(())
    }

    /// All databases, by name.
    ///
    /// # Errors
    /// None at present.
    pub async fn list_databases(&self) -> Result<Vec<DatabaseInfo>> {
        Ok(self.databases().values().map(|database| database.describe()).collect())
    }

    /// One database.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub async fn describe_database(&self, name: &str) -> Result<DatabaseInfo> {
        Ok(self.database(name)?.describe())
    }

    /// Sets and deletes user properties; `cipher.*` is refused.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`], [`ErrorKind::InvalidParameter`].
    pub async fn alter_database(&self, name: &str, set: Properties, delete: Vec<String>) -> Result<()> {
        if let Some(key) = set.keys().chain(&delete).find(|key| key.starts_with(CIPHER_PREFIX)) {
            return Err(Error::invalid(format!(
                "can not alter cipher related properties: {key}; a database keeps its key"
            )));
        }
        let database = self.database(name)?;
        let _changes = database.changes.lock().await;
        let (mut record, stored) = {
            let details = database.details.read().unwrap_or_else(PoisonError::into_inner);
            (details.record.clone(), details.stored.clone())
        };
        record.properties.extend(set);
        record.properties.retain(|key, _| !delete.contains(key));
        let key = meta_key("database", database.id)?;
        let lease = self.shared.platform_lease()?;
        let value = seal(&lease, &key, &record).map_err(|error| self.shared.platform.explain(error))?;
        let mut batch = MetaBatch::new();
        batch
            .expect(key.clone(), Expected::Value(stored))
            .put(key, value.clone());
        self.shared.meta.commit(batch).await?;
        let mut details = database.details.write().unwrap_or_else(PoisonError::into_inner);
        *details = Details {
            record,
            stored: value.into_unverified(),
        };
        Ok(())
    }
}

/// Whose key a new database goes under.
enum Cipher {
    Customer(RootKeyId),
    Platform,
}

impl Cipher {
    /// Reads `cipher.enabled` and `cipher.key`. A key is never ignored.
    fn parse(properties: &Properties, default: Option<&RootKeyId>) -> Result<Self> {
        let known = [CIPHER_ENABLED, CIPHER_KEY];
        if let Some(key) = properties
            .keys()
            .find(|key| key.starts_with(CIPHER_PREFIX) && !known.contains(&key.as_str()))
        {
            return Err(Error::invalid(format!(
                "property {key} is set by the server; give cipher.enabled and cipher.key only"
            )));
        }
        let enabled = match properties.get(CIPHER_ENABLED).map(|text| text.to_ascii_lowercase()) {
            None => None,
            Some(text) if text == "true" => Some(true),
            Some(text) if text == "false" => Some(false),
            Some(_) => return Err(Error::invalid("cipher.enabled must be \"true\" or \"false\"")),
        };
        let key = match properties
            .get(CIPHER_KEY)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
        {
            None => None,
            Some(text) => Some(text.parse::<RootKeyId>().map_err(|error| {
                let shown: String = text.chars().take(256).collect();
                Error::invalid(format!("cipher.key {shown:?} cannot be used: {error}"))
            })?),
        };
        match (enabled, key, default) {
            (Some(false), Some(key), _) => Err(Error::invalid(format!(
                "cipher.key {key} is given but cipher.enabled is \"false\"; set cipher.enabled to \"true\" or leave the key out"
            ))),
            (Some(false), None, _) | (None, None, None) => Ok(Self::Platform),
            (Some(true) | None, Some(key), _) if key == RootKeyId::platform_file() => Err(Error::invalid(
                "cipher.key must be a customer's key; leave it out for the platform key",
            )),
            (Some(true) | None, Some(key), _) => Ok(Self::Customer(key)),
            (Some(true) | None, None, Some(default)) => Ok(Self::Customer(default.clone())),
            (Some(true), None, None) => Err(Error::invalid(
                "cipher.enabled is \"true\" but there is no cipher.key and the server has no default key; \
                 give the key's ARN as cipher.key",
            )),
        }
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
