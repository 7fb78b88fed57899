//! What happened during a walk: requests to key services, the chain of the audit log, progress.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use saker_audit::{ChainCheck, ChainReport, Head, Record, UnixMs};
use saker_engine::{Clock, SystemClock, WalkObserver};
use saker_keyring::{CallObserver, KeyCall};

/// One request to a key service.
#[derive(Clone, Debug)]
pub(crate) struct RequestMade {
    pub(crate) sent_ms: UnixMs,
    pub(crate) call: KeyCall,
}

/// The audit log's chain as it was found.
#[derive(Debug)]
pub(crate) struct AuditChain {
    /// Number of the first record that is there.
    pub(crate) first: u64,
    pub(crate) report: ChainReport,
}

/// Hears of everything. Shared by the walk's threads.
#[derive(Debug)]
pub(crate) struct Recorder {
    bar: ProgressBar,
    clock: SystemClock,
    requests: Mutex<Vec<RequestMade>>,
    chain: Mutex<Option<Chain>>,
}

#[derive(Debug)]
struct Chain {
    first: u64,
    check: ChainCheck,
}

/// The log stream that the audit records are in.
const AUDIT_STREAM: &str = "audit";

impl Recorder {
    pub(crate) fn new(bar: ProgressBar) -> Arc<Self> {
        Arc::new(Self {
            bar,
            clock: SystemClock::new(),
            requests: Mutex::default(),
            chain: Mutex::default(),
        })
    }
    /// Unix time in milliseconds.
    pub(crate) fn now_ms(&self) -> UnixMs {
        self.clock.wall_ms()
    }
    /// The requests so far, in the order in which they were sent.
    pub(crate) fn requests(&self) -> Vec<RequestMade> {
        let mut requests = lock(&self.requests).clone();
        requests.sort_by_key(|request| request.sent_ms);
        requests
    }
    /// The chain, if there was an audit log.
    pub(crate) fn chain(&self) -> Option<AuditChain> {
        let chain = lock(&self.chain).take()?;
        Some(AuditChain {
            first: chain.first,
            report: chain.check.finish(),
        })
    }
}

impl CallObserver for Recorder {
    fn on_call(&self, call: &KeyCall) {
        let sent_ms = self.now_ms().saturating_sub(call.sent_ms_ago);
        lock(&self.requests).push(RequestMade {
            sent_ms,
            call: call.clone(),
        });
    }
}

impl WalkObserver for Recorder {
    fn on_progress(&self, seen: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(seen);
    }
    fn on_platform_record(&self, stream: &str, _sequence: u64, _record: u64, plain: &[u8]) {
        if stream != AUDIT_STREAM {
            return;
        }
        let mut chain = lock(&self.chain);
        let chain = chain.get_or_insert_with(|| {
            // Older records may have been removed; what is there has to be whole from its first one on.
            let first = Record::parse(plain).ok();
            let after = first.map_or(Head::NONE, |record| Head {
                sequence: record.sequence.saturating_sub(1),
                hash: record.previous,
            });
            Chain {
                first: after.sequence.saturating_add(1),
                check: ChainCheck::new(after, Vec::new()),
            }
        });
        chain.check.feed(plain);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
