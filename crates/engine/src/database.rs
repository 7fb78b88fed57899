//! Databases: each an encryption zone. Making, dropping, describing them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use saker_keyring::{RootKeyId, Unverified};
use saker_model::{CollectionSchema, DatabaseId, Limits, Timestamp};
use saker_storage::{Expected, MetaBatch};

use crate::{
    cipher::{self, Cipher},
    collection::Collection,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    receipts::{Receipt, ReceiptKind, zone_keys},
    records::{DatabaseRecord, meta_key, seal},
    rekey::commit_settled,
    shared::Shared,
    types::{DatabaseInfo, Properties},
    zones::{Access, ZoneOwner},
};

/// A database in the running engine.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) id: DatabaseId,
    pub(crate) access: Arc<Access>,
    /// A database keeps its name.
    name: String,
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
            name: record.name.clone(),
            created: record.created,
            details: RwLock::new(Details { record, stored }),
            names: RwLock::default(),
            changes: tokio::sync::Mutex::new(()),
        })
    }
    pub(crate) fn name(&self) -> &str {
        &self.name
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
    /// Collections without a key of their own.
    pub(crate) fn under_its_key(&self) -> Vec<Arc<Collection>> {
        let names = self.names();
        let under = |collection: &&Arc<Collection>| Arc::ptr_eq(&collection.access(), &self.access);
        names.collections.values().filter(under).cloned().collect()
    }
    /// Changes the record, durably and together with what is in `batch`.
    ///
    /// # Errors
    /// If the catalog's zone is locked or the store fails.
    pub(crate) async fn change_record(
        &self,
        shared: &Shared,
        mut batch: MetaBatch,
        change: impl FnOnce(&mut DatabaseRecord) + Send,
    ) -> Result<()> {
        let _changes = self.changes.lock().await;
        let (mut record, stored) = {
            let details = self.details.read().unwrap_or_else(PoisonError::into_inner);
            (details.record.clone(), details.stored.clone())
        };
        change(&mut record);
        let key = meta_key("database", self.id)?;
        let value = seal(&shared.platform_lease()?, &key, &record).map_err(|error| shared.platform.explain(error))?;
        batch
            .expect(key.clone(), Expected::Value(stored))
            .put(key.clone(), value.clone());
        let stored = value.into_unverified();
        commit_settled(shared, batch, &key, &stored).await?;
        *self.details.write().unwrap_or_else(PoisonError::into_inner) = Details { record, stored };
        Ok(())
    }
    fn describe(&self) -> DatabaseInfo {
        let details = self.details.read().unwrap_or_else(PoisonError::into_inner);
        let mut properties = details.record.properties.clone();
        if details.record.customer_key {
            cipher::show(&self.access, &mut properties);
        }
        DatabaseInfo {
            id: self.id,
            name: self.name().to_owned(),
            created: self.created,
            properties,
            root: self.access.root(),
            customer_key: details.record.customer_key,
            key_versions: self.access.describe().keys,
            lock: self.access.status(),
        }
    }
}

impl ZoneOwner for Database {
    fn went_dark(&self) {
        self.under_its_key().iter().for_each(|collection| collection.close());
    }
    fn came_back(self: Arc<Self>) {
        self.under_its_key()
            .iter()
            .filter(|collection| collection.record().load_wanted)
            .for_each(Collection::start_load);
    }
}

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
        let cipher = Cipher::of_database(&properties, self.shared.config.default_key.as_ref())?;
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
            Cipher::Platform => (self.shared.platform.root(), false),
        };
        let properties = cipher::without(properties);
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
        let zone = self.new_zone(&root).await?;
        let record = DatabaseRecord {
            id: DatabaseId(self.shared.oracle.id()),
            name: name.to_owned(),
            created: self.shared.oracle.now(),
            zone: zone.record.clone(),
            customer_key,
            properties,
            dropping: false,
            retiring: None,
        };
        let key = meta_key("database", record.id)?;
        let value = seal(&platform, &key, &record).map_err(|error| self.shared.platform.explain(error))?;
        let stored = value.clone().into_unverified();
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Absent).put(key, value);
        self.shared.meta.commit(batch).await?;
        let access = self.use_zone(zone, name, None)?;
        let database = Database::new(record, stored, access);
        self.adopt(&database.access, Arc::downgrade(&database) as Weak<dyn ZoneOwner>);
        Ok(database)
    }

    /// Drops an empty database: its wrapped keys are destroyed first, then its name is free. The receipt says which.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`]; [`ErrorKind::InvalidParameter`] for the default one or one with collections.
    pub async fn drop_database(self: &Arc<Self>, name: &str) -> Result<Receipt> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        // On a task of its own: what is begun goes to its end, whoever waits.
        let task = self
            .shared
            .tasks
            .spawn(async move { this.drop_named_database(&name).await });
        task.await
            .unwrap_or_else(|_| Err(Error::internal("the drop was lost; see the server's log")))
    }

    async fn drop_named_database(&self, name: &str) -> Result<Receipt> {
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
        let zones = {
            let details = database.details.read().unwrap_or_else(PoisonError::into_inner);
            [Some(details.record.zone.clone()), details.record.retiring.clone()]
        };
        let mut receipt = Receipt::begun(&self.shared, ReceiptKind::Database, &database);
        receipt.zone_keys = zones.iter().flatten().flat_map(zone_keys).collect();
        receipt.finish(&self.shared);
        let mut batch = MetaBatch::new();
        // The wrapped zone keys are in this value and nowhere else.
        batch.delete(meta_key("database", database.id)?);
        self.put_receipt(&mut batch, &receipt).await?;
        self.shared.meta.commit(batch).await?;
        database.access.zone.lock();
        self.disown(&database.access);
        self.databases_mut().remove(name);
        self.shared.emit(&Event::DatabaseDropped {
            database: name.to_owned(),
        });
        receipt.keep_on_record(&self.shared).await;
        let mut batch = MetaBatch::new();
        self.put_receipt(&mut batch, &receipt).await?;
        if let Err(error) = self.shared.meta.commit(batch).await {
            // The database is gone and so are its keys; the receipt is there without its place in the audit log.
            tracing::warn!(
                receipt = receipt.id,
                "the receipt's place in the audit log was not stored: {error}"
            );
        }
        Ok(receipt)
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
        cipher::refuse_change(
            set.keys().chain(&delete),
            "a database's key is changed with `saker key change`",
        )?;
        let database = self.database(name)?;
        database
            .change_record(&self.shared, MetaBatch::new(), |record| {
                record.properties.extend(set);
                record.properties.retain(|key, _| !delete.contains(key));
            })
            .await
    }
}
