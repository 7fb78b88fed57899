//! Putting small sealed segments together: frequent flushes leave many, and each costs every search a little.
//!
//! Rows that are deleted are left out. Readers keep the old segments until they are done with them.

use std::{collections::BTreeMap, sync::Arc};

use saker_model::{PartitionId, SegmentId};
use saker_segment::{ChunkRows, SealedSegment, SegmentManifest, write_segment};

use crate::{
    error::Result,
    flush::read_key_deletes,
    opened::{Memory, Opened, interrupted},
};

/// Small segments of a partition from which on they are put together.
const SMALL_SEGMENTS_MIN: usize = 8;
/// Share of the largest segment below which one is small.
const SMALL_SHARE: u64 = 8;

impl Opened {
    /// Puts small segments together, as long as there are enough of them.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed store: all is as before.
    pub(crate) async fn compact(self: &Arc<Self>) -> Result<()> {
        loop {
            let _maintenance = self.maintenance.lock().await;
            let Some((partition, group)) = self.small_segments().await else {
                return Ok(());
            };
            self.merge(partition, &group).await?;
        }
    }

    /// Small segments of one partition that fit into one.
    async fn small_segments(&self) -> Option<(PartitionId, Vec<SegmentManifest>)> {
        let bytes_max = self.shared.config.segment_bytes_max as u64;
        let state = self.manifest.lock().await;
        let mut by_partition: BTreeMap<PartitionId, Vec<SegmentManifest>> = BTreeMap::new();
        for segment in state
            .manifest
            .segments
            .iter()
            .filter(|segment| segment.bytes() < bytes_max / SMALL_SHARE)
        {
            by_partition.entry(segment.partition).or_default().push(segment.clone());
        }
        by_partition.into_iter().find_map(|(partition, mut group)| {
            let mut bytes = 0;
            group.retain(|segment| {
                bytes += segment.bytes();
                bytes <= bytes_max
            });
            (group.len() >= SMALL_SEGMENTS_MIN).then_some((partition, group))
        })
    }

    /// The caller holds `maintenance`.
    async fn merge(self: &Arc<Self>, partition: PartitionId, group: &[SegmentManifest]) -> Result<()> {
        let mut sources = Vec::with_capacity(group.len());
        for manifest in group {
            sources.push(self.with_deletes(manifest).await?);
        }
        let id = SegmentId(self.shared.oracle.id());
        let prefix = self.segment_prefix(id);
        let rows: Vec<ChunkRows> = sources
            .iter()
            .flat_map(|source| ChunkRows::visible(&source.snapshot()))
            .collect();
        drop(sources);
        let mut written = Vec::new();
        if rows.iter().any(|rows| !rows.is_empty()) {
            let objects = &*self.shared.objects;
            written.push(write_segment(&self.lease, objects, &prefix, id, partition, &self.schema, rows).await?);
        }
        let replaced: Vec<SegmentManifest> = {
            let mut state = self.manifest.lock().await;
            let mut next = state.manifest.clone();
            // As they stand now: an index may have been added meanwhile.
            let (replaced, kept) = next
                .segments
                .drain(..)
                .partition(|segment| group.iter().any(|old| old.segment == segment.segment));
            next.segments = kept;
            next.segments.extend(written.iter().cloned());
            if let Err(error) = self.commit_manifest(&mut state, next).await {
                if self.usable() {
                    self.discard(&written).await;
                }
                return Err(error);
            }
            replaced
        };
        let mut sealed = None;
        if self.memory().loaded
            && let Some(manifest) = written.first()
        {
            match self.load_segment(manifest).await {
                Ok(segment) => sealed = Some(segment),
                Err(error) => {
                    // Memory and manifest would differ: start again from what is stored.
                    self.shut();
                    return Err(error);
                }
            }
        }
        {
            let mut memory = self.memory_mut();
            if self.stop.is_cancelled() {
                return Err(interrupted(self));
            }
            memory.sealed_count = memory.sealed_count + written.len() - group.len();
            for old in group {
                memory.sealed.remove(&old.segment);
            }
            if let Some(segment) = sealed {
                // Deletes that came meanwhile.
                Memory::repeat_deletes(&memory.deletes, &segment);
                memory.sealed.insert(id, segment);
            }
        }
        self.discard(&replaced).await;
        Ok(())
    }

    /// Bytes of the segments with smaller ids than `before`.
    pub(crate) async fn bytes_before(&self, before: SegmentId) -> u64 {
        let state = self.manifest.lock().await;
        let segments = state
            .manifest
            .segments
            .iter()
            .filter(|segment| segment.segment < before);
        segments.map(SegmentManifest::bytes).sum()
    }

    /// Writes a segment with a smaller id than `before` again, without the rows that are deleted, and shreds its files. Its
    /// bytes; `None` if there is none left.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed store: all is as before.
    pub(crate) async fn renew_one(self: &Arc<Self>, before: SegmentId) -> Result<Option<u64>> {
        let this = Arc::clone(self);
        // On a task of its own: whoever drops the collection waits for its tasks.
        let task = self.tasks.spawn(async move {
            let _maintenance = this.maintenance.lock().await;
            let segment = {
                let state = this.manifest.lock().await;
                let mut segments = state.manifest.segments.iter();
                segments.find(|segment| segment.segment < before).cloned()
            };
            let Some(segment) = segment else { return Ok(None) };
            this.merge(segment.partition, std::slice::from_ref(&segment)).await?;
            Ok(Some(segment.bytes()))
        });
        task.await.unwrap_or_else(|_| Err(interrupted(self)))
    }

    /// A segment in memory with all deletes so far.
    async fn with_deletes(&self, manifest: &SegmentManifest) -> Result<Arc<SealedSegment>> {
        let in_memory = self.memory().sealed.get(&manifest.segment).cloned();
        if let Some(segment) = in_memory {
            return Ok(segment);
        }
        let segment = self.load_segment(manifest).await?;
        let entries = self.manifest.lock().await.manifest.key_deletes.clone();
        for entry in &entries {
            let deletes = read_key_deletes(&self.lease, &*self.shared.objects, self.collection, entry).await?;
            Memory::repeat_deletes(&deletes, &segment);
        }
        Memory::repeat_deletes(&self.memory().deletes, &segment);
        Ok(segment)
    }
}
