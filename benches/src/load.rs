//! A small Milvus client that sends searches as fast as a server answers them and prints what it saw as one JSON line.
//!
//! It exists so that a measurement shows the server and not the client's language. It sends exactly what pymilvus sends
//! for a plain search: no output fields, the server's default search parameters unless `--ef` is given.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use prost::Message as _;
use saker_proto::{
    common::{KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue},
    milvus::{SearchRequest, milvus_service_client::MilvusServiceClient, search_request::SearchInput},
};
use tonic::transport::Channel;

type Failure = Box<dyn std::error::Error + Send + Sync>;

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

struct Seen {
    latencies: Vec<Duration>,
    failures: usize,
}

fn requests(options: &Options) -> Result<Vec<SearchRequest>, Failure> {
    let raw = std::fs::read(&options.queries)?;
    let queries: Vec<&[u8]> = raw.chunks_exact(options.dim * 4).collect();
    if queries.len() < options.batch {
        return Err("fewer query vectors than --batch".into());
    }
    let pair = |key: &str, value: String| KeyValuePair { key: key.to_owned(), value };
    let params = options.ef.map_or("{}".to_owned(), |ef| format!("{{\"ef\": {ef}}}"));
    Ok(queries
        .chunks_exact(options.batch)
        .map(|part| {
            let group = PlaceholderGroup {
                placeholders: vec![PlaceholderValue {
                    tag: "$0".to_owned(),
                    r#type: PlaceholderType::FloatVector.into(),
                    values: part.iter().map(|query| query.to_vec().into()).collect(),
                    ..Default::default()
                }],
            };
            SearchRequest {
                db_name: options.database.clone(),
                collection_name: options.collection.clone(),
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
            }
        })
        .collect())
}

async fn client(
    mut service: MilvusServiceClient<Channel>,
    requests: Arc<Vec<SearchRequest>>,
    next: Arc<AtomicUsize>,
    until: Instant,
    requests_max: usize,
) -> Seen {
    let mut seen = Seen { latencies: Vec::new(), failures: 0 };
    while Instant::now() < until {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests_max {
            break;
        }
        let began = Instant::now();
        match service.search(requests[number % requests.len()].clone()).await {
            Ok(answer) if answer.get_ref().status.as_ref().is_none_or(|status| status.code == 0) => {
                seen.latencies.push(began.elapsed());
            }
            Ok(_) | Err(_) => seen.failures += 1,
        }
    }
    seen
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let requests = Arc::new(requests(&options)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let next = Arc::new(AtomicUsize::new(0));
        let mut services = Vec::new();
        for _ in 0..options.clients {
            let channel = Channel::from_shared(options.uri.clone())?.tcp_nodelay(true).connect().await?;
            services.push(MilvusServiceClient::new(channel).max_decoding_message_size(64 << 20));
        }
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(options.seconds);
        let tasks: Vec<_> = services
            .into_iter()
            .map(|service| {
                tokio::spawn(client(service, requests.clone(), next.clone(), until, options.requests_max))
            })
            .collect();
        let mut latencies = Vec::new();
        let mut failures = 0;
        for task in tasks {
            let seen = task.await?;
            latencies.extend(seen.latencies);
            failures += seen.failures;
        }
        let seconds = began.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies.len() as f64 - 1.0) * share) as usize;
            latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        println!(
            "{}",
            serde_json::json!({
                "requests": latencies.len(),
                "failures": failures,
                "seconds": seconds,
                "queries_per_second": (latencies.len() * options.batch) as f64 / seconds,
                "p50_ms": at(0.5),
                "p99_ms": at(0.99),
            })
        );
        Ok(())
    })
}
