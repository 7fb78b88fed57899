//! The data-plane log: who asked what of which collection, in the format that Zilliz Cloud documents for its audit logs.
//!
//! It holds names and counts. Filter texts, vectors and rows never reach this type. Sealed like everything else, in a
//! stream of its own that is bounded in size: the oldest segments go first. It is not chained.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    journal::{Journal, Place, SEGMENT_BYTES_MAX},
    time::{self, UnixMs},
};

/// One request, in the order of the documented fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessRecord {
    /// When it was answered, as text.
    pub date: String,
    /// Name of the request, such as `Search`.
    pub action: Cow<'static, str>,
    /// Id of the cluster.
    pub cluster_id: String,
    /// The database.
    pub database: String,
    /// `Grpc` or `Restful`.
    pub interface: &'static str,
    /// `AUDIT`.
    pub log_type: &'static str,
    /// Names and counts.
    pub params: Map<String, Value>,
    /// Milvus status code; 0 for success.
    pub result: i32,
    /// `Success` or `Failed`.
    pub status: &'static str,
    /// When it was answered, in milliseconds since 1970.
    pub time: UnixMs,
    /// Unique to the request.
    pub trace_id: String,
    /// Who asked; empty if users do not have to say so.
    pub user: String,
}

impl AccessRecord {
    /// The text of a time.
    #[must_use]
    pub fn date_of(at_ms: UnixMs) -> String {
        time::to_text(at_ms)
    }
}

/// Takes records without ever blocking. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Mutex<Queue>,
    filled: Notify,
    stop: CancellationToken,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: u64,
    lost_total: u64,
    written: u64,
}

/// Bytes that may wait; more are lost, and counted.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Lines of one write.
const BATCH_MAX: usize = 2_048;
/// How long a line may wait for others.
const WITHIN: Duration = Duration::from_millis(800);

/// Writes the records, to be run until [`AccessLog::close`].
#[derive(Debug)]
pub struct AccessWriter {
    inner: Arc<Inner>,
    journal: Journal,
    bytes_max: u64,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

impl AccessLog {
    /// A log at this place that keeps about `bytes_max` bytes, and its writer.
    #[must_use]
    pub fn start(place: Place, bytes_max: u64) -> (Self, AccessWriter) {
        let inner = Arc::new(Inner {
            queue: Mutex::default(),
            filled: Notify::new(),
            stop: CancellationToken::new(),
        });
        // Sixteen segments or more, so that what is removed at once is little.
        let segment_bytes_max = (bytes_max / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let writer = AccessWriter {
            inner: Arc::clone(&inner),
            journal: Journal::new(place, segment_bytes_max),
            bytes_max,
        };
        (Self { inner }, writer)
    }

    /// Records a request. Never blocks.
    pub fn record(&self, record: &AccessRecord) {
        let line = serde_json::to_vec(record).unwrap_or_default();
        {
            let mut queue = self.inner.queue();
            if queue.bytes.saturating_add(line.len()) > WAITING_BYTES_MAX {
                queue.lost += 1;
                queue.lost_total += 1;
                return;
            }
            queue.bytes += line.len();
            queue.waiting.push_back(line);
        }
        self.inner.filled.notify_one();
    }

    /// Records written and lost since the start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let queue = self.inner.queue();
        (queue.written, queue.lost_total)
    }

    /// Waits until everything recorded so far is written, at most a few seconds.
    pub async fn flush(&self) {
        for _ in 0..200 {
            if self.inner.queue().bytes == 0 {
                return;
            }
            self.inner.filled.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The writer writes what is there and ends.
    pub fn close(&self) {
        self.inner.stop.cancel();
    }
}

/// Smallest segment, in bytes.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessWriter {
    /// Writes until the log is closed, then what is left.
    pub async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        loop {
            let stopping = inner.stop.is_cancelled();
            self.write().await;
            if stopping {
                break;
            }
            tokio::select! {
                () = inner.stop.cancelled() => {}
                () = async {
                    inner.filled.notified().await;
                    tokio::time::sleep(WITHIN).await;
                } => {}
            }
        }
        self.journal.close().await;
    }

    async fn write(&mut self) {
        loop {
            let (lines, bytes) = self.take();
            if lines.is_empty() {
                return;
            }
            let mut begun = self.journal.segments_begun();
            while let Err(error) = self.journal.append(&lines).await {
                tracing::warn!("the access log cannot be written: {error}");
                if self.inner.stop.is_cancelled() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                begun = u64::MAX;
            }
            {
                let mut queue = self.inner.queue();
                queue.bytes = queue.bytes.saturating_sub(bytes);
                queue.written += lines.len() as u64;
            }
            if self.journal.segments_begun() != begun {
                self.trim().await;
            }
        }
    }

    fn take(&self) -> (Vec<Vec<u8>>, usize) {
        let mut queue = self.inner.queue();
        let count = queue.waiting.len().min(BATCH_MAX);
        let mut lines: Vec<Vec<u8>> = queue.waiting.drain(..count).collect();
        let bytes = lines.iter().map(Vec::len).sum();
        let lost = std::mem::take(&mut queue.lost);
        if lost > 0 {
            lines.push(
                format!("{{\"log_type\":\"AUDIT\",\"action\":\"Lost\",\"params\":{{\"records\":{lost}}}}}")
                    .into_bytes(),
            );
        }
        (lines, bytes)
    }

    /// Removes the oldest segments while the rest is more than the limit.
    async fn trim(&self) {
        let place = self.journal.place();
        let Ok(segments) = place.segments().await else { return };
        let mut total: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        let mut keep_from = None;
        for pair in segments.windows(2) {
            if total <= self.bytes_max {
                break;
            }
            total -= pair[0].1;
            keep_from = Some(pair[1].0);
        }
        if let Some(sequence) = keep_from
            && let Err(error) = place.log.remove_segments_below(&place.stream, sequence).await
        {
            tracing::warn!("old segments of the access log stay: {error}");
        }
    }
}
