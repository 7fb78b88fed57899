//! Opening an engine, and what holds it together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::Duration,
};

use saker_keyring::{
    CallReason, EncryptionContext, KeyPurpose, KeyService, KeyServiceError, Lease, RootKeyId, Zone, ZoneId,
    ZoneKeyVersion, ZoneRecord,
};
use saker_storage::{DirectoryLock, EmbeddedStores, Expected, Log, MetaBatch, MetaStore, ObjectStore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    audit_stores::AUDIT_STREAMS,
    collection::Collection,
    config::EngineConfig,
    database::{DEFAULT_DATABASE, Database},
    error::{Error, ErrorKind, Result},
    opened::stream_of,
    oracle::Oracle,
    records::{self, ClockRecord, ClusterRecord, CollectionRecord, DatabaseRecord, meta_key, seal},
    rekey::{Fence, Rekey},
    shared::Shared,
    types::{KeyStatus, LockStatus},
    users::Users,
    zones::{Access, KeyCalls, Watcher, ZoneOwner, decrypt_all, reason_of},
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
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    databases: RwLock<BTreeMap<String, Arc<Database>>>,
    /// Held while databases come and go.
    pub(crate) changes: tokio::sync::Mutex<()>,
    watchers: Mutex<HashMap<RootKeyId, Watched>>,
    pub(crate) users: Users,
    /// Jobs that change keys.
    pub(crate) rekey: Arc<Rekey>,
}

#[derive(Debug)]
struct Watched {
    watcher: Arc<Watcher>,
    stop: CancellationToken,
}

impl Drop for Engine {
    /// Ends background tasks; [`Engine::shutdown`] also waits for them.
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// How long an opening engine waits for the key services; zones that are not unlocked by then start locked.
const FIRST_PROBE_MAX: Duration = Duration::from_secs(20);
/// How often the oracle's high-water mark is stored while time is used.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

impl Engine {
    /// What is kept of files that stay on disk, opened.
    #[must_use]
    pub fn frame_cache(&self) -> saker_segment::FrameCacheStatus {
        self.shared.frames.status()
    }

    /// Opens the stores, begins them if they are empty, and tidies up what a crash left. Databases whose key service
    /// refuses or does not answer start locked; collections that were loaded load in the background.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for a bad setting or stores of another cluster; [`ErrorKind::KeyUnusable`] if the
    /// platform key cannot be used.
    pub async fn open(
        config: EngineConfig,
        stores: impl Into<Stores>,
        keys: Arc<dyn KeyService>,
        platform_root: RootKeyId,
    ) -> Result<Arc<Self>> {
        let fence = Arc::new(Fence::default());
        let stores = fence.around(stores.into());
        config
            .lease
            .checked()
            .map_err(|error| Error::invalid(error.to_string()))?;
        let keys: Arc<dyn KeyService> = Arc::new(KeyCalls::new(keys, config.kms_calls_per_second));
        let (record, fresh) = platform_record(&*stores.meta, &*keys, &platform_root, config.cluster.as_deref()).await?;
        let zone = Zone::locked(record.zone);
        let plain = decrypt_all(&*keys, &record, CallReason::Unlock)
            .await
            .map_err(|error| platform_refused(&platform_root, &error))?;
        zone.unlock(plain).map_err(|error| Error::internal(error.to_string()))?;
        let lease = zone.lease()?;
        let oracle = Oracle::new(Arc::clone(&config.clock));
        let cluster = cluster_record(&*stores.meta, &lease, &oracle, fresh.then_some(&record)).await?;
        if cluster.cluster != record.context.cluster {
            return Err(foreign());
        }

        let (watcher, checks) = Watcher::new(
            platform_root.clone(),
            config.lease,
            Arc::clone(&keys),
            Arc::clone(&config.clock),
            Arc::clone(&config.events),
        );
        watcher.confirmed(watcher.ask());
        let platform = Access::new("(catalog)", None, zone, record, &watcher);
        watcher.add(&platform);
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let compute = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("compute-{n}"));
        let shared = Arc::new(Shared {
            objects: stores.objects,
            meta: stores.meta,
            log: stores.log,
            fence,
            keys,
            oracle,
            cluster: cluster.cluster,
            platform,
            compute: compute.build().map_err(|error| Error::internal(error.to_string()))?,
            frames: saker_segment::FrameCache::new(config.frame_cache_bytes_max),
            builds: tokio::sync::Semaphore::new(1),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            stop: CancellationToken::new(),
            config,
            _lock: stores.lock,
        });
        let stop = shared.stop.child_token();
        shared.tasks.spawn(Arc::clone(&watcher).run(checks, stop.clone()));
        let users = Users::load(&shared, &lease).await?;
        let engine = Arc::new(Self {
            shared,
            databases: RwLock::default(),
            changes: tokio::sync::Mutex::new(()),
            watchers: Mutex::new(HashMap::from([(platform_root, Watched { watcher, stop })])),
            users,
            rekey: Arc::default(),
        });
        let opened = engine.load_catalog(&lease).await;
        if let Err(error) = opened {
            engine.shutdown().await;
            return Err(error);
        }
        Ok(engine)
    }

    /// Stops background work and lets go of the stores. Everything acknowledged is durable already.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let databases: Vec<_> = self.databases().values().cloned().collect();
        for database in databases {
            let collections: Vec<_> = database.names().collections.values().cloned().collect();
            for collection in collections {
                collection.close_for_drop().await;
            }
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Id of this cluster.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.shared.cluster.clone()
    }

    /// The newest timestamp given to any write.
    #[must_use]
    pub fn newest_timestamp(&self) -> saker_model::Timestamp {
        self.shared.oracle.last()
    }

    /// A fresh timestamp, greater than that of every write before.
    #[must_use]
    pub fn allocate_timestamp(&self) -> saker_model::Timestamp {
        self.shared.oracle.now()
    }

    /// All root keys in use and whether they may be used.
    ///
    /// # Errors
    /// None at present.
    pub async fn key_states(&self) -> Result<Vec<KeyStatus>> {
        let watchers: Vec<_> = self
            .watchers()
            .values()
            .map(|watched| Arc::clone(&watched.watcher))
            .collect();
        let platform = &self.shared.platform;
        let mut states: Vec<_> = watchers
            .iter()
            .map(|watcher| {
                let zones = watcher.zones();
                let used = zones.iter().filter(|zone| !Arc::ptr_eq(zone, platform));
                KeyStatus {
                    root: watcher.root.clone(),
                    platform: watcher.root == platform.root(),
                    databases: used.map(|zone| zone.scope().to_string()).collect(),
                    lock: watcher.status(),
                    probed_at_ms: watcher.probed_at_ms(),
                    next_probe_ms: watcher.next_probe_ms(),
                    zones: zones.iter().map(|zone| zone.describe()).collect(),
                }
            })
            .collect();
        states.sort_by(|a, b| a.root.cmp(&b.root));
        Ok(states)
    }

    /// Asks the key services now, acts on the answers, and gives the states after that.
    ///
    /// # Errors
    /// None at present.
    pub async fn check_keys_now(&self) -> Result<Vec<KeyStatus>> {
        let watchers: Vec<_> = self
            .watchers()
            .values()
            .map(|watched| Arc::clone(&watched.watcher))
            .collect();
        futures::future::join_all(watchers.iter().map(|watcher| watcher.check_now())).await;
        self.key_states().await
    }

    pub(crate) fn databases(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Database>>> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn databases_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Database>>> {
        self.databases.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// A database by name; an empty name is the default one.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub(crate) fn database(&self, name: &str) -> Result<Arc<Database>> {
        let name = if name.is_empty() { DEFAULT_DATABASE } else { name };
        self.databases()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::database_not_found(name))
    }
    /// Whether a database was not dropped. Whoever puts something into it asks this while holding its `changes`.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub(crate) fn still_there(&self, database: &Arc<Database>) -> Result<()> {
        let there = self.databases().get(database.name()).cloned();
        match there {
            Some(there) if Arc::ptr_eq(&there, database) => Ok(()),
            Some(_) | None => Err(Error::database_not_found(database.name())),
        }
    }
    /// A collection by database and name or alias.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`], [`ErrorKind::CollectionNotFound`].
    pub(crate) fn collection(&self, database: &str, name: &str) -> Result<Arc<Collection>> {
        self.database(database)?.collection(name)
    }

    fn watchers(&self) -> std::sync::MutexGuard<'_, HashMap<RootKeyId, Watched>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The watcher of a root key, started if there is none.
    pub(crate) fn watcher(&self, root: &RootKeyId) -> Arc<Watcher> {
        let mut watchers = self.watchers();
        if let Some(watched) = watchers.get(root) {
            return Arc::clone(&watched.watcher);
        }
        let config = &self.shared.config;
        let (keys, clock, events) = (&self.shared.keys, &config.clock, &config.events);
        let (watcher, checks) = Watcher::new(
            root.clone(),
            config.lease,
            Arc::clone(keys),
            Arc::clone(clock),
            Arc::clone(events),
        );
        let stop = self.shared.stop.child_token();
        self.shared.tasks.spawn(Arc::clone(&watcher).run(checks, stop.clone()));
        watchers.insert(
            root.clone(),
            Watched {
                watcher: Arc::clone(&watcher),
                stop,
            },
        );
        watcher
    }
    /// Puts the zone of a database or collection under its watcher.
    pub(crate) fn adopt(&self, access: &Arc<Access>, owner: Weak<dyn ZoneOwner>) {
        access.own(owner);
        access.watchers().iter().for_each(|watcher| watcher.add(access));
    }
    /// Takes it away again; a watcher without zones ends.
    pub(crate) fn disown(&self, access: &Arc<Access>) {
        for watcher in access.watchers() {
            watcher.remove(access);
            self.end_if_unused(&watcher);
        }
    }
    /// Ends a watcher without zones.
    pub(crate) fn end_if_unused(&self, watcher: &Arc<Watcher>) {
        let mut watchers = self.watchers();
        if watcher.zones().is_empty()
            && let Some(watched) = watchers.remove(&watcher.root)
        {
            watched.stop.cancel();
        }
    }
    /// The watcher of a root key, if there is one.
    pub(crate) fn known_watcher(&self, root: &RootKeyId) -> Option<Arc<Watcher>> {
        self.watchers().get(root).map(|watched| Arc::clone(&watched.watcher))
    }

    async fn load_catalog(self: &Arc<Self>, lease: &Lease) -> Result<()> {
        let shared = &self.shared;
        for (key, value) in shared.meta.scan("database/").await? {
            let record: DatabaseRecord = records::open(lease, &key, &value)?;
            shared.oracle.observe(record.created);
            shared.oracle.observe_id(record.id.0);
            let watcher = self.watcher(&record.zone.root);
            let access = Access::new(
                &record.name,
                None,
                Zone::locked(record.zone.zone),
                record.zone.clone(),
                &watcher,
            );
            if let Some(retiring) = record.retiring.clone() {
                let watcher = self.watcher(&retiring.root);
                access.set_retiring(retiring, &watcher);
            }
            let database = Database::new(record, value, access);
            self.adopt(&database.access, Arc::downgrade(&database) as Weak<dyn ZoneOwner>);
            self.databases_mut().insert(database.name().to_owned(), database);
        }
        crate::relocate::finish_moves(shared).await?;
        self.load_collections(lease).await?;
        if !self.databases().contains_key(DEFAULT_DATABASE) {
            let root = shared.platform.root();
            let database = self
                .new_database(DEFAULT_DATABASE, root, false, BTreeMap::new())
                .await?;
            self.databases_mut().insert(DEFAULT_DATABASE.to_owned(), database);
        }
        self.report_strangers().await?;
        // Each watcher's first probe unlocks its zones, which starts the loads.
        if tokio::time::timeout(FIRST_PROBE_MAX, self.check_keys_now())
            .await
            .is_err()
        {
            tracing::warn!("a key service has not answered yet; its databases start locked");
        }
        for state in self.key_states().await? {
            if let LockStatus::Locked { reason } = state.lock {
                tracing::warn!(root = %state.root, databases = ?state.databases, reason, "starts locked");
            }
        }
        self.resume_jobs().await?;
        let this = Arc::downgrade(self);
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move { keep_clock(this, stop).await });
        Ok(())
    }

    async fn load_collections(&self, lease: &Lease) -> Result<()> {
        let shared = &self.shared;
        let by_id: BTreeMap<_, _> = self
            .databases()
            .values()
            .map(|database| (database.id, Arc::clone(database)))
            .collect();
        for (key, value) in shared.meta.scan("collection/").await? {
            let record: CollectionRecord = records::open(lease, &key, &value)?;
            shared.oracle.observe(record.created);
            shared.oracle.observe_id(record.id.0);
            if record.dropping {
                // A drop that did not get to its end.
                self.erase(&record).await?;
                continue;
            }
            let Some(database) = by_id.get(&record.database) else {
                tracing::error!(collection = %record.id, database = %record.database, "a collection's database is missing");
                continue;
            };
            let (name, aliases) = (record.name.clone(), record.aliases.clone());
            let collection = match record.zone.clone() {
                None => Collection::new(shared, &database.access, record, value),
                Some(zone) => {
                    let (watcher, locked) = (self.watcher(&zone.root), Zone::locked(zone.zone));
                    let access = Access::new(database.name(), Some(&name), locked, zone, &watcher);
                    if let Some(retiring) = record.retiring.clone() {
                        let watcher = self.watcher(&retiring.root);
                        access.set_retiring(retiring, &watcher);
                    }
                    let collection = Collection::new(shared, &access, record, value);
                    self.adopt(&access, Arc::downgrade(&collection) as Weak<dyn ZoneOwner>);
                    collection
                }
            };
            let mut names = database.names_mut();
            for alias in aliases {
                names.aliases.insert(alias, Arc::clone(&collection));
            }
            names.collections.insert(name, collection);
        }
        Ok(())
    }

    /// Reports streams that are in no catalog. A create stores the catalog first and a drop removes it last, so there
    /// are none unless the metadata is older than the data: nothing is erased then.
    async fn report_strangers(&self) -> Result<()> {
        let shared = &self.shared;
        let mut known = BTreeSet::new();
        for database in self.databases().values() {
            for collection in database.names().collections.values() {
                known.insert(stream_of(collection.id)?.as_str().to_owned());
            }
        }
        for stream in shared.log.streams().await? {
            if !known.contains(stream.as_str()) && !AUDIT_STREAMS.contains(&stream.as_str()) {
                tracing::warn!(%stream, "log stream of no known collection; is the metadata older than the data?");
            }
        }
        Ok(())
    }
}

/// The platform zone's record, if the stores have one.
pub(crate) async fn stored_platform(meta: &dyn MetaStore) -> Result<Option<ZoneRecord>> {
    let Some(stored) = meta.get(&meta_key("cluster", "platform")?).await? else {
        return Ok(None);
    };
    let record = ZoneRecord::from_bootstrap_value(&stored).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{error}; restore the metadata from a backup"),
        )
    })?;
    Ok(Some(record))
}

/// The platform zone's record: the one that is stored, or a new one for empty stores (`true`).
async fn platform_record(
    meta: &dyn MetaStore,
    keys: &dyn KeyService,
    root: &RootKeyId,
    cluster: Option<&str>,
) -> Result<(ZoneRecord, bool)> {
    if let Some(record) = stored_platform(meta).await? {
        if record.root != *root {
            return Err(Error::invalid(format!(
                "this data directory belongs to a cluster whose platform key is {}, not {root}; set the platform key \
                 that it was made with, or choose another directory",
                record.root
            )));
        }
        if let Some(cluster) = cluster.filter(|cluster| *cluster != record.context.cluster) {
            return Err(Error::invalid(format!(
                "this data directory belongs to cluster {}, not {cluster}; give each cluster its own directory",
                record.context.cluster
            )));
        }
        return Ok((record, false));
    }
    let zone = ZoneId::random();
    let context = EncryptionContext {
        cluster: cluster.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned),
        database: zone.to_string(),
        purpose: KeyPurpose::ZoneKey,
    };
    let generated = keys
        .generate_data_key(root, &context, CallReason::CreateZone)
        .await
        .map_err(|error| platform_refused(root, &error))?;
    let mut record = ZoneRecord {
        zone,
        root: root.clone(),
        context,
        versions: Vec::new(),
        checks: BTreeMap::new(),
    };
    record.add(ZoneKeyVersion::FIRST, &generated);
    Ok((record, true))
}

/// The cluster's record; for empty stores, both it and the platform zone's record are stored at once.
async fn cluster_record(
    meta: &dyn MetaStore,
    lease: &Lease,
    oracle: &Oracle,
    fresh: Option<&ZoneRecord>,
) -> Result<ClusterRecord> {
    let key = meta_key("cluster", "record")?;
    let Some(platform) = fresh else {
        let stored = meta.get(&key).await?.ok_or_else(foreign)?;
        let record: ClusterRecord = records::open(lease, &key, &stored).map_err(|_| foreign())?;
        if record.format != ClusterRecord::FORMAT {
            return Err(Error::invalid(format!(
                "the data directory has catalog format {}, this version reads {}; use the version that wrote it",
                record.format,
                ClusterRecord::FORMAT
            )));
        }
        let clock = meta_key("cluster", "clock")?;
        if let Some(stored) = meta.get(&clock).await? {
            let high: ClockRecord = records::open(lease, &clock, &stored)?;
            oracle.observe(high.last);
        }
        return Ok(record);
    };
    let created = oracle.now();
    let record = ClusterRecord {
        format: ClusterRecord::FORMAT,
        cluster: platform.context.cluster.clone(),
        created,
    };
    let bootstrap = platform
        .to_bootstrap_value()
        .map_err(|error| Error::internal(error.to_string()))?;
    let platform_key = meta_key("cluster", "platform")?;
    let mut batch = MetaBatch::new();
    batch
        .expect(platform_key.clone(), Expected::Absent)
        .put(platform_key, bootstrap);
    batch.put(key.clone(), seal(lease, &key, &record)?);
    meta.commit(batch).await?;
    Ok(record)
}

fn foreign() -> Error {
    Error::invalid(
        "this data directory belongs to another cluster: the platform key does not open its catalog; set the platform \
         key that it was made with, or choose another directory",
    )
}

pub(crate) fn platform_refused(root: &RootKeyId, error: &KeyServiceError) -> Error {
    if let KeyServiceError::Denied {
        denial: saker_keyring::Denial::InvalidCiphertext,
        ..
    } = error
    {
        return foreign();
    }
    Error::new(
        ErrorKind::KeyUnusable { root: root.clone() },
        format!(
            "the platform key {root} cannot be used: {}; the server cannot start without it",
            reason_of(error)
        ),
    )
}

/// Stores the oracle's high-water mark while time is used.
async fn keep_clock(engine: Weak<Engine>, stop: CancellationToken) {
    let mut stored = saker_model::Timestamp(0);
    loop {
        let Some(engine) = engine.upgrade() else { return };
        let last = engine.shared.oracle.last();
        if last != stored
            && let Err(error) = store_clock(&engine.shared, last).await
        {
            tracing::debug!("high-water mark of the clock not stored: {error}");
        } else {
            stored = last;
        }
        drop(engine);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CLOCK_EVERY) => {}
        }
    }
}

async fn store_clock(shared: &Shared, last: saker_model::Timestamp) -> Result<()> {
    let key = meta_key("cluster", "clock")?;
    let value = seal(&shared.platform_lease()?, &key, &ClockRecord { last })?;
    let mut batch = MetaBatch::new();
    batch.put(key, value);
    Ok(shared.meta.commit(batch).await?)
}
