//! Making, dropping, describing and loading collections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use saker_keyring::RootKeyId;
use saker_model::{CollectionId, CollectionSchema, DataType, FieldId, FieldSchema, Limits, PartitionId};
use saker_storage::{Expected, MetaBatch};

use crate::{
    cipher,
    collection::Collection,
    database::Database,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    opened::Opened,
    records::{self, CollectionBody, CollectionRecord, Manifest, PartitionRecord, meta_key, seal},
    residency,
    text::check_analyzers,
    types::{CollectionInfo, CollectionSpec, CollectionSummary, FlushedCollection, LoadState, Properties, SegmentInfo},
    zones::ZoneOwner,
};

/// Name of the partition that is always there.
pub(crate) const DEFAULT_PARTITION: &str = "_default";
/// Partitions that a partition key is spread over if the user says nothing (Milvus: 16).
const KEY_PARTITIONS: usize = 16;

impl Engine {
    /// Makes a collection: sealed under its database's key, or under a root key of its own if `cipher.key` is among its
    /// properties; that one is tried (`GenerateDataKey`, `Decrypt`) before anything is stored. The same definition again
    /// is fine; another one under the same name is refused.
    ///
    /// # Errors
    /// A bad schema; [`ErrorKind::DatabaseNotFound`]; [`ErrorKind::CollectionAlreadyExists`];
    /// [`ErrorKind::KeyUnusable`]; a locked database.
    pub async fn create_collection(&self, database: &str, spec: CollectionSpec) -> Result<CollectionInfo> {
        let database = self.database(database)?;
        let schema = numbered(spec.schema.clone())?;
        let own_key = cipher::of_collection(&spec.properties)?;
        // Also with a key of its own: nothing new comes into a database that its owner disabled.
        let lease = database.access.lease()?;
        let platform = self.shared.platform_lease()?;
        let _changes = database.changes.lock().await;
        self.still_there(&database)?;
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
            return same_or_refused(&database, &existing, &schema, own_key.as_ref()).await;
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
            properties: cipher::without(spec.properties),
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
        let own_zone = match &own_key {
            Some(root) => Some(self.new_zone(root).await?),
            None => None,
        };
        let record = CollectionRecord {
            id,
            database: database.id,
            name: name.clone(),
            created,
            aliases: Vec::new(),
            load_wanted: false,
            dropping: false,
            zone: own_zone.as_ref().map(|zone| zone.record.clone()),
            retiring: None,
            receipt: None,
        };
        // Not registered before it is stored: a collection that is not there uses no key.
        let (access, lease) = match own_zone {
            None => (Arc::clone(&database.access), lease),
            Some(zone) => {
                let access = self.use_zone(zone, database.name(), Some(&name))?;
                let lease = access.lease()?;
                (access, lease)
            }
        };
        let keys = (
            meta_key("collection", id)?,
            meta_key("body", id)?,
            meta_key("manifest", id)?,
        );
        let value = seal(&platform, &keys.0, &record).map_err(|error| self.shared.platform.explain(error))?;
        let explain = |error| access.explain(error);
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
        let collection = Collection::new(&self.shared, &access, record, value.into_unverified());
        if collection.own_key {
            self.adopt(&access, Arc::downgrade(&collection) as Weak<dyn ZoneOwner>);
        }
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

    /// Renames a collection. Into another database it is refused, with the command that does it: a collection is sealed
    /// under its database's key.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a bad or taken name.
    pub async fn rename_collection(&self, database: &str, from: &str, new_database: &str, to: &str) -> Result<()> {
        CollectionSchema::check_name("collection", to).map_err(|error| Error::invalid(error.to_string()))?;
        let database = self.database(database)?;
        if !new_database.is_empty() && self.database(new_database)?.id != database.id {
            let name = database.name();
            return Err(Error::invalid(format!(
                "cannot rename a collection to another database: each database is encrypted under its own key; move it \
                 with: saker collection move {name}.{from} --to {new_database} --name {to}"
            )));
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
        collection.rescope(database.name());
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
        cipher::refuse_change(
            set.keys().chain(&delete),
            "whether a collection has a key of its own is decided when it is made",
        )?;
        residency::check_properties(&set)?;
        let moves = residency::changes(&set, &delete);
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        if moves && collection.record().load_wanted {
            return Err(residency::loaded(&collection.name()));
        }
        opened
            .change_body(|body| {
                body.properties.extend(set);
                body.properties.retain(|key, _| !delete.contains(key));
                Ok(())
            })
            .await?;
        if moves {
            opened.kick_builds();
        }
        Ok(())
    }

    /// Deletes every row; definition, partitions and indexes stay.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn truncate_collection(&self, database: &str, collection: &str) -> Result<()> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        opened.remove_rows(None).await
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
        let mut current = collection.current();
        while let Some(opened) = current {
            opened.release().await;
            // It may have been moved meanwhile.
            current = collection.current().filter(|next| !Arc::ptr_eq(next, &opened));
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
            indexes: (segment.indexes.iter())
                .map(|index| index.spec.name.clone())
                .filter(|name| !name.is_empty())
                .collect(),
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
            let collection = database.collection(name)?;
            let (_gate, opened) = collection.open_to_write().await?;
            let done = opened.flush().await.map_err(|error| opened.access.explain(error))?;
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
    let access = collection.access();
    let lease = access.lease()?;
    if let Some(opened) = collection.current() {
        return Ok(opened.body.load_full());
    }
    let key = meta_key("body", collection.id)?;
    let _keys_stay = access.opening.read().await;
    let stored = collection.shared.meta.get(&key).await?;
    let stored = stored.ok_or_else(|| Error::collection_not_found(&access.database(), &collection.name()))?;
    let body = records::open(&lease, &key, &stored).map_err(|error| access.explain(error))?;
    Ok(Arc::new(body))
}

fn describe(database: &Database, collection: &Collection, body: &CollectionBody) -> CollectionInfo {
    let record = collection.record();
    let mut schema = body.schema.clone();
    schema.name.clone_from(&record.name);
    let mut properties = body.properties.clone();
    if collection.own_key {
        cipher::show(&collection.access(), &mut properties);
    }
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
        properties,
        partitions: body.partitions.len(),
    }
}

async fn same_or_refused(
    database: &Database,
    existing: &Arc<Collection>,
    schema: &CollectionSchema,
    own_key: Option<&RootKeyId>,
) -> Result<CollectionInfo> {
    let body = read_body(existing).await?;
    let mut known = body.schema.clone();
    known.name.clone_from(&schema.name);
    let access = existing.access();
    let known_key = existing.own_key.then(|| access.root());
    if known == *schema && known_key.as_ref() == own_key {
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
    check_analyzers(&schema)?;
    for (id, function) in (FieldId::FIRST_USER.0..).zip(&mut schema.functions) {
        function.id = id;
    }
    Ok(schema)
}
