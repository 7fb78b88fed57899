//! A small Milvus client that sends searches as fast as a server answers them and prints what it saw as one JSON line.
//!
//! It exists so that a measurement shows the server and not the client's language. It sends exactly what pymilvus sends
//! for a plain search: no output fields, the server's default search parameters unless `--ef` is given. Requests are
//! encoded before the clock starts; each client has a thread and a connection of its own with one request under way, and
//! decodes each answer in full.

mod connection;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use prost::Message as _;
use saker_proto::{
    common::{KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue},
    milvus::{SearchRequest, SearchResults, search_request::SearchInput},
};

use connection::{Connection, Failure, prefixed};

/// Sends searches and measures.
#[derive(Parser)]
struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:19530")]
    uri: String,
    #[arg(long, default_value = "default")]
    database: String,
    #[arg(long)]
    collection: String,
    #[arg(long, default_value = "vector")]
    field: String,
    #[arg(long, default_value = "COSINE")]
    metric: String,
    /// Query vectors: raw little-endian f32, row-major.
    #[arg(long)]
    queries: PathBuf,
    #[arg(long)]
    dim: usize,
    #[arg(long, default_value_t = 10)]
    limit: usize,
    /// `ef`; the server's default if left out.
    #[arg(long)]
    ef: Option<usize>,
    /// Filter expression; none if left out.
    #[arg(long, default_value = "")]
    filter: String,
    /// Queries in one request.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 2)]
    clients: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Stops after this many requests, whatever the time.
    #[arg(long, default_value_t = usize::MAX)]
    requests_max: usize,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    failures: usize,
    hits: usize,
}

/// The requests, encoded.
fn requests(options: &Options) -> Result<Vec<Vec<u8>>, Failure> {
    let raw = std::fs::read(&options.queries)?;
    let queries: Vec<&[u8]> = raw.chunks_exact(options.dim * 4).collect();
    if options.batch == 0 || queries.len() < options.batch {
        return Err("fewer query vectors than --batch".into());
    }
    let pair = |key: &str, value: String| KeyValuePair { key: key.to_owned(), value };
    let params = options.ef.map_or("{}".to_owned(), |ef| format!("{{\"ef\": {ef}}}"));
    let request = |part: &[&[u8]]| {
        let group = PlaceholderGroup {
            placeholders: vec![PlaceholderValue {
                tag: "$0".to_owned(),
                r#type: PlaceholderType::FloatVector.into(),
                values: part.iter().map(|query| query.to_vec().into()).collect(),
                ..Default::default()
            }],
        };
        let request = SearchRequest {
            db_name: options.database.clone(),
            collection_name: options.collection.clone(),
            dsl: options.filter.clone(),
            dsl_type: 1,
            search_input: Some(SearchInput::PlaceholderGroup(group.encode_to_vec().into())),
            search_params: vec![
                pair("anns_field", options.field.clone()),
                pair("topk", options.limit.to_string()),
                pair("metric_type", options.metric.clone()),
                pair("params", params.clone()),
                pair("round_decimal", "-1".to_owned()),
            ],
            nq: i64::try_from(part.len()).unwrap_or(i64::MAX),
            use_default_consistency: true,
            ..Default::default()
        };
        prefixed(&request.encode_to_vec())
    };
    queries.chunks_exact(options.batch).map(request).collect()
}

/// One client, until the time or the requests are used up.
fn client(
    connection: &mut Connection,
    requests: &[Vec<u8>],
    next: &AtomicUsize,
    until: Instant,
    requests_max: usize,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let mut answer = Vec::new();
    let mut began = Instant::now();
    while began < until {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests_max {
            break;
        }
        connection.call(&requests[number % requests.len()], &mut answer)?;
        let decoded = SearchResults::decode(&answer[..])?;
        let ended = Instant::now();
        if decoded.status.is_some_and(|status| status.code != 0) {
            seen.failures += 1;
        } else {
            seen.latencies.push(ended - began);
            seen.hits += decoded.results.map_or(0, |results| results.scores.len());
        }
        began = ended;
    }
    Ok(seen)
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let requests = requests(&options)?;
    let authority = options.uri.trim_start_matches("http://").trim_end_matches('/');
    let connect = || Connection::open(authority, "/milvus.proto.milvus.MilvusService/Search");
    let mut connections = (0..options.clients).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(options.seconds);
    let all: Vec<Result<Seen, Failure>> = thread::scope(|scope| {
        let run = |connection| {
            let (requests, next) = (&requests, &next);
            scope.spawn(move || client(connection, requests, next, until, options.requests_max))
        };
        let threads: Vec<_> = connections.iter_mut().map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Err("a client died".into()));
        threads.into_iter().map(join).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut total = Seen::default();
    for seen in all {
        let seen = seen?;
        total.latencies.extend(seen.latencies);
        total.failures += seen.failures;
        total.hits += seen.hits;
    }
    let mut latencies = total.latencies;
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = ((latencies.len() as f64 - 1.0) * share) as usize;
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    println!(
        "{}",
        serde_json::json!({
            "requests": latencies.len(),
            "failures": total.failures,
            "hits": total.hits,
            "seconds": seconds,
            "queries_per_second": (latencies.len() * options.batch) as f64 / seconds,
            "p50_ms": at(0.5),
            "p90_ms": at(0.9),
            "p99_ms": at(0.99),
            "p99.9_ms": at(0.999),
        })
    );
    Ok(())
}
