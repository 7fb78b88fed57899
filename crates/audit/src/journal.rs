//! Lines as sealed records of a log stream, under the lease of the cluster's own zone.
//!
//! A process writes to segments of its own: it never goes on with one that was there before, so that no data key seals
//! two histories. A write that failed may have reached the disk in part: the next segment is begun (which cuts a torn
//! tail off), and what is in the old one decides what is written again.
//!
//! Start reading at [`Journal::append`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use saker_keyring::{FileId, Lease, LogSealer, OpenError};
use saker_storage::{Log, LogAppend, LogAppender, LogError, LogSequence, StreamId};
use thiserror::Error;
use zeroize::Zeroizing;

/// Gives the right to use the cluster's own zone; `None` while it is locked.
pub type LeaseSource = Arc<dyn Fn() -> Option<Lease> + Send + Sync>;

/// Where lines are kept.
#[derive(Clone)]
pub struct Place {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The stream in it.
    pub stream: StreamId,
    /// The zone whose keys seal it.
    pub lease: LeaseSource,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Why lines cannot be written or read. Holds ids and positions, never content.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The cluster's own zone is locked.
    #[error("the cluster's own zone is locked; enable its root key")]
    Locked,
    /// The log refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Stored bytes do not verify.
    #[error("log segment {sequence} of stream {stream} failed verification; restore it from a backup")]
    Refused {
        /// Which stream.
        stream: StreamId,
        /// Which segment.
        sequence: LogSequence,
    },
    /// The log does not answer.
    #[error("the record was not durable in time; see the server's log")]
    NotInTime,
}

/// The lines of one segment.
#[derive(Debug)]
pub struct SegmentLines {
    /// In order.
    pub lines: Vec<Zeroizing<Vec<u8>>>,
    /// Whether the segment was finished on purpose.
    pub closed: bool,
}

impl Place {
    fn lease(&self) -> Result<Lease, JournalError> {
        (self.lease)().ok_or(JournalError::Locked)
    }

    /// Numbers and sizes of the segments that hold lines, oldest first.
    ///
    /// # Errors
    /// [`JournalError::Log`].
    pub async fn segments(&self) -> Result<Vec<(LogSequence, u64)>, JournalError> {
        let segments = self.log.segments(&self.stream).await?;
        Ok(segments.iter().map(|info| (info.sequence, info.bytes)).collect())
    }

    /// The lines of one segment.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn read(&self, sequence: LogSequence) -> Result<SegmentLines, JournalError> {
        let lease = self.lease()?;
        let contents = self.log.read_segment(&self.stream, sequence).await?;
        let stream = self.stream.clone();
        let refused = move |error| match error {
            OpenError::Locked(_) => JournalError::Locked,
            _ => JournalError::Refused {
                stream: stream.clone(),
                sequence,
            },
        };
        let work = move || {
            let mut opener = lease.open_log(contents.file, &contents.header).map_err(&refused)?;
            let mut lines = Vec::with_capacity(contents.records.len());
            for record in &contents.records {
                // `None` is the closing record.
                if let Some(line) = opener.open(record).map_err(&refused)? {
                    lines.push(line);
                }
            }
            let closed = opener.is_closed();
            Ok(SegmentLines { lines, closed })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(lines) => lines,
            Err(_) => Err(JournalError::NotInTime),
        }
    }

    /// The newest line, if there is one; and whether newer segments than its own had to be passed over because they do
    /// not verify.
    ///
    /// # Errors
    /// [`JournalError::Locked`], [`JournalError::Log`].
    pub async fn newest(&self) -> Result<(Option<Zeroizing<Vec<u8>>>, bool), JournalError> {
        let mut damaged = false;
        for (sequence, _) in self.segments().await?.into_iter().rev() {
            match self.read(sequence).await {
                Ok(mut segment) => {
                    if let Some(line) = segment.lines.pop() {
                        return Ok((Some(line), damaged));
                    }
                }
                Err(JournalError::Refused { .. } | JournalError::Log(LogError::Corrupt { .. })) => damaged = true,
                Err(error) => return Err(error),
            }
        }
        Ok((None, damaged))
    }
}

/// Writes lines.
#[derive(Debug)]
pub struct Journal {
    place: Place,
    active: Option<Active>,
    /// Segment whose last append failed: what of it is on disk is not known.
    unsure: Option<LogSequence>,
    /// How many lines of the call that failed are durable.
    durable: usize,
    segment_bytes_max: u64,
    segments_begun: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Active {
    appender: Box<dyn LogAppender>,
    sealer: LogSealer,
}

/// Bytes at which a segment is closed: what is read at once when somebody reads back.
pub const SEGMENT_BYTES_MAX: u64 = 8 << 20;

impl Journal {
    /// Writes at the end of the stream; a new segment begins with the first line.
    #[must_use]
    pub fn new(place: Place, segment_bytes_max: u64) -> Self {
        Self {
            place,
            active: None,
            unsure: None,
            durable: 0,
            segment_bytes_max,
            segments_begun: Arc::default(),
        }
    }

    /// Where the lines are.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Segments begun so far.
    #[must_use]
    pub fn segments_begun(&self) -> u64 {
        self.segments_begun.load(Ordering::Relaxed)
    }

    /// Writes the lines in order and returns when all are durable. After an error call it again with the same lines:
    /// what the failed call wrote is not written twice.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn append(&mut self, lines: &[Vec<u8>]) -> Result<(), JournalError> {
        if let Some(sequence) = self.unsure {
            // The new segment ends the old one, so that nothing more is written to that.
            let active = self.begin().await?;
            let there = self.place.read(sequence).await?;
            let is_there = |line: &&Vec<u8>| there.lines.iter().any(|old| old[..] == line[..]);
            let left = lines.get(self.durable..).unwrap_or_default();
            self.durable += left.iter().take_while(is_there).count();
            (self.active, self.unsure) = (Some(active), None);
        }
        let mut waiting = Vec::new();
        for line in lines.get(self.durable..).unwrap_or_default() {
            if self.is_full() {
                // Before a segment ends it is known what is in it.
                self.settle(std::mem::take(&mut waiting)).await?;
                self.close().await;
            }
            let mut active = match self.active.take() {
                Some(active) => active,
                None => self.begin().await?,
            };
            active.appender.ready().await;
            match active.sealer.seal(line) {
                Ok(sealed) => {
                    waiting.push(active.appender.append(sealed));
                    self.active = Some(active);
                }
                Err(error) => {
                    // What was appended is still being written. A lease that ended does not come back.
                    self.unsure = Some(active.appender.sequence());
                    tracing::debug!(stream = %self.place.stream, "a line was not sealed: {error}");
                    return Err(JournalError::Locked);
                }
            }
        }
        self.settle(waiting).await?;
        self.durable = 0;
        Ok(())
    }

    /// Waits until everything appended is durable.
    async fn settle(&mut self, waiting: Vec<LogAppend>) -> Result<(), JournalError> {
        let count = waiting.len();
        for append in waiting {
            if let Err(error) = append.await {
                if let Some(active) = self.active.take() {
                    self.unsure = Some(active.appender.sequence());
                }
                return Err(error.into());
            }
        }
        self.durable += count;
        Ok(())
    }

    fn is_full(&self) -> bool {
        let full =
            |active: &Active| active.appender.ended().is_some() || active.appender.bytes() >= self.segment_bytes_max;
        self.active.as_ref().is_some_and(full)
    }

    async fn begin(&self) -> Result<Active, JournalError> {
        let lease = self.place.lease()?;
        let file = FileId::random();
        let (header, sealer) = lease.log_sealer(file).map_err(|_| JournalError::Locked)?;
        let appender = self.place.log.create_segment(&self.place.stream, header, file).await?;
        self.segments_begun.fetch_add(1, Ordering::Relaxed);
        Ok(Active { appender, sealer })
    }

    /// Ends the open segment, so that its end shows.
    pub async fn close(&mut self) {
        if let Some(active) = self.active.take() {
            close(active).await;
        }
    }
}

/// A segment without its closing record is one whose writer crashed: nothing is lost if this fails.
async fn close(mut active: Active) {
    if let Ok(closing) = active.sealer.close()
        && let Err(error) = active.appender.append(closing).await
    {
        tracing::debug!("the closing record of a log segment was not written: {error}");
    }
}
