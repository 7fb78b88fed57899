//! What every part of a running engine shares: stores, settings, time, workers, and the platform zone.

use std::sync::Arc;

use saker_keyring::{KeyService, Lease, STACK_BYTES, give_back_memory, leaving_no_trace, overwrite_stack};
use saker_storage::{Log, MetaStore, ObjectStore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::EngineConfig,
    error::{Error, Result},
    events::Event,
    oracle::Oracle,
    rekey::Fence,
    zones::Access,
};

/// How long parts of a search may still run after its database was locked: each segment looks at the lease.
const LAST_PARTS_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// Niceness of threads that build indexes: on a busy processor they get about a tenth of what others get, and nobody
/// who has something to do waits for them. Not less than that, for a server that is never idle needs indexes too.
const BACKGROUND_NICE: i32 = 10;

/// Niceness of threads of the blocking pool once they have worked (they encode writes, flush, load, list growing rows):
/// searches, which run elsewhere, go first, and on a busy processor such work gets about a third of what they get.
const BLOCKING_NICE: i32 = 5;

/// Shared by all parts; owns the background tasks.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) log: Arc<dyn Log>,
    /// What the stores above take no more.
    pub(crate) fence: Arc<Fence>,
    pub(crate) keys: Arc<dyn KeyService>,
    pub(crate) oracle: Oracle,
    pub(crate) cluster: String,
    /// The catalog's own zone.
    pub(crate) platform: Arc<Access>,
    /// Where searches run.
    pub(crate) compute: rayon::ThreadPool,
    /// Opened frames of files that stay on disk.
    pub(crate) frames: Arc<saker_segment::FrameCache>,
    /// One index is built at a time: a build uses all the threads that it may.
    pub(crate) builds: tokio::sync::Semaphore,
    pub(crate) tasks: TaskTracker,
    /// Where tasks run that a request begins and that outlive it: the request may have come on a runtime of its own.
    pub(crate) runtime: tokio::runtime::Handle,
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
        let work = || {
            // Where the system refuses, or the thread gives way more than that already, the work is done all the same.
            let _ = rustix::process::setpriority_process(None, BLOCKING_NICE);
            leaving_no_trace::<STACK_BYTES, _>(work)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_cancelled() => Err(Error::new(
                crate::ErrorKind::ShuttingDown,
                "the server is shutting down; try again later",
            )),
            Err(_) => Err(Error::internal("a worker panicked; see the server's log")),
        }
    }

    /// Runs CPU work that may take minutes on a thread of its own, which gives way to all others; so do the threads that
    /// the work starts.
    pub(crate) async fn background<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let run = move || {
            // Where the system refuses, the work is done all the same.
            let _ = rustix::process::setpriority_process(None, BACKGROUND_NICE);
            let work = || leaving_no_trace::<STACK_BYTES, _>(work);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("a worker panicked; see the server's log")));
            // Nobody waits any more if the caller went away.
            let _nobody_waits = send.send(outcome);
        };
        let thread = std::thread::Builder::new().name("background".into());
        thread
            .spawn(run)
            .map_err(|error| Error::internal(format!("no thread for background work: {error}")))?;
        receive
            .await
            .unwrap_or_else(|_| Err(Error::internal("a worker was lost")))
    }
    /// Drops something large on the blocking pool: it is overwritten, and nobody should wait for that.
    pub(crate) fn drop_aside<T: Send + 'static>(large: T) {
        drop(tokio::task::spawn_blocking(move || {
            drop(large);
            give_back_memory();
        }));
    }
    /// Lets the system have the memory that a large job, which is over, has left free.
    pub(crate) fn tidy_memory() {
        drop(tokio::task::spawn_blocking(give_back_memory));
    }
    /// Overwrites what searches have left on the stacks of the compute pool: parts of them run on other threads than
    /// [`Self::compute`] itself. Each thread does it when it has nothing else to do; again a little later, for parts
    /// that were still running.
    pub(crate) fn overwrite_compute_stacks(self: &Arc<Self>) {
        self.compute.spawn_broadcast(|_| overwrite_stack::<STACK_BYTES>());
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LAST_PARTS_MAX) => {
                    shared.compute.spawn_broadcast(|_| overwrite_stack::<STACK_BYTES>());
                }
                () = shared.stop.cancelled() => {}
            }
        });
    }
    /// Runs CPU work on the caller's thread, and overwrites the stack that it used.
    pub(crate) fn here<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        let work = || leaving_no_trace::<STACK_BYTES, _>(work);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(Error::internal("a worker panicked; see the server's log")))
    }
    /// Runs CPU work on the compute pool: one hop there, one back.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.compute.spawn(move || {
            // Nobody waits any more if the caller went away.
            let _nobody_waits = send.send(Self::here(work));
        });
        receive
            .await
            .unwrap_or_else(|_| Err(Error::internal("a worker was lost")))
    }
}
