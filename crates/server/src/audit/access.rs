//! Requests as the data-plane log has them: names and counts of what was asked, never what was asked for.

use std::{borrow::Cow, time::Instant};

use saker_audit::AccessRecord;
use serde_json::{Map, Value};

use super::Audit;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    /// Milvus's gRPC service.
    Grpc,
    /// HTTP.
    Restful,
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Accessed {
    /// Its name, such as `Search`.
    pub(crate) action: Cow<'static, str>,
    /// How it came in.
    pub(crate) interface: Interface,
    /// The database that it named.
    pub(crate) database: String,
    /// Who asked, if users have to say so.
    pub(crate) user: Option<String>,
    /// Names and counts.
    pub(crate) params: Map<String, Value>,
    /// Milvus status code.
    pub(crate) code: i32,
    /// When it came in.
    pub(crate) started: Instant,
}

impl Audit {
    /// Whether requests are recorded: if not, nobody has to prepare anything.
    pub(crate) fn records_access(&self) -> bool {
        self.access.get().is_some()
    }

    /// Records a request, if that is on. Never blocks.
    pub(crate) fn accessed(&self, accessed: Accessed) {
        let Some(log) = self.access.get() else { return };
        let now_ms = self.clock.wall_ms();
        let mut params = accessed.params;
        let took = accessed.started.elapsed();
        params.insert(
            "execution_time_us".to_owned(),
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX).into(),
        );
        log.record(&AccessRecord {
            date: AccessRecord::date_of(now_ms),
            action: accessed.action,
            cluster_id: self.cluster.get().cloned().unwrap_or_default(),
            database: accessed.database,
            interface: match accessed.interface {
                Interface::Grpc => "Grpc",
                Interface::Restful => "Restful",
            },
            log_type: "AUDIT",
            params,
            result: accessed.code,
            status: if accessed.code == 0 { "Success" } else { "Failed" },
            time: now_ms,
            trace_id: uuid::Uuid::new_v4().simple().to_string(),
            user: accessed.user.unwrap_or_default(),
        });
    }
}
