//! Threads that serve connections. Each has a reactor of its own, so a request is read, answered and written on one
//! thread: a search of one query takes about as long as waking another thread for it and being woken back.
//!
//! A connection stays on the thread that it was given when it was opened: the one with the fewest connections in use.
//! What a connection thread does itself is short; whoever wants to compute there asks [`only_request_here`] first, so that
//! requests that came in together are spread over the compute pool instead of waiting for one another.
//!
//! What it deliberately does not do: it starts no work that outlives a request; that belongs on the runtime that the
//! process began with.
//!
//! Start reading at [`ConnectionThreads::seat`].

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use saker_keyring::{STACK_BYTES, overwrite_stack};
use tokio::runtime::{Builder, Handle};

/// Most threads; each serves thousands of connections, and what takes long runs elsewhere.
const THREADS_MAX: usize = 64;
/// How long ago a connection's last request may be for it to count as in use.
const IN_USE_MS: u64 = 10_000;

/// The threads of this process that serve connections.
#[derive(Debug)]
pub(crate) struct ConnectionThreads {
    threads: Vec<Occupied>,
    /// Where to begin to look, so that threads with equally many connections take turns.
    next: AtomicUsize,
    began: Instant,
}

#[derive(Debug)]
struct Occupied {
    runtime: Handle,
    seats: Mutex<Vec<Weak<AtomicU64>>>,
}

/// A connection's place on a thread.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The thread's runtime.
    pub(crate) runtime: Handle,
    began: Instant,
    used_at_ms: Arc<AtomicU64>,
}

impl ConnectionThreads {
    /// The process's threads, started when they are first asked for; they end with it. `None` if the system gives none:
    /// then connections are served where they were accepted.
    pub(crate) fn of_this_process() -> Option<&'static Self> {
        static THREADS: OnceLock<Option<ConnectionThreads>> = OnceLock::new();
        let start = || {
            let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
            let started: Vec<Handle> = (0..threads).filter_map(start_thread).collect();
            (!started.is_empty()).then(|| Self::new(started))
        };
        THREADS.get_or_init(start).as_ref()
    }

    fn new(runtimes: Vec<Handle>) -> Self {
        let occupied = |runtime| Occupied {
            runtime,
            seats: Mutex::default(),
        };
        Self {
            threads: runtimes.into_iter().map(occupied).collect(),
            next: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    /// A place for a new connection; `None` if there are no threads.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.seat_at(self.now_ms())
    }

    fn seat_at(&self, now_ms: u64) -> Option<Seat> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.threads.len();
        let in_turn = (0..count).filter_map(|index| self.threads.get((first + index) % count));
        // The first of those that have the fewest.
        let thread = in_turn.min_by_key(|thread| thread.in_use(now_ms))?;
        let used_at_ms = Arc::new(AtomicU64::new(now_ms));
        thread.seats().push(Arc::downgrade(&used_at_ms));
        Some(Seat {
            runtime: thread.runtime.clone(),
            began: self.began,
            used_at_ms,
        })
    }

    fn now_ms(&self) -> u64 {
        milliseconds_since(self.began)
    }
}

impl Occupied {
    /// Connections that were opened or had a request lately.
    fn in_use(&self, now_ms: u64) -> usize {
        let mut in_use = 0;
        self.seats().retain(|seat| {
            let Some(used_at_ms) = seat.upgrade() else {
                return false;
            };
            in_use += usize::from(used_at_ms.load(Ordering::Relaxed) + IN_USE_MS > now_ms);
            true
        });
        in_use
    }
    fn seats(&self) -> std::sync::MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The connection has a request.
    pub(crate) fn used(&self) {
        self.used_at_ms.store(milliseconds_since(self.began), Ordering::Relaxed);
    }
}

fn milliseconds_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Starts one; `None` if the system refuses.
fn start_thread(number: usize) -> Option<Handle> {
    let (send, receive) = mpsc::channel();
    let serve = move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Requests leave parts of rows on the stack of the thread that they ran on.
            .on_thread_park(overwrite_stack::<STACK_BYTES>)
            .build();
        let Ok(runtime) = runtime else { return };
        UNDER_WAY.set(Some(0));
        if send.send(runtime.handle().clone()).is_ok() {
            runtime.block_on(std::future::pending::<()>());
        }
    };
    let started = thread::Builder::new()
        .name(format!("connections-{number}"))
        .spawn(serve);
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for connections");
        return None;
    }
    receive.recv().ok()
}

thread_local! {
    /// Requests that this thread answers itself and has not answered yet; `None` on a thread that serves no connections.
    static UNDER_WAY: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Whether the caller may compute for a moment: it is on a connection thread, and no other request there waits for it.
pub(crate) fn only_request_here() -> bool {
    UNDER_WAY.get() == Some(1)
}

/// Held for as long as a request that its connection's thread answers itself is not answered.
#[derive(Debug)]
pub(crate) struct UnderWay(());

impl UnderWay {
    /// A request came in on this thread.
    pub(crate) fn begin() -> Self {
        UNDER_WAY.set(UNDER_WAY.get().map(|requests| requests + 1));
        Self(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get().map(|requests| requests.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(count: usize) -> ConnectionThreads {
        ConnectionThreads::new((0..count).map(|number| start_thread(number).unwrap()).collect())
    }

    fn counts(threads: &ConnectionThreads, now_ms: u64) -> Vec<usize> {
        threads.threads.iter().map(|thread| thread.in_use(now_ms)).collect()
    }

    #[test]
    fn connections_are_spread_by_use() {
        let threads = threads(2);
        let idle: Vec<_> = (0..4).map(|_| threads.seat_at(0).unwrap()).collect();
        assert_eq!(counts(&threads, IN_USE_MS - 1), [2, 2]);
        assert_eq!(counts(&threads, IN_USE_MS), [0, 0]);
        // One of those is in use again, so the next two go to the other thread and then to either.
        idle[0].used_at_ms.store(IN_USE_MS, Ordering::Relaxed);
        let _first = threads.seat_at(IN_USE_MS).unwrap();
        assert_eq!(counts(&threads, IN_USE_MS), [1, 1]);
        let _second = threads.seat_at(IN_USE_MS).unwrap();
        assert_eq!(counts(&threads, IN_USE_MS).iter().sum::<usize>(), 3);
        drop(idle);
        assert_eq!(counts(&threads, IN_USE_MS).iter().sum::<usize>(), 2);
    }

    #[test]
    fn only_one_request_alone_on_a_connection_thread_may_compute() {
        assert!(!only_request_here());
        let elsewhere = UnderWay::begin();
        assert!(!only_request_here(), "this thread serves no connections");
        drop(elsewhere);
        let handle = start_thread(0).unwrap();
        let (send, receive) = mpsc::channel();
        handle.spawn(async move {
            let first = UnderWay::begin();
            let alone = only_request_here();
            let second = UnderWay::begin();
            let together = only_request_here();
            drop(first);
            let again = only_request_here();
            drop(second);
            let _heard = send.send([alone, together, again, only_request_here()]);
        });
        assert_eq!(receive.recv().unwrap(), [true, false, true, false]);
    }

    #[test]
    fn the_process_has_its_threads_once() {
        let threads = ConnectionThreads::of_this_process().unwrap();
        assert!(std::ptr::eq(threads, ConnectionThreads::of_this_process().unwrap()));
        assert!(!threads.threads.is_empty() && threads.threads.len() <= THREADS_MAX);
        let seat = threads.seat().unwrap();
        seat.used();
    }
}
