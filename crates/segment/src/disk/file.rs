//! A sealed file that stays on disk and is opened a frame at a time.

use std::sync::Arc;

use saker_keyring::{
    FileIdentity, HEADER_BYTES, KeptFile, Lease, OpenError, STACK_BYTES, Unverified, leaving_no_trace,
};
use saker_model::SegmentId;
use saker_storage::{ObjectPath, ObjectReader, ObjectStore};
use zeroize::Zeroizing;

use super::cache::{Frame, FrameCache};
use crate::{FileEntry, SegmentError};

/// A sealed file, open. Every read asks whether the lease lives, also one that the cache answers.
pub(crate) struct DiskFile {
    segment: SegmentId,
    entry: FileEntry,
    kept: KeptFile,
    object: Arc<dyn ObjectReader>,
    cache: Arc<FrameCache>,
    /// Its number in the cache.
    number: u64,
}

impl DiskFile {
    /// Opens the file that a manifest names: its header and its last frame are read and verified, nothing else.
    ///
    /// # Errors
    /// [`SegmentError::Locked`], [`SegmentError::Refused`], [`SegmentError::Store`].
    pub(crate) async fn kept_open(
        lease: &Lease,
        store: &dyn ObjectStore,
        prefix: &str,
        segment: SegmentId,
        entry: &FileEntry,
        cache: &Arc<FrameCache>,
    ) -> Result<Arc<Self>, SegmentError> {
        lease.check()?;
        let path = ObjectPath::join(prefix, &entry.name)?;
        let object = store.open(&path).await?;
        if object.bytes() != entry.bytes || entry.bytes < HEADER_BYTES as u64 {
            return Err(SegmentError::Refused {
                segment,
                file: entry.file,
            });
        }
        // Through the store, which knows when a header is being replaced.
        let header = store.get_range(&path, 0..HEADER_BYTES as u64).await?;
        let (lease, entry, cache) = (lease.clone(), entry.clone(), Arc::clone(cache));
        let open = move || Self::verified(&lease, &header, segment, entry, object, cache);
        tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(open))
            .await
            .map_err(|_| SegmentError::Stopped)?
    }

    fn verified(
        lease: &Lease,
        header: &Unverified,
        segment: SegmentId,
        entry: FileEntry,
        object: Arc<dyn ObjectReader>,
        cache: Arc<FrameCache>,
    ) -> Result<Arc<Self>, SegmentError> {
        let refused = |error| SegmentError::opening(error, segment, entry.file);
        let identity = FileIdentity {
            file: entry.file,
            kind: entry.kind,
        };
        let unverified = lease.open_file(identity, header, entry.bytes).map_err(refused)?;
        let range = unverified.last_frame_range();
        let bytes = usize::try_from(range.end - range.start).map_err(|_| refused(OpenError::Refused))?;
        let mut last = vec![0; bytes];
        object.read_at(range.start, &mut last)?;
        let opener = unverified.verify_last(&Unverified::new(last.into())).map_err(refused)?;
        Ok(Arc::new(Self {
            number: cache.file(),
            kept: opener.keep(),
            segment,
            entry,
            object,
            cache,
        }))
    }

    /// Length of the plaintext, in bytes.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.kept.plain_bytes()
    }
    /// See [`KeptFile::rebind`].
    pub(crate) fn rebind(&self, lease: &Lease) {
        self.kept.rebind(lease);
    }
    /// Whether it may be read now.
    pub(crate) fn check(&self) -> Result<(), SegmentError> {
        Ok(self.kept.check()?)
    }

    /// A malformed file, by name.
    pub(crate) fn malformed(&self, reason: &'static str) -> SegmentError {
        SegmentError::Malformed {
            segment: self.segment,
            file: self.entry.file,
            reason,
        }
    }

    /// Hands out the plaintext of `bytes` bytes from `at` on, in as many parts as there are frames; `take` also hears how
    /// many bytes came before. Through the cache: for what will be wanted again.
    pub(crate) fn with(&self, at: u64, bytes: usize, mut take: impl FnMut(usize, &[u8])) -> Result<(), SegmentError> {
        let end = self.end_of(at, bytes)?;
        self.kept.check()?;
        let frame_bytes = self.kept.frame_bytes();
        let mut done = 0;
        for frame in self.kept.frames_for(at..end) {
            let opened = self.frame(frame)?;
            let plain = opened.plain();
            let first = frame * frame_bytes;
            let (from, to) = (at.max(first) - first, end.min(first + frame_bytes) - first);
            let part = usize::try_from(from).ok().zip(usize::try_from(to).ok());
            let part = part.and_then(|(from, to)| plain.get(from..to));
            let part = part.ok_or_else(|| self.refused(OpenError::Refused))?;
            take(done, part);
            done += part.len();
        }
        if done != bytes {
            return Err(self.refused(OpenError::Refused));
        }
        Ok(())
    }

    /// Fills `out` with the plaintext from `at` on, past the cache: for long runs that would only push out what is hot.
    pub(crate) fn scan(&self, at: u64, out: &mut [u8]) -> Result<(), SegmentError> {
        self.scan_with(at, out.len(), |start, part| {
            if let Some(out) = out.get_mut(start..start + part.len()) {
                out.copy_from_slice(part);
            }
        })
    }

    /// Fills `out` with values of `value_bytes` bytes each, from `at` on, past the cache and on several threads where that
    /// is worth it. `convert` gets some bytes and as many values to make of them; no value may lie across a border of frames.
    pub(crate) fn fill<T: Send>(
        &self,
        at: u64,
        value_bytes: usize,
        out: &mut [T],
        convert: impl Fn(&[u8], &mut [T]) + Sync,
    ) -> Result<(), SegmentError> {
        let part = |first: usize, out: &mut [T]| {
            let at = at + (first * value_bytes) as u64;
            self.scan_with(at, out.len() * value_bytes, |start, bytes| {
                let (start, count) = (start / value_bytes, bytes.len() / value_bytes);
                if let Some(out) = out.get_mut(start..start + count) {
                    convert(bytes, out);
                }
            })
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads
            .min(out.len() * value_bytes / THREAD_BYTES_MIN)
            .clamp(1, THREADS_MAX);
        if threads == 1 {
            return part(0, out);
        }
        let each = out.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let mut parts = out.chunks_mut(each).enumerate();
            let mine = parts.next();
            let others: Vec<_> = parts
                .map(|(index, out)| {
                    let work = move || part(index * each, out);
                    scope.spawn(|| leaving_no_trace::<STACK_BYTES, _>(work))
                })
                .collect();
            let mine = mine.map_or(Ok(()), |(_, out)| part(0, out));
            others.into_iter().fold(mine, |outcome, other| {
                outcome.and(other.join().unwrap_or(Err(SegmentError::Stopped)))
            })
        })
    }

    /// All of the plaintext.
    pub(crate) fn whole(&self) -> Result<Zeroizing<Vec<u8>>, SegmentError> {
        let bytes = usize::try_from(self.plain_bytes()).map_err(|_| self.refused(OpenError::Refused))?;
        let mut whole = Zeroizing::new(vec![0; bytes]);
        self.fill(0, 1, &mut whole, |bytes, out| out.copy_from_slice(bytes))?;
        Ok(whole)
    }

    /// Hands out the plaintext of `bytes` bytes from `at` on, past the cache, in parts of a frame at most; `take` also hears
    /// how many bytes came before.
    fn scan_with(&self, at: u64, bytes: usize, mut take: impl FnMut(usize, &[u8])) -> Result<(), SegmentError> {
        let end = self.end_of(at, bytes)?;
        let frames = self.kept.frames_for(at..end);
        let frame_bytes = self.kept.frame_bytes();
        let run_frames = (RUN_BYTES / frame_bytes).max(1);
        let mut sealed = Zeroizing::new(Vec::new());
        let (mut first, mut done) = (frames.start, 0);
        while first < frames.end {
            let next = frames.end.min(first + run_frames);
            let range = self.kept.frames_range(first..next);
            let run_bytes = usize::try_from(range.end - range.start).map_err(|_| self.refused(OpenError::Refused))?;
            if sealed.len() < run_bytes {
                sealed = Zeroizing::new(vec![0; run_bytes]);
            }
            let run = &mut sealed[..run_bytes];
            self.object.read_at(range.start, run)?;
            let mut start = first * frame_bytes;
            let opened = self.kept.open_run(first, run, |plain| {
                let (from, to) = (at.max(start), end.min(start + plain.len() as u64));
                let within = usize::try_from(from - start).ok().zip(usize::try_from(to - start).ok());
                if let Some(part) = within.and_then(|(from, to)| plain.get(from..to)) {
                    take(done, part);
                    done += part.len();
                }
                start += plain.len() as u64;
            });
            opened.map_err(|error| self.refused(error))?;
            first = next;
        }
        if done != bytes {
            return Err(self.refused(OpenError::Refused));
        }
        Ok(())
    }

    /// Says which plaintext will be read soon; what is not in the cache begins to come from the disk.
    pub(crate) fn will_read(&self, at: u64, bytes: usize) {
        let end = at.saturating_add(bytes as u64);
        for frame in self.kept.frames_for(at..end) {
            if !self.cache.contains(self.number, frame) {
                self.object.will_read(self.kept.frames_range(frame..frame + 1));
            }
        }
    }

    fn frame(&self, frame: u64) -> Result<Arc<Frame>, SegmentError> {
        if let Some(found) = self.cache.find(self.number, frame) {
            return Ok(found);
        }
        let range = self.kept.frames_range(frame..frame + 1);
        let bytes = usize::try_from(range.end - range.start).map_err(|_| self.refused(OpenError::Refused))?;
        let mut buffer = Zeroizing::new(vec![0; bytes]);
        self.object.read_at(range.start, &mut buffer)?;
        let plain = self.kept.open_in_place(frame, &mut buffer);
        let plain = plain.map_err(|error| self.refused(error))?;
        let opened = Arc::new(Frame::new(buffer, plain));
        self.cache.keep(self.number, frame, &opened);
        Ok(opened)
    }

    /// Where a read ends that must lie in the file.
    fn end_of(&self, at: u64, bytes: usize) -> Result<u64, SegmentError> {
        let end = at.checked_add(bytes as u64).filter(|end| *end <= self.plain_bytes());
        end.ok_or_else(|| self.malformed("it ends too early"))
    }

    fn refused(&self, error: OpenError) -> SegmentError {
        SegmentError::opening(error, self.segment, self.entry.file)
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl std::fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskFile")
            .field("segment", &self.segment)
            .field("file", &self.entry.file)
            .finish_non_exhaustive()
    }
}

/// Sealed bytes that a scan reads at once: few system calls, and what was read is still in the processor's cache when it is
/// opened.
const RUN_BYTES: u64 = 256 << 10;
/// Bytes of plaintext below which another thread costs more than it brings.
const THREAD_BYTES_MIN: usize = 4 << 20;
/// Threads that fill one buffer: more than memory has use for are never needed.
const THREADS_MAX: usize = 8;
