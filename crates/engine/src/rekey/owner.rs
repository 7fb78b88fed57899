//! What a zone belongs to: a database with the collections under its key, or one collection with a key of its own.

use std::sync::Arc;

use saker_keyring::{ZoneRecord, ZoneRecordError};
use saker_model::{CollectionId, DatabaseId};
use saker_storage::{Expected, MetaBatch};

use super::{commit_settled, job::JobRecord};
use crate::{
    collection::Collection,
    database::Database,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    records::meta_key,
    shared::Shared,
    zones::Access,
};

/// What stands for a database's id in a job for the cluster's own zone.
pub(super) const PLATFORM: DatabaseId = DatabaseId(0);

/// The owner of a zone.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    Database(Arc<Database>),
    Collection(Arc<Collection>),
    /// The cluster's own: the catalog, the audit log.
    Platform(Arc<Shared>),
}

/// A zone's wrapped keys, as its owner's record holds them.
#[derive(Clone, Debug)]
pub(super) struct Wrapped {
    pub(super) zone: ZoneRecord,
    pub(super) retiring: Option<ZoneRecord>,
}

impl Owner {
    pub(super) fn access(&self) -> Arc<Access> {
        match self {
            Self::Database(database) => Arc::clone(&database.access),
            Self::Collection(collection) => collection.access(),
            Self::Platform(shared) => Arc::clone(&shared.platform),
        }
    }
    pub(super) fn database_id(&self) -> DatabaseId {
        match self {
            Self::Database(database) => database.id,
            Self::Collection(collection) => collection.record().database,
            Self::Platform(_) => PLATFORM,
        }
    }
    pub(super) fn collection_id(&self) -> Option<CollectionId> {
        match self {
            Self::Database(_) | Self::Platform(_) => None,
            Self::Collection(collection) => Some(collection.id),
        }
    }
    /// The collections that are sealed under the zone, once those that are being made are there.
    pub(super) async fn collections(&self) -> Vec<Arc<Collection>> {
        match self {
            Self::Database(database) => {
                let _changes = database.changes.lock().await;
                database.under_its_key()
            }
            Self::Collection(collection) => vec![Arc::clone(collection)],
            Self::Platform(_) => Vec::new(),
        }
    }
    /// Whether it is there still.
    pub(super) fn is_there(&self, engine: &Engine) -> bool {
        let databases = engine.databases();
        match self {
            Self::Database(database) => databases.values().any(|other| Arc::ptr_eq(other, database)),
            Self::Collection(collection) => databases.values().any(|database| {
                database
                    .names()
                    .collections
                    .values()
                    .any(|other| Arc::ptr_eq(other, collection))
            }),
            Self::Platform(_) => true,
        }
    }

    /// Changes the wrapped keys, durably and together with what is in `batch`. With `destroy`, the metadata file keeps
    /// nothing of what was there before. What was stored.
    ///
    /// # Errors
    /// If the owner is gone, the catalog's zone is locked, or the store fails.
    pub(super) async fn store(
        &self,
        shared: &Shared,
        mut batch: MetaBatch,
        destroy: bool,
        change: impl FnOnce(&mut Wrapped, &mut bool) + Send,
    ) -> Result<Wrapped> {
        let mut stored = None;
        match self {
            Self::Database(database) => {
                if destroy {
                    batch.delete(meta_key("database", database.id)?);
                }
                let change = |record: &mut crate::records::DatabaseRecord| {
                    let mut wrapped = Wrapped {
                        zone: record.zone.clone(),
                        retiring: record.retiring.clone(),
                    };
                    change(&mut wrapped, &mut record.customer_key);
                    record.zone = wrapped.zone.clone();
                    record.retiring = wrapped.retiring.clone();
                    stored = Some(wrapped);
                };
                database.change_record(shared, batch, change).await?;
            }
            Self::Collection(collection) => {
                if destroy {
                    batch.delete(meta_key("collection", collection.id)?);
                }
                let change = |record: &mut crate::records::CollectionRecord| {
                    let Some(zone) = record.zone.clone() else { return };
                    let mut wrapped = Wrapped {
                        zone,
                        retiring: record.retiring.clone(),
                    };
                    change(&mut wrapped, &mut true);
                    record.zone = Some(wrapped.zone.clone());
                    record.retiring = wrapped.retiring.clone();
                    stored = Some(wrapped);
                };
                collection.change_record_for_good(batch, change).await?;
            }
            Self::Platform(_) => stored = Some(store_platform(shared, batch, destroy, change).await?),
        }
        stored.ok_or_else(|| Error::internal("a collection with a zone of its own has none"))
    }
}

/// The cluster's own zone: its record is the one value that is not sealed.
async fn store_platform(
    shared: &Shared,
    mut batch: MetaBatch,
    destroy: bool,
    change: impl FnOnce(&mut Wrapped, &mut bool),
) -> Result<Wrapped> {
    let key = meta_key("cluster", "platform")?;
    let before = shared.meta.get(&key).await?;
    let before = before.ok_or_else(|| Error::internal("the platform zone has no record"))?;
    let damaged = |error: ZoneRecordError| Error::new(ErrorKind::Corrupt, error.to_string());
    let mut wrapped = Wrapped {
        zone: ZoneRecord::from_bootstrap_value(&before).map_err(damaged)?,
        retiring: None,
    };
    change(&mut wrapped, &mut false);
    let value = wrapped.zone.to_bootstrap_value().map_err(damaged)?;
    batch.expect(key.clone(), Expected::Value(before));
    if destroy {
        batch.delete(key.clone());
    }
    batch.put(key.clone(), value.clone());
    commit_settled(shared, batch, &key, &value.into_unverified()).await?;
    Ok(wrapped)
}

impl Engine {
    /// The owner of a zone, by name.
    ///
    /// # Errors
    /// If there is no such database or collection, or the collection is under its database's key.
    pub(super) fn owner(&self, database: &str, collection: Option<&str>) -> Result<Owner> {
        let database = self.database(database)?;
        let Some(name) = collection.filter(|name| !name.is_empty()) else {
            return Ok(Owner::Database(database));
        };
        let collection = database.collection(name)?;
        if !collection.own_key {
            return Err(Error::invalid(format!(
                "collection {name} is under the key of its database {}; name the database alone",
                database.name()
            )));
        }
        Ok(Owner::Collection(collection))
    }

    /// All zones but the catalog's own.
    pub(super) fn owners(&self) -> Vec<Owner> {
        let mut owners = Vec::new();
        for database in self.databases().values() {
            owners.push(Owner::Database(Arc::clone(database)));
            let names = database.names();
            let own = names.collections.values().filter(|collection| collection.own_key);
            owners.extend(own.cloned().map(Owner::Collection));
        }
        owners
    }

    /// The owner that a job is for, if it is there.
    pub(super) fn owner_of(&self, record: &JobRecord) -> Option<Owner> {
        let databases = self.databases();
        match record.collection {
            None if record.database == PLATFORM => Some(Owner::Platform(Arc::clone(&self.shared))),
            // A collection with a key of its own may have moved to another database since.
            Some(id) => databases.values().find_map(|database| {
                let names = database.names();
                names
                    .collections
                    .values()
                    .find(|collection| collection.id == id)
                    .cloned()
                    .map(Owner::Collection)
            }),
            None => databases
                .values()
                .find(|database| database.id == record.database)
                .cloned()
                .map(Owner::Database),
        }
    }
}
