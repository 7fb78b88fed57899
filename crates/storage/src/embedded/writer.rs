//! Group commit for one open log segment: appends queue up while a sync runs, and the next sync takes all of them.
//!
//! There is no task that waits for work. An append that finds nobody writing sends a writer to the blocking pool, which
//! goes on until the queue is empty. Its owner is the runtime: at shutdown a writer that runs is waited for, and appends
//! that were still queued resolve with [`LogError::Ended`].
//!
//! After a failed sync the kernel may have dropped the pages and would report success if asked again, so nothing is
//! tried twice: the segment is over.

use std::{
    collections::VecDeque,
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt;
use saker_keyring::SealedRecord;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use super::frame;
use crate::{LogAppend, LogError, LogSequence, StreamId, directory::is_full};

/// The file of a segment, as far as a writer needs it.
pub(super) trait SegmentFile: Send + Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn cut(&self, bytes: u64) -> io::Result<()>;
}

impl SegmentFile for fs::File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Limits of a writer. All are far above what a server with bounded requests in flight reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriterLimits {
    /// Longest record, in bytes: the longest that `keyring` seals.
    pub(super) record_bytes_max: u64,
    /// Longest segment, in bytes: it is read into memory at once. Its owner goes on to the next long before.
    pub(super) segment_bytes_max: u64,
    /// Most records in the queue; an append beyond it ends the segment.
    pub(super) queue_records_max: usize,
    /// Most bytes in the queue; an append beyond it ends the segment.
    pub(super) queue_bytes_max: usize,
    /// Most records in one group.
    pub(super) group_records_max: usize,
    /// Bytes of a group beyond which no further record joins it: keeps the latency of one sync bounded.
    pub(super) group_bytes: usize,
}

impl WriterLimits {
    pub(super) const STANDARD: Self = Self {
        record_bytes_max: (saker_keyring::RECORD_BYTES_MAX + saker_keyring::RECORD_OVERHEAD_BYTES) as u64,
        segment_bytes_max: 2 << 30,
        queue_records_max: 65_536,
        queue_bytes_max: 768 << 20,
        group_records_max: 16_384,
        group_bytes: 8 << 20,
    };
}

/// From this length on, writing a record by itself costs less than copying it.
const LARGE_RECORD_BYTES: usize = 128 << 10;

/// Writes the records of one segment.
pub(super) struct Writer {
    stream: StreamId,
    sequence: LogSequence,
    file: Box<dyn SegmentFile>,
    limits: WriterLimits,
    state: Mutex<State>,
    /// Held while writing: one writer at a time, whoever it is.
    writing: Mutex<()>,
    room: Notify,
    runtime: Handle,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// Whether a writer is on its way to look at the queue.
    scheduled: bool,
    /// Where the last durable group ends.
    durable: u64,
    /// `durable` once all of the queue is written.
    planned: u64,
    commits: u64,
    /// Takes no more records.
    ended: Option<LogError>,
    /// A write or sync failed; what lies behind `durable` must be cut off.
    failed: bool,
}

struct Queued {
    record: SealedRecord,
    answer: oneshot::Sender<Result<(), LogError>>,
}

impl Writer {
    /// A writer at the end of a file that is durable up to `durable` bytes.
    pub(super) fn new(
        stream: StreamId,
        sequence: LogSequence,
        file: Box<dyn SegmentFile>,
        durable: u64,
        limits: WriterLimits,
        runtime: Handle,
    ) -> Self {
        let state = State {
            durable,
            planned: durable,
            ..State::default()
        };
        let (state, writing) = (Mutex::new(state), Mutex::new(()));
        Self {
            stream,
            sequence,
            file,
            limits,
            state,
            writing,
            room: Notify::new(),
            runtime,
        }
    }
    pub(super) fn sequence(&self) -> LogSequence {
        self.sequence
    }
    pub(super) fn bytes(&self) -> u64 {
        self.state().planned
    }
    /// Where the last durable group ends, in bytes.
    pub(super) fn durable(&self) -> u64 {
        self.state().durable
    }
    pub(super) fn commits(&self) -> u64 {
        self.state().commits
    }
    pub(super) fn ended(&self) -> Option<LogError> {
        self.state().ended.clone()
    }

    /// Queues a record. See [`crate::LogAppender::append`].
    pub(super) fn append(self: &std::sync::Arc<Self>, record: SealedRecord) -> LogAppend {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state();
            if let Err(error) = self.admit(&mut state, record.as_bytes().len()) {
                return futures::future::ready(Err(error)).boxed();
            }
            state.queue.push_back(Queued { record, answer });
            if !state.scheduled {
                state.scheduled = true;
                let writer = std::sync::Arc::clone(self);
                drop(self.runtime.spawn_blocking(move || writer.drain()));
            }
        }
        let stopped = self.end_error("the server is shutting down".to_owned());
        async move { answered.await.unwrap_or(Err(stopped)) }.boxed()
    }

    /// Whether another append is welcome.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.ended.is_some()
            || (state.queue.len() < self.limits.queue_records_max / 4
                && state.queue_bytes < self.limits.queue_bytes_max / 4)
    }
    /// Resolves once [`Self::has_room`].
    pub(super) async fn ready(&self) {
        loop {
            let changed = self.room.notified();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    /// Takes no more records, and returns once all that were taken are durable or failed. What a failure left behind
    /// the last durable group is cut off.
    pub(super) fn finish(&self, reason: &str) -> io::Result<()> {
        self.state()
            .ended
            .get_or_insert_with(|| self.end_error(reason.to_owned()));
        self.drain();
        let (failed, durable) = {
            let state = self.state();
            (state.failed, state.durable)
        };
        if failed {
            self.file.cut(durable)?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// Counts a record in, or ends the segment because it cannot be taken.
    fn admit(&self, state: &mut State, bytes: usize) -> Result<(), LogError> {
        if let Some(ended) = &state.ended {
            return Err(match ended {
                LogError::Full { .. } | LogError::Ended { .. } => ended.clone(),
                other @ (LogError::Corrupt { .. }
                | LogError::NotFound { .. }
                | LogError::Overloaded { .. }
                | LogError::TooLarge { .. }
                | LogError::Write { .. }
                | LogError::Io { .. }) => self.end_error(other.to_string()),
            });
        }
        let limits = &self.limits;
        let (records, queue_bytes) = (state.queue.len() + 1, state.queue_bytes.saturating_add(bytes));
        // A group's head is counted for each record: at worst every record makes its own group.
        let planned = state.planned + (frame::GROUP_HEAD_BYTES + frame::RECORD_HEAD_BYTES + bytes) as u64;
        let too_large = |what, bytes, bytes_max| Err(LogError::TooLarge { what, bytes, bytes_max });
        let admitted = if bytes as u64 > limits.record_bytes_max {
            too_large("record", bytes as u64, limits.record_bytes_max)
        } else if planned > limits.segment_bytes_max {
            too_large("segment", planned, limits.segment_bytes_max)
        } else if records > limits.queue_records_max || queue_bytes > limits.queue_bytes_max {
            Err(LogError::Overloaded {
                stream: self.stream.clone(),
                records,
                bytes: queue_bytes,
            })
        } else {
            Ok(())
        };
        match &admitted {
            Ok(()) => {
                state.queue_bytes = queue_bytes;
                state.planned = planned;
            }
            Err(error) => state.ended = Some(error.clone()),
        }
        admitted
    }

    /// Writes until the queue is empty.
    fn drain(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(group) = self.next_group() {
            let written = self.write(&group);
            if let Err(error) = &written {
                self.fail(error);
            }
            for queued in group {
                // A caller that no longer waits is fine.
                let _ = queued.answer.send(written.clone());
            }
            self.room.notify_waiters();
        }
        self.room.notify_waiters();
    }

    /// The records that go to disk together; `None` once there are none.
    fn next_group(&self) -> Option<Vec<Queued>> {
        let mut state = self.state();
        let mut bytes = 0;
        let mut group = Vec::new();
        while group.len() < self.limits.group_records_max && (group.is_empty() || bytes < self.limits.group_bytes) {
            let Some(queued) = state.queue.pop_front() else { break };
            bytes += queued.record.as_bytes().len();
            group.push(queued);
        }
        state.queue_bytes = state.queue_bytes.saturating_sub(bytes);
        if group.is_empty() {
            state.scheduled = false;
            if !state.failed {
                // The plan counted more group heads than were needed.
                state.planned = state.durable;
            }
            return None;
        }
        Some(group)
    }

    fn write(&self, group: &[Queued]) -> Result<(), LogError> {
        let start = {
            let state = self.state();
            if state.failed {
                return Err(state
                    .ended
                    .clone()
                    .unwrap_or_else(|| self.end_error("an earlier write failed".to_owned())));
            }
            state.durable
        };
        let failed = |reason: String| LogError::Write {
            stream: self.stream.clone(),
            sequence: self.sequence,
            reason,
        };
        let records: Vec<&[u8]> = group.iter().map(|queued| queued.record.as_bytes()).collect();
        let head = frame::group_head(&records).ok_or_else(|| failed("the group is too large".to_owned()))?;
        let mut end = start;
        match self.write_records(&head, &records, &mut end) {
            // Nothing behind `start` was ever durable, so cutting it off needs no sync of its own.
            Err(error) if is_full(&error) => {
                return Err(match self.file.cut(start) {
                    Ok(()) => LogError::Full {
                        stream: self.stream.clone(),
                    },
                    Err(error) => failed(error.to_string()),
                });
            }
            Err(error) => return Err(failed(error.to_string())),
            Ok(()) => {}
        }
        self.file.sync().map_err(|error| failed(error.to_string()))?;
        let mut state = self.state();
        state.durable = end;
        state.commits += 1;
        Ok(())
    }

    /// Writes a group at `end` and moves that on. Small records go together in one buffer, large ones from where they are.
    fn write_records(&self, head: &[u8], records: &[&[u8]], end: &mut u64) -> io::Result<()> {
        let mut write = |bytes: &[u8]| {
            self.file.write_at(bytes, *end)?;
            *end += bytes.len() as u64;
            io::Result::Ok(())
        };
        let mut together = head.to_vec();
        for record in records {
            let length = frame::record_head(record).ok_or(io::ErrorKind::InvalidInput)?;
            together.extend_from_slice(&length);
            if record.len() < LARGE_RECORD_BYTES {
                together.extend_from_slice(record);
                continue;
            }
            write(&together)?;
            together.clear();
            write(record)?;
        }
        if together.is_empty() { Ok(()) } else { write(&together) }
    }

    /// Remembers the first failure: everything behind it in the queue fails with it.
    fn fail(&self, error: &LogError) {
        let durable = {
            let mut state = self.state();
            if std::mem::replace(&mut state.failed, true) {
                return;
            }
            state.ended = Some(error.clone());
            state.planned = state.durable;
            state.durable
        };
        tracing::error!(stream = %self.stream, sequence = %self.sequence, %error, "the log segment takes no more records");
        // Tried again, and with a sync, before the next segment begins.
        let _ = self.file.cut(durable);
    }

    fn end_error(&self, reason: String) -> LogError {
        LogError::Ended {
            stream: self.stream.clone(),
            sequence: self.sequence,
            reason,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
