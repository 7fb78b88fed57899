//! Settings of an engine, each with its unit, default and reason.

use std::sync::Arc;

use saker_keyring::{LeasePolicy, RootKeyId};

use crate::{
    clock::{Clock, SystemClock},
    events::{EventSink, NoEvents},
};

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Id that empty stores get as the cluster's, and that other stores must have; `None`: a random one, and any.
    pub cluster: Option<String>,
    /// How root keys are probed and how long an outage of a key service is served through.
    pub lease: LeasePolicy,
    /// Most calls of key services a second, over all root keys, in the long run; probes are counted and never wait. AWS
    /// KMS allows thousands a second for the customer's whole account: this leaves them to the customer.
    pub kms_calls_per_second: u32,
    /// Root key of new databases that name none; `None`: they go under the platform key.
    pub default_key: Option<RootKeyId>,
    /// Bytes in memory at which a growing segment is sealed.
    pub segment_bytes_max: usize,
    /// As `segment_bytes_max`, of a collection whose vectors stay on disk: growing rows, and the vectors that a graph is
    /// built over, are in memory, several times this much in all.
    pub disk_segment_bytes_max: usize,
    /// Bytes of opened frames that are kept of all files that stay on disk.
    pub frame_cache_bytes_max: usize,
    /// Milliseconds without a write after which growing rows are sealed, if they are enough for an index.
    pub rest_ms: u64,
    /// Bytes at which a log segment is closed and the next one (with its own data key) begins.
    pub log_segment_bytes_max: u64,
    /// Fewest rows of a sealed segment for which a graph index is built; smaller ones are searched exactly.
    pub index_rows_min: usize,
    /// Threads that build indexes; 0 for half of the processors.
    pub index_threads: usize,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Who hears what happens (audit, metrics).
    pub events: Arc<dyn EventSink>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            cluster: None,
            lease: LeasePolicy::default(),
            kms_calls_per_second: 200,
            default_key: None,
            segment_bytes_max: 512 << 20,
            disk_segment_bytes_max: 32 << 20,
            frame_cache_bytes_max: 128 << 20,
            rest_ms: 10_000,
            log_segment_bytes_max: 64 << 20,
            index_rows_min: 4_096,
            index_threads: 0,
            clock: Arc::new(SystemClock::new()),
            events: Arc::new(NoEvents),
        }
    }
}
