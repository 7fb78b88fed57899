//! Who is whose neighbour: a growing form that threads fill together, and the finished form that searches read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use zeroize::Zeroize;

use crate::kernel::{self, Lined};

/// Fills a row's neighbour list up to its width; never a row number, for those end at `ROWS_MAX`.
pub(super) const NONE: u32 = u32::MAX;

/// Neighbour lists that a walk can read.
pub(super) trait Neighbours {
    /// Calls `visit` with each neighbour of `row`.
    fn each(&self, row: u32, visit: impl FnMut(u32));

    /// Leaves the neighbours of `row` in `list`.
    fn copy(&self, row: u32, list: &mut Vec<u32>) {
        list.clear();
        self.each(row, |neighbour| list.push(neighbour));
    }

    /// Starts loading the neighbours of `row`.
    fn prefetch(&self, row: u32);
}

/// Finished lists: `width` entries for each row, [`NONE`] after the last neighbour. Wiped on drop, for they tell who is
/// near whom.
pub(super) struct Links {
    width: usize,
    entries: Lined<u32>,
}

impl Links {
    /// Takes `entries`, as many as they say, a whole number of rows of `width` (at least 1).
    pub(super) fn new(width: usize, entries: impl ExactSizeIterator<Item = u32>) -> Self {
        // Allocated at once: lists take no more memory than they need, and nothing unwiped is left by growing.
        let mut all = Lined::filled(entries.len(), || NONE);
        all.iter_mut().zip(entries).for_each(|(entry, given)| *entry = given);
        Self { width, entries: all }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn entries(&self) -> &[u32] {
        &self.entries
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.memory_bytes()
    }

    /// Neighbours of `row`, its free entries included.
    pub(super) fn row(&self, row: u32) -> &[u32] {
        &self.entries[row as usize * self.width..][..self.width]
    }

    pub(super) fn row_mut(&mut self, row: u32) -> &mut [u32] {
        &mut self.entries[row as usize * self.width..][..self.width]
    }
}

impl Neighbours for Links {
    #[inline]
    fn each(&self, row: u32, visit: impl FnMut(u32)) {
        self.row(row)
            .iter()
            .copied()
            .take_while(|&neighbour| neighbour != NONE)
            .for_each(visit);
    }

    #[inline]
    fn copy(&self, row: u32, list: &mut Vec<u32>) {
        let row = self.row(row);
        list.clear();
        list.extend_from_slice(row);
        // Most lists are full.
        if row.last() == Some(&NONE) {
            let count = row.iter().position(|&entry| entry == NONE);
            list.truncate(count.unwrap_or(row.len()));
        }
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        for line in self.row(row).chunks(ENTRIES_PER_LINE) {
            kernel::prefetch(line);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.entries.zeroize();
    }
}

/// Lists under construction. Readers take no lock: they may see a list half rewritten, which at worst shows them some
/// old and some new neighbours. Writers of a row hold its lock.
pub(super) struct GrowingLinks {
    width: usize,
    stride: usize,
    entries: Lined<AtomicU32>,
    locks: Vec<Mutex<()>>,
}

impl GrowingLinks {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        // A list that starts at a cache line takes the fewest of them.
        let stride = width.next_multiple_of(ENTRIES_PER_LINE);
        Self {
            width,
            stride,
            entries: Lined::filled(rows * stride, || AtomicU32::new(NONE)),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
        }
    }

    /// Runs `change` on the list of `row` while no other writer touches it: it gets the list and leaves the new one
    /// there. Entries beyond the width are dropped.
    pub(super) fn update(&self, row: u32, list: &mut Vec<u32>, change: impl FnOnce(&mut Vec<u32>)) {
        // A panic of another writer leaves a list that is still valid, so a poisoned lock is as good as any.
        let _held = self.locks[row as usize % LOCKS]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        list.clear();
        self.each(row, |neighbour| list.push(neighbour));
        change(list);
        let padded = list.iter().copied().chain(std::iter::repeat(NONE));
        for (entry, neighbour) in self.row(row).iter().zip(padded) {
            entry.store(neighbour, Ordering::Relaxed);
        }
    }

    /// Lists of `width` entries: the first so many of each row.
    pub(super) fn finish(self, width: usize) -> Links {
        let rows = self.entries.len() / self.stride;
        let entry = |at: usize| &self.entries[at / width * self.stride + at % width];
        Links::new(width, (0..rows * width).map(|at| entry(at).load(Ordering::Relaxed)))
    }

    fn row(&self, row: u32) -> &[AtomicU32] {
        &self.entries[row as usize * self.stride..][..self.width]
    }
}

impl Neighbours for GrowingLinks {
    #[inline]
    fn each(&self, row: u32, visit: impl FnMut(u32)) {
        let entries = self.row(row).iter().map(|entry| entry.load(Ordering::Relaxed));
        entries.take_while(|&neighbour| neighbour != NONE).for_each(visit);
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        for line in self.row(row).chunks(ENTRIES_PER_LINE) {
            kernel::prefetch(line);
        }
    }
}

impl Drop for GrowingLinks {
    fn drop(&mut self) {
        self.entries.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
    }
}

/// Locks shared by all rows: many more than threads, so that two writers seldom meet.
const LOCKS: usize = 1_024;
const ENTRIES_PER_LINE: usize = kernel::LINE_BYTES / size_of::<u32>();
