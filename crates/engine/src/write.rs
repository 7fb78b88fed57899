//! The write path: seal, append, wait until durable, apply, acknowledge.
//!
//! A write takes its timestamp and its place in the log under the writer's lock, then waits for durability without it,
//! so that concurrent writes to one collection share a sync. One task applies durable writes to memory in log order and
//! answers the writers; a writer that goes away changes nothing.

use std::sync::Arc;

use saker_keyring::{FileId, LogSealer};
use saker_storage::{LogAppend, LogAppender, LogError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    codec::{Encoded, LogLink, Operation},
    error::{Error, ErrorKind, Result},
    opened::{Applied, Opened, interrupted},
    records::LogPosition,
    shared::Shared,
};

/// The end of a collection's log. Empty until the first write, and after a segment ended.
#[derive(Default)]
pub(crate) struct Writer {
    active: Option<Active>,
}

struct Active {
    appender: Box<dyn LogAppender>,
    sealer: LogSealer,
    sequence: u64,
    link: LogLink,
    records: u64,
}

/// Work for the applier, in log order.
pub(crate) enum Queued {
    /// A write that was appended.
    Write {
        /// Resolves when it is durable.
        append: LogAppend,
        operation: Box<Operation>,
        position: LogPosition,
        /// Length of the record.
        bytes: usize,
        done: oneshot::Sender<Result<Applied>>,
    },
    /// Moves everything before it aside.
    Freeze(oneshot::Sender<()>),
    /// Says when everything before it is done.
    Barrier(oneshot::Sender<()>),
}

/// Writes of more bytes than this are encoded, sealed and applied on the blocking pool: about 500 µs of work.
const INLINE_BYTES_MAX: usize = 512 << 10;

impl Opened {
    /// Writes durably, then applies. The operation's timestamp is given here.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed log. Nothing of the operation is visible then; after a failed disk it may
    /// be found by the next recovery.
    pub(crate) async fn write(self: &Arc<Self>, operation: Operation) -> Result<Applied> {
        // On a task of its own: a caller that goes away must not leave the log half-way.
        let this = Arc::clone(self);
        let task = self.tasks.spawn(async move { this.append(operation).await });
        match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(interrupted(self)),
        }
    }

    async fn append(self: &Arc<Self>, mut operation: Operation) -> Result<Applied> {
        let collection = self.collection;
        let (mut encoded, mut operation) = if operation.bytes() > INLINE_BYTES_MAX {
            Shared::blocking(move || Ok((Encoded::new(collection, &operation), operation))).await?
        } else {
            (Encoded::new(collection, &operation), std::mem::take(&mut operation))
        };
        let receive = {
            let mut writer = self.writer.lock().await;
            if !self.usable() {
                return Err(interrupted(self));
            }
            self.check_backlog()?;
            let mut active = self.active(&mut writer).await?;
            active.appender.ready().await;
            operation.timestamp = self.shared.oracle.now();
            encoded.place(active.sequence, active.link, operation.timestamp);
            let bytes = encoded.as_bytes().len();
            let (mut active, sealed) = if bytes > INLINE_BYTES_MAX {
                Shared::blocking(move || {
                    let sealed = active.sealer.seal_in_place(encoded.into_room());
                    Ok((active, sealed))
                })
                .await?
            } else {
                let sealed = active.sealer.seal_in_place(encoded.into_room());
                (active, sealed)
            };
            let sealed = match sealed {
                Ok(sealed) => sealed,
                Err(saker_keyring::SealError::Closed | saker_keyring::SealError::FrameLimit { .. }) => {
                    return Err(Error::internal("a log segment was full before its limit"));
                }
                Err(error) => return Err(error.into()),
            };
            let position = LogPosition {
                sequence: active.sequence,
                record: active.records,
            };
            active.records += 1;
            let append = active.appender.append(sealed);
            let (done, receive) = oneshot::channel();
            let queued = Queued::Write {
                append,
                operation: Box::new(operation),
                position,
                bytes,
                done,
            };
            if self.queue.send(queued).is_err() {
                return Err(interrupted(self));
            }
            writer.active = Some(active);
            receive
        };
        receive.await.unwrap_or_else(|_| Err(interrupted(self)))
    }

    /// Takes the open log segment out of the writer, or begins one. The caller puts it back after a success.
    async fn active(&self, writer: &mut Writer) -> Result<Active> {
        if let Some(mut active) = writer.active.take()
            && active.appender.ended().is_none()
        {
            if active.appender.bytes() < self.shared.config.log_segment_bytes_max {
                return Ok(active);
            }
            close(&mut active);
            // So that the next segment knows all records of this one.
            let (done, receive) = oneshot::channel();
            self.queue.send(Queued::Barrier(done)).map_err(|_| interrupted(self))?;
            receive.await.map_err(|_| interrupted(self))?;
        }
        let file = FileId::random();
        let (header, sealer) = self.lease.log_sealer(file)?;
        let appender = self.shared.log.create_segment(&self.stream, header, file).await?;
        let sequence = appender.sequence().0;
        let position = self.memory().position;
        if position.is_some_and(|position| position.sequence >= sequence) {
            return Err(Error::internal(format!(
                "log segment {sequence} of {} was there before",
                self.stream
            )));
        }
        let link = position.map_or(LogLink::default(), |position| LogLink {
            sequence: position.sequence,
            records: position.record + 1,
        });
        Ok(Active {
            appender,
            sealer,
            sequence,
            link,
            records: 0,
        })
    }

    /// Ends the open log segment and waits until everything written before is applied and moved aside.
    ///
    /// # Errors
    /// If the collection is shut.
    pub(crate) async fn freeze_log(self: &Arc<Self>) -> Result<()> {
        let receive = {
            let mut writer = self.writer.lock().await;
            if let Some(mut active) = writer.active.take() {
                if active.records > 0 {
                    close(&mut active);
                } else {
                    writer.active = Some(active);
                }
            }
            let (done, receive) = oneshot::channel();
            self.queue.send(Queued::Freeze(done)).map_err(|_| interrupted(self))?;
            receive
        };
        receive.await.map_err(|_| interrupted(self))
    }

    /// The applier's task.
    pub(crate) async fn apply_loop(self: Arc<Self>, mut queue: mpsc::UnboundedReceiver<Queued>) {
        loop {
            let queued = tokio::select! {
                () = self.stop.cancelled() => return,
                queued = queue.recv() => queued,
            };
            match queued {
                None => return,
                Some(Queued::Barrier(done)) => {
                    let _gone = done.send(());
                }
                Some(Queued::Freeze(done)) => {
                    self.freeze();
                    // Whoever asked may have gone away.
                    let _gone = done.send(());
                }
                Some(Queued::Write {
                    append,
                    operation,
                    position,
                    bytes,
                    done,
                }) => {
                    let durable = tokio::select! {
                        () = self.stop.cancelled() => return,
                        durable = append => durable,
                    };
                    let outcome = match durable {
                        Ok(()) => self.apply_durable(*operation, position, bytes).await,
                        Err(error) => Err(self.not_durable(error)),
                    };
                    let _gone = done.send(outcome);
                }
            }
        }
    }

    async fn apply_durable(
        self: &Arc<Self>,
        operation: Operation,
        position: LogPosition,
        bytes: usize,
    ) -> Result<Applied> {
        let outcome = if operation.bytes() > INLINE_BYTES_MAX {
            let this = Arc::clone(self);
            Shared::blocking(move || this.apply(operation, position, bytes)).await
        } else {
            self.apply(operation, position, bytes)
        };
        // An answer must not come from a zone that was locked meanwhile; the write itself is kept in the log.
        self.check()?;
        if let Err(error) = &outcome {
            tracing::error!(collection = %self.collection, "a durable write was not applied: {error}");
            self.shut();
        }
        if self.memory().growing_bytes >= self.segment_bytes_max() {
            self.flush_wanted.notify_one();
        }
        outcome
    }

    /// Refuses writes that come faster than rows can be made files of.
    fn check_backlog(&self) -> Result<()> {
        let bytes = {
            let memory = self.memory();
            memory.growing_bytes + memory.frozen_bytes
        };
        let bytes_max = self.backlog_bytes_max();
        if bytes < bytes_max {
            return Ok(());
        }
        self.flush_wanted.notify_one();
        Err(Error::new(
            ErrorKind::RateLimit,
            format!("{bytes} bytes of rows wait to be sealed, the limit is {bytes_max}; try again in a moment"),
        ))
    }

    fn not_durable(&self, error: LogError) -> Error {
        match &error {
            // Whether the record is on disk is not known: start again from what is there.
            LogError::Write { .. } | LogError::Io { .. } => {
                tracing::error!(collection = %self.collection, "log write failed: {error}");
                self.shut();
            }
            LogError::Ended { .. } if self.lease.check().is_err() => return self.access.refusal(),
            LogError::Corrupt { .. }
            | LogError::NotFound { .. }
            | LogError::Full { .. }
            | LogError::Overloaded { .. }
            | LogError::TooLarge { .. }
            | LogError::Ended { .. } => {}
        }
        error.into()
    }
}

/// Marks the segment as complete. If that fails, the segment counts as one whose writer crashed, which is fine too.
fn close(active: &mut Active) {
    if let Ok(record) = active.sealer.close() {
        drop(active.appender.append(record));
    }
}
