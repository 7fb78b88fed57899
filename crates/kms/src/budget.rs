//! How many calls per second a node makes to key services, across all keys.
//!
//! A customer's KMS has request limits that everything in the account shares, and bills each call. Calls wait their turn
//! in the order in which they came, probes among them, so none is ever overtaken for good; who stops waiting costs
//! nothing.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// A token bucket that holds up to one second's calls.
#[derive(Debug)]
pub(crate) struct CallBudget {
    bucket: Mutex<Bucket>,
    start: Instant,
    /// First come, first served. Whoever has the turn waits for the bucket.
    turn: Semaphore,
}

/// The bucket's arithmetic. Times count from the budget's start.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    capacity: Duration,
    /// When the bucket is full again: each call moves it on by one interval.
    full_at: Duration,
}

impl CallBudget {
    pub(crate) fn new(calls_per_second_max: u32) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(calls_per_second_max)),
            start: Instant::now(),
            turn: Semaphore::new(1),
        }
    }

    /// Waits until one more call may be made. Dropped before that, it has taken nothing.
    pub(crate) async fn take(&self) {
        let asked = Instant::now();
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        loop {
            let wait = self.bucket().take(self.start.elapsed());
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        let waited = asked.elapsed();
        if waited >= LONG_WAIT {
            tracing::warn!(
                waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                "calls to key services wait for kms.calls_per_second_max; raise it, or probe less often"
            );
        }
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn new(calls_per_second_max: u32) -> Self {
        let per_second = calls_per_second_max.max(1);
        let interval = Duration::from_secs(1) / per_second;
        Self {
            interval,
            capacity: interval * per_second,
            full_at: Duration::ZERO,
        }
    }

    /// Takes one call at `now` if there is room (zero), or says how long until there is.
    fn take(&mut self, now: Duration) -> Duration {
        let after = self.full_at.max(now) + self.interval;
        let wait = (after - now).saturating_sub(self.capacity);
        if wait.is_zero() {
            self.full_at = after;
        }
        wait
    }
}

/// A wait that an operator should know of: it delays the notice of a revocation.
const LONG_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn a_second_s_calls_go_at_once_and_then_one_by_one() {
        let mut bucket = Bucket::new(10);
        let mut now = Duration::from_secs(5);
        for _ in 0..10 {
            assert_eq!(bucket.take(now), Duration::ZERO);
        }
        for _ in 0..25 {
            assert_eq!(bucket.take(now), Duration::from_millis(100));
            now += Duration::from_millis(99);
            assert_eq!(bucket.take(now), Duration::from_millis(1));
            now += Duration::from_millis(1);
            assert_eq!(bucket.take(now), Duration::ZERO);
        }
        // A pause fills the bucket, and not beyond one second's calls.
        now += Duration::from_secs(60);
        for _ in 0..10 {
            assert_eq!(bucket.take(now), Duration::ZERO);
        }
        assert_eq!(bucket.take(now), Duration::from_millis(100));
    }

    #[test]
    fn any_rate_lets_one_call_through() {
        for rate in [1, 3, 7, 50, 10_000] {
            let mut bucket = Bucket::new(rate);
            assert_eq!(bucket.take(Duration::ZERO), Duration::ZERO, "{rate}");
            for _ in 1..rate {
                assert_eq!(bucket.take(Duration::ZERO), Duration::ZERO, "{rate}");
            }
            assert!(bucket.take(Duration::ZERO) > Duration::ZERO, "{rate}");
        }
    }

    #[tokio::test]
    async fn nobody_is_overtaken_and_a_wait_that_is_given_up_takes_nothing() {
        let budget = Arc::new(CallBudget::new(20));
        for _ in 0..20 {
            budget.take().await;
        }
        let order = Arc::new(AtomicU32::new(0));
        // Before the first of them can have been served, however slow the machine is.
        let before = budget.bucket().full_at;
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                budget.take().await;
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), number);
            }));
            // Lets the task get into the queue.
            tokio::task::yield_now().await;
        }
        let given_up = {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move { budget.take().await })
        };
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        for task in tasks {
            task.await.unwrap();
        }
        let taken = budget.bucket().full_at.saturating_sub(before);
        assert!(taken >= Duration::from_millis(250), "{taken:?}");
        assert_eq!(order.load(Ordering::SeqCst), 5);
    }
}
