//! A log that fails on purpose.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use saker_storage::{
    FileId, Log, LogAppend, LogAppender, LogError, LogReady, LogSegmentContents, LogSegmentInfo, LogSequence,
    SealedHeader, SealedLogHeader, SealedRecord, StreamId, Tail, Unverified,
};

use super::{
    Fault, FaultPlan, Operation, REASON,
    plan::{alter, run},
};

/// Wraps a log.
#[derive(Clone, Debug)]
pub struct FaultyLog {
    inner: Arc<dyn Log>,
    plan: FaultPlan,
}

impl FaultyLog {
    /// `inner`, as far as `plan` lets it.
    #[must_use]
    pub fn new(inner: Arc<dyn Log>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }

    async fn operate<T>(
        &self,
        operation: Operation,
        action: &'static str,
        stream: Option<&StreamId>,
        work: impl Future<Output = Result<T, LogError>> + Send,
    ) -> Result<(T, Option<Fault>), LogError> {
        let fault = self.plan.decide(operation);
        let name = stream.map_or("all", StreamId::as_str).to_owned();
        let lost = || LogError::Io {
            action,
            stream: name.clone(),
            reason: REASON.to_owned(),
        };
        let full = || stream.map_or_else(lost, |stream| LogError::Full { stream: stream.clone() });
        Ok((run(fault, operation.writes(), work, lost, full).await?, fault))
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn create_segment(
        &self,
        stream: &StreamId,
        header: SealedLogHeader,
        file: FileId,
    ) -> Result<Box<dyn LogAppender>, LogError> {
        let work = self.inner.create_segment(stream, header, file);
        let (appender, _) = self
            .operate(Operation::LogCreateSegment, "create a segment", Some(stream), work)
            .await?;
        Ok(Box::new(FaultyAppender {
            inner: appender.into(),
            plan: self.plan.clone(),
            stream: stream.clone(),
            ended: Mutex::default(),
        }))
    }

    async fn segments(&self, stream: &StreamId) -> Result<Vec<LogSegmentInfo>, LogError> {
        let work = self.inner.segments(stream);
        self.operate(Operation::LogSegments, "list segments", Some(stream), work)
            .await
            .map(|(segments, _)| segments)
    }

    async fn read_segment(&self, stream: &StreamId, sequence: LogSequence) -> Result<LogSegmentContents, LogError> {
        let work = self.inner.read_segment(stream, sequence);
        let (mut contents, fault) = self
            .operate(Operation::LogReadSegment, "read a segment", Some(stream), work)
            .await?;
        match fault {
            Some(Fault::Tear) => {
                if let Some(record) = contents.records.pop() {
                    contents.tail = Tail::Torn {
                        bytes_cut: record.len() as u64,
                    };
                }
            }
            Some(Fault::Flip) => {
                let altered = self.plan.below(contents.records.len().max(1));
                match contents.records.get_mut(altered) {
                    Some(record) => *record = alter(&self.plan, fault, record.clone()),
                    None => contents.header = alter(&self.plan, fault, contents.header),
                }
            }
            Some(Fault::LoseBefore | Fault::LoseAfter | Fault::Full | Fault::Delay(_)) | None => {}
        }
        Ok(contents)
    }

    async fn remove_segments_below(&self, stream: &StreamId, sequence: LogSequence) -> Result<(), LogError> {
        let work = self.inner.remove_segments_below(stream, sequence);
        self.operate(Operation::LogRemoveSegments, "remove segments", Some(stream), work)
            .await
            .map(|((), _)| ())
    }

    async fn remove_stream(&self, stream: &StreamId) -> Result<(), LogError> {
        let work = self.inner.remove_stream(stream);
        self.operate(Operation::LogRemoveStream, "remove the log", Some(stream), work)
            .await
            .map(|((), _)| ())
    }

    async fn streams(&self) -> Result<Vec<StreamId>, LogError> {
        self.operate(Operation::LogStreams, "list streams", None, self.inner.streams())
            .await
            .map(|(streams, _)| streams)
    }

    async fn replace_header(
        &self,
        stream: &StreamId,
        sequence: LogSequence,
        header: SealedHeader,
    ) -> Result<(), LogError> {
        let work = self.inner.replace_header(stream, sequence, header);
        self.operate(Operation::LogReplaceHeader, "replace a header", Some(stream), work)
            .await
            .map(|((), _)| ())
    }

    async fn read_header(&self, stream: &StreamId, sequence: LogSequence) -> Result<(FileId, Unverified), LogError> {
        let work = self.inner.read_header(stream, sequence);
        let ((file, header), fault) = self
            .operate(Operation::LogReadHeader, "read a header", Some(stream), work)
            .await?;
        Ok((file, alter(&self.plan, fault, header)))
    }
}

/// Keeps the rule of every appender: the first append that fails ends it.
#[derive(Debug)]
struct FaultyAppender {
    inner: Arc<dyn LogAppender>,
    plan: FaultPlan,
    stream: StreamId,
    ended: Mutex<Option<LogError>>,
}

impl FaultyAppender {
    fn lost(&self) -> LogError {
        let (stream, sequence) = (self.stream.clone(), self.inner.sequence());
        LogError::Write {
            stream,
            sequence,
            reason: REASON.to_owned(),
        }
    }
}

impl LogAppender for FaultyAppender {
    fn append(&self, record: SealedRecord) -> LogAppend {
        // Decided at the call, not when the future runs (call order is disk order), and under the lock: no record may
        // slip in behind one that is lost.
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = self.plan.decide(Operation::LogAppend);
        if let Some(error) = &*ended {
            let (stream, sequence, reason) = (self.stream.clone(), self.inner.sequence(), error.to_string());
            return Box::pin(async move {
                Err(LogError::Ended {
                    stream,
                    sequence,
                    reason,
                })
            });
        }
        let error = match fault {
            Some(Fault::LoseBefore | Fault::LoseAfter | Fault::Tear) => self.lost(),
            Some(Fault::Full) => LogError::Full {
                stream: self.stream.clone(),
            },
            Some(Fault::Delay(delay)) => {
                let work = self.inner.append(record);
                return Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    work.await
                });
            }
            Some(Fault::Flip) | None => return self.inner.append(record),
        };
        *ended = Some(error.clone());
        if fault == Some(Fault::LoseAfter) {
            let work = self.inner.append(record);
            return Box::pin(async move {
                work.await?;
                Err(error)
            });
        }
        Box::pin(async move { Err(error) })
    }

    fn ready(&self) -> LogReady {
        self.inner.ready()
    }

    fn sequence(&self) -> LogSequence {
        self.inner.sequence()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn ended(&self) -> Option<LogError> {
        let own = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.or_else(|| self.inner.ended())
    }

    fn commits(&self) -> u64 {
        self.inner.commits()
    }
}
