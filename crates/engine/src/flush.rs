//! From growing rows to sealed files: freeze, write files, swap the manifest, trim the log.
//!
//! A flush that fails leaves everything as it was: frozen segments stay readable, the log keeps their records, and the
//! next flush takes them with it.

use std::{sync::Arc, time::Duration};

use saker_keyring::{FileId, FileIdentity, FileKind, FrameSize, Lease};
use saker_model::{CollectionId, SegmentId, Timestamp};
use saker_segment::{ChunkRows, GrowingSegment, SealedSegment, SegmentManifest, remove_files, write_segment_to_stay};
use saker_storage::{LogSequence, ObjectPath, ObjectStore};

use crate::{
    codec::{self, KeyDeletes},
    error::{Error, Result},
    events::Event,
    opened::{Memory, Opened, prefix_of},
    records::{KeyDeletesEntry, Manifest},
    shared::Shared,
};

/// What a flush made durable as files.
#[derive(Debug)]
pub(crate) struct Flushed {
    pub(crate) segments: Vec<SegmentId>,
    pub(crate) timestamp: Timestamp,
}

/// Files of deletes beyond which they are put together into one.
const KEY_DELETES_FILES_MAX: usize = 16;
/// How often growing rows are looked at, to seal them without being asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Opened {
    /// Seals everything written so far into files.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed store. Nothing is lost; try again.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<Flushed> {
        let this = Arc::clone(self);
        // On a task of its own: once begun it goes to its end, whoever waits.
        let task = self.tasks.spawn(async move {
            let _maintenance = this.maintenance.lock().await;
            this.flush_held().await
        });
        let outcome = task.await.unwrap_or_else(|_| Err(crate::opened::interrupted(self)));
        if outcome.is_ok() {
            self.kick_builds();
        }
        outcome
    }

    /// The flush itself; the caller holds `maintenance`.
    pub(crate) async fn flush_held(self: &Arc<Self>) -> Result<Flushed> {
        self.freeze_log().await?;
        let (frozen, deletes, position, timestamp) = {
            let memory = self.memory();
            (
                memory.frozen.clone(),
                memory.deletes.clone(),
                memory.frozen_position,
                memory.last_timestamp,
            )
        };
        if frozen.is_empty() && deletes.is_empty() {
            let segments = self
                .manifest
                .lock()
                .await
                .manifest
                .segments
                .iter()
                .map(|s| s.segment)
                .collect();
            return Ok(Flushed { segments, timestamp });
        }
        let mut written = Vec::new();
        let outcome = self.write_files(&frozen, &deletes, &mut written).await;
        // All deletes that came before the freeze have been applied to what was frozen.
        written.iter_mut().for_each(|segment| segment.clean_until = timestamp);
        let entry = match outcome {
            Ok(entry) => entry,
            Err(error) => {
                self.discard(&written).await;
                return Err(error);
            }
        };
        let segments = self.swap_manifest(&written, entry, position, timestamp).await?;
        self.take_over(&frozen, &deletes, &written).await?;
        // The last to hold them, unless a search does.
        Shared::drop_aside(frozen);
        if let Some(position) = position {
            // What is left over is removed by the next flush.
            if let Err(error) = self
                .shared
                .log
                .remove_segments_below(&self.stream, LogSequence(position.sequence))
                .await
            {
                tracing::warn!(collection = %self.collection, "log not trimmed: {error}");
            }
        }
        let rows = written.iter().map(|segment| segment.rows).sum();
        self.shared.emit(&Event::Flushed {
            database: self.access.database(),
            rows,
        });
        Ok(Flushed { segments, timestamp })
    }

    async fn write_files(
        &self,
        frozen: &[Arc<GrowingSegment>],
        deletes: &[KeyDeletes],
        written: &mut Vec<SegmentManifest>,
    ) -> Result<Option<KeyDeletesEntry>> {
        for segment in frozen {
            let rows = ChunkRows::visible(&segment.snapshot());
            if rows.iter().all(ChunkRows::is_empty) {
                continue;
            }
            let (id, partition) = (segment.segment(), segment.partition());
            let prefix = self.segment_prefix(id);
            let objects = &*self.shared.objects;
            let on_disk = crate::residency::on_disk(&self.body.load());
            let (lease, schema) = (&self.lease, &self.schema);
            let segment = write_segment_to_stay(lease, objects, &prefix, id, partition, schema, rows, &on_disk).await?;
            written.push(segment);
        }
        if deletes.is_empty() {
            return Ok(None);
        }
        write_key_deletes(&self.lease, &*self.shared.objects, self.collection, deletes)
            .await
            .map(Some)
    }

    async fn swap_manifest(
        &self,
        written: &[SegmentManifest],
        entry: Option<KeyDeletesEntry>,
        position: Option<crate::records::LogPosition>,
        timestamp: Timestamp,
    ) -> Result<Vec<SegmentId>> {
        let mut state = self.manifest.lock().await;
        let mut next: Manifest = state.manifest.clone();
        next.segments.extend(written.iter().cloned());
        next.key_deletes.extend(entry.clone());
        next.flushed = position;
        next.last_timestamp = next.last_timestamp.max(timestamp);
        let merged = self.merge_key_deletes(&mut next).await?;
        if let Err(error) = self.commit_manifest(&mut state, next).await {
            // If the collection was shut, whether the manifest is stored is not known: recovery tidies up.
            if self.usable() {
                self.discard(written).await;
                for entry in entry.into_iter().chain(merged.made) {
                    shred(&*self.shared.objects, &key_deletes_path(self.collection, entry.file)).await;
                }
            }
            return Err(error);
        }
        for entry in merged.replaced {
            shred(&*self.shared.objects, &key_deletes_path(self.collection, entry.file)).await;
        }
        Ok(state.manifest.segments.iter().map(|segment| segment.segment).collect())
    }

    /// Puts many files of deletes together into one.
    async fn merge_key_deletes(&self, next: &mut Manifest) -> Result<Merged> {
        if next.key_deletes.len() <= KEY_DELETES_FILES_MAX {
            return Ok(Merged::default());
        }
        self.put_key_deletes_together(next).await
    }

    /// Writes the deletes again, as one file under a fresh data key, and shreds the files that they were in.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed store: all is as before.
    pub(crate) async fn renew_deletes(self: &Arc<Self>) -> Result<()> {
        let this = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _maintenance = this.maintenance.lock().await;
            let mut state = this.manifest.lock().await;
            let mut next = state.manifest.clone();
            if next.key_deletes.is_empty() {
                return Ok(());
            }
            let merged = this.put_key_deletes_together(&mut next).await?;
            let objects = &*this.shared.objects;
            let outcome = this.commit_manifest(&mut state, next).await;
            let gone = match &outcome {
                Ok(()) => merged.replaced,
                // If the collection was shut, whether the manifest is stored is not known: recovery tidies up.
                Err(_) if !this.usable() => Vec::new(),
                Err(_) => merged.made.into_iter().collect(),
            };
            for entry in gone {
                shred(objects, &key_deletes_path(this.collection, entry.file)).await;
            }
            outcome
        });
        task.await.unwrap_or_else(|_| Err(crate::opened::interrupted(self)))
    }

    async fn put_key_deletes_together(&self, next: &mut Manifest) -> Result<Merged> {
        let reached = |segment: &SegmentManifest| segment.min_timestamp.max(segment.clean_until);
        let oldest = next.segments.iter().map(reached).min();
        let mut all = Vec::new();
        for entry in &next.key_deletes {
            all.extend(read_key_deletes(&self.lease, &*self.shared.objects, self.collection, entry).await?);
        }
        // Deletes older than every row, or applied when the segments were made, hide nothing.
        all.retain(|group| oldest.is_some_and(|oldest| group.timestamp > oldest));
        let replaced = std::mem::take(&mut next.key_deletes);
        let mut made = None;
        if !all.is_empty() {
            let entry = write_key_deletes(&self.lease, &*self.shared.objects, self.collection, &all).await?;
            next.key_deletes.push(entry.clone());
            made = Some(entry);
        }
        Ok(Merged { replaced, made })
    }

    /// Puts the sealed segments in place of the growing ones that they were made of.
    async fn take_over(
        &self,
        frozen: &[Arc<GrowingSegment>],
        persisted: &[KeyDeletes],
        written: &[SegmentManifest],
    ) -> Result<()> {
        let mut sealed = Vec::with_capacity(written.len());
        if self.memory().loaded {
            for manifest in written {
                match self.load_segment(manifest).await {
                    Ok(segment) => {
                        // Without lists it is searched exactly until its graph is built.
                        if let Err(error) = self.list_sealed(&segment).await {
                            tracing::debug!(collection = %self.collection, "no lists: {error}");
                        }
                        sealed.push(segment);
                    }
                    Err(error) => {
                        // The rows are in files now: flushing them again would double them.
                        self.shut();
                        return Err(error);
                    }
                }
            }
        }
        let mut memory = self.memory_mut();
        if self.stop.is_cancelled() {
            return Err(crate::opened::interrupted(self));
        }
        for segment in &sealed {
            Memory::repeat_deletes(&memory.deletes, segment);
        }
        // Only rows that were frozen at the beginning: a flush freezes once, and holds `maintenance`.
        memory.frozen_bytes = 0;
        memory
            .frozen
            .retain(|segment| !frozen.iter().any(|done| Arc::ptr_eq(done, segment)));
        memory.deletes.drain(..persisted.len());
        memory.sealed_count += written.len();
        for segment in sealed {
            memory.sealed.insert(segment.segment(), segment);
        }
        Ok(())
    }

    pub(crate) async fn load_segment(&self, manifest: &SegmentManifest) -> Result<Arc<SealedSegment>> {
        let prefix = self.segment_prefix(manifest.segment);
        let schema = Arc::clone(&self.schema);
        let (objects, residency) = (&*self.shared.objects, self.residency());
        Ok(SealedSegment::open(&self.lease, objects, &prefix, schema, manifest, &residency).await?)
    }

    /// Removes files that no manifest names. What is left is removed by the next recovery.
    pub(crate) async fn discard(&self, segments: &[SegmentManifest]) {
        for segment in segments {
            let prefix = self.segment_prefix(segment.segment);
            if let Err(error) = remove_files(&*self.shared.objects, &prefix, segment.files()).await {
                tracing::warn!(segment = %segment.segment, "files not removed: {error}");
            }
        }
    }

    /// Seals growing rows when there are many bytes of them, or when enough for an index have come to rest; has segments
    /// with many deleted rows written again.
    pub(crate) async fn flush_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.flush_wanted.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (rows, bytes) = {
                let memory = self.memory();
                (memory.growing_rows(), memory.growing_bytes)
            };
            if self.is_worn() {
                self.kick_builds();
            }
            let config = &self.shared.config;
            let rest_ms = config
                .clock
                .monotonic_ms()
                .saturating_sub(self.written_at_ms.load(std::sync::atomic::Ordering::Relaxed));
            let rested = rows >= config.index_rows_min && rest_ms >= config.rest_ms;
            if (bytes >= self.segment_bytes_max() || rested)
                && let Err(error) = self.flush().await
            {
                tracing::warn!(collection = %self.collection, "growing rows not sealed, trying again: {error}");
            }
        }
    }
}

#[derive(Default)]
struct Merged {
    replaced: Vec<KeyDeletesEntry>,
    made: Option<KeyDeletesEntry>,
}

/// Where a file of deletes by key is.
pub(crate) fn key_deletes_path(collection: CollectionId, file: FileId) -> String {
    format!("{}/deletes/{file}", prefix_of(collection))
}

async fn write_key_deletes(
    lease: &Lease,
    objects: &dyn ObjectStore,
    collection: CollectionId,
    deletes: &[KeyDeletes],
) -> Result<KeyDeletesEntry> {
    let file = FileId::random();
    let mut sealer = lease.file_sealer(file, FileKind::Deletes, FrameSize::Sequential)?;
    sealer.write(&codec::encode_key_deletes(deletes))?;
    let path = ObjectPath::new(key_deletes_path(collection, file))?;
    objects.put(&path, sealer.finish()?).await?;
    Ok(KeyDeletesEntry {
        file,
        entries: deletes.iter().map(|group| group.keys.len() as u64).sum(),
    })
}

/// Reads a file of deletes by key.
pub(crate) async fn read_key_deletes(
    lease: &Lease,
    objects: &dyn ObjectStore,
    collection: CollectionId,
    entry: &KeyDeletesEntry,
) -> Result<Vec<KeyDeletes>> {
    let path = ObjectPath::new(key_deletes_path(collection, entry.file))?;
    let sealed = objects.get(&path).await?;
    let expected = FileIdentity {
        file: entry.file,
        kind: FileKind::Deletes,
    };
    let plain = lease
        .open_whole_file(expected, &sealed)
        .map_err(|error| Error::opening(error, "file of deletes", &path))?;
    codec::decode_key_deletes(&plain)
}

/// Shreds an object that no manifest names any more; what is left is removed by the next recovery.
pub(crate) async fn shred(objects: &dyn ObjectStore, path: &str) {
    let outcome = match ObjectPath::new(path) {
        Ok(path) => objects.shred(&path).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        tracing::warn!(path, "object not shredded: {error}");
    }
}
