//! A small cluster in a temporary directory: real embedded stores, a scripted key service, a clock that tests set.
#![allow(unreachable_pub, reason = "shared by the modules of this test program")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use saker_engine::{
    Clock, CollectionSpec, Engine, EngineConfig, Error, Event, EventSink, Filter, IndexRequest, LoadState, PrimaryKeys,
    Queries, QueryRequest, SearchRequest, SearchResult, Stores, SystemClock,
};
use saker_keyring::RootKeyId;
use saker_model::{CollectionSchema, Column, ColumnData, ConsistencyLevel, DataType, FieldId, FieldSchema, RowBatch};
use saker_storage::{DirectoryError, EmbeddedStores};
use saker_testing::{Random, ScriptedKms};

pub const DIM: usize = 8;

/// A clock whose monotonic time moves only when told, so that nothing is probed but on request.
#[derive(Debug, Default)]
pub struct ManualClock {
    pub monotonic: AtomicU64,
}

impl ManualClock {
    pub fn advance(&self, millis: u64) {
        self.monotonic.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        SystemClock::new().wall_ms()
    }
    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

/// Keeps every event.
#[derive(Debug, Default)]
pub struct Events(pub Mutex<Vec<Event>>);

impl EventSink for Events {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

pub struct Cluster {
    pub dir: PathBuf,
    pub kms: Arc<ScriptedKms>,
    pub platform: RootKeyId,
    pub customer: RootKeyId,
    pub clock: Arc<ManualClock>,
    pub events: Arc<Events>,
    pub config: EngineConfig,
    temp: Arc<tempfile::TempDir>,
}

impl Cluster {
    pub fn new() -> Self {
        let temp = Arc::new(tempfile::tempdir().unwrap());
        let kms = Arc::new(ScriptedKms::new());
        let (platform, customer) = (kms.add_root(), kms.add_root());
        let (clock, events) = (Arc::new(ManualClock::default()), Arc::new(Events::default()));
        let config = EngineConfig {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            events: Arc::clone(&events) as Arc<dyn EventSink>,
            index_rows_min: 512,
            ..EngineConfig::default()
        };
        let dir = temp.path().join("data");
        Self {
            dir,
            kms,
            platform,
            customer,
            clock,
            events,
            config,
            temp,
        }
    }
    pub async fn open(&self) -> Arc<Engine> {
        self.try_open(&self.dir).await.unwrap()
    }
    pub async fn try_open(&self, dir: &Path) -> Result<Arc<Engine>, Error> {
        // An engine that was dropped without a stop lets go of its directory once its last task has ended.
        for _ in 0..1_000 {
            match EmbeddedStores::open(dir).await {
                Ok(stores) => return self.open_stores(stores).await,
                Err(DirectoryError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory is never let go of");
    }
    pub async fn open_stores(&self, stores: impl Into<Stores>) -> Result<Arc<Engine>, Error> {
        let keys = Arc::clone(&self.kms) as Arc<dyn saker_keyring::KeyService>;
        Engine::open(self.config.clone(), stores, keys, self.platform.clone()).await
    }
    /// What a crash at this instant would leave.
    pub fn crash_image(&self, name: &str) -> PathBuf {
        let target = self.temp.path().join(name);
        copy_dir(&self.dir, &target);
        target
    }
    /// A database under the customer's key, a collection in it, indexed and loaded.
    pub async fn database(&self, engine: &Arc<Engine>, name: &str) {
        let properties = [("cipher.enabled", "true"), ("cipher.key", self.customer.as_str())];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        engine.create_database(name, properties).await.unwrap();
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let Ok(entry) = entry else { continue };
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            // A file may vanish while it is copied, as in a crash.
            let _vanished = std::fs::copy(entry.path(), target);
        }
    }
}

pub fn field(name: &str, data_type: DataType) -> FieldSchema {
    FieldSchema {
        id: FieldId(0),
        name: name.into(),
        description: String::new(),
        data_type,
        element_type: None,
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: false,
        default_value: None,
        dim: if data_type.is_vector() { DIM } else { 0 },
        max_length: if data_type == DataType::VarChar { 200 } else { 0 },
        max_capacity: 0,
        type_params: Default::default(),
    }
}

/// `id` Int64 (primary), `vector`, `name` VarChar, and the dynamic field.
pub fn spec(name: &str) -> CollectionSpec {
    let mut id = field("id", DataType::Int64);
    id.is_primary = true;
    let fields = vec![
        id,
        field("vector", DataType::FloatVector),
        field("name", DataType::VarChar),
    ];
    spec_of(name, fields, true)
}

pub fn spec_of(name: &str, fields: Vec<FieldSchema>, dynamic: bool) -> CollectionSpec {
    CollectionSpec {
        schema: CollectionSchema {
            name: name.into(),
            description: String::new(),
            fields,
            enable_dynamic_field: dynamic,
            functions: Vec::new(),
        },
        shards: 1,
        consistency: ConsistencyLevel::Bounded,
        properties: Default::default(),
        partitions: None,
    }
}

pub async fn collection(engine: &Arc<Engine>, database: &str, name: &str, index: &str) {
    engine.create_collection(database, spec(name)).await.unwrap();
    index_and_load(engine, database, name, index).await;
}

pub async fn index_and_load(engine: &Arc<Engine>, database: &str, name: &str, index: &str) {
    let params = [("index_type", index), ("metric_type", "L2")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let request = IndexRequest {
        field: "vector".into(),
        name: None,
        params,
    };
    engine.create_index(database, name, request).await.unwrap();
    engine.load_collection(database, name).await.unwrap();
    loaded(engine, database, name).await;
}

pub async fn loaded(engine: &Arc<Engine>, database: &str, name: &str) {
    eventually("the collection is loaded", || async {
        engine.load_state(database, name).await.unwrap() == LoadState::Loaded
    })
    .await;
}

/// Waits for something that the background does. The bound is only there to end a test that fails.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..3_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain: {what}");
}

/// The vector of a row: the same for the same id.
pub fn vector(id: i64) -> Vec<f32> {
    let mut random = Random::new(id.cast_unsigned().wrapping_mul(0x1234_5678_9abc));
    #[expect(clippy::cast_possible_truncation, reason = "random numbers")]
    (0..DIM).map(|_| random.next_f64() as f32).collect()
}

pub fn name_of(id: i64) -> String {
    format!("canary-name-{id:06}")
}

/// Rows with these ids; field ids as the engine numbers those of [`spec`].
pub fn rows(ids: impl IntoIterator<Item = i64>) -> RowBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let names = ids.iter().map(|id| name_of(*id)).collect();
    named_rows(&ids, names)
}

pub fn named_rows(ids: &[i64], names: Vec<String>) -> RowBatch {
    let data = ids.iter().flat_map(|id| vector(*id)).collect();
    let documents = ids
        .iter()
        .map(|id| format!("{{\"canary_key\":{id}}}").into_bytes())
        .collect();
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(ids.to_vec())),
        Column::full(FieldId(101), ColumnData::FloatVector { dim: DIM, data }),
        Column::full(FieldId(102), ColumnData::VarChar(names)),
        Column::full(FieldId(103), ColumnData::Json(documents)),
    ])
    .unwrap()
}

pub async fn insert(engine: &Arc<Engine>, database: &str, name: &str, ids: impl IntoIterator<Item = i64>) {
    engine.insert(database, name, None, rows(ids)).await.unwrap();
}

pub fn search_request(database: &str, name: &str, id: i64, limit: usize) -> SearchRequest {
    SearchRequest {
        database: database.into(),
        collection: name.into(),
        field: "vector".into(),
        queries: Queries::Dense(vector(id)),
        queries_count: 1,
        limit,
        output_fields: vec!["name".into()],
        ..SearchRequest::default()
    }
}

pub async fn search(engine: &Arc<Engine>, database: &str, name: &str, id: i64, limit: usize) -> SearchResult {
    engine.search(search_request(database, name, id, limit)).await.unwrap()
}

pub fn ints(ids: &PrimaryKeys) -> Vec<i64> {
    match ids {
        PrimaryKeys::Int(ids) => ids.clone(),
        PrimaryKeys::Text(_) => panic!("texts"),
    }
}

pub fn filter(text: &str) -> Filter {
    Filter {
        text: text.into(),
        templates: Default::default(),
    }
}

pub fn query_request(database: &str, name: &str, text: &str, output: &[&str]) -> QueryRequest {
    QueryRequest {
        database: database.into(),
        collection: name.into(),
        filter: filter(text),
        output_fields: output.iter().map(|name| (*name).to_owned()).collect(),
        ..QueryRequest::default()
    }
}

/// All ids, in order, through a query.
pub async fn ids(engine: &Arc<Engine>, database: &str, name: &str) -> Vec<i64> {
    let result = engine
        .query(query_request(database, name, "id >= -1000000", &["id"]))
        .await
        .unwrap();
    let ColumnData::Int64(ids) = &result.columns[0].column.data else {
        panic!("ids")
    };
    ids.clone()
}

pub async fn count(engine: &Arc<Engine>, database: &str, name: &str) -> u64 {
    engine
        .query(query_request(database, name, "", &["count(*)"]))
        .await
        .unwrap()
        .count
        .unwrap()
}

/// The true nearest ids.
pub fn brute_force(ids: impl IntoIterator<Item = i64>, query: &[f32], limit: usize) -> Vec<i64> {
    let distance = |id: i64| {
        vector(id)
            .iter()
            .zip(query)
            .map(|(a, b)| (a - b) * (a - b))
            .sum::<f32>()
    };
    let mut ranked: Vec<(f32, i64)> = ids.into_iter().map(|id| (distance(id), id)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().take(limit).map(|(_, id)| id).collect()
}
