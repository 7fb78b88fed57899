//! The audit log of a running process: takes what happens without ever blocking, and writes it in order.
//!
//! What waits is bounded. While the cluster's own zone is locked, or its disk is full, records wait in memory; what does
//! not fit is lost, and how much was lost is the first record that is written when it goes on.
//!
//! Start reading at [`AuditLog::start`].

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use saker_keyring::{CallObserver, CallReason, KeyCall, KeyOperation, RootKeyId};
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    calls::{CallBatches, CallOutcome, PROBES_WITHIN_MS},
    journal::{Journal, JournalError, Place, SEGMENT_BYTES_MAX},
    record::{Draft, Head, Record},
    time::UnixMs,
};

/// Tells the time of day.
pub type WallClock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// Calls to key services since the start, by key, operation, reason and outcome.
pub type CallCounts = BTreeMap<(RootKeyId, KeyOperation, CallReason, &'static str), u64>;

/// The audit log. Cheap to clone; everything that is recorded goes through one of them.
#[derive(Clone)]
pub struct AuditLog {
    inner: Arc<Inner>,
}

struct Inner {
    clock: WallClock,
    queue: Mutex<Queue>,
    /// Something is in the queue.
    filled: Notify,
    head: watch::Sender<Head>,
    place: std::sync::OnceLock<Place>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Entry>,
    /// Estimate of what they take in memory.
    bytes: usize,
    urgent: bool,
    batches: CallBatches,
    counts: CallCounts,
    lost: Option<Lost>,
    lost_total: u64,
    written: u64,
}

struct Entry {
    draft: Draft,
    bytes: usize,
    done: Option<oneshot::Sender<Head>>,
}

#[derive(Clone, Copy)]
struct Lost {
    count: u64,
    from_ms: UnixMs,
    to_ms: UnixMs,
}

/// Records that may wait; more are lost, and counted.
pub const WAITING_MAX: usize = 16_384;
/// Bytes that may wait: two of the longest records.
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// Records of one write.
const BATCH_MAX: usize = 512;
/// How long a record that is not urgent may wait for others, so that they share a sync.
const WITHIN: Duration = Duration::from_millis(400);
/// How often calls that wait for others like them are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long to wait after a failed write.
const RETRY: Duration = Duration::from_secs(1);
/// How long [`AuditLog::record_durably`] waits.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditCounts {
    /// Records written since the start.
    pub written: u64,
    /// Records that wait.
    pub waiting: usize,
    /// Records lost since the start.
    pub lost: u64,
    /// Newest record.
    pub head: Head,
}

/// The writer of an audit log, to be run until [`AuditLog::close`].
#[derive(Debug)]
pub struct AuditWriter {
    inner: Arc<Inner>,
    journal: Journal,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog")
            .field("head", &*self.head.borrow())
            .finish_non_exhaustive()
    }
}

impl AuditLog {
    /// A log that only collects, until it is given its place ([`Self::attach`]).
    #[must_use]
    pub fn start(clock: WallClock) -> Self {
        let inner = Inner {
            clock,
            queue: Mutex::default(),
            filled: Notify::new(),
            head: watch::Sender::new(Head::NONE),
            place: std::sync::OnceLock::new(),
            stop: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives the log its place, and goes on after the newest record there. The writer has to be run. The first record
    /// that it writes is [`OPENED`] with these details; before it stands a [`GAP`] if the log was not closed last time.
    ///
    /// # Errors
    /// [`JournalError`] if the log cannot be read. Damage in it is no error: it is recorded, and what is there stays.
    pub async fn attach(&self, place: Place, details: serde_json::Value) -> Result<AuditWriter, JournalError> {
        let (newest, damaged) = place.newest().await?;
        let newest = newest.as_ref().and_then(|line| Record::parse(line).ok());
        self.inner
            .head
            .send_replace(newest.as_ref().map_or(Head::NONE, Record::head));
        let now_ms = (self.inner.clock)();
        self.push_first(Draft::new(now_ms, OPENED, details));
        let why = match &newest {
            _ if damaged => Some("newer records than this one failed verification"),
            Some(record) if record.event != CLOSED => Some("the process ended without closing the log"),
            Some(_) | None => None,
        };
        if let (Some(why), Some(record)) = (why, newest) {
            tracing::warn!(stream = %place.stream, record = record.sequence, "audit log: {why}");
            let details = json!({
                "why": why,
                "from": crate::time::to_text(record.time_ms.saturating_sub(PROBES_WITHIN_MS)),
                "to": crate::time::to_text(now_ms),
            });
            self.push_first(Draft::new(now_ms, GAP, details));
        }
        // A second place would be another log.
        let _first_stays = self.inner.place.set(place.clone());
        Ok(AuditWriter {
            inner: Arc::clone(&self.inner),
            journal: Journal::new(place, SEGMENT_BYTES_MAX),
        })
    }

    /// Where the records are, once it is known.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.inner.place.get()
    }

    /// A draft of this event, now.
    #[must_use]
    pub fn draft(&self, event: &str, details: serde_json::Value) -> Draft {
        Draft::new((self.inner.clock)(), event, details)
    }

    /// Records something; durable within a second. Never blocks.
    pub fn record(&self, draft: Draft) {
        self.push(draft, false, None);
    }

    /// Records something that matters at once: written without waiting for others. Never blocks.
    pub fn record_urgent(&self, draft: Draft) {
        self.push(draft, true, None);
    }

    /// Records something and returns its place when it is durable.
    ///
    /// # Errors
    /// [`JournalError::NotInTime`] if that takes too long, or the record was lost; it may still be written later.
    pub async fn record_durably(&self, draft: Draft) -> Result<Head, JournalError> {
        let (done, receive) = oneshot::channel();
        self.push(draft, true, Some(done));
        match tokio::time::timeout(DURABLE_WITHIN, receive).await {
            Ok(Ok(head)) => Ok(head),
            Ok(Err(_)) | Err(_) => Err(JournalError::NotInTime),
        }
    }

    /// Writes everything that happened so far, calls that wait for others like them included, and returns the head.
    ///
    /// # Errors
    /// [`JournalError::NotInTime`].
    pub async fn flush(&self) -> Result<Head, JournalError> {
        let mut heads = self.inner.head.subscribe();
        {
            let mut queue = self.inner.queue();
            for draft in queue.batches.all() {
                queue.push(draft, true, None);
            }
            queue.urgent = true;
        }
        self.inner.filled.notify_one();
        let idle = async {
            loop {
                let head = *heads.borrow_and_update();
                if self.inner.queue().is_idle() {
                    return head;
                }
                // The head moves after each write; the sleep covers a write that failed.
                tokio::select! {
                    _ = heads.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        match tokio::time::timeout(DURABLE_WITHIN, idle).await {
            Ok(_) => Ok(*self.inner.head.borrow()),
            Err(_) => Err(JournalError::NotInTime),
        }
    }

    /// The newest record that is durable.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.inner.head.borrow()
    }

    /// Resolves at every new head.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.inner.head.subscribe()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> AuditCounts {
        let head = self.head();
        let queue = self.inner.queue();
        AuditCounts {
            written: queue.written,
            waiting: queue.waiting.len(),
            lost: queue.lost_total,
            head,
        }
    }

    /// Calls to key services since the start.
    #[must_use]
    pub fn calls(&self) -> CallCounts {
        self.inner.queue().counts.clone()
    }

    /// Calls under one root key since the start.
    #[must_use]
    pub fn calls_of(&self, root: &RootKeyId) -> u64 {
        let queue = self.inner.queue();
        let of_root = queue.counts.iter().filter(|((key, ..), _)| key == root);
        of_root.map(|(_, count)| count).sum()
    }

    /// The writer writes what is there and ends. Records that come later are not written.
    pub fn close(&self) {
        {
            let mut queue = self.inner.queue();
            for draft in queue.batches.all() {
                queue.push(draft, true, None);
            }
            queue.push(Draft::new((self.inner.clock)(), CLOSED, json!({})), true, None);
        }
        self.inner.stop.cancel();
    }

    fn push(&self, draft: Draft, urgent: bool, done: Option<oneshot::Sender<Head>>) {
        self.inner.queue().push(draft, urgent, done);
        self.inner.filled.notify_one();
    }

    fn push_first(&self, draft: Draft) {
        let mut queue = self.inner.queue();
        let bytes = bytes_of(&draft);
        queue.bytes += bytes;
        queue.waiting.push_front(Entry {
            bytes,
            draft,
            done: None,
        });
    }
}

impl CallObserver for AuditLog {
    fn on_call(&self, call: &KeyCall) {
        let now_ms = (self.inner.clock)();
        {
            let mut queue = self.inner.queue();
            let outcome = CallOutcome::of(&call.outcome).as_str();
            *queue
                .counts
                .entry((call.root.clone(), call.operation, call.why, outcome))
                .or_default() += 1;
            let (due, urgent) = queue.batches.add(now_ms, call);
            for draft in due {
                queue.push(draft, urgent, None);
            }
        }
        self.inner.filled.notify_one();
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, draft: Draft, urgent: bool, done: Option<oneshot::Sender<Head>>) {
        let bytes = bytes_of(&draft);
        if self.waiting.len() >= WAITING_MAX || self.bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            let at = draft.time_ms;
            let lost = self.lost.get_or_insert(Lost {
                count: 0,
                from_ms: at,
                to_ms: at,
            });
            lost.count += 1;
            (lost.from_ms, lost.to_ms) = (lost.from_ms.min(at), lost.to_ms.max(at));
            self.lost_total += 1;
            return;
        }
        self.bytes += bytes;
        self.urgent |= urgent;
        self.waiting.push_back(Entry { draft, bytes, done });
    }
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.bytes == 0 && self.lost.is_none()
    }
}

/// About what a draft takes in memory and on disk.
fn bytes_of(draft: &Draft) -> usize {
    let mut counted = Counted(0);
    // Counting cannot fail.
    let _counted = serde_json::to_writer(&mut counted, &draft.details);
    counted.0 + draft.event.len() + 200
}

struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The event under which it is recorded that records may be missing here.
pub const GAP: &str = "audit-gap";
/// The event with which a process begins.
pub const OPENED: &str = "log-opened";
/// The event with which a process ends.
pub const CLOSED: &str = "log-closed";

/// Records that were numbered, with who waits for them.
#[derive(Default)]
struct Numbered {
    lines: Vec<Vec<u8>>,
    heads: Vec<Head>,
    waiting: Vec<(usize, oneshot::Sender<Head>)>,
    /// What they took in the queue.
    bytes: usize,
}

impl AuditWriter {
    /// Writes until the log is closed, then what is left.
    pub async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        while !inner.stop.is_cancelled() {
            self.wait().await;
            while self.write_some().await {}
        }
        while self.write_some().await {}
        self.journal.close().await;
    }

    /// Waits until something has to be written.
    async fn wait(&self) {
        let inner = &self.inner;
        let mut since = None;
        loop {
            {
                let mut queue = inner.queue();
                for draft in queue.batches.due((inner.clock)()) {
                    queue.push(draft, false, None);
                }
                let idle = queue.waiting.is_empty() && queue.lost.is_none();
                if !idle && (queue.urgent || queue.waiting.len() >= BATCH_MAX) {
                    return;
                }
                since = if idle {
                    None
                } else {
                    since.or_else(|| Some(tokio::time::Instant::now()))
                };
            }
            let sleep = since.map_or(TICK, |since: tokio::time::Instant| {
                WITHIN.saturating_sub(since.elapsed()).min(TICK)
            });
            if since.is_some() && sleep.is_zero() {
                return;
            }
            tokio::select! {
                () = inner.stop.cancelled() => return,
                () = inner.filled.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Writes one batch. `false` if there was nothing to write, or the log was closed and does not take it.
    async fn write_some(&mut self) -> bool {
        let numbered = self.take();
        let Some(&last) = numbered.heads.last() else {
            return false;
        };
        let mut complained = false;
        while let Err(error) = self.journal.append(&numbered.lines).await {
            if !complained {
                complained = true;
                tracing::warn!("the audit log cannot be written, records wait in memory: {error}");
            }
            if self.inner.stop.is_cancelled() {
                tracing::error!(records = numbered.lines.len(), "audit records are lost: {error}");
                return false;
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        {
            let mut queue = self.inner.queue();
            queue.written += numbered.lines.len() as u64;
            queue.bytes = queue.bytes.saturating_sub(numbered.bytes);
        }
        self.inner.head.send_replace(last);
        for (index, done) in numbered.waiting {
            if let Some(&head) = numbered.heads.get(index) {
                // Whoever waited may have gone away.
                let _gone = done.send(head);
            }
        }
        true
    }

    /// Takes records out of the queue and gives them their numbers.
    fn take(&self) -> Numbered {
        let mut numbered = Numbered::default();
        let mut head = *self.inner.head.borrow();
        let (entries, lost) = {
            let mut queue = self.inner.queue();
            let count = queue.waiting.len().min(BATCH_MAX);
            let entries: Vec<Entry> = queue.waiting.drain(..count).collect();
            if queue.waiting.is_empty() {
                queue.urgent = false;
            }
            // What was lost came after everything that waits.
            let lost = if queue.waiting.is_empty() {
                queue.lost.take()
            } else {
                None
            };
            (entries, lost)
        };
        for entry in entries {
            let (line, next) = entry.draft.chained(head);
            if let Some(done) = entry.done {
                numbered.waiting.push((numbered.heads.len(), done));
            }
            numbered.bytes += entry.bytes;
            numbered.lines.push(line);
            numbered.heads.push(next);
            head = next;
        }
        if let Some(lost) = lost {
            let details = json!({
                "why": "records did not fit into memory while the log could not be written",
                "lost": lost.count,
                "from": crate::time::to_text(lost.from_ms),
                "to": crate::time::to_text(lost.to_ms),
            });
            let (line, next) = Draft::new((self.inner.clock)(), GAP, details).chained(head);
            numbered.lines.push(line);
            numbered.heads.push(next);
        }
        numbered
    }
}
