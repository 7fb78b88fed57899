//! What is counted, as Prometheus text. Labels are RPC names, codes and key ARNs; never names of collections or rows.
//!
//! Start reading at [`Metrics::render`].

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use saker_audit::{AuditCounts, CallOutcome};
use saker_engine::{Engine, Event, EventSink, LockStatus};
use saker_keyring::KeyCall;

/// Counters and gauges of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rpcs: IntCounterVec,
    rpc_seconds: HistogramVec,
    /// Those of searches that went well, which are counted most often.
    searches_answered: OnceLock<(IntCounter, Histogram)>,
    rpcs_refused: IntCounterVec,
    rows_inserted: IntCounter,
    rows_deleted: IntCounter,
    searches: IntCounter,
    key_probes: IntCounterVec,
    key_calls: IntCounterVec,
    key_usable: IntGaugeVec,
    zones_locked: IntGauge,
    refusals: IntCounter,
    verification_failures: IntCounter,
    audit_records: IntGaugeVec,
    audit_head: IntGauge,
    resident_bytes: IntGauge,
    key_memory_bytes: IntGaugeVec,
}

/// The RPC of which there are most.
const SEARCH: &str = "Search";

/// Upper bounds of the latency buckets, in seconds: from a cached point query to a slow definition.
const LATENCY_BUCKETS_SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

impl Metrics {
    /// Fresh counters.
    ///
    /// # Errors
    /// If a metric's name is not well-formed or stands twice: a bug, found by any test that makes this.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let rpc_seconds = HistogramVec::new(
            HistogramOpts::new("saker_rpc_seconds", "time to answer, by rpc").buckets(LATENCY_BUCKETS_SECONDS.to_vec()),
            &["rpc"],
        )?;
        registry.register(Box::new(rpc_seconds.clone()))?;
        let key_usable = IntGaugeVec::new(
            Opts::new(
                "saker_key_usable",
                "1 while a root key may be used, 0 while its databases are locked, by key",
            ),
            &["key", "state"],
        )?;
        registry.register(Box::new(key_usable.clone()))?;
        let key_memory_bytes = IntGaugeVec::new(
            Opts::new(
                "saker_key_memory_bytes",
                "memory for key bytes; what is not locked may reach swap space, because RLIMIT_MEMLOCK is too low",
            ),
            &["locked"],
        )?;
        registry.register(Box::new(key_memory_bytes.clone()))?;
        let audit_records = IntGaugeVec::new(
            Opts::new(
                "saker_audit_records",
                "records of the audit and access logs since the start that were written, lost, or wait; lost ones need attention",
            ),
            &["log", "state"],
        )?;
        registry.register(Box::new(audit_records.clone()))?;
        Ok(Arc::new(Self {
            audit_records,
            audit_head: gauge(
                "saker_audit_head_sequence",
                "number of the newest record of the audit log",
            )?,
            rpcs: counters(
                "saker_rpc_total",
                "requests answered, by rpc and Milvus status code",
                &["rpc", "code"],
            )?,
            rpc_seconds,
            searches_answered: OnceLock::new(),
            rpcs_refused: counters(
                "saker_grpc_refused_total",
                "requests that ended with a gRPC status instead of a Milvus answer, by rpc and gRPC status code",
                &["rpc", "status"],
            )?,
            rows_inserted: counter("saker_rows_inserted_total", "rows inserted or upserted")?,
            rows_deleted: counter("saker_rows_deleted_total", "rows deleted")?,
            searches: counter("saker_search_queries_total", "query vectors searched for")?,
            key_probes: counters("saker_key_probes_total", "probes of root keys, by result", &["result"])?,
            key_calls: counters(
                "saker_key_calls_total",
                "requests to key services, by key, operation, reason and outcome",
                &["key", "operation", "reason", "outcome"],
            )?,
            key_usable,
            zones_locked: gauge("saker_zones_locked", "databases that are locked now")?,
            refusals: counter(
                "saker_refused_locked_total",
                "requests refused because their database is locked",
            )?,
            verification_failures: counter(
                "saker_verification_failures_total",
                "stored bytes that failed verification; anything but 0 needs attention",
            )?,
            key_memory_bytes,
            resident_bytes: gauge("saker_process_resident_bytes", "resident memory of the process")?,
            registry,
        }))
    }
    /// A request was answered with this Milvus status code.
    pub fn rpc_answered(&self, rpc: &str, code: i32, took: Duration) {
        let of_rpc = || {
            let count = self.rpcs.with_label_values(&[rpc, &code.to_string()]);
            (count, self.rpc_seconds.with_label_values(&[rpc]))
        };
        let count = |(count, seconds): &(IntCounter, Histogram)| {
            count.inc();
            seconds.observe(took.as_secs_f64());
        };
        if rpc == SEARCH && code == 0 {
            // Looked up once.
            count(self.searches_answered.get_or_init(of_rpc));
        } else {
            count(&of_rpc());
        }
    }
    /// A request ended with this gRPC status code.
    pub fn rpc_refused(&self, rpc: &str, status: &str) {
        self.rpcs_refused.with_label_values(&[rpc, status]).inc();
    }
    /// Rows were written.
    pub fn rows_inserted(&self, rows: u64) {
        self.rows_inserted.inc_by(rows);
    }
    /// Query vectors were answered.
    pub fn searches(&self, queries: u64) {
        self.searches.inc_by(queries);
    }
    /// A key service was called.
    pub fn key_called(&self, call: &KeyCall) {
        let outcome = CallOutcome::of(&call.outcome);
        let labels = [
            call.root.as_str(),
            call.operation.as_str(),
            call.why.as_str(),
            outcome.as_str(),
        ];
        self.key_calls.with_label_values(&labels).inc();
    }
    /// State of the audit log; records written and lost of the log of requests, if it is on.
    pub fn audit(&self, audit: &AuditCounts, access: Option<(u64, u64)>) {
        let set = |log: &str, what: &str, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            self.audit_records.with_label_values(&[log, what]).set(value);
        };
        set("audit", "written", audit.written);
        set("audit", "lost", audit.lost);
        set("audit", "waiting", audit.waiting as u64);
        if let Some((written, lost)) = access {
            set("access", "written", written);
            set("access", "lost", lost);
        }
        self.audit_head
            .set(i64::try_from(audit.head.sequence).unwrap_or(i64::MAX));
    }
    /// All metrics as Prometheus text; key states are read from the engine now.
    pub async fn render(&self, engine: &Engine) -> Result<Vec<u8>, prometheus::Error> {
        if let Ok(keys) = engine.key_states().await {
            self.key_usable.reset();
            let mut locked = 0;
            for key in keys {
                let (state, usable) = match key.lock {
                    LockStatus::Active => ("active", 1),
                    LockStatus::Suspect => ("suspect", 1),
                    LockStatus::Locked { .. } => ("locked", 0),
                };
                if usable == 0 {
                    locked += i64::try_from(key.databases.len()).unwrap_or(i64::MAX);
                }
                self.key_usable
                    .with_label_values(&[key.root.as_str(), state])
                    .set(usable);
            }
            self.zones_locked.set(locked);
        }
        self.resident_bytes.set(resident_bytes().unwrap_or(0));
        let key_memory = saker_arena::status();
        for (locked, bytes) in [("yes", key_memory.locked_bytes), ("no", key_memory.unlocked_bytes)] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.key_memory_bytes.with_label_values(&[locked]).set(bytes);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// What an operator reads in the log names databases and keys. Names of collections are the customer's data: they are in
/// the audit log, which is sealed.
impl EventSink for Metrics {
    fn on_event(&self, event: &Event) {
        match event {
            Event::KeyProbed { root, failure, denied } => {
                let result = match (failure, denied) {
                    (None, _) => "ok",
                    (Some(_), true) => "denied",
                    (Some(_), false) => "unavailable",
                };
                self.key_probes.with_label_values(&[result]).inc();
                if let Some(reason) = failure {
                    tracing::debug!(key = %root, denied, reason, "key probe failed");
                }
            }
            Event::ZoneLocked {
                database,
                collection,
                root,
                reason,
            } => {
                let own_key = collection.is_some();
                tracing::warn!(database, own_key, key = %root, reason, "locked: its root key may not be used");
            }
            Event::ZoneUnlocked {
                database,
                collection,
                root,
            } => {
                let own_key = collection.is_some();
                tracing::info!(database, own_key, key = %root, "unlocked");
            }
            Event::VerificationFailed { database, object } => {
                self.verification_failures.inc();
                tracing::error!(database, object, "stored bytes failed verification");
            }
            Event::Refused { .. } => self.refusals.inc(),
            Event::Deleted { rows, .. } => self.rows_deleted.inc_by(*rows),
            Event::DatabaseCreated { database, root } => tracing::info!(database, key = %root, "database created"),
            Event::DatabaseDropped { database } => tracing::info!(database, "database dropped"),
            Event::CollectionMoved {
                from_database,
                database,
                headers,
                ..
            } => tracing::info!(from_database, database, headers, "collection moved"),
            Event::Shredded { receipt } => {
                let (database, collection_id) = (&receipt.database, receipt.collection_id);
                tracing::info!(database, collection_id, receipt = receipt.id, "keys destroyed");
            }
            // Counted where requests are answered, or of no use to an operator.
            Event::KeyUsed { .. }
            | Event::CollectionCreated { .. }
            | Event::CollectionDropped { .. }
            | Event::Searched { .. }
            | Event::Queried { .. }
            | Event::Inserted { .. }
            | Event::Flushed { .. }
            | Event::IndexBuilt { .. }
            | _ => {}
        }
    }
}

/// Resident memory, from the kernel's own count of pages.
fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_seen() {
        assert!(resident_bytes().unwrap() > 1 << 16);
    }

    #[test]
    fn events_are_counted() {
        let metrics = Metrics::new().unwrap();
        let root = saker_keyring::RootKeyId::platform_file();
        metrics.on_event(&Event::KeyProbed {
            root: root.clone(),
            failure: None,
            denied: false,
        });
        metrics.on_event(&Event::KeyProbed {
            root,
            failure: Some("DisabledException".into()),
            denied: true,
        });
        assert_eq!(metrics.key_probes.with_label_values(&["ok"]).get(), 1);
        assert_eq!(metrics.key_probes.with_label_values(&["denied"]).get(), 1);
    }
}
