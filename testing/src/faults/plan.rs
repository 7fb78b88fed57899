//! Which operation fails, and how.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::Random;

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails before its commit: nothing changed.
    LoseBefore,
    /// Fails after its commit: done, but the caller is told that it failed. A read simply fails.
    LoseAfter,
    /// Fails for want of space: nothing changed. A read is not affected.
    Full,
    /// Succeeds, later. Runs on tokio's clock, so a test may pause it.
    Delay(Duration),
    /// A read gives only a part of the bytes, and a log segment loses its last record. A write fails before its commit:
    /// that is what a torn write is to a store that is atomic.
    Tear,
    /// A read gives the bytes with one bit flipped, chosen from the plan's seed. A write is not affected.
    Flip,
}

/// The operations of all stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Operation {
    ObjectPut,
    ObjectGet,
    ObjectGetRange,
    ObjectSize,
    ObjectList,
    ObjectDelete,
    ObjectShred,
    ObjectReplaceHeaders,
    MetaGet,
    MetaScan,
    MetaCommit,
    LogCreateSegment,
    LogAppend,
    LogSegments,
    LogReadSegment,
    LogRemoveSegments,
    LogRemoveStream,
    LogStreams,
    LogReplaceHeader,
    LogReadHeader,
}

impl Operation {
    /// Whether it changes what is stored.
    #[must_use]
    pub const fn writes(self) -> bool {
        match self {
            Self::ObjectPut
            | Self::ObjectDelete
            | Self::ObjectShred
            | Self::ObjectReplaceHeaders
            | Self::MetaCommit
            | Self::LogCreateSegment
            | Self::LogAppend
            | Self::LogRemoveSegments
            | Self::LogRemoveStream
            | Self::LogReplaceHeader => true,
            Self::ObjectGet
            | Self::ObjectGetRange
            | Self::ObjectSize
            | Self::ObjectList
            | Self::MetaGet
            | Self::MetaScan
            | Self::LogSegments
            | Self::LogReadSegment
            | Self::LogStreams
            | Self::LogReadHeader => false,
        }
    }
}

/// Decides about every operation of the stores that share it. Cheap to clone; all clones are one plan.
#[derive(Clone, Debug)]
pub struct FaultPlan(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    queued: BTreeMap<Operation, VecDeque<Option<Fault>>>,
    chances: BTreeMap<Operation, (f64, Vec<Fault>)>,
    counts: BTreeMap<Operation, u64>,
    writes: u64,
    /// The power fails at this write.
    off_at_write: Option<u64>,
    /// This write alone goes like this.
    fault_at_write: Option<(u64, Fault)>,
    off: bool,
}

impl FaultPlan {
    /// No faults yet; chance draws from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            queued: BTreeMap::new(),
            chances: BTreeMap::new(),
            counts: BTreeMap::new(),
            writes: 0,
            off_at_write: None,
            fault_at_write: None,
            off: false,
        })))
    }

    /// The next operations of this kind go like this, one by one (`None`: as they should).
    pub fn next(&self, operation: Operation, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.state().queued.entry(operation).or_default().extend(faults);
    }

    /// Operations of this kind fail with this probability, each by one of `faults`.
    pub fn chance(&self, operation: Operation, probability: f64, faults: &[Fault]) {
        self.state().chances.insert(operation, (probability, faults.to_vec()));
    }

    /// The power fails at the write after `writes` more ones: it and everything after it is lost, reads too.
    pub fn power_off_after(&self, writes: u64) {
        let mut state = self.state();
        state.off_at_write = Some(state.writes + writes);
    }

    /// The write after `writes` more ones goes like this, whatever it writes; nothing else does.
    pub fn fault_after(&self, writes: u64, fault: Fault) {
        let mut state = self.state();
        state.fault_at_write = Some((state.writes + writes, fault));
    }

    /// Forgets all faults to come, and the power is back.
    pub fn clear(&self) {
        let mut state = self.state();
        state.queued.clear();
        state.chances.clear();
        (state.off_at_write, state.fault_at_write, state.off) = (None, None, false);
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Operations of this kind so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Writes of all kinds so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Counts an operation and decides about it.
    pub(super) fn decide(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state();
        *state.counts.entry(operation).or_default() += 1;
        if operation.writes() {
            state.off |= state.off_at_write.is_some_and(|at| state.writes >= at);
            state.writes += 1;
            if let Some((at, fault)) = state.fault_at_write
                && at + 1 == state.writes
            {
                return Some(fault);
            }
        }
        if state.off {
            return Some(Fault::LoseBefore);
        }
        if let Some(next) = state.queued.get_mut(&operation).and_then(VecDeque::pop_front) {
            return next;
        }
        let (probability, faults) = state.chances.get(&operation).cloned()?;
        if state.random.next_f64() >= probability {
            return None;
        }
        let choice = state.random.below(faults.len() as u64);
        faults.get(usize::try_from(choice).unwrap_or(0)).copied()
    }

    /// A number below `bound` from the plan's seed.
    pub(super) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.state().random.below(bound as u64)).unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` as `fault` has it: waits, or gives `lost` instead of it or after it. For operations that return no bytes.
pub(super) async fn run<T, E>(
    fault: Option<Fault>,
    writes: bool,
    work: impl Future<Output = Result<T, E>>,
    lost: impl FnOnce() -> E,
    full: impl FnOnce() -> E,
) -> Result<T, E> {
    match fault {
        Some(Fault::LoseBefore) => Err(lost()),
        Some(Fault::LoseAfter) => {
            work.await?;
            Err(lost())
        }
        Some(Fault::Full) if writes => Err(full()),
        Some(Fault::Tear) if writes => Err(lost()),
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            work.await
        }
        Some(Fault::Full | Fault::Tear | Fault::Flip) | None => work.await,
    }
}

/// Alters bytes that were read, if `fault` says so.
pub(super) fn alter(
    plan: &FaultPlan,
    fault: Option<Fault>,
    bytes: saker_storage::Unverified,
) -> saker_storage::Unverified {
    if bytes.is_empty() {
        return bytes;
    }
    match fault {
        Some(Fault::Tear) => {
            let kept = plan.below(bytes.len());
            bytes.slice(0..kept).unwrap_or(bytes)
        }
        Some(Fault::Flip) => {
            let (byte, bit) = (plan.below(bytes.len()), plan.below(8));
            let mut altered = bytes.as_bytes().to_vec();
            if let Some(byte) = altered.get_mut(byte) {
                *byte ^= 1 << bit;
            }
            saker_storage::Unverified::new(altered.into())
        }
        Some(Fault::LoseBefore | Fault::LoseAfter | Fault::Full | Fault::Delay(_)) | None => bytes,
    }
}
