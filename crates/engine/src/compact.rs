//! Putting sealed segments together: frequent flushes leave many small ones, and each costs every search a little;
//! upserts and deletes leave rows that nobody sees, and every search walks past them.
//!
//! Rows that are deleted are left out. Readers keep the old segments until they are done with them; while the new one has
//! no graph, the old ones stand in for it. Memory is bounded by the segments that are put together, which fit into one.

use std::{collections::BTreeMap, sync::Arc};

use saker_model::{IndexKind, PartitionId, SegmentId};
use saker_segment::{ChunkRows, SealedSegment, SegmentManifest, write_segment_to_stay};

use crate::{
    error::Result,
    flush::read_key_deletes,
    opened::{Memory, Opened, interrupted},
    shared::Shared,
};

/// Small segments of a partition from which on they are put together, ...
const SMALL_SEGMENTS_MIN: usize = 4;
/// ... unless one of them has more than this share of their bytes: then it would be written again for little.
const LARGEST_SHARE: u64 = 2;
/// Share of the largest segment below which one is small.
const SMALL_SHARE: u64 = 8;
/// Share of a segment's rows (one in so many) from which on deleted rows are worth a new segment: searches walk past them,
/// and writing the others again costs about twice as many rows as were deleted.
const WORN_SHARE: u64 = 3;

impl Opened {
    /// Puts segments together that are worth it: `false` if there are none.
    ///
    /// # Errors
    /// A locked zone, a full disk, a failed store: all is as before.
    pub(crate) async fn compact_once(self: &Arc<Self>) -> Result<bool> {
        let _maintenance = self.maintenance.lock().await;
        let Some((partition, group)) = self.next_merge().await else {
            return Ok(false);
        };
        self.merge(partition, &group, true).await?;
        Ok(true)
    }

    /// Whether a segment in memory has many deleted rows.
    pub(crate) fn is_worn(&self) -> bool {
        let memory = self.memory();
        let mut segments = memory.sealed.values();
        segments.any(|segment| self.is_worn_by(segment.rows() as u64, segment.deleted() as u64))
    }
    /// So few rows that they could not be an index cost nothing worth an effort.
    fn is_worn_by(&self, rows: u64, deleted: u64) -> bool {
        deleted >= self.shared.config.index_rows_min as u64 && deleted >= rows.div_ceil(WORN_SHARE)
    }

    /// Segments of one partition to put together: those with many deleted rows, and small ones if they are enough or come
    /// along anyway.
    async fn next_merge(&self) -> Option<(PartitionId, Vec<SegmentManifest>)> {
        let deleted: BTreeMap<SegmentId, u64> = {
            let memory = self.memory();
            let deleted = memory.sealed.iter();
            deleted.map(|(id, segment)| (*id, segment.deleted() as u64)).collect()
        };
        let deleted = |segment: &SegmentManifest| deleted.get(&segment.segment).copied().unwrap_or(0);
        let bytes_max = self.segment_bytes_max() as u64;
        let state = self.manifest.lock().await;
        let mut by_partition: BTreeMap<PartitionId, Vec<&SegmentManifest>> = BTreeMap::new();
        for segment in &state.manifest.segments {
            let worn = self.is_worn_by(segment.rows, deleted(segment));
            if worn || segment.bytes() < bytes_max / SMALL_SHARE {
                by_partition.entry(segment.partition).or_default().push(segment);
            }
        }
        by_partition.into_iter().find_map(|(partition, mut group)| {
            // What is left of each. The worn ones first, so that the others make room for them.
            let left = |segment: &SegmentManifest| {
                let live = segment.rows.saturating_sub(deleted(segment));
                (u128::from(segment.bytes()) * u128::from(live) / u128::from(segment.rows.max(1))) as u64
            };
            let worn = |segment: &SegmentManifest| self.is_worn_by(segment.rows, deleted(segment));
            group.sort_by_key(|segment| (!worn(segment), left(segment)));
            let (mut bytes, mut first) = (0, true);
            group.retain(|segment| {
                bytes += left(segment);
                std::mem::take(&mut first) || bytes <= bytes_max
            });
            let any_worn = group.iter().any(|segment| worn(segment));
            let total: u64 = group.iter().map(|segment| left(segment)).sum();
            let largest = group.iter().map(|segment| left(segment)).max().unwrap_or(0);
            let small = group.len() >= SMALL_SEGMENTS_MIN && largest <= total / LARGEST_SHARE;
            (any_worn || small).then(|| (partition, group.into_iter().cloned().collect()))
        })
    }

    /// With `stand_in` the old segments are searched until the new one has its graph: then both are in memory. The caller
    /// holds `maintenance`.
    async fn merge(
        self: &Arc<Self>,
        partition: PartitionId,
        group: &[SegmentManifest],
        stand_in: bool,
    ) -> Result<()> {
        let mut sources = Vec::with_capacity(group.len());
        for manifest in group {
            sources.push(self.with_deletes(manifest).await?);
        }
        let id = SegmentId(self.shared.oracle.id());
        let prefix = self.segment_prefix(id);
        // Before the rows are looked at: these deletes have been applied to them.
        let clean_until = self.memory().last_timestamp;
        let rows: Vec<ChunkRows> = sources
            .iter()
            .flat_map(|source| ChunkRows::visible(&source.snapshot()))
            .collect();
        drop(sources);
        let mut written = Vec::new();
        if rows.iter().any(|rows| !rows.is_empty()) {
            let objects = &*self.shared.objects;
            let on_disk = crate::residency::on_disk(&self.body.load());
            let (lease, schema) = (&self.lease, &self.schema);
            let made = write_segment_to_stay(lease, objects, &prefix, id, partition, schema, rows, &on_disk).await?;
            written.push(SegmentManifest { clean_until, ..made });
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
                Ok(segment) => {
                    if !(stand_in && self.wants_graph(manifest))
                        && let Err(error) = self.list_sealed(&segment).await
                    {
                        tracing::debug!(collection = %self.collection, "no lists: {error}");
                    }
                    sealed = Some(segment);
                }
                Err(error) => {
                    // Memory and manifest would differ: start again from what is stored.
                    self.shut();
                    return Err(error);
                }
            }
        }
        let gone = {
            let mut memory = self.memory_mut();
            if self.stop.is_cancelled() {
                return Err(interrupted(self));
            }
            memory.sealed_count = memory.sealed_count + written.len() - group.len();
            let mut gone = Vec::with_capacity(group.len());
            for old in group {
                let segment = memory.sealed.remove(&old.segment);
                match memory.standing_in.remove(&old.segment) {
                    // They have what it has, and graphs too.
                    Some(standing_in) => gone.extend(standing_in),
                    None => gone.extend(segment),
                }
            }
            if let Some(segment) = sealed {
                // Deletes that came meanwhile.
                Memory::repeat_deletes(&memory.deletes, &segment);
                memory.sealed.insert(id, segment);
                if stand_in && written.iter().any(|manifest| self.wants_graph(manifest)) {
                    memory.standing_in.insert(id, std::mem::take(&mut gone));
                }
            }
            gone
        };
        Shared::drop_aside(gone);
        self.discard(&replaced).await;
        Ok(())
    }

    /// Whether a segment is about to get a graph.
    fn wants_graph(&self, segment: &SegmentManifest) -> bool {
        let body = self.body.load();
        let mut indexes = body.indexes.iter();
        segment.rows >= self.shared.config.index_rows_min as u64 && indexes.any(|spec| spec.kind == IndexKind::Graph)
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
            // Many come one after another: none of them may stay in memory twice.
            this.merge(segment.partition, std::slice::from_ref(&segment), false)
                .await?;
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
