//! Skeleton of the face; replaced piece by piece.

use std::{collections::BTreeMap, sync::Arc};

use saker_keyring::{KeyService, RootKeyId};
use saker_model::{RowBatch, SegmentId};
use saker_storage::{DirectoryLock, EmbeddedStores, Log, MetaStore, ObjectStore};

use crate::{
    config::EngineConfig,
    error::{Error, Result},
    types::*,
};

/// The object store, metadata store and log that an engine keeps everything in.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Sealed objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Metadata values.
    pub meta: Arc<dyn MetaStore>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The right to use them, if they need one; kept as long as the engine lives.
    pub lock: Option<Arc<DirectoryLock>>,
}

impl From<EmbeddedStores> for Stores {
    fn from(stores: EmbeddedStores) -> Self {
        Self {
            objects: stores.objects,
            meta: stores.meta,
            log: stores.log,
            lock: Some(stores.lock),
        }
    }
}

/// A database engine over one set of stores. Start reading at [`Engine::open`].
#[derive(Debug)]
pub struct Engine {}

#[allow(
    unused_variables,
    clippy::unused_async,
    clippy::missing_errors_doc,
    reason = "skeleton"
)]
impl Engine {
    /// Opens the stores, makes them if they are new, and recovers what a crash left.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind) for stores of another cluster or a bad setting.
    pub async fn open(
        config: EngineConfig,
        stores: impl Into<Stores>,
        keys: Arc<dyn KeyService>,
        platform_root: RootKeyId,
    ) -> Result<Arc<Self>> {
        soon()
    }
    /// Stops background work. Everything acknowledged is durable already.
    pub async fn shutdown(&self) {}
    /// Id of this cluster.
    pub fn cluster_id(&self) -> String {
        String::new()
    }

    /// Makes a database, under the customer's root key if `cipher.key` or a default key is given.
    pub async fn create_database(&self, name: &str, properties: Properties) -> Result<DatabaseInfo> {
        soon()
    }
    /// Drops an empty database; its wrapped keys are destroyed first.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        soon()
    }
    /// All databases, by name.
    pub async fn list_databases(&self) -> Result<Vec<DatabaseInfo>> {
        soon()
    }
    /// One database.
    pub async fn describe_database(&self, name: &str) -> Result<DatabaseInfo> {
        soon()
    }
    /// Sets and deletes user properties; `cipher.*` is refused.
    pub async fn alter_database(&self, name: &str, set: Properties, delete: Vec<String>) -> Result<()> {
        soon()
    }

    /// Makes a collection. The same definition again is fine; another one is refused.
    pub async fn create_collection(&self, database: &str, spec: CollectionSpec) -> Result<CollectionInfo> {
        soon()
    }
    /// Drops a collection; its wrapped keys are destroyed first. A missing one is fine (as in Milvus).
    pub async fn drop_collection(&self, database: &str, collection: &str) -> Result<()> {
        soon()
    }
    /// Whether there is a collection or alias of this name.
    pub async fn has_collection(&self, database: &str, collection: &str) -> Result<bool> {
        soon()
    }
    /// A collection by name or alias.
    pub async fn describe_collection(&self, database: &str, collection: &str) -> Result<CollectionInfo> {
        soon()
    }
    /// All collections of a database, by name; works while it is locked.
    pub async fn list_collections(&self, database: &str) -> Result<Vec<CollectionSummary>> {
        soon()
    }
    /// Renames a collection, within a database or into another one if neither has its own key.
    pub async fn rename_collection(&self, database: &str, from: &str, new_database: &str, to: &str) -> Result<()> {
        soon()
    }
    /// Sets and deletes user properties.
    pub async fn alter_collection(
        &self,
        database: &str,
        collection: &str,
        set: Properties,
        delete: Vec<String>,
    ) -> Result<()> {
        soon()
    }
    /// Deletes every row.
    pub async fn truncate_collection(&self, database: &str, collection: &str) -> Result<()> {
        soon()
    }
    /// Starts to load; returns at once. See [`Self::load_state`].
    pub async fn load_collection(&self, database: &str, collection: &str) -> Result<()> {
        soon()
    }
    /// Drops it from memory; searches are refused until it is loaded again.
    pub async fn release_collection(&self, database: &str, collection: &str) -> Result<()> {
        soon()
    }
    /// How far loading is.
    pub async fn load_state(&self, database: &str, collection: &str) -> Result<LoadState> {
        soon()
    }
    /// Rows that are not deleted (in the collection, or in one partition).
    pub async fn row_count(&self, database: &str, collection: &str, partition: Option<&str>) -> Result<u64> {
        soon()
    }
    /// Its segments.
    pub async fn segments(&self, database: &str, collection: &str) -> Result<Vec<SegmentInfo>> {
        soon()
    }

    /// Makes a partition.
    pub async fn create_partition(&self, database: &str, collection: &str, partition: &str) -> Result<()> {
        soon()
    }
    /// Drops a partition and its rows.
    pub async fn drop_partition(&self, database: &str, collection: &str, partition: &str) -> Result<()> {
        soon()
    }
    /// Whether there is a partition of this name.
    pub async fn has_partition(&self, database: &str, collection: &str, partition: &str) -> Result<bool> {
        soon()
    }
    /// All partitions.
    pub async fn list_partitions(&self, database: &str, collection: &str) -> Result<Vec<PartitionInfo>> {
        soon()
    }

    /// Another name for a collection.
    pub async fn create_alias(&self, database: &str, collection: &str, alias: &str) -> Result<()> {
        soon()
    }
    /// Drops an alias.
    pub async fn drop_alias(&self, database: &str, alias: &str) -> Result<()> {
        soon()
    }
    /// Points an alias at another collection.
    pub async fn alter_alias(&self, database: &str, collection: &str, alias: &str) -> Result<()> {
        soon()
    }
    /// The collection's name that an alias stands for.
    pub async fn describe_alias(&self, database: &str, alias: &str) -> Result<String> {
        soon()
    }
    /// Aliases and their collections; of one collection if given.
    pub async fn list_aliases(&self, database: &str, collection: Option<&str>) -> Result<Vec<(String, String)>> {
        soon()
    }

    /// Makes an index; it is built in the background.
    pub async fn create_index(&self, database: &str, collection: &str, request: IndexRequest) -> Result<()> {
        soon()
    }
    /// All indexes with their progress; `name` is an index's or a field's name, empty for all.
    pub async fn describe_index(&self, database: &str, collection: &str, name: &str) -> Result<Vec<IndexInfo>> {
        soon()
    }
    /// Drops an index.
    pub async fn drop_index(&self, database: &str, collection: &str, name: &str) -> Result<()> {
        soon()
    }

    /// Writes rows; durable and visible when this returns.
    pub async fn insert(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        rows: RowBatch,
    ) -> Result<MutationResult> {
        soon()
    }
    /// Writes rows in place of those with the same primary keys.
    pub async fn upsert(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        rows: RowBatch,
    ) -> Result<MutationResult> {
        soon()
    }
    /// Deletes rows.
    pub async fn delete(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        filter: Filter,
    ) -> Result<MutationResult> {
        soon()
    }
    /// Seals everything written so far into files; returns when that is done.
    pub async fn flush(&self, database: &str, collections: &[String]) -> Result<Vec<FlushedCollection>> {
        soon()
    }
    /// Whether these segments are flushed.
    pub async fn flush_state(&self, database: &str, collection: &str, segments: &[SegmentId]) -> Result<bool> {
        soon()
    }

    /// Nearest neighbours.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResult> {
        soon()
    }
    /// Rows by filter.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryResult> {
        soon()
    }

    /// Adds a user with an opaque password hash.
    pub async fn create_credential(&self, user: &str, password_hash: &str) -> Result<()> {
        soon()
    }
    /// Changes a user's password hash.
    pub async fn update_credential(&self, user: &str, password_hash: &str) -> Result<()> {
        soon()
    }
    /// Deletes a user.
    pub async fn delete_credential(&self, user: &str) -> Result<()> {
        soon()
    }
    /// All users, by name.
    pub async fn list_credentials(&self) -> Result<Vec<String>> {
        soon()
    }
    /// A user's password hash; from memory, cheap.
    pub fn credential(&self, user: &str) -> Option<String> {
        None
    }

    /// All root keys in use and whether they may be used.
    pub async fn key_states(&self) -> Result<Vec<KeyStatus>> {
        soon()
    }
    /// Asks the key services now, and gives the states after that.
    pub async fn check_keys_now(&self) -> Result<Vec<KeyStatus>> {
        soon()
    }
}

fn soon<T>() -> Result<T> {
    let _: BTreeMap<(), ()> = BTreeMap::new();
    Err(Error::internal("not written yet"))
}
