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
/// ... unless one of them has more than two thirds of their bytes: then it would be written again for little. Others may be
/// enough without it.
const LARGEST_SHARE: (u64, u64) = (2, 3);
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

    /// Segments of one partition to put together: those with many deleted rows, and small ones.
    async fn next_merge(&self) -> Option<(PartitionId, Vec<SegmentManifest>)> {
        let deleted: BTreeMap<SegmentId, u64> = {
            let memory = self.memory();
            let deleted = memory.sealed.iter();
            deleted.map(|(id, segment)| (*id, segment.deleted() as u64)).collect()
        };
        let bytes_max = self.segment_bytes_max() as u64;
        let state = self.manifest.lock().await;
        let mut by_partition: BTreeMap<PartitionId, Candidates<'_>> = BTreeMap::new();
        for segment in &state.manifest.segments {
            let deleted = deleted.get(&segment.segment).copied().unwrap_or(0);
            let candidates = by_partition.entry(segment.partition).or_default();
            if self.is_worn_by(segment.rows, deleted) {
                candidates.worn.push((bytes_left(segment, deleted), segment));
            } else if segment.bytes() < bytes_max / SMALL_SHARE {
                candidates.small.push((bytes_left(segment, deleted), segment));
            }
        }
        by_partition.into_iter().find_map(|(partition, candidates)| {
            let group = candidates.group(bytes_max)?;
            Some((partition, group.into_iter().cloned().collect()))
        })
    }

    /// With `stand_in` the old segments are searched until the new one has its graph: then both are in memory. The caller
    /// holds `maintenance`.
    async fn merge(self: &Arc<Self>, partition: PartitionId, group: &[SegmentManifest], stand_in: bool) -> Result<()> {
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

/// Segments of a partition that may be put together, and how many bytes are left of each without its deleted rows.
#[derive(Default)]
struct Candidates<'a> {
    worn: Vec<(u64, &'a SegmentManifest)>,
    small: Vec<(u64, &'a SegmentManifest)>,
}

impl<'a> Candidates<'a> {
    /// Those that become one of at most `bytes_max`, if that is worth it.
    fn group(mut self, bytes_max: u64) -> Option<Vec<&'a SegmentManifest>> {
        self.worn.sort_by_key(|(bytes, _)| *bytes);
        self.small.sort_by_key(|(bytes, _)| *bytes);
        if !self.worn.is_empty() {
            // The first is written anew whatever it is.
            let mut first = true;
            let worn = fitting(&self.worn, |bytes| std::mem::take(&mut first) || bytes <= bytes_max);
            let bytes: u64 = worn.iter().map(|(bytes, _)| bytes).sum();
            // Small ones come along as far as they are little beside it.
            let small = fitting(&self.small, |more| more <= bytes && bytes + more <= bytes_max);
            return Some(worn.iter().chain(small).map(|(_, segment)| *segment).collect());
        }
        let mut group = fitting(&self.small, |bytes| bytes <= bytes_max);
        while group.len() >= SMALL_SEGMENTS_MIN {
            let total: u64 = group.iter().map(|(bytes, _)| bytes).sum();
            let (largest, rest) = group.split_last()?;
            if largest.0 * LARGEST_SHARE.1 <= total * LARGEST_SHARE.0 {
                return Some(group.iter().map(|(_, segment)| *segment).collect());
            }
            group = rest;
        }
        None
    }
}

/// The first so many whose bytes together meet a condition.
fn fitting<'s, 'a>(
    segments: &'s [(u64, &'a SegmentManifest)],
    mut fits: impl FnMut(u64) -> bool,
) -> &'s [(u64, &'a SegmentManifest)] {
    let mut bytes = 0;
    let count = segments.iter().take_while(|(more, _)| {
        bytes += more;
        fits(bytes)
    });
    &segments[..count.count()]
}

#[expect(clippy::cast_possible_truncation, reason = "no more than the segment's bytes")]
fn bytes_left(segment: &SegmentManifest, deleted: u64) -> u64 {
    let live = segment.rows.saturating_sub(deleted);
    (u128::from(segment.bytes()) * u128::from(live) / u128::from(segment.rows.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use saker_model::Timestamp;

    use super::*;

    fn segment(id: i64) -> SegmentManifest {
        SegmentManifest {
            segment: SegmentId(id),
            partition: PartitionId(1),
            rows: 100,
            min_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            columns: Vec::new(),
            indexes: Vec::new(),
            deletes: None,
            deleted_rows: 0,
            clean_until: Timestamp(0),
        }
    }

    /// The bytes of those that are put together.
    fn group(worn: &[u64], small: &[u64]) -> Option<Vec<u64>> {
        let all: Vec<SegmentManifest> = (0..).take(worn.len() + small.len()).map(segment).collect();
        let bytes: Vec<u64> = worn.iter().chain(small).copied().collect();
        let pairs: Vec<(u64, &SegmentManifest)> = bytes.iter().copied().zip(&all).collect();
        let (worn, small) = pairs.split_at(worn.len());
        let candidates = Candidates {
            worn: worn.to_vec(),
            small: small.to_vec(),
        };
        let group = candidates.group(1_000)?;
        Some(
            group
                .iter()
                .map(|one| bytes[usize::try_from(one.segment.0).unwrap()])
                .collect(),
        )
    }

    #[test]
    fn small_segments_are_put_together_once_they_are_enough() {
        assert_eq!(group(&[], &[]), None);
        assert_eq!(group(&[], &[10, 10, 10]), None);
        assert_eq!(group(&[], &[10, 11, 9, 10]), Some(vec![9, 10, 10, 11]));
        // Not a large one for the sake of little ones, but those without it.
        assert_eq!(group(&[], &[100, 10, 10, 10]), None);
        assert_eq!(group(&[], &[100, 10, 10, 10, 10]), Some(vec![10, 10, 10, 10]));
        assert_eq!(group(&[], &[60, 10, 10, 10]), Some(vec![10, 10, 10, 60]));
        // As many as fit.
        assert_eq!(group(&[], &[300; 4]), None);
        assert_eq!(group(&[], &[200; 6]), Some(vec![200; 5]));
    }

    #[test]
    fn worn_segments_are_written_anew_and_take_little_ones_along() {
        assert_eq!(group(&[2_000], &[]), Some(vec![2_000]));
        assert_eq!(group(&[0], &[5]), Some(vec![0]));
        assert_eq!(group(&[500, 400, 300], &[]), Some(vec![300, 400]));
        assert_eq!(group(&[100], &[30, 60, 20]), Some(vec![100, 20, 30]));
        assert_eq!(group(&[900], &[60, 50]), Some(vec![900, 50]));
    }

    #[test]
    fn deleted_rows_leave_nothing() {
        assert_eq!(bytes_left(&segment(1), 40), 0, "it has no files");
        assert_eq!(bytes_left(&SegmentManifest { rows: 0, ..segment(1) }, 0), 0);
    }
}
