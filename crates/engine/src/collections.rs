//! Making, dropping, describing and loading collections.

use std::{collections::BTreeMap, sync::Arc};

use saker_model::{CollectionId, CollectionSchema, DataType, FieldId, FieldSchema, Limits, PartitionId};
use saker_storage::{Expected, MetaBatch};

use crate::{
    collection::Collection,
    database::Database,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    opened::Opened,
    records::{self, CollectionBody, CollectionRecord, Manifest, PartitionRecord, meta_key, seal},
    types::{CollectionInfo, CollectionSpec, CollectionSummary, FlushedCollection, LoadState, Properties, SegmentInfo},
};

/// Name of the partition that is always there.
pub(crate) const DEFAULT_PARTITION: &str = "_default";
/// Partitions that a partition key is spread over if the user says nothing (Milvus: 16).
const KEY_PARTITIONS: usize = 16;

impl Engine {
    /// Makes a collection. The same definition again is fine; another one under the same name is refused.
    ///
    /// # Errors
    /// A bad schema; [`ErrorKind::DatabaseNotFound`]; [`ErrorKind::CollectionAlreadyExists`]; a locked zone.
    pub async fn create_collection(&self, database: &str, spec: CollectionSpec) -> Result<CollectionInfo> {
        let database = self.database(database)?;
        let schema = numbered(spec.schema.clone())?;
        let lease = database.access.lease()?;
        let platform = self.shared.platform_lease()?;
        let _changes = database.changes.lock().await;
        let name = schema.name.clone();
        if database.names().aliases.contains_key(&name) {
            return Err(Error::new(
                ErrorKind::AliasAlreadyExists,
                format!(
                    "collection name [{name}] conflicts with an existing alias, alias and collection name conflict"
                ),
            ));
        }
        let existing = database.names().collections.get(&name).cloned();
        if let Some(existing) = existing {
            return same_or_refused(&database, &existing, &schema).await;
        }
        if database.names().collections.len() >= Limits::COLLECTIONS_MAX {
            let limit = Limits::COLLECTIONS_MAX;
            return Err(Error::new(
                ErrorKind::QuotaExceeded,
                format!("exceeded the limit number of collections, limit={limit}"),
            ));
        }
        let oracle = &self.shared.oracle;
        let (id, created) = (CollectionId(oracle.id()), oracle.now());
        let partitions = match schema.fields.iter().any(|field| field.is_partition_key) {
            false => vec![DEFAULT_PARTITION.to_owned()],
            true => {
                let count = spec.partitions.unwrap_or(KEY_PARTITIONS);
                if count == 0 || count > Limits::PARTITIONS_MAX {
                    let limit = Limits::PARTITIONS_MAX;
                    return Err(Error::invalid(format!(
                        "num_partitions must be 1 to {limit}, it is {count}"
                    )));
                }
                (0..count)
                    .map(|number| format!("{DEFAULT_PARTITION}_{number}"))
                    .collect()
            }
        };
        let body = CollectionBody {
            schema,
            shards: spec.shards.max(1),
            consistency: spec.consistency,
            properties: spec.properties,
            partitions: partitions
                .into_iter()
                .map(|name| PartitionRecord {
                    id: PartitionId(oracle.id()),
                    name,
                    created,
                })
                .collect(),
            indexes: Vec::new(),
            updated: created,
        };
        let record = CollectionRecord {
            id,
            database: database.id,
            name: name.clone(),
            created,
            aliases: Vec::new(),
            load_wanted: false,
            dropping: false,
        };
        let keys = (
            meta_key("collection", id)?,
            meta_key("body", id)?,
            meta_key("manifest", id)?,
        );
        let value = seal(&platform, &keys.0, &record).map_err(|error| self.shared.platform.explain(error))?;
        let explain = |error| database.access.explain(error);
        let mut batch = MetaBatch::new();
        batch
            .expect(keys.0.clone(), Expected::Absent)
            .put(keys.0, value.clone());
        batch.put(keys.1.clone(), seal(&lease, &keys.1, &body).map_err(explain)?);
        batch.put(
            keys.2.clone(),
            seal(&lease, &keys.2, &Manifest::first()).map_err(explain)?,
        );
        self.shared.meta.commit(batch).await?;
        let collection = Collection::new(&self.shared, &database.access, record, value.into_unverified());
        database
            .names_mut()
            .collections
            .insert(name.clone(), Arc::clone(&collection));
        self.shared.emit(&Event::CollectionCreated {
            database: database.name().to_owned(),
            collection: name,
        });
        Ok(describe(&database, &collection, &body))
    }

    /// Drops a collection; its wrapped keys are destroyed first. A missing one is fine (as in Milvus). Works while the
    /// database is locked.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`]; an alias is refused; a failed store, after which the drop is finished at the
    /// next start.
    pub async fn drop_collection(&self, database: &str, collection: &str) -> Result<()> {
        let database = self.database(database)?;
        let _changes = database.changes.lock().await;
        if database.names().aliases.contains_key(collection) {
            return Err(Error::invalid(format!(
                "cannot drop the collection via alias = {collection}"
            )));
        }
        let Some(found) = database.names().collections.get(collection).cloned() else {
            return Ok(());
        };
        found.change_record(|record| record.dropping = true).await?;
        {
            let mut names = database.names_mut();
            names.collections.remove(collection);
            names.aliases.retain(|_, target| !Arc::ptr_eq(target, &found));
        }
        found.close_for_drop().await;
        self.erase(found.id).await?;
        let event = Event::CollectionDropped {
            database: database.name().to_owned(),
            collection: collection.to_owned(),
        };
        self.shared.emit(&event);
        Ok(())
    }

    /// Whether there is a collection or alias of this name.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub async fn has_collection(&self, database: &str, collection: &str) -> Result<bool> {
        Ok(self.database(database)?.collection(collection).is_ok())
    }

    /// A collection by name or alias.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn describe_collection(&self, database: &str, collection: &str) -> Result<CollectionInfo> {
        let database = self.database(database)?;
        let collection = database.collection(collection)?;
        let body = read_body(&collection).await?;
        Ok(describe(&database, &collection, &body))
    }

    /// All collections of a database, by name; works while it is locked.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub async fn list_collections(&self, database: &str) -> Result<Vec<CollectionSummary>> {
        let database = self.database(database)?;
        let names = database.names();
        Ok(names
            .collections
            .values()
            .map(|collection| {
                let record = collection.record();
                let loaded = record.load_wanted;
                CollectionSummary {
                    id: record.id,
                    name: record.name,
                    created: record.created,
                    loaded,
                }
            })
            .collect())
    }

    /// Renames a collection. Into another database it is refused: a collection is sealed under its database's key.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a bad or taken name.
    pub async fn rename_collection(&self, database: &str, from: &str, new_database: &str, to: &str) -> Result<()> {
        CollectionSchema::check_name("collection", to).map_err(|error| Error::invalid(error.to_string()))?;
        let database = self.database(database)?;
        if !new_database.is_empty() && self.database(new_database)?.id != database.id {
            return Err(Error::invalid(
                "cannot rename a collection to another database: each database is encrypted under its own key",
            ));
        }
        let _changes = database.changes.lock().await;
        let collection = {
            let names = database.names();
            if names.aliases.contains_key(from) {
                return Err(Error::invalid(format!(
                    "unsupported use an alias to rename collection, alias:{from}"
                )));
            }
            if names.aliases.contains_key(to) || names.collections.contains_key(to) {
                return Err(Error::invalid(format!(
                    "duplicated new collection name {to} with other collection name or alias"
                )));
            }
            let found = names.collections.get(from).cloned();
            found.ok_or_else(|| Error::collection_not_found(database.name(), from))?
        };
        collection
            .change_record(|record| to.clone_into(&mut record.name))
            .await?;
        let mut names = database.names_mut();
        if let Some(collection) = names.collections.remove(from) {
            names.collections.insert(to.to_owned(), collection);
        }
        Ok(())
    }

    /// Sets and deletes user properties.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; `cipher.*` is refused; a locked zone.
    pub async fn alter_collection(
        &self,
        database: &str,
        collection: &str,
        set: Properties,
        delete: Vec<String>,
    ) -> Result<()> {
        if let Some(key) = set.keys().chain(&delete).find(|key| key.starts_with("cipher.")) {
            return Err(Error::invalid(format!(
                "can not alter cipher related properties: {key}"
            )));
        }
        let opened = self.collection(database, collection)?.open().await?;
        opened
            .change_body(|body| {
                body.properties.extend(set);
                body.properties.retain(|key, _| !delete.contains(key));
                Ok(())
            })
            .await
    }

    /// Deletes every row; definition, partitions and indexes stay.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn truncate_collection(&self, database: &str, collection: &str) -> Result<()> {
        self.collection(database, collection)?
            .open()
            .await?
            .remove_rows(None)
            .await
    }

    /// Starts to load; returns at once. See [`Self::load_state`].
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; [`ErrorKind::IndexNotFound`] if a vector field has no index (as in Milvus); a
    /// locked zone.
    pub async fn load_collection(&self, database: &str, collection: &str) -> Result<()> {
        let collection = self.collection(database, collection)?;
        let opened = collection.open().await?;
        let body = opened.body.load_full();
        for field in body.schema.vectors() {
            if !body.indexes.iter().any(|index| index.field == field.id) {
                return Err(Error::new(
                    ErrorKind::IndexNotFound,
                    format!(
                        "there is no vector index on field: [{}], please create index firstly",
                        field.name
                    ),
                ));
            }
        }
        if !collection.record().load_wanted {
            collection.change_record(|record| record.load_wanted = true).await?;
        }
        collection.start_load();
        Ok(())
    }

    /// Drops it from memory; searches are refused until it is loaded again. Works while the database is locked.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`].
    pub async fn release_collection(&self, database: &str, collection: &str) -> Result<()> {
        let collection = self.collection(database, collection)?;
        if collection.record().load_wanted {
            collection.change_record(|record| record.load_wanted = false).await?;
        }
        if let Some(opened) = collection.current() {
            opened.release().await;
        }
        Ok(())
    }

    /// How far loading is.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`].
    pub async fn load_state(&self, database: &str, collection: &str) -> Result<LoadState> {
        self.collection(database, collection)?.load_state()
    }

    /// Rows of the collection, or of one partition: exact while it is loaded; else without regard to deletes of rows
    /// that are in files.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`], [`ErrorKind::PartitionNotFound`]; a locked zone.
    pub async fn row_count(&self, database: &str, collection: &str, partition: Option<&str>) -> Result<u64> {
        let opened = self.collection(database, collection)?.open().await?;
        let partition = partition.map(|name| opened.partition(name)).transpose()?;
        let partitions = partition.map(|partition| vec![partition]);
        let mut rows = 0;
        if let Some(pinned) = opened.pin(partitions.as_deref()) {
            rows += pinned
                .iter()
                .map(|pin| pin.view.rows() - pin.view.deleted_rows())
                .sum::<usize>() as u64;
        } else {
            let state = opened.manifest.lock().await;
            let wanted = |of: PartitionId| partition.is_none_or(|partition| partition == of);
            rows += state
                .manifest
                .segments
                .iter()
                .filter(|s| wanted(s.partition))
                .map(|s| s.rows)
                .sum::<u64>();
            let memory = opened.memory();
            let growing = memory
                .frozen
                .iter()
                .chain(memory.growing.values())
                .filter(|s| wanted(s.partition()));
            rows += growing.map(live_rows).sum::<u64>();
        }
        opened.check()?;
        Ok(rows)
    }

    /// Its segments.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn segments(&self, database: &str, collection: &str) -> Result<Vec<SegmentInfo>> {
        let opened = self.collection(database, collection)?.open().await?;
        let state = opened.manifest.lock().await;
        let sealed = state.manifest.segments.iter().map(|segment| SegmentInfo {
            id: segment.segment,
            collection: opened.collection,
            partition: segment.partition,
            rows: segment.rows,
            sealed: true,
            indexes: segment.indexes.iter().map(|index| index.spec.name.clone()).collect(),
        });
        let mut all: Vec<_> = sealed.collect();
        drop(state);
        let memory = opened.memory();
        all.extend(
            memory
                .frozen
                .iter()
                .chain(memory.growing.values())
                .map(|segment| SegmentInfo {
                    id: segment.segment(),
                    collection: opened.collection,
                    partition: segment.partition(),
                    rows: segment.rows() as u64,
                    sealed: false,
                    indexes: Vec::new(),
                }),
        );
        drop(memory);
        opened.check()?;
        Ok(all)
    }

    /// Seals everything written so far into files; returns when that is done.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone; a full disk (nothing is lost).
    pub async fn flush(&self, database: &str, collections: &[String]) -> Result<Vec<FlushedCollection>> {
        let database = self.database(database)?;
        let mut flushed = Vec::with_capacity(collections.len());
        for name in collections {
            let opened = database.collection(name)?.open().await?;
            let done = opened.flush().await.map_err(|error| database.access.explain(error))?;
            flushed.push(FlushedCollection {
                collection: name.clone(),
                id: opened.collection,
                segments: done.segments,
                timestamp: done.timestamp,
            });
        }
        Ok(flushed)
    }

    /// Whether these segments are flushed. Segments that are not known any more were flushed and put together.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn flush_state(
        &self,
        database: &str,
        collection: &str,
        segments: &[saker_model::SegmentId],
    ) -> Result<bool> {
        let opened = self.collection(database, collection)?.open().await?;
        let memory = opened.memory();
        let growing = |id| {
            memory
                .frozen
                .iter()
                .chain(memory.growing.values())
                .any(|segment| segment.segment() == id)
        };
        Ok(!segments.iter().any(|&id| growing(id)))
    }
}

impl Opened {
    /// Changes the definition, durably.
    ///
    /// # Errors
    /// Whatever `change` says; a locked zone; a failed store.
    pub(crate) async fn change_body(&self, change: impl FnOnce(&mut CollectionBody) -> Result<()>) -> Result<()> {
        let mut stored = self.definition.lock().await;
        let mut next = (*self.body.load_full()).clone();
        change(&mut next)?;
        next.updated = self.shared.oracle.now();
        let key = meta_key("body", self.collection)?;
        let value = seal(&self.lease, &key, &next).map_err(|error| self.access.explain(error))?;
        let mut batch = MetaBatch::new();
        batch
            .expect(key.clone(), Expected::Value(stored.clone()))
            .put(key, value.clone());
        self.shared.meta.commit(batch).await?;
        *stored = value.into_unverified();
        self.body.store(Arc::new(next));
        Ok(())
    }
}

/// Rows of a growing segment that are not deleted.
fn live_rows(segment: &Arc<saker_segment::GrowingSegment>) -> u64 {
    use saker_segment::SegmentView;
    let snapshot = segment.snapshot();
    (snapshot.rows() - snapshot.deleted_rows()) as u64
}

/// The definition: from memory if the collection is in use, else from the catalog, without opening the collection.
pub(crate) async fn read_body(collection: &Collection) -> Result<Arc<CollectionBody>> {
    let lease = collection.access.lease()?;
    if let Some(opened) = collection.current() {
        return Ok(opened.body.load_full());
    }
    let key = meta_key("body", collection.id)?;
    let stored = collection.shared.meta.get(&key).await?;
    let stored = stored.ok_or_else(|| Error::collection_not_found(&collection.access.name, &collection.name()))?;
    let body = records::open(&lease, &key, &stored).map_err(|error| collection.access.explain(error))?;
    Ok(Arc::new(body))
}

fn describe(database: &Database, collection: &Collection, body: &CollectionBody) -> CollectionInfo {
    let record = collection.record();
    let mut schema = body.schema.clone();
    schema.name.clone_from(&record.name);
    CollectionInfo {
        id: record.id,
        name: record.name,
        database: database.name().to_owned(),
        database_id: database.id,
        schema: Arc::new(schema),
        created: record.created,
        updated: body.updated,
        shards: body.shards,
        consistency: body.consistency,
        aliases: record.aliases,
        properties: body.properties.clone(),
        partitions: body.partitions.len(),
    }
}

async fn same_or_refused(
    database: &Database,
    existing: &Arc<Collection>,
    schema: &CollectionSchema,
) -> Result<CollectionInfo> {
    let body = read_body(existing).await?;
    let mut known = body.schema.clone();
    known.name.clone_from(&schema.name);
    if known == *schema {
        return Ok(describe(database, existing, &body));
    }
    Err(Error::new(
        ErrorKind::CollectionAlreadyExists,
        format!(
            "create duplicate collection with different parameters, collection: {}",
            schema.name
        ),
    ))
}

/// Gives the fields their ids, adds the dynamic field, and checks the whole.
fn numbered(mut schema: CollectionSchema) -> Result<CollectionSchema> {
    if schema.enable_dynamic_field && schema.dynamic().is_none() {
        schema.fields.push(FieldSchema {
            id: FieldId(0),
            name: CollectionSchema::DYNAMIC_FIELD_NAME.to_owned(),
            description: "dynamic schema".to_owned(),
            data_type: DataType::Json,
            element_type: None,
            is_primary: false,
            auto_id: false,
            is_partition_key: false,
            is_dynamic: true,
            nullable: false,
            default_value: None,
            dim: 0,
            max_length: 0,
            max_capacity: 0,
            type_params: BTreeMap::new(),
        });
    }
    for (id, field) in (FieldId::FIRST_USER.0..).zip(&mut schema.fields) {
        field.id = FieldId(id);
    }
    schema.validate().map_err(|error| Error::invalid(error.to_string()))?;
    Ok(schema)
}
