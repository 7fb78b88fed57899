//! Threads that serve connections. Each has a reactor of its own, so a request is read, answered and written on one
//! thread: a search of one query takes about as long as waking another thread for it and being woken back.
//!
//! A connection begins on the thread with the fewest connections in use, and moves when its thread has more to do than
//! another: clients keep connections open and use some of them, so where they began says little ([`Seat::used`]). What
//! a connection thread does itself is short; whoever wants to compute there asks [`may_compute_here`] first, so that
//! requests that came in together are spread over the processors instead of waiting for one another.
//!
//! What it deliberately does not do: it starts no work that outlives a request; that belongs on the runtime that the
//! process began with.
//!
//! Start reading at [`ConnectionThreads::seat`].

mod balance;
mod socket;

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use saker_keyring::{STACK_BYTES, overwrite_stack};
use tokio::runtime::{Builder, Handle};

use balance::Load;
pub(crate) use socket::Socket;

/// Most threads; each serves thousands of connections, and what takes long runs elsewhere.
const THREADS_MAX: usize = 64;
/// How long ago a connection's last request may be for it to count as in use when another one is opened.
const IN_USE_MS: u64 = 1_000;

/// The threads of this process that serve connections.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionThreads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    threads: Vec<Occupied>,
    /// Where to begin to look, so that threads with equally many connections take turns.
    next: AtomicUsize,
    began: Instant,
}

#[derive(Debug)]
struct Occupied {
    runtime: Handle,
    load: Arc<Load>,
    seats: Mutex<Vec<Weak<AtomicU64>>>,
}

/// A connection's place on a thread.
#[derive(Debug)]
pub(crate) struct Seat {
    threads: ConnectionThreads,
    /// Index of the thread.
    thread: AtomicUsize,
    used_at_ms: Arc<AtomicU64>,
    /// The last window in which its thread had a request of this connection.
    window: AtomicU64,
    /// It is to go on on another thread, and has not yet.
    moved: AtomicBool,
}

impl ConnectionThreads {
    /// The process's threads, started when they are first asked for; they end with it. `None` if the system gives none:
    /// then connections are served where they were accepted.
    pub(crate) fn of_this_process() -> Option<&'static Self> {
        static THREADS: OnceLock<Option<ConnectionThreads>> = OnceLock::new();
        let start = || {
            let started: Vec<_> = (0..processors().min(THREADS_MAX)).filter_map(start_thread).collect();
            (!started.is_empty()).then(|| Self::new(started))
        };
        THREADS.get_or_init(start).as_ref()
    }

    fn new(started: Vec<(Handle, Arc<Load>)>) -> Self {
        let occupied = |(runtime, load)| Occupied {
            runtime,
            load,
            seats: Mutex::default(),
        };
        Self(Arc::new(Inner {
            threads: started.into_iter().map(occupied).collect(),
            next: AtomicUsize::new(0),
            began: Instant::now(),
        }))
    }

    /// A place for a new connection; `None` if there are no threads.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.seat_at(self.now_ms())
    }

    fn seat_at(&self, now_ms: u64) -> Option<Arc<Seat>> {
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        let count = self.0.threads.len();
        let in_turn = (0..count).map(|index| (first + index) % count.max(1));
        // The first of those that have the fewest.
        let thread = in_turn.min_by_key(|&index| self.0.threads[index].in_use(now_ms))?;
        let used_at_ms = Arc::new(AtomicU64::new(now_ms));
        self.0.threads[thread].seats().push(Arc::downgrade(&used_at_ms));
        Some(Arc::new(Seat {
            threads: self.clone(),
            thread: AtomicUsize::new(thread),
            used_at_ms,
            window: AtomicU64::new(0),
            moved: AtomicBool::new(false),
        }))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
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
    /// The thread's runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.threads.0.threads[self.thread.load(Ordering::Relaxed)].runtime
    }

    /// The connection has a request, on its thread. Now and then that is when the thread finds that it has more to do
    /// than another one that could take this connection: then the connection is [moved](Self::take_move).
    pub(crate) fn used(&self) {
        let now_ms = self.threads.now_ms();
        self.used_at_ms.store(now_ms, Ordering::Relaxed);
        let threads = &self.threads.0.threads;
        let here = self.thread.load(Ordering::Relaxed);
        if threads.len() < 2 {
            return;
        }
        let busy = || threads.iter().map(|thread| thread.load.busy_ns()).collect();
        if let Some(to) = balance::request(here, busy, &self.window, now_ms) {
            self.move_to(to);
        }
    }

    fn move_to(&self, to: usize) {
        let threads = &self.threads.0.threads;
        let here = self.thread.swap(to, Ordering::Relaxed);
        let mine = Arc::downgrade(&self.used_at_ms);
        threads[here].seats().retain(|seat| !seat.ptr_eq(&mine));
        threads[to].seats().push(mine);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// The runtime on which the connection is to go on, if that is another one than before; said once.
    pub(crate) fn take_move(&self) -> Option<&Handle> {
        let moved = self.moved.load(Ordering::Relaxed);
        moved.then(|| {
            self.moved.store(false, Ordering::Relaxed);
            self.runtime()
        })
    }
}

fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Starts one; `None` if the system refuses.
fn start_thread(number: usize) -> Option<(Handle, Arc<Load>)> {
    let (send, receive) = mpsc::channel();
    let load = Arc::new(Load::default());
    let (parking, unparked) = (Arc::clone(&load), Arc::clone(&load));
    let serve = move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                // Requests leave parts of rows on the stack of the thread that they ran on.
                overwrite_stack::<STACK_BYTES>();
                parking.rests();
            })
            .on_thread_unpark(move || unparked.goes_on())
            .build();
        let Ok(runtime) = runtime else { return };
        UNDER_WAY.set(Some(0));
        NUMBER.set(number);
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
    receive.recv().ok().map(|runtime| (runtime, load))
}

thread_local! {
    /// Requests that this thread answers itself and has not answered yet; `None` on a thread that serves no connections.
    static UNDER_WAY: Cell<Option<usize>> = const { Cell::new(None) };
    /// Which of the connection threads this is; [`NO_CONNECTION_THREAD`] for others.
    static NUMBER: Cell<usize> = const { Cell::new(NO_CONNECTION_THREAD) };
}

const NO_CONNECTION_THREAD: usize = usize::MAX;

/// Searches that are computed now, on whatever thread.
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// Whether the caller may compute for a moment where it is: on a connection thread, and either no other request there
/// waits for it, or no processor is idle that could do it meanwhile.
pub(crate) fn may_compute_here() -> bool {
    may_compute(UNDER_WAY.get(), COMPUTING.load(Ordering::Relaxed), processors())
}

fn may_compute(under_way: Option<usize>, computing: usize, processors: usize) -> bool {
    under_way.is_some_and(|requests| requests <= 1 || computing + 1 >= processors)
}

/// Held while a search is computed.
#[derive(Debug)]
pub(crate) struct Computing(());

impl Computing {
    /// One more is.
    pub(crate) fn begin() -> Self {
        COMPUTING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.fetch_sub(1, Ordering::Relaxed);
    }
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

    impl ConnectionThreads {
        /// Some of its own.
        pub(crate) fn started(count: usize) -> Self {
            Self::new((0..count).map(|number| start_thread(number).unwrap()).collect())
        }
    }

    impl Seat {
        /// Moves to the next thread.
        pub(crate) fn move_on(&self) {
            let next = self.thread.load(Ordering::Relaxed) + 1;
            self.move_to(next % self.threads.0.threads.len());
        }
    }

    fn counts(threads: &ConnectionThreads, now_ms: u64) -> Vec<usize> {
        threads.0.threads.iter().map(|thread| thread.in_use(now_ms)).collect()
    }

    #[test]
    fn connections_are_spread_by_use() {
        let threads = ConnectionThreads::started(2);
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
    fn a_connection_that_moves_is_counted_where_it_goes() {
        let threads = ConnectionThreads::started(2);
        let seats = [threads.seat_at(0).unwrap(), threads.seat_at(0).unwrap()];
        assert!(seats[0].take_move().is_none());
        let before = seats[0].runtime().id();
        let to = 1 - seats[0].thread.load(Ordering::Relaxed);
        seats[0].move_to(to);
        assert_eq!(counts(&threads, 1)[to], 2);
        assert_eq!(counts(&threads, 1).iter().sum::<usize>(), 2);
        let told = seats[0].take_move().map(Handle::id);
        assert_eq!(told, Some(threads.0.threads[to].runtime.id()));
        assert_ne!(told, Some(before));
        assert!(seats[0].take_move().is_none(), "it is said once");
    }

    #[test]
    fn requests_that_wait_for_another_are_handed_over_while_a_processor_is_idle() {
        assert!(!may_compute(None, 0, 1), "no connection thread");
        assert!(may_compute(Some(1), 0, 2) && may_compute(Some(1), 9, 2), "alone");
        assert!(!may_compute(Some(2), 0, 2));
        assert!(may_compute(Some(2), 1, 2));
        assert!(may_compute(Some(2), 0, 1));
        assert!(!may_compute(Some(9), 6, 8));
        assert!(may_compute(Some(9), 7, 8));
    }

    #[test]
    fn requests_under_way_are_counted_on_connection_threads() {
        let elsewhere = UnderWay::begin();
        assert_eq!(UNDER_WAY.get(), None, "this thread serves no connections");
        drop(elsewhere);
        let (handle, _) = start_thread(0).unwrap();
        let (send, receive) = mpsc::channel();
        handle.spawn(async move {
            let mut seen = vec![UNDER_WAY.get()];
            let first = UnderWay::begin();
            let second = UnderWay::begin();
            seen.push(UNDER_WAY.get());
            drop(first);
            seen.push(UNDER_WAY.get());
            drop(second);
            seen.push(UNDER_WAY.get());
            let _heard = send.send(seen);
        });
        assert_eq!(receive.recv().unwrap(), [Some(0), Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn the_process_has_its_threads_once() {
        let threads = ConnectionThreads::of_this_process().unwrap();
        assert!(Arc::ptr_eq(
            &threads.0,
            &ConnectionThreads::of_this_process().unwrap().0
        ));
        let count = threads.0.threads.len();
        assert!((1..=THREADS_MAX).contains(&count));
        let seat = threads.seat().unwrap();
        seat.used();
    }
}
