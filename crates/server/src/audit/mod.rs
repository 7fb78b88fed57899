//! The audit log of a running server: hears the engine's events and the key services' calls, and keeps them.
//!
//! What it is for: one place through which everything goes that a customer may want to check later; the metrics hear the
//! same. What it deliberately does not do: it decides nothing, and it never makes anybody wait who did not ask for a
//! durable record.
//!
//! Start reading at [`Audit`]; `events` has what each event becomes.

mod access;
mod events;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::future::BoxFuture;
use saker_audit::{AccessLog, AuditLog, Draft, Head, JournalError, Place};
use saker_engine::{AuditPosition, AuditStores, Clock, Engine, Event, EventSink};
use saker_keyring::{CallObserver, KeyCall, RootKeyId};
use saker_storage::StreamId;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(crate) use access::{Accessed, Interface};

use crate::metrics::Metrics;

/// `[audit]`: what is kept beside the audit log itself, which is always on.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Whether every request is recorded: names and counts, never rows, vectors or filter texts.
    pub access: bool,
    /// About how many bytes of such records are kept; the oldest go first.
    pub access_bytes_max: u64,
}

impl AuditSection {
    /// Bounds of [`Self::access_bytes_max`].
    pub const ACCESS_BYTES_MAX_RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
}

impl Default for AuditSection {
    fn default() -> Self {
        Self {
            access: false,
            access_bytes_max: 1 << 30,
        }
    }
}

/// Hears and keeps.
pub struct Audit {
    log: AuditLog,
    access: OnceLock<AccessLog>,
    cluster: OnceLock<String>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    refusals: events::Refusals,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Audit {
    /// Hears from now on; keeps in memory until [`Self::attach`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let wall = Arc::clone(&clock);
        Arc::new(Self {
            log: AuditLog::start(Arc::new(move || wall.wall_ms())),
            access: OnceLock::new(),
            cluster: OnceLock::new(),
            clock,
            metrics,
            refusals: events::Refusals::default(),
            writers: Mutex::default(),
        })
    }

    /// Goes on in the engine's log.
    ///
    /// # Errors
    /// [`JournalError`] if that cannot be read.
    pub async fn attach(&self, engine: &Engine, settings: &AuditSection) -> Result<(), JournalError> {
        let cluster = engine.cluster_id();
        let stores = engine.audit_stores();
        let details = json!({ "cluster": cluster, "version": env!("CARGO_PKG_VERSION") });
        let writer = self.log.attach(place(&stores, AUDIT_STREAM)?, details).await?;
        let mut writers = vec![tokio::spawn(writer.run())];
        if settings.access {
            let (access, writer) = AccessLog::start(place(&stores, ACCESS_STREAM)?, settings.access_bytes_max);
            writers.push(tokio::spawn(writer.run()));
            // A second attach would be a second log.
            let _first_stays = self.access.set(access);
        }
        let _first_stays = self.cluster.set(cluster);
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(writers);
        Ok(())
    }

    /// Records something that the server itself did; durable within a second. `event` is lower-case words joined by
    /// hyphens; `details` an object of ids, names and counts.
    pub fn record(&self, event: &str, details: Value) {
        self.log.record(self.log.draft(event, details));
    }

    /// Records something before it is reported. `None` if the record is not durable in time: it may be later.
    pub async fn record_durably(&self, event: &str, details: Value) -> Option<Head> {
        kept(&self.log, self.log.draft(event, details)).await
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &AuditLog {
        &self.log
    }

    /// The log of requests, if it is on.
    #[must_use]
    pub fn access(&self) -> Option<&AccessLog> {
        self.access.get()
    }

    /// Calls to the key service under this root key since the start.
    #[must_use]
    pub fn calls_of(&self, root: &RootKeyId) -> u64 {
        self.log.calls_of(root)
    }

    /// Brings the metrics up to date that are read, not counted.
    pub fn fill(&self, metrics: &Metrics) {
        metrics.audit(&self.log.counts(), self.access.get().map(AccessLog::counts));
    }

    /// Writes what there is, and ends. Call it when the engine is shut down.
    pub async fn close(&self) {
        for draft in self.refusals.all(self.clock.wall_ms()) {
            self.log.record(draft);
        }
        self.log.close();
        if let Some(access) = self.access.get() {
            access.close();
        }
        let writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        for writer in writers {
            if writer.await.is_err() {
                tracing::error!("the audit log's task ended badly");
            }
        }
    }
}

/// The audit log's stream.
pub(crate) const AUDIT_STREAM: &str = "audit";
/// The stream of the log of requests.
pub(crate) const ACCESS_STREAM: &str = "access";

/// A stream of the cluster's own zone.
pub(crate) fn place(stores: &AuditStores, stream: &str) -> Result<Place, JournalError> {
    let stream = StreamId::new(stream).map_err(|_| JournalError::Locked)?;
    Ok(Place {
        log: Arc::clone(&stores.log),
        stream,
        lease: Arc::clone(&stores.lease),
    })
}

async fn kept(log: &AuditLog, draft: Draft) -> Option<Head> {
    match log.record_durably(draft).await {
        Ok(head) => Some(head),
        Err(error) => {
            tracing::warn!("audit log: {error}");
            None
        }
    }
}

impl EventSink for Audit {
    fn on_event(&self, event: &Event) {
        self.metrics.on_event(event);
        let now_ms = self.clock.wall_ms();
        for draft in self.refusals.heard(now_ms, event) {
            self.log.record(draft);
        }
        if let Some((draft, urgent)) = events::draft_of(now_ms, event) {
            if urgent {
                self.log.record_urgent(draft);
            } else {
                self.log.record(draft);
            }
        }
    }

    fn on_record(&self, event: &Event) -> BoxFuture<'static, Option<AuditPosition>> {
        self.metrics.on_event(event);
        let Some((draft, _)) = events::draft_of(self.clock.wall_ms(), event) else {
            return Box::pin(std::future::ready(None));
        };
        if self.log.place().is_none() {
            // The engine is still opening, and the log is written once it is open: nobody can wait for that.
            self.log.record_urgent(draft);
            return Box::pin(std::future::ready(None));
        }
        let log = self.log.clone();
        Box::pin(async move {
            let head = kept(&log, draft).await?;
            Some(AuditPosition {
                sequence: head.sequence,
                sha256: *head.hash.as_bytes(),
            })
        })
    }
}

impl CallObserver for Audit {
    fn on_call(&self, call: &KeyCall) {
        self.metrics.key_called(call);
        self.log.on_call(call);
    }
}
