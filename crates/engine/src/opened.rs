//! A collection in use: its definition, its rows in memory, its log writer. Lives as long as one lease.
//!
//! One [`Opened`] is the only writer of its collection's log and manifest. When the zone is locked it is shut: tasks
//! stop, decoded data goes, and nothing of it is used again; after an unlock a new one is made by recovery.
//!
//! Lock order: `sealing`, then `maintenance`, then `writer`, then `manifest`, then `memory`. `memory` is never held across an await.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use saker_keyring::{Lease, Unverified, give_back_memory};
use saker_model::{CollectionId, CollectionSchema, FieldId, PartitionId, PrimaryKey, RowBatch, SegmentId, Timestamp};
use saker_segment::{GrowingSegment, SealedSegment, SegmentView};
use saker_storage::StreamId;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    codec::{KeyDeletes, Operation},
    error::{Error, ErrorKind, Result},
    manifest::ManifestState,
    records::{CollectionBody, LogPosition},
    shared::Shared,
    text::TextFunctions,
    write::{Queued, Writer},
    zones::Access,
};

/// A collection in use.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) access: Arc<Access>,
    pub(crate) collection: CollectionId,
    pub(crate) stream: StreamId,
    pub(crate) lease: Lease,
    pub(crate) schema: Arc<CollectionSchema>,
    pub(crate) text: TextFunctions,
    pub(crate) body: ArcSwap<CollectionBody>,
    /// The body as it is stored; held while the body is changed.
    pub(crate) definition: tokio::sync::Mutex<Unverified>,
    /// Held by flush, load, compaction and everything else that changes which segments there are.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    /// Held for reading by index builds while they read or make files, which they do without `maintenance`. Before it.
    pub(crate) sealing: tokio::sync::RwLock<()>,
    pub(crate) writer: tokio::sync::Mutex<Writer>,
    pub(crate) manifest: tokio::sync::Mutex<ManifestState>,
    memory: RwLock<Memory>,
    pub(crate) queue: mpsc::UnboundedSender<Queued>,
    /// Rows done by index builds that run, by segment and field.
    pub(crate) build_progress: Mutex<BTreeMap<(SegmentId, FieldId), Arc<AtomicUsize>>>,
    pub(crate) build_failure: Mutex<Option<String>>,
    pub(crate) building: AtomicBool,
    /// Somebody asked for index builds after the running ones looked what is missing.
    pub(crate) build_wanted: AtomicBool,
    /// Lists are being made for growing rows.
    pub(crate) listing: AtomicBool,
    /// Asks running index builds to stop.
    pub(crate) stop_builds: Arc<AtomicBool>,
    pub(crate) flush_wanted: tokio::sync::Notify,
    /// When rows were last written (monotonic milliseconds).
    pub(crate) written_at_ms: std::sync::atomic::AtomicU64,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What is decoded.
#[derive(Default)]
pub(crate) struct Memory {
    /// Where new rows go.
    pub(crate) growing: BTreeMap<PartitionId, Arc<GrowingSegment>>,
    /// Growing segments that a flush is making files of, or failed to.
    pub(crate) frozen: Vec<Arc<GrowingSegment>>,
    /// Sealed segments; all of the manifest's if `loaded`, none if not.
    pub(crate) sealed: BTreeMap<SegmentId, Arc<SealedSegment>>,
    /// What is searched in place of a sealed segment while it has no graph: those that its rows were in before. They get
    /// the same deletes.
    pub(crate) standing_in: BTreeMap<SegmentId, Vec<Arc<SealedSegment>>>,
    pub(crate) loaded: bool,
    /// Segments in the manifest, loaded or not.
    pub(crate) sealed_count: usize,
    /// The last log record that was applied.
    pub(crate) position: Option<LogPosition>,
    /// As of the last freeze.
    pub(crate) frozen_position: Option<LogPosition>,
    pub(crate) last_timestamp: Timestamp,
    /// Log bytes of the growing and of the frozen rows.
    pub(crate) growing_bytes: usize,
    pub(crate) frozen_bytes: usize,
    /// Deletes that may hide rows of sealed or frozen segments and are in no file yet.
    pub(crate) deletes: Vec<KeyDeletes>,
}

/// What a reader sees of one segment.
pub(crate) struct Pinned {
    pub(crate) view: Box<dyn SegmentView>,
}

/// What applying a write did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) timestamp: Timestamp,
    /// Rows in memory that it hid.
    pub(crate) deleted: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("collection", &self.collection)
            .finish_non_exhaustive()
    }
}

impl Opened {
    #[expect(clippy::too_many_arguments, reason = "made in one place, by recovery")]
    pub(crate) fn new(
        shared: Arc<Shared>,
        access: Arc<Access>,
        collection: CollectionId,
        stream: StreamId,
        lease: Lease,
        body: CollectionBody,
        definition: Unverified,
        manifest: ManifestState,
        queue: mpsc::UnboundedSender<Queued>,
    ) -> Self {
        let memory = Memory {
            sealed_count: manifest.manifest.segments.len(),
            position: manifest.manifest.flushed,
            frozen_position: manifest.manifest.flushed,
            last_timestamp: manifest.manifest.last_timestamp,
            ..Memory::default()
        };
        Self {
            stop: shared.stop.child_token(),
            shared,
            access,
            collection,
            stream,
            lease,
            text: TextFunctions::new(&body.schema),
            schema: Arc::new(body.schema.clone()),
            body: ArcSwap::from_pointee(body),
            definition: tokio::sync::Mutex::new(definition),
            maintenance: tokio::sync::Mutex::new(()),
            sealing: tokio::sync::RwLock::new(()),
            writer: tokio::sync::Mutex::new(Writer::default()),
            manifest: tokio::sync::Mutex::new(manifest),
            memory: RwLock::new(memory),
            queue,
            build_progress: Mutex::default(),
            build_failure: Mutex::default(),
            building: AtomicBool::new(false),
            build_wanted: AtomicBool::new(false),
            listing: AtomicBool::new(false),
            stop_builds: Arc::new(AtomicBool::new(false)),
            flush_wanted: tokio::sync::Notify::new(),
            written_at_ms: std::sync::atomic::AtomicU64::new(0),
            tasks: TaskTracker::new(),
        }
    }

    /// Whether it may be used: the lease lives and nothing shut it.
    pub(crate) fn usable(&self) -> bool {
        !self.stop.is_cancelled() && self.lease.check().is_ok()
    }
    /// Refuses once the lease is dead: what was computed since must not be answered.
    pub(crate) fn check(&self) -> Result<()> {
        self.lease.check().map_err(|_| self.access.refusal())
    }
    /// Stops its tasks and drops what is decoded. Readers that run keep what they pinned until they notice.
    pub(crate) fn shut(&self) {
        self.stop_builds.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.tasks.close();
        let decoded = std::mem::take(&mut *self.memory_mut());
        // Gigabytes may have to be overwritten: not on a thread that has other zones to lock.
        self.shared.compute.spawn(move || {
            drop(decoded);
            give_back_memory();
        });
        self.shared.overwrite_compute_stacks();
    }
    /// Stops its tasks. What is decoded stays for readers that have it, and for whoever took it over.
    pub(crate) fn retire(&self) {
        self.stop_builds.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.tasks.close();
    }
    /// The same collection under another zone, with what is decoded of its files. Nothing may be in memory only
    /// ([`Memory::is_flushed`]), and nothing may write meanwhile.
    pub(crate) fn under_zone(
        &self,
        access: Arc<Access>,
        lease: Lease,
        definition: Unverified,
        manifest: ManifestState,
    ) -> Arc<Self> {
        let (send, receive) = mpsc::unbounded_channel();
        let body = (*self.body.load_full()).clone();
        let (shared, stream) = (Arc::clone(&self.shared), self.stream.clone());
        let next = Self::new(
            shared,
            access,
            self.collection,
            stream,
            lease,
            body,
            definition,
            manifest,
            send,
        );
        {
            let (mut memory, decoded) = (next.memory_mut(), self.memory());
            memory.sealed.clone_from(&decoded.sealed);
            // What they read from disk they read under the new lease from now on.
            memory.sealed.values().for_each(|segment| segment.rebind(&next.lease));
            memory.loaded = decoded.loaded;
            memory.position = decoded.position;
            memory.frozen_position = decoded.frozen_position;
            memory.last_timestamp = decoded.last_timestamp;
        }
        let next = Arc::new(next);
        next.tasks.spawn(Arc::clone(&next).apply_loop(receive));
        next.tasks.spawn(Arc::clone(&next).flush_loop());
        next
    }
    /// Where the files of a segment are.
    pub(crate) fn segment_prefix(&self, segment: SegmentId) -> String {
        format!("{}/{segment}", prefix_of(self.collection))
    }
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows as of now, of these partitions (all if `None`); `None` if it is not loaded.
    pub(crate) fn pin(&self, partitions: Option<&[PartitionId]>) -> Option<Vec<Pinned>> {
        let wanted = |partition: PartitionId| partitions.is_none_or(|wanted| wanted.contains(&partition));
        let memory = self.memory();
        if !memory.loaded {
            return None;
        }
        let mut pinned = Vec::with_capacity(memory.sealed.len() + memory.frozen.len() + memory.growing.len());
        for (id, segment) in &memory.sealed {
            if wanted(segment.manifest().partition) {
                let searched = memory
                    .standing_in
                    .get(id)
                    .map_or(std::slice::from_ref(segment), Vec::as_slice);
                pinned.extend(searched.iter().map(|segment| Pinned {
                    view: Box::new(segment.snapshot()),
                }));
            }
        }
        for segment in memory.frozen.iter().chain(memory.growing.values()) {
            if wanted(segment.partition()) && segment.rows() > 0 {
                pinned.push(Pinned {
                    view: Box::new(segment.snapshot()),
                });
            }
        }
        Some(pinned)
    }

    /// Applies a durable write whose log record has `bytes` bytes. Called in log order, by recovery and then by the applier alone.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Internal`] if the rows do not fit the schema.
    pub(crate) fn apply(
        self: &Arc<Self>,
        operation: Operation,
        position: LogPosition,
        bytes: usize,
    ) -> Result<Applied> {
        let Operation {
            timestamp,
            deletes,
            delete_partition,
            parts,
        } = operation;
        let partitions = self.body.load();
        let known = |partition: PartitionId| partitions.partitions.iter().any(|record| record.id == partition);
        // Rows of a partition that was dropped since are left out.
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(partition, rows)| known(*partition) && rows.rows() > 0)
            .collect();
        for (partition, _) in &parts {
            if !self.memory().growing.contains_key(partition) {
                let id = SegmentId(self.shared.oracle.id());
                let segment = GrowingSegment::new(id, *partition, Arc::clone(&self.schema));
                self.memory_mut().growing.entry(*partition).or_insert(segment);
            }
        }
        let mut applied = Applied { timestamp, deleted: 0 };
        let count = parts.len();
        let (segments, rows) = self.segments_of(parts)?;
        if deletes.is_empty() {
            for (segment, rows) in segments.iter().zip(rows) {
                let stamps = vec![timestamp; rows.rows()];
                segment.append(rows, &stamps)?;
            }
            self.memory_mut().advance(position, timestamp, bytes);
        } else {
            // All that takes time comes first: readers wait for the rest, for they see deletes and rows of an upsert
            // together.
            let mut prepared = Vec::with_capacity(count);
            for (segment, rows) in segments.iter().zip(rows) {
                let stamps = vec![timestamp; rows.rows()];
                prepared.push(segment.prepare(rows, &stamps)?);
            }
            let all = self.memory().all(delete_partition);
            let hidden = all.find(&deletes, timestamp);
            let mut memory = self.memory_mut();
            applied.deleted = memory.delete(&hidden, deletes, delete_partition, timestamp);
            prepared.into_iter().for_each(saker_segment::Appended::publish);
            memory.advance(position, timestamp, bytes);
        }
        if segments.iter().any(|segment| self.wants_lists(segment)) {
            self.kick_lists();
        }
        self.written_at_ms
            .store(self.shared.config.clock.monotonic_ms(), Ordering::Relaxed);
        Ok(applied)
    }

    /// The growing segments of partitions, and what goes into each.
    fn segments_of(&self, parts: Vec<(PartitionId, RowBatch)>) -> Result<(Vec<Arc<GrowingSegment>>, Vec<RowBatch>)> {
        let memory = self.memory();
        let mut segments: Vec<Arc<GrowingSegment>> = Vec::with_capacity(parts.len());
        let mut all = Vec::with_capacity(parts.len());
        for (partition, rows) in parts {
            let segment = memory.growing.get(&partition);
            let segment = segment.ok_or_else(|| Error::internal(format!("partition {partition} has no segment")))?;
            if segments.iter().any(|known| Arc::ptr_eq(known, segment)) {
                return Err(Error::internal(format!("one write names partition {partition} twice")));
            }
            segments.push(Arc::clone(segment));
            all.push(rows);
        }
        Ok((segments, all))
    }

    /// Moves growing segments aside, to be made files of.
    pub(crate) fn freeze(&self) {
        let mut memory = self.memory_mut();
        let growing = std::mem::take(&mut memory.growing);
        memory
            .frozen
            .extend(growing.into_values().filter(|segment| segment.rows() > 0));
        memory.frozen_position = memory.position;
        memory.frozen_bytes += std::mem::take(&mut memory.growing_bytes);
    }
}

impl Memory {
    /// All segments, of one partition or of all, those that stand in for others included.
    fn all(&self, partition: Option<PartitionId>) -> Segments {
        let wanted = |of: PartitionId| partition.is_none_or(|partition| partition == of);
        let growing = self.growing.values().chain(&self.frozen);
        let sealed = self.sealed.values().chain(self.standing_in.values().flatten());
        Segments {
            growing: growing.filter(|segment| wanted(segment.partition())).cloned().collect(),
            sealed: sealed
                .filter(|segment| wanted(segment.manifest().partition))
                .cloned()
                .collect(),
        }
    }
    /// Hides the rows with these keys. Those in `hidden` were found before; segments that came since are looked through.
    fn delete(
        &mut self,
        hidden: &HiddenRows,
        keys: Vec<PrimaryKey>,
        partition: Option<PartitionId>,
        timestamp: Timestamp,
    ) -> u64 {
        let wanted = |of: PartitionId| partition.is_none_or(|partition| partition == of);
        let in_growing = |segment: &Arc<GrowingSegment>| {
            let found = hidden.growing.iter().find(|(known, _)| Arc::ptr_eq(known, segment));
            match found {
                Some((_, rows)) => segment.delete_rows(rows, timestamp),
                None => segment.delete_all(&keys, timestamp),
            }
        };
        let in_sealed = |segment: &Arc<SealedSegment>| {
            let found = hidden.sealed.iter().find(|(known, _)| Arc::ptr_eq(known, segment));
            match found {
                Some((_, rows)) => segment.delete_rows(rows, timestamp),
                None => segment.delete_all(&keys, timestamp),
            }
        };
        let growing = self.growing.values().filter(|segment| wanted(segment.partition()));
        let growing: usize = growing.map(in_growing).sum();
        let frozen = self.frozen.iter().filter(|segment| wanted(segment.partition()));
        let frozen: usize = frozen.map(in_growing).sum();
        let of_partition = |segment: &&Arc<SealedSegment>| wanted(segment.manifest().partition);
        let sealed: usize = self.sealed.values().filter(of_partition).map(in_sealed).sum();
        // They hold the same rows once more.
        let standing_in = self.standing_in.values().flatten().filter(of_partition);
        standing_in.for_each(|segment| {
            in_sealed(segment);
        });
        // Segments that are not in memory may have rows of these keys.
        let unknown = !self.loaded && self.sealed_count > 0;
        if frozen + sealed > 0 || unknown {
            self.deletes.push(KeyDeletes {
                timestamp,
                partition,
                keys,
            });
        }
        (growing + frozen + sealed) as u64
    }
    fn advance(&mut self, position: LogPosition, timestamp: Timestamp, bytes: usize) {
        self.growing_bytes += bytes;
        self.position = Some(position);
        self.last_timestamp = self.last_timestamp.max(timestamp);
    }
    /// Repeats deletes on a segment that was not in memory when they came.
    pub(crate) fn repeat_deletes(deletes: &[KeyDeletes], segment: &SealedSegment) {
        for group in deletes {
            if group
                .partition
                .is_none_or(|partition| partition == segment.manifest().partition)
            {
                segment.delete_all(&group.keys, group.timestamp);
            }
        }
    }
    /// Whether everything is in files.
    pub(crate) fn is_flushed(&self) -> bool {
        self.growing_rows() == 0 && self.frozen.is_empty() && self.deletes.is_empty()
    }
    pub(crate) fn growing_rows(&self) -> usize {
        self.growing.values().map(|segment| segment.rows()).sum()
    }
}

/// Segments in memory.
struct Segments {
    growing: Vec<Arc<GrowingSegment>>,
    sealed: Vec<Arc<SealedSegment>>,
}

/// Rows that a delete hides.
struct HiddenRows {
    growing: Vec<(Arc<GrowingSegment>, Vec<u32>)>,
    sealed: Vec<(Arc<SealedSegment>, Vec<u32>)>,
}

impl Segments {
    /// The rows with these keys that were written before `timestamp`. Nobody waits for this: rows come and go by the one
    /// that applies writes alone.
    fn find(self, keys: &[PrimaryKey], timestamp: Timestamp) -> HiddenRows {
        let growing = self.growing.into_iter().map(|segment| {
            let rows = segment.rows_to_delete(keys, timestamp);
            (segment, rows)
        });
        let sealed = self.sealed.into_iter().map(|segment| {
            let rows = segment.rows_to_delete(keys, timestamp);
            (segment, rows)
        });
        HiddenRows {
            growing: growing.collect(),
            sealed: sealed.collect(),
        }
    }
}

/// Where the files of a collection are.
pub(crate) fn prefix_of(collection: CollectionId) -> String {
    format!("collection/{collection}")
}

/// The log stream of a collection.
pub(crate) fn stream_of(collection: CollectionId) -> Result<StreamId> {
    StreamId::new(format!("collection-{collection}")).map_err(|error| Error::internal(error.to_string()))
}

/// What callers get whose work was dropped because the collection was shut.
pub(crate) fn interrupted(opened: &Opened) -> Error {
    match opened.check() {
        Err(refusal) => refusal,
        Ok(()) if opened.shared.stop.is_cancelled() => {
            Error::new(ErrorKind::ShuttingDown, "the server is shutting down; try again later")
        }
        Ok(()) => Error::new(
            ErrorKind::Storage,
            "the write was interrupted and may or may not have been kept; look before trying again",
        ),
    }
}
