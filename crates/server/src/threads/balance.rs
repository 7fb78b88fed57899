//! When a connection moves to another thread: how busy threads are, looked at once in a while by each of them.
//!
//! Every [`WINDOW_MS`] a thread compares itself with the one that had the least to do. It gives a connection away if the
//! two would be more even afterwards, by a clear margin, and a connection's part is taken to be an equal one of those that
//! had requests. So it moves none while it has only one that is used, and none back and forth.
//!
//! What it deliberately does not do: it looks at no queue; threads that are never idle are all as busy as they can be.
//!
//! Start reading at [`request`].

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// How often a thread looks whether another one has less to do.
const WINDOW_MS: u64 = 50;
/// Threads whose loads differ by less than this part of a window, beside the part that moves, are even enough: nothing is
/// moved for a little.
const MARGIN: f64 = 0.1;

/// What a thread did since it began.
#[derive(Debug)]
pub(super) struct Load {
    began: Instant,
    /// Nanoseconds for which it was not waiting, up to when it last began to wait.
    busy_ns: AtomicU64,
    /// When it last ended to wait, in nanoseconds since `began`; [`WAITING`] while it waits.
    going_since_ns: AtomicU64,
}

const WAITING: u64 = u64::MAX;

impl Default for Load {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            busy_ns: AtomicU64::new(0),
            going_since_ns: AtomicU64::new(0),
        }
    }
}

impl Load {
    /// The thread is about to wait.
    pub(super) fn rests(&self) {
        self.rests_at(self.now_ns());
    }
    /// The thread has waited.
    pub(super) fn goes_on(&self) {
        self.going_since_ns.store(self.now_ns(), Ordering::Relaxed);
    }
    /// Nanoseconds for which it was not waiting, about.
    pub(super) fn busy_ns(&self) -> u64 {
        self.busy_at(self.now_ns())
    }
    fn rests_at(&self, now_ns: u64) {
        let since_ns = self.going_since_ns.swap(WAITING, Ordering::Relaxed);
        self.busy_ns
            .fetch_add(now_ns.saturating_sub(since_ns), Ordering::Relaxed);
    }
    fn busy_at(&self, now_ns: u64) -> u64 {
        let since_ns = self.going_since_ns.load(Ordering::Relaxed);
        // The two change one after the other; what another thread makes of that is a little off.
        self.busy_ns.load(Ordering::Relaxed) + now_ns.saturating_sub(since_ns)
    }
    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a thread has seen since it last compared.
struct Window {
    number: u64,
    began_ms: u64,
    /// Connections that had requests.
    connections: usize,
    /// How long each thread had been busy when it began.
    busy_ns: Vec<u64>,
}

thread_local! {
    static WINDOW: Cell<Option<Window>> = const { Cell::new(None) };
}

/// A connection of the thread `here`, which is the caller's, has a request; `seen` is its mark of the last window in which
/// it had one, and `busy` says for how many nanoseconds each thread has been busy. The thread that the connection should
/// move to, if it should.
pub(super) fn request(here: usize, busy: impl Fn() -> Vec<u64>, seen: &AtomicU64, now_ms: u64) -> Option<usize> {
    let mut window = WINDOW.take().unwrap_or_else(|| Window {
        number: 1,
        began_ms: now_ms,
        connections: 0,
        busy_ns: busy(),
    });
    if seen.swap(window.number, Ordering::Relaxed) != window.number {
        window.connections += 1;
    }
    let elapsed_ms = now_ms.saturating_sub(window.began_ms);
    let mut to = None;
    if elapsed_ms >= WINDOW_MS {
        let now = busy();
        // After a pause there is nothing to compare.
        if elapsed_ms <= 2 * WINDOW_MS && window.connections > 1 {
            let spent = now
                .iter()
                .zip(&window.busy_ns)
                .map(|(now, then)| now.saturating_sub(*then));
            let parts: Vec<f64> = spent.map(|ns| part(ns, elapsed_ms)).collect();
            to = idler(here, &parts, window.connections);
        }
        window = Window {
            number: window.number + 1,
            began_ms: now_ms,
            connections: 0,
            busy_ns: now,
        };
    }
    WINDOW.set(Some(window));
    to
}

#[expect(clippy::cast_precision_loss, reason = "a part of a window, compared with a margin")]
fn part(busy_ns: u64, elapsed_ms: u64) -> f64 {
    busy_ns as f64 / (elapsed_ms as f64 * 1e6)
}

/// The thread to which one of the `connections` of the thread `here` should move; `parts` says how busy each was.
#[expect(
    clippy::cast_precision_loss,
    reason = "connections of one thread are thousands at most"
)]
fn idler(here: usize, parts: &[f64], connections: usize) -> Option<usize> {
    let mine = *parts.get(here)?;
    let (least, theirs) = parts
        .iter()
        .copied()
        .enumerate()
        .min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let of_one = mine / connections as f64;
    (theirs + of_one + MARGIN < mine).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_moves_only_where_it_makes_threads_more_even() {
        // Two on one thread, none on the other.
        assert_eq!(idler(0, &[0.9, 0.0], 2), Some(1));
        assert_eq!(idler(1, &[0.0, 0.9], 2), Some(0));
        // One each, two and one, one alone.
        assert_eq!(idler(0, &[0.5, 0.5], 2), None);
        assert_eq!(idler(0, &[1.0, 0.6], 2), None);
        assert_eq!(idler(0, &[0.9, 0.0], 1), None);
        // Many little ones.
        assert_eq!(idler(0, &[0.9, 0.5, 0.3, 0.4], 30), Some(2));
        assert_eq!(idler(0, &[0.12, 0.0], 30), Some(1));
        assert_eq!(idler(0, &[0.09, 0.0], 30), None, "too little to do");
        assert_eq!(idler(2, &[0.5, 0.1], 3), None, "no such thread");
    }

    #[test]
    fn a_move_and_its_like_are_not_undone() {
        for connections in 2..40 {
            for busy in 1..=10 {
                let mine = f64::from(busy) / 10.0;
                for others in 0..=busy {
                    let theirs = f64::from(others) / 10.0;
                    if idler(0, &[mine, theirs], connections) == Some(1) {
                        #[expect(clippy::cast_precision_loss, reason = "small")]
                        let of_one = mine / connections as f64;
                        let after = [mine - of_one, theirs + of_one];
                        assert_eq!(idler(1, &after, 2), None);
                    }
                }
            }
        }
    }

    #[test]
    fn windows_count_connections_once() {
        const WINDOW_NS: u64 = WINDOW_MS * 1_000_000;
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
        assert_eq!(request(0, || vec![0, 0], &one, 1_000), None);
        // All of the window's time on this thread, by one connection: it stays.
        assert_eq!(request(0, || vec![WINDOW_NS, 0], &one, 1_000 + WINDOW_MS), None);
        // By two of them: one goes.
        assert_eq!(request(0, || vec![WINDOW_NS, 0], &one, 1_000 + WINDOW_MS), None);
        let later = || vec![2 * WINDOW_NS, 0];
        assert_eq!(
            request(0, later, &other, 999 + 2 * WINDOW_MS),
            None,
            "the window is not over"
        );
        assert_eq!(request(0, later, &other, 1_000 + 2 * WINDOW_MS), Some(1));
        // A window that began long ago says nothing.
        let later = || vec![4 * WINDOW_NS, 0];
        assert_eq!(request(0, later, &one, 1_000 + 2 * WINDOW_MS), None);
        assert_eq!(request(0, later, &other, 1_001 + 4 * WINDOW_MS), None);
    }

    #[test]
    fn only_time_between_waits_is_busy() {
        let load = Load::default();
        load.rests_at(10);
        assert_eq!([load.busy_at(10), load.busy_at(50)], [10, 10]);
        load.going_since_ns.store(50, Ordering::Relaxed);
        assert_eq!(
            [load.busy_at(50), load.busy_at(80)],
            [10, 40],
            "what goes on counts as well"
        );
        load.rests_at(90);
        assert_eq!(load.busy_at(200), 50);
    }
}
