//! Larger than memory, and load after a restart: what a collection takes in memory whose vectors stay on disk, what its
//! searches find and how long they take, and how fast its sealed files are opened beside a plain read of the same files in
//! the same run.
//!
//! Rows are made here, from a seed: points near a thousand centers that lie in a plane of 24 dimensions, as embeddings do.
//! Exact answers are worked out beside the inserts. The engine runs as a library in this process, its zone keys from a key
//! service in the same process; everything else is the product.
//!
//! `saker-disk-bench SCRATCH ROWS DIM TYPE`, TYPE being an index type (`DISKANN` keeps vectors on disk, `HNSW` in memory).

use std::{
    collections::HashSet,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use saker_engine::{
    CollectionSpec, Engine, EngineConfig, IndexRequest, LoadState, PrimaryKeys, Queries, SearchParams, SearchRequest,
};
use saker_model::{CollectionSchema, Column, ColumnData, ConsistencyLevel, DataType, FieldId, FieldSchema, RowBatch};
use saker_storage::EmbeddedStores;
use saker_testing::ScriptedKms;

/// As in the server: what is large and free goes back to the system.
#[global_allocator]
static ALLOCATOR: saker_arena::Heap = saker_arena::Heap;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DATABASE: &str = "bench";
const COLLECTION: &str = "bench";
const K: usize = 10;
const BATCH: usize = 5_000;
const QUERIES: usize = 100;
const CENTERS: usize = 1_000;
const PLANE: usize = 24;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scratch, rows, dim, kind] = arguments.as_slice() else {
        return Err("usage: saker-disk-bench SCRATCH ROWS DIM TYPE".into());
    };
    let (scratch, rows, dim): (_, usize, usize) = (PathBuf::from(scratch), rows.parse()?, dim.parse()?);
    let points = Points::new(dim);
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|query| points.at(u64::MAX / 2 + query as u64)).collect();
    println!("{rows} rows of {dim} values, {} MiB; index {kind}, cosine", mebibytes(4 * (rows * dim) as u64));

    let kms = Arc::new(ScriptedKms::new());
    let (platform, customer) = (kms.add_root(), kms.add_root());
    let data = scratch.join("data");
    let stores = EmbeddedStores::open(&data).await?;
    let engine = Engine::open(EngineConfig::default(), stores, Arc::clone(&kms) as _, platform.clone()).await?;
    let properties = [("cipher.enabled", "true"), ("cipher.key", customer.as_str())];
    engine.create_database(DATABASE, pairs(properties)).await?;
    engine.create_collection(DATABASE, spec(dim)).await?;
    let params = pairs([("index_type", kind.as_str()), ("metric_type", "COSINE")]);
    let request = IndexRequest { field: "vector".to_owned(), name: None, params };
    engine.create_index(DATABASE, COLLECTION, request).await?;
    engine.load_collection(DATABASE, COLLECTION).await?;

    let mut best: Vec<Vec<(f32, i64)>> = vec![Vec::new(); QUERIES];
    let (began, mut inserting) = (Instant::now(), Duration::ZERO);
    for start in (0..rows).step_by(BATCH) {
        let end = rows.min(start + BATCH);
        let values: Vec<f32> = (start..end).flat_map(|row| points.at(row as u64)).collect();
        for (query, best) in queries.iter().zip(&mut best) {
            for (row, vector) in (start..).zip(values.chunks_exact(dim)) {
                keep(best, cosine(query, vector), i64::try_from(row)?);
            }
        }
        let ids = (start..end).map(i64::try_from).collect::<Result<Vec<_>, _>>()?;
        let columns = vec![
            Column::full(FieldId(100), ColumnData::Int64(ids)),
            Column::full(FieldId(101), ColumnData::FloatVector { dim, data: values }),
        ];
        let batch = RowBatch::new(columns)?;
        let inserted = Instant::now();
        while let Err(error) = engine.insert(DATABASE, COLLECTION, None, batch.clone()).await {
            if !error.to_string().contains("wait to be sealed") {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        inserting += inserted.elapsed();
    }
    engine.flush(DATABASE, &[COLLECTION.to_owned()]).await?;
    println!(
        "inserted in {:.0} s ({:.0} s with making rows and exact answers): {}",
        inserting.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        memory()?
    );
    let began = Instant::now();
    loop {
        let about = engine.describe_index(DATABASE, COLLECTION, "vector").await?;
        if about.iter().all(|index| index.total_rows > 0 && index.indexed_rows == index.total_rows) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("index complete {:.0} s after that: {}", began.elapsed().as_secs_f64(), memory()?);
    let segments = engine.segments(DATABASE, COLLECTION).await?;
    println!("{} segments", segments.len());

    let calls = kms.calls_total();
    sweep(&engine, &queries, &best, dim).await?;
    println!("frames: {:?}", engine.frame_cache());
    println!("calls of the key service during all searches: {}", kms.calls_total() - calls);
    engine.shutdown().await;
    drop(engine);

    // Restart: the files are in the page cache, so the ratio is that of the work, not of the disk.
    let files = files_of(&data.join("objects"))?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    println!("after shutdown: {}", memory()?);
    for round in 0..3 {
        let raw = read_all(&files)?;
        let stores = EmbeddedStores::open(&data).await?;
        let engine = Engine::open(EngineConfig::default(), stores, Arc::clone(&kms) as _, platform.clone()).await?;
        let began = Instant::now();
        engine.load_collection(DATABASE, COLLECTION).await?;
        let mut first = None;
        while engine.load_state(DATABASE, COLLECTION).await? != LoadState::Loaded {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let loaded = began.elapsed();
        if engine.search(request_of(&queries[0], dim, 64)).await.is_ok() {
            first = Some(began.elapsed());
        }
        println!(
            "round {round}: loaded in {:.3} s, first answer after {:.3} s; {} MiB of files: {:.0} MB/s; a plain read of them {:.0} MB/s; {}",
            loaded.as_secs_f64(),
            first.unwrap_or_default().as_secs_f64(),
            mebibytes(bytes),
            bytes as f64 / 1e6 / loaded.as_secs_f64(),
            bytes as f64 / 1e6 / raw.as_secs_f64(),
            memory()?
        );
        if round == 2 {
            sweep(&engine, &queries, &best, dim).await?;
        }
        engine.shutdown().await;
    }
    Ok(())
}

/// Recall, rate and latency of one caller at several list lengths.
async fn sweep(engine: &Engine, queries: &[Vec<f32>], best: &[Vec<(f32, i64)>], dim: usize) -> Result<(), Failure> {
    for ef in [10, 16, 24, 32, 48, 64, 100, 160] {
        let (mut right, mut latencies) = (0, Vec::new());
        for _ in 0..2 {
            (right, latencies) = (0, Vec::new());
            for (query, best) in queries.iter().zip(best) {
                let asked = Instant::now();
                let found = engine.search(request_of(query, dim, ef)).await?;
                latencies.push(asked.elapsed().as_secs_f64() * 1e3);
                let PrimaryKeys::Int(ids) = found.ids else { return Err("ids are not numbers".into()) };
                let near: HashSet<i64> = best.iter().map(|(_, id)| *id).collect();
                right += ids.iter().filter(|id| near.contains(id)).count();
            }
        }
        let total: f64 = latencies.iter().sum();
        latencies.sort_by(f64::total_cmp);
        println!(
            "ef {ef}: recall@10 {:.4}, {:.0} queries/s, p50 {:.2} ms, p99 {:.2} ms; {}",
            right as f64 / (K * queries.len()) as f64,
            1e3 * latencies.len() as f64 / total,
            latencies[latencies.len() / 2],
            latencies[latencies.len() * 99 / 100],
            memory()?
        );
    }
    Ok(())
}

fn request_of(query: &[f32], _dim: usize, ef: usize) -> SearchRequest {
    SearchRequest {
        database: DATABASE.to_owned(),
        collection: COLLECTION.to_owned(),
        field: "vector".to_owned(),
        queries_count: 1,
        queries: Queries::Dense(query.to_vec()),
        limit: K,
        params: SearchParams {
            ef: Some(ef),
            named: pairs([("search_list", ef.to_string().as_str()), ("ef", ef.to_string().as_str())]),
            ..SearchParams::default()
        },
        ..SearchRequest::default()
    }
}

/// Points by number, always the same.
struct Points {
    dim: usize,
    centers: Vec<f32>,
    plane: Vec<f32>,
}

impl Points {
    fn new(dim: usize) -> Self {
        let mut random = Random(7);
        let centers = (0..CENTERS * PLANE).map(|_| random.normal()).collect();
        let plane = (0..PLANE * dim).map(|_| random.normal() / (PLANE as f32).sqrt()).collect();
        Self { dim, centers, plane }
    }
    fn at(&self, number: u64) -> Vec<f32> {
        let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678);
        let center = (random.next() % CENTERS as u64) as usize * PLANE;
        let mut point = vec![0.0; self.dim];
        for (axis, center) in self.centers[center..center + PLANE].iter().enumerate() {
            let along = center + 0.7 * random.normal();
            for (value, step) in point.iter_mut().zip(&self.plane[axis * self.dim..]) {
                *value += along * step;
            }
        }
        point.iter_mut().for_each(|value| *value += 0.1 * random.normal());
        point
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    /// Nearly normal: the sum of four even ones.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let even = |part: u32| (bits >> (16 * part) & 0xffff) as f32 / 65_536.0 - 0.5;
        (even(0) + even(1) + even(2) + even(3)) * 1.732
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [[0.0f32; 16]; 2];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for lane in 0..16 {
            sums[0][lane] += a[lane] * b[lane];
            sums[1][lane] += b[lane] * b[lane];
        }
    }
    let [dot, square] = sums.map(|lanes| lanes.iter().sum::<f32>());
    dot / square.sqrt()
}

fn keep(best: &mut Vec<(f32, i64)>, score: f32, id: i64) {
    if best.len() == K && best[K - 1].0 >= score {
        return;
    }
    let place = best.partition_point(|(other, _)| *other > score);
    best.insert(place, (score, id));
    best.truncate(K);
}

/// Reads all files from start to end into one buffer, as `dd` does.
fn read_all(files: &[(PathBuf, u64)]) -> Result<Duration, Failure> {
    let mut buffer = vec![0u8; 1 << 20];
    let began = Instant::now();
    for (path, bytes) in files {
        let file = std::fs::File::open(path)?;
        let mut at = 0;
        while at < *bytes {
            at += file.read_at(&mut buffer, at)? as u64;
        }
    }
    Ok(began.elapsed())
}

fn files_of(folder: &Path) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            found.extend(files_of(&entry.path())?);
        } else {
            found.push((entry.path(), about.len()));
        }
    }
    Ok(found)
}

/// Resident memory now and at its highest since the last call.
fn memory() -> Result<String, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    let (now, peak) = (of("VmRSS:"), of("VmHWM:"));
    std::fs::write("/proc/self/clear_refs", "5")?;
    Ok(format!("{now} MiB resident, {peak} at most"))
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn spec(dim: usize) -> CollectionSpec {
    let mut id = field("id", DataType::Int64, 0);
    id.is_primary = true;
    CollectionSpec {
        schema: CollectionSchema {
            name: COLLECTION.to_owned(),
            description: String::new(),
            fields: vec![id, field("vector", DataType::FloatVector, dim)],
            enable_dynamic_field: false,
            functions: Vec::new(),
        },
        shards: 1,
        consistency: ConsistencyLevel::Bounded,
        properties: Default::default(),
        partitions: None,
    }
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
