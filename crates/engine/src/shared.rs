//! What every part of a running engine shares: stores, settings, time, workers, and the platform zone.

use std::sync::Arc;

use saker_keyring::{KeyService, Lease};
use saker_storage::{Log, MetaStore, ObjectStore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::EngineConfig,
    error::{Error, Result},
    events::Event,
    oracle::Oracle,
    zones::Access,
};

/// Shared by all parts; owns the background tasks.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) keys: Arc<dyn KeyService>,
    pub(crate) oracle: Oracle,
    pub(crate) cluster: String,
    /// The catalog's own zone.
    pub(crate) platform: Arc<Access>,
    /// Where searches run.
    pub(crate) compute: rayon::ThreadPool,
    /// One index is built at a time: a build uses all the threads that it may.
    pub(crate) builds: tokio::sync::Semaphore,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Given back when the engine is gone.
    pub(crate) _lock: Option<Arc<saker_storage::DirectoryLock>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The right to use the catalog.
    pub(crate) fn platform_lease(&self) -> Result<Lease> {
        self.platform.lease()
    }
    pub(crate) fn emit(&self, event: &Event) {
        self.config.events.on_event(event);
    }
    /// Refuses once the engine is shutting down.
    pub(crate) fn check_running(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::new(
                crate::ErrorKind::ShuttingDown,
                "the server is shutting down; try again later",
            ));
        }
        Ok(())
    }
    /// Runs CPU work on the blocking pool.
    pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_cancelled() => Err(Error::new(
                crate::ErrorKind::ShuttingDown,
                "the server is shutting down; try again later",
            )),
            Err(_) => Err(Error::internal("a worker panicked; see the server's log")),
        }
    }
    /// Runs CPU work on the compute pool: one hop there, one back.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.compute.spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("a worker panicked; see the server's log")));
            // Nobody waits any more if the caller went away.
            let _nobody_waits = send.send(outcome);
        });
        receive
            .await
            .unwrap_or_else(|_| Err(Error::internal("a worker was lost")))
    }
}
