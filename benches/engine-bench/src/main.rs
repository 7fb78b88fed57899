//! The `engine` crate as a library, sealed, in one process: what Saker's search is without network and client.
//!
//! It is a worker of the side-by-side program: it reads commands as JSON lines and answers each with one line. Zone keys
//! come from a key service in this process; everything else is the product: sealed log, sealed files, leases, filters.
//! What it deliberately does not do: choose settings; the caller sweeps `ef`.

#[path = "../../src/npy.rs"]
mod npy;

use std::{
    collections::HashSet,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use saker_engine::{
    CollectionSpec, Engine, EngineConfig, Filter, IndexRequest, LoadState, PrimaryKeys, Queries, SearchParams,
    SearchRequest,
};
use saker_model::{
    CollectionSchema, Column, ColumnData, ConsistencyLevel, DataType, FieldId, FieldSchema, RowBatch,
};
use saker_storage::EmbeddedStores;
use saker_testing::ScriptedKms;
use serde_json::{Value, json};

use npy::{Array, Failure};

/// As in the server: what is large and free goes back to the system.
#[global_allocator]
static ALLOCATOR: saker_arena::Heap = saker_arena::Heap;

const DATABASE: &str = "bench";
const COLLECTION: &str = "bench";
const K: usize = 10;
const COLUMNS: [&str; 2] = ["scattered", "clustered"];
const BATCH: usize = 5_000;

struct Bench {
    folder: PathBuf,
    scratch: PathBuf,
    dim: usize,
    queries: Vec<f32>,
    truth: Vec<i64>,
    filter_queries: Vec<f32>,
    engine: Option<Arc<Engine>>,
}

/// A way of asking.
struct Lane {
    name: &'static str,
    threads: usize,
    batch: usize,
}

const LANES: [Lane; 3] = [
    Lane { name: "1 thread", threads: 1, batch: 1 },
    Lane { name: "2 threads", threads: 2, batch: 1 },
    Lane { name: "1 caller, 100 queries a call", threads: 1, batch: 100 },
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(scratch)) = (arguments.next(), arguments.next()) else {
        return Err("usage: saker-engine-bench FOLDER SCRATCH".into());
    };
    let mut bench = Bench::open(PathBuf::from(folder), PathBuf::from(scratch))?;
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let answer = bench.answer(&command).await.unwrap_or_else(|error| json!({ "failure": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
        if command["do"] == "stop" {
            break;
        }
    }
    Ok(())
}

impl Bench {
    fn open(folder: PathBuf, scratch: PathBuf) -> Result<Self, Failure> {
        let queries = Array::read(&folder.join("queries.npy"), "<f4")?;
        Ok(Self {
            dim: queries.columns,
            queries: queries.f32s(),
            truth: Array::read(&folder.join("truth.npy"), "<i8")?.i64s(),
            filter_queries: Array::read(&folder.join("filter-queries.npy"), "<f4")?.f32s(),
            engine: None,
            folder,
            scratch,
        })
    }

    async fn answer(&mut self, command: &Value) -> Result<Value, Failure> {
        let number = |name: &str| command[name].as_u64().and_then(|value| usize::try_from(value).ok()).unwrap_or(0);
        let seconds = |name: &str| command[name].as_f64().unwrap_or(1.0);
        let filter = command["column"].as_str().map(|column| format!("{column} < {}", number("permille")));
        match command["do"].as_str().unwrap_or_default() {
            "about" => Ok(about()),
            "build" => self.build().await,
            "memory" => Ok(json!({ "resident_bytes": resident_bytes()?, "server": false })),
            "recall" => {
                let truth = match command["column"].as_str() {
                    Some(column) => {
                        let name = format!("truth-{column}-{}.npy", number("permille"));
                        Array::read(&self.folder.join(name), "<i8")?.i64s()
                    }
                    None => self.truth.clone(),
                };
                self.recall(number("parameter"), filter, &truth).await
            }
            "rate" => {
                let name = command["lane"].as_str().unwrap_or_default();
                let lane = LANES.iter().find(|lane| lane.name == name).ok_or("no such lane")?;
                self.rate(lane, number("parameter"), filter, seconds("seconds")).await
            }
            "latency" => self.rate(&LANES[0], number("parameter"), None, seconds("seconds")).await,
            "report" => Ok(json!({})),
            "stop" => {
                if let Some(engine) = self.engine.take() {
                    engine.shutdown().await;
                }
                Ok(json!({}))
            }
            other => Err(format!("no such command: {other}").into()),
        }
    }

    async fn build(&mut self) -> Result<Value, Failure> {
        let kms = Arc::new(ScriptedKms::new());
        let (platform, customer) = (kms.add_root(), kms.add_root());
        let stores = EmbeddedStores::open(&self.scratch.join("data")).await?;
        let engine = Engine::open(EngineConfig::default(), stores, kms, platform).await?;
        let properties = [("cipher.enabled", "true"), ("cipher.key", customer.as_str())];
        engine.create_database(DATABASE, pairs(properties)).await?;
        engine.create_collection(DATABASE, self.spec()).await?;
        let vector = [("index_type", "AUTOINDEX"), ("metric_type", "COSINE")];
        index(&engine, "vector", pairs(vector)).await?;
        for name in COLUMNS {
            index(&engine, name, pairs([("index_type", "INVERTED")])).await?;
        }
        let batches = self.batches()?;
        let began = Instant::now();
        for batch in batches {
            engine.insert(DATABASE, COLLECTION, None, batch).await?;
        }
        let ingested = began.elapsed();
        let began = Instant::now();
        engine.flush(DATABASE, &[COLLECTION.to_owned()]).await?;
        loop {
            let about = engine.describe_index(DATABASE, COLLECTION, "vector").await?;
            if about.iter().all(|index| index.total_rows > 0 && index.indexed_rows == index.total_rows) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let indexed = began.elapsed();
        engine.load_collection(DATABASE, COLLECTION).await?;
        while engine.load_state(DATABASE, COLLECTION).await? != LoadState::Loaded {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.engine = Some(engine);
        Ok(json!({
            "ingest_seconds": ingested.as_secs_f64(),
            "index_seconds": indexed.as_secs_f64(),
            "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    fn spec(&self) -> CollectionSpec {
        let mut id = field("id", DataType::Int64, 0);
        id.is_primary = true;
        let mut fields = vec![id];
        fields.extend(COLUMNS.iter().map(|name| field(name, DataType::Int32, 0)));
        fields.push(field("vector", DataType::FloatVector, self.dim));
        CollectionSpec {
            schema: CollectionSchema {
                name: COLLECTION.to_owned(),
                description: String::new(),
                fields,
                enable_dynamic_field: false,
                functions: Vec::new(),
            },
            shards: 1,
            consistency: ConsistencyLevel::Bounded,
            properties: Default::default(),
            partitions: None,
        }
    }

    fn batches(&self) -> Result<Vec<RowBatch>, Failure> {
        let vectors = Array::read(&self.folder.join("vectors.npy"), "<f4")?;
        let rows = vectors.rows;
        let vectors = vectors.f32s();
        let mut columns = Vec::new();
        for name in COLUMNS {
            columns.push(Array::read(&self.folder.join(format!("{name}.npy")), "<i4")?.i32s());
        }
        let mut batches = Vec::new();
        for start in (0..rows).step_by(BATCH) {
            let end = (start + BATCH).min(rows);
            let ids = (start..end).map(i64::try_from).collect::<Result<Vec<_>, _>>()?;
            let mut data = vec![ColumnData::Int64(ids)];
            data.extend(columns.iter().map(|column| ColumnData::Int32(column[start..end].to_vec())));
            let values = vectors[start * self.dim..end * self.dim].to_vec();
            data.push(ColumnData::FloatVector { dim: self.dim, data: values });
            // The engine numbers fields from 100 on.
            let columns = (100..).zip(data).map(|(id, data)| Column::full(FieldId(id), data)).collect();
            batches.push(RowBatch::new(columns)?);
        }
        Ok(batches)
    }

    fn request(&self, queries: &[f32], ef: usize, filter: Option<&str>) -> SearchRequest {
        SearchRequest {
            database: DATABASE.to_owned(),
            collection: COLLECTION.to_owned(),
            field: "vector".to_owned(),
            queries_count: queries.len() / self.dim,
            queries: Queries::Dense(queries.to_vec()),
            limit: K,
            params: SearchParams { ef: Some(ef), ..SearchParams::default() },
            filter: Filter { text: filter.unwrap_or_default().to_owned(), ..Filter::default() },
            ..SearchRequest::default()
        }
    }

    fn ready(&self) -> Result<&Arc<Engine>, Failure> {
        self.engine.as_ref().ok_or_else(|| "not built yet".into())
    }

    async fn recall(&self, ef: usize, filter: Option<String>, truth: &[i64]) -> Result<Value, Failure> {
        let queries = if filter.is_some() { &self.filter_queries } else { &self.queries };
        let engine = self.ready()?;
        let began = Instant::now();
        let mut right = 0;
        for (query, near) in queries.chunks_exact(self.dim).zip(truth.chunks_exact(K)) {
            let found = engine.search(self.request(query, ef, filter.as_deref())).await?;
            let PrimaryKeys::Int(ids) = found.ids else { return Err("ids are not numbers".into()) };
            let near: HashSet<i64> = near.iter().copied().collect();
            right += ids.iter().filter(|id| near.contains(id)).count();
        }
        let count = queries.len() / self.dim;
        let qps = count as f64 / began.elapsed().as_secs_f64();
        Ok(json!({ "recall": right as f64 / (count * K) as f64, "qps": qps, "queries": count }))
    }

    async fn rate(&self, lane: &Lane, ef: usize, filter: Option<String>, seconds: f64) -> Result<Value, Failure> {
        let queries = if filter.is_some() { &self.filter_queries } else { &self.queries };
        let requests: Arc<Vec<SearchRequest>> = Arc::new(
            queries
                .chunks_exact(self.dim * lane.batch)
                .map(|part| self.request(part, ef, filter.as_deref()))
                .collect(),
        );
        let next = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(seconds);
        let mut tasks = Vec::new();
        for _ in 0..lane.threads {
            let (engine, requests, next) = (Arc::clone(self.ready()?), Arc::clone(&requests), Arc::clone(&next));
            tasks.push(tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut asked = Instant::now();
                while asked < until {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    engine.search(requests[number % requests.len()].clone()).await?;
                    let answered = Instant::now();
                    latencies.push((answered - asked).as_secs_f64() * 1e3);
                    asked = answered;
                }
                Ok::<_, saker_engine::Error>(latencies)
            }));
        }
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        let qps = (latencies.len() * lane.batch) as f64 / began.elapsed().as_secs_f64();
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((latencies.len() as f64 - 1.0) * share) as usize;
            latencies.get(place).copied().unwrap_or(0.0)
        };
        if lane.batch > 1 {
            return Ok(json!({ "qps": qps }));
        }
        Ok(json!({ "qps": qps, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "p99.9_ms": at(0.999) }))
    }
}

fn about() -> Value {
    let lane = |lane: &Lane| json!({ "name": lane.name, "threads": lane.threads, "batch": lane.batch, "client": "" });
    json!({
        "settings": "the engine crate as a library, database under a root key of its own, AUTOINDEX, cosine; \
                     filter: expression on a column with an INVERTED index",
        "parameter": "ef",
        "sweep": [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024],
        "filters": true,
        "may_be_frozen": false,
        "lanes": LANES.iter().map(lane).collect::<Vec<_>>(),
    })
}

fn field(name: &str, data_type: DataType, dim: usize) -> FieldSchema {
    FieldSchema {
        id: FieldId(0),
        name: name.to_owned(),
        description: String::new(),
        data_type,
        element_type: None,
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: false,
        default_value: None,
        dim,
        max_length: 0,
        max_capacity: 0,
        type_params: Default::default(),
    }
}

fn pairs<const N: usize>(of: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    of.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

async fn index(
    engine: &Engine,
    field: &str,
    params: std::collections::BTreeMap<String, String>,
) -> Result<(), Failure> {
    let request = IndexRequest { field: field.to_owned(), name: None, params };
    Ok(engine.create_index(DATABASE, COLLECTION, request).await?)
}

/// Memory of this process, its share where others have it too.
fn resident_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string(Path::new("/proc/self/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:")).ok_or("the kernel does not say")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).ok_or("the kernel does not say")?.parse()?;
    Ok(kibibytes * 1024)
}
