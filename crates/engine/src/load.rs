//! Loading: sealed segments from files into memory, deletes applied; and letting them go again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt, TryStreamExt};
use saker_model::{IndexKind, IndexSpec, SegmentId};
use saker_segment::{IndexEntry, SealedSegment, load_scalar_index};

use crate::{
    error::Result,
    flush::read_key_deletes,
    opened::{Memory, Opened},
    shared::Shared,
};

/// Segments that are read at once: what one waits for, the others use. Each is read by several threads where that is worth it.
const SEGMENTS_AT_ONCE_MAX: usize = 4;

impl Opened {
    /// Brings all segments into memory. `progress` is the percentage done.
    ///
    /// # Errors
    /// A locked zone, damage, a failed store.
    pub(crate) async fn load(self: &Arc<Self>, progress: &AtomicUsize) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        if self.stop.is_cancelled() {
            return Err(crate::opened::interrupted(self));
        }
        if self.memory().loaded {
            return Ok(());
        }
        let manifest = self.manifest.lock().await.manifest.clone();
        let mut segments = Vec::with_capacity(manifest.segments.len());
        let loads: Vec<_> = manifest
            .segments
            .iter()
            .map(|segment| self.load_segment(segment))
            .collect();
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut loads = futures::stream::iter(loads).buffered(at_once.clamp(1, SEGMENTS_AT_ONCE_MAX));
        while let Some(segment) = loads.try_next().await? {
            segments.push(segment);
            progress.store(segments.len() * 99 / manifest.segments.len(), Ordering::Relaxed);
        }
        drop(loads);
        let mut deletes = Vec::new();
        for entry in &manifest.key_deletes {
            deletes.extend(read_key_deletes(&self.lease, &*self.shared.objects, self.collection, entry).await?);
        }
        let this = Arc::clone(self);
        Shared::blocking(move || {
            segments
                .iter()
                .for_each(|segment| Memory::repeat_deletes(&deletes, segment));
            let mut memory = this.memory_mut();
            segments
                .iter()
                .for_each(|segment| Memory::repeat_deletes(&memory.deletes, segment));
            if !this.stop.is_cancelled() {
                memory.sealed = segments
                    .into_iter()
                    .map(|segment| (segment.segment(), segment))
                    .collect();
                memory.loaded = true;
            }
            Ok(())
        })
        .await?;
        self.load_newer_indexes().await?;
        Shared::tidy_memory();
        self.check()
    }

    /// Indexes that were built while their segments were not in memory yet. A build stores its index in the manifest first and
    /// then looks for the segment in memory; this looks at the manifest after the segments are in memory. So one of the
    /// two hands the index over.
    pub(crate) async fn load_newer_indexes(&self) -> Result<()> {
        let manifest = self.manifest.lock().await.manifest.clone();
        for place in &manifest.segments {
            let Some(segment) = self.memory().sealed.get(&place.segment).cloned() else {
                continue;
            };
            let prefix = self.segment_prefix(place.segment);
            for entry in &place.indexes {
                let field = entry.spec.field;
                if entry.spec.kind == IndexKind::Scalar {
                    self.load_newer_scalar(&segment, entry).await?;
                    continue;
                }
                if entry.on_disk != segment.disk_vectors(field).is_some() {
                    continue; // Of before its vectors were moved to disk or to memory: it is built anew.
                }
                if segment.index(field).is_none_or(|index| index.spec != entry.spec) {
                    let objects = &*self.shared.objects;
                    match saker_segment::load_index(&self.lease, objects, &prefix, &segment, entry).await {
                        Ok(index) => segment.set_index(field, Some(index)),
                        Err(error) if self.has_index(place.segment, &entry.spec).await => return Err(error.into()),
                        Err(_) => {} // Dropped meanwhile, with its file.
                    }
                }
            }
        }
        Ok(())
    }

    async fn load_newer_scalar(&self, segment: &SealedSegment, entry: &IndexEntry) -> Result<()> {
        if segment.has_scalar_index(&entry.spec) {
            return Ok(());
        }
        let (objects, prefix) = (&*self.shared.objects, self.segment_prefix(segment.segment()));
        match load_scalar_index(&self.lease, objects, &prefix, segment, entry).await {
            Ok(index) => segment.set_scalar_index(&entry.spec, Some(index)),
            Err(error) if self.has_index(segment.segment(), &entry.spec).await => return Err(error.into()),
            Err(_) => {} // Dropped meanwhile, with its file.
        }
        Ok(())
    }

    async fn has_index(&self, segment: SegmentId, spec: &IndexSpec) -> bool {
        let state = self.manifest.lock().await;
        let place = state.manifest.segments.iter().find(|place| place.segment == segment);
        place.is_some_and(|place| place.indexes.iter().any(|built| built.spec == *spec))
    }

    /// Lets sealed segments go. Rows that are in no file stay: the log needs them in memory until they are flushed.
    pub(crate) async fn release(&self) {
        let _maintenance = self.maintenance.lock().await;
        let gone = {
            let mut memory = self.memory_mut();
            memory.loaded = false;
            (
                std::mem::take(&mut memory.sealed),
                std::mem::take(&mut memory.standing_in),
            )
        };
        Shared::drop_aside(gone);
    }
}
