//! Opened frames of sealed files, as many as a budget of bytes allows.
//!
//! What is in here is customer plaintext. A frame is overwritten with zeros when it leaves and its last reader is done with
//! it, and a file takes all of its frames along when it is closed, which is what a lock of its zone does. The cache asks
//! for no lease: whoever reads through it does, on every read.
//!
//! Frames are found by file and number in one of a few shards, each with its share of the budget. When a shard is full, a
//! hand goes round: a frame that was used since the hand last came by is passed over once, any other goes.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

/// The plaintext of one frame. Wiped on drop.
pub(super) struct Frame {
    buffer: Zeroizing<Vec<u8>>,
    plain: Range<usize>,
}

impl Frame {
    /// Takes a buffer over whose part `plain` is a frame's plaintext.
    pub(super) fn new(buffer: Zeroizing<Vec<u8>>, plain: Range<usize>) -> Self {
        Self { buffer, plain }
    }
    pub(super) fn plain(&self) -> &[u8] {
        self.buffer.get(self.plain.clone()).unwrap_or_default()
    }
    /// What it takes in memory, its place in the cache included.
    fn bytes(&self) -> usize {
        self.buffer.capacity() + PLACE_BYTES
    }
}

/// Opened frames of many files. Shared by all collections of a server.
pub struct FrameCache {
    bytes_max: usize,
    shards: Box<[Mutex<Shard>]>,
    files: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
}

/// What a cache has done since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCacheStatus {
    /// Bytes that its frames take now.
    pub bytes: usize,
    /// Bytes that they may take.
    pub bytes_max: usize,
    /// Frames that it holds now.
    pub frames: usize,
    /// Reads that found their frame here.
    pub hits: u64,
    /// Reads that had to open it.
    pub misses: u64,
    /// Frames that had to go for others.
    pub evicted: u64,
}

/// A frame: number of the file, number of the frame.
type Key = (u64, u64);

#[derive(Default)]
struct Shard {
    /// Index into `places`.
    found: HashMap<Key, usize>,
    places: Vec<Place>,
    hand: usize,
    bytes: usize,
}

struct Place {
    key: Key,
    frame: Arc<Frame>,
    used: bool,
}

impl FrameCache {
    /// A cache that holds at most `bytes_max` bytes. With 0 it holds nothing, and every read opens its frames anew.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        // A shard that is too small for the largest frame could not hold one.
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        Arc::new(Self {
            bytes_max,
            shards: std::iter::repeat_with(Mutex::default).take(shards).collect(),
            files: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// What it holds and has done.
    #[must_use]
    pub fn status(&self) -> FrameCacheStatus {
        let mut status = FrameCacheStatus {
            bytes_max: self.bytes_max,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            ..FrameCacheStatus::default()
        };
        for shard in &self.shards {
            let shard = lock(shard);
            status.bytes += shard.bytes;
            status.frames += shard.places.len();
        }
        status
    }

    /// A number for a file that begins to use the cache; never given twice.
    pub(super) fn file(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn find(&self, file: u64, frame: u64) -> Option<Arc<Frame>> {
        let found = {
            let mut shard = lock(self.shard((file, frame)));
            let place = shard.found.get(&(file, frame)).copied();
            place.and_then(|place| shard.places.get_mut(place)).map(|place| {
                place.used = true;
                Arc::clone(&place.frame)
            })
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Whether the frame is here; counts as no use.
    pub(super) fn contains(&self, file: u64, frame: u64) -> bool {
        lock(self.shard((file, frame))).found.contains_key(&(file, frame))
    }

    /// Keeps a frame, if it fits into the budget at all.
    pub(super) fn keep(&self, file: u64, frame: u64, opened: &Arc<Frame>) {
        let (key, bytes) = ((file, frame), opened.bytes());
        let share = self.bytes_max / self.shards.len();
        if bytes > share {
            return;
        }
        // Dropped, and so wiped, after the shard is free again.
        let mut gone = Vec::new();
        let mut shard = lock(self.shard(key));
        if shard.found.contains_key(&key) {
            return; // Another reader was faster.
        }
        while shard.bytes + bytes > share {
            match shard.evict() {
                Some(frame) => gone.push(frame),
                None => break,
            }
        }
        let place = shard.places.len();
        shard.places.push(Place {
            key,
            frame: Arc::clone(opened),
            used: false,
        });
        shard.found.insert(key, place);
        shard.bytes += bytes;
        drop(shard);
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
    }

    /// Lets all frames of a file go.
    pub(super) fn forget(&self, file: u64) {
        for shard in &self.shards {
            let mut gone = Vec::new();
            let mut shard = lock(shard);
            let mut place = 0;
            while let Some(next) = shard.places.get(place) {
                if next.key.0 == file {
                    gone.push(shard.remove(place));
                } else {
                    place += 1;
                }
            }
            drop(shard);
        }
    }

    fn shard(&self, (file, frame): Key) -> &Mutex<Shard> {
        // Neighbouring frames go to different shards.
        let mixed = (file.rotate_left(32) ^ frame).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.shards[usize::try_from(mixed).unwrap_or(0) % self.shards.len()]
    }
}

impl Shard {
    /// Takes a frame out that was not used lately.
    fn evict(&mut self) -> Option<Arc<Frame>> {
        loop {
            if self.hand >= self.places.len() {
                self.hand = 0;
            }
            let hand = self.hand;
            let place = self.places.get_mut(hand)?;
            if std::mem::take(&mut place.used) {
                self.hand += 1;
            } else {
                return Some(self.remove(hand));
            }
        }
    }

    /// Takes the frame at a place out; the last one moves there.
    fn remove(&mut self, place: usize) -> Arc<Frame> {
        let Place { key, frame, .. } = self.places.swap_remove(place);
        self.found.remove(&key);
        if let Some(moved) = self.places.get(place) {
            self.found.insert(moved.key, place);
        }
        self.bytes -= frame.bytes();
        frame
    }
}

impl std::fmt::Debug for FrameCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCache")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shards: more than threads that search at once, so that two seldom meet.
const SHARDS_MAX: usize = 32;
/// A shard holds some of the largest frames that files have.
const SHARD_BYTES_MIN: usize = 4 << 20;
/// About what a frame takes beside its bytes: its place, its entry in the map, its counters.
const PLACE_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, bytes: usize) -> Arc<Frame> {
        Arc::new(Frame::new(Zeroizing::new(vec![byte; bytes]), 1..bytes))
    }

    #[test]
    fn frames_are_found_until_their_file_is_closed() {
        let cache = FrameCache::new(1 << 20);
        let (a, b) = (cache.file(), cache.file());
        cache.keep(a, 0, &frame(1, 100));
        cache.keep(b, 0, &frame(2, 100));
        assert_eq!(cache.find(a, 0).unwrap().plain(), [1; 99]);
        assert_eq!(cache.find(b, 0).unwrap().plain(), [2; 99]);
        assert!(cache.find(a, 1).is_none());
        cache.forget(a);
        assert!(cache.find(a, 0).is_none() && cache.contains(b, 0));
        let status = cache.status();
        assert_eq!((status.hits, status.misses, status.frames), (2, 2, 1));
        cache.forget(b);
        assert_eq!(cache.status().bytes, 0);
    }

    #[test]
    fn the_budget_holds_at_every_step_and_used_frames_stay() {
        for (bytes_max, bytes) in [(64 << 10, 4_124), (9 << 20, 4_124), (300 << 10, 65_564)] {
            let cache = FrameCache::new(bytes_max);
            let file = cache.file();
            cache.keep(file, 0, &frame(7, bytes));
            for number in 1..4 * (bytes_max / bytes) as u64 {
                cache.keep(file, number, &frame(8, bytes));
                assert!(cache.status().bytes <= bytes_max, "after {number} frames");
                // Used again and again, so it is never the one to go.
                assert!(cache.find(file, 0).is_some(), "after {number} frames");
            }
            let status = cache.status();
            assert!(status.evicted > 0 && status.frames > 1);
            assert!(status.frames * bytes <= bytes_max);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        for cache in [FrameCache::new(0), FrameCache::new(4_000)] {
            cache.keep(cache.file(), 0, &frame(1, 4_124));
            assert_eq!(cache.status().frames, 0);
        }
    }

    #[test]
    fn a_reader_keeps_what_it_has_while_the_cache_lets_go() {
        let cache = FrameCache::new(1 << 20);
        let file = cache.file();
        cache.keep(file, 3, &frame(9, 50));
        let held = cache.find(file, 3).unwrap();
        cache.forget(file);
        assert_eq!(held.plain(), [9; 49]);
        assert_eq!(Arc::strong_count(&held), 1, "nobody else has it");
    }
}
