//! Timestamps and ids: one hybrid clock that never gives a value twice.
//!
//! A timestamp is milliseconds since the Unix epoch and a counter ([`Timestamp`]). Ids of databases, collections,
//! partitions and segments, and primary keys that the server makes, are timestamps too, so nothing has to be reserved
//! on disk: every value that was ever used stands in a catalog record, a manifest or a log record, and whoever reads
//! one of those tells the oracle ([`Oracle::observe`]) before new values are given for the same collection. Beside
//! that, a high-water mark is kept in the catalog, so that a wall clock that was set back cannot bring back the
//! timestamps of catalog changes.

use std::sync::{Arc, Mutex, PoisonError};

use saker_model::Timestamp;

use crate::clock::Clock;

/// Gives timestamps and ids, each greater than every one before.
#[derive(Debug)]
pub(crate) struct Oracle {
    clock: Arc<dyn Clock>,
    last: Mutex<u64>,
}

impl Oracle {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            last: Mutex::new(0),
        }
    }
    /// `count` consecutive values; the first of them is returned.
    pub(crate) fn allocate(&self, count: u64) -> Timestamp {
        let now = Timestamp::from_millis(self.clock.wall_ms() & WALL_MS_MASK).0;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let first = now.max(*last + 1);
        *last = first + count.max(1) - 1;
        Timestamp(first)
    }
    /// One value.
    pub(crate) fn now(&self) -> Timestamp {
        self.allocate(1)
    }
    /// One value as an id.
    pub(crate) fn id(&self) -> i64 {
        self.now().0.cast_signed()
    }
    /// Everything given from now on is greater than `used`.
    pub(crate) fn observe(&self, used: Timestamp) {
        // A value that no clock can have given would use up the range: it came from a damaged or foreign record.
        if used.millis() <= WALL_MS_MASK {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(used.0);
        }
    }
    /// As [`Self::observe`], for an id.
    pub(crate) fn observe_id(&self, id: i64) {
        self.observe(Timestamp(u64::try_from(id).unwrap_or(0)));
    }
    /// The last value given.
    pub(crate) fn last(&self) -> Timestamp {
        Timestamp(*self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// 44 bits of milliseconds (year 2527), so that ids stay positive with room to count.
const WALL_MS_MASK: u64 = (1 << 44) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u64);
    impl Clock for Fixed {
        fn wall_ms(&self) -> u64 {
            self.0
        }
        fn monotonic_ms(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn never_gives_a_value_twice_even_when_the_clock_stands_or_was_set_back() {
        let oracle = Oracle::new(Arc::new(Fixed(1_000)));
        let first = oracle.allocate(300_000);
        assert_eq!(first, Timestamp::from_millis(1_000));
        let next = oracle.now();
        assert_eq!(next.0, first.0 + 300_000);
        let later = Timestamp::from_millis(5_000);
        oracle.observe(later);
        assert_eq!(oracle.now().0, later.0 + 1);
        oracle.observe(Timestamp(u64::MAX));
        assert_eq!(oracle.now().0, later.0 + 2);
    }
}
