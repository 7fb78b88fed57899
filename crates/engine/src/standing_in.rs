//! What searches use while sealed or growing rows have no graph: lists, which are made about a hundred times faster; and
//! for segments that were put together, the ones that they were made of, graphs and all.
//!
//! Without an index that asks for a graph there are none of these, and everything is compared exactly.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use saker_model::{FieldId, IndexKind, MetricType, SegmentId};
use saker_segment::{Chunk, GrowingSegment, SealedSegment};

use crate::{
    error::Result,
    opened::{Opened, interrupted},
    shared::Shared,
};

/// How long a chunk of growing rows has to be there before lists are made for it.
const LISTS_AFTER: Duration = Duration::from_millis(100);

impl Opened {
    /// Vector fields that are searched by graph, and by which metric.
    fn graphs(&self) -> Vec<(FieldId, MetricType)> {
        let body = self.body.load();
        let graphs = body.indexes.iter().filter(|spec| spec.kind == IndexKind::Graph);
        graphs
            .map(|spec| (spec.field, spec.metric.unwrap_or(MetricType::Cosine)))
            .collect()
    }

    /// Whether a growing segment has rows enough for lists and none.
    pub(crate) fn wants_lists(&self, segment: &GrowingSegment) -> bool {
        self.graphs()
            .into_iter()
            .any(|(field, metric)| segment.wants_lists(field, metric))
    }

    /// Begins to make lists for growing rows. If that is going on already, it looks once more before it ends.
    pub(crate) fn kick_lists(self: &Arc<Self>) {
        if self.listing.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                // Rows without lists are compared exactly: slower, and as right.
                let outcome = this.list_growing().await;
                this.listing.store(false, Ordering::SeqCst);
                // Whoever asked meanwhile found `listing` set.
                let more = outcome.is_ok() && this.usable() && this.growing().iter().any(|one| this.wants_lists(one));
                if !more || this.listing.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    /// Makes lists for the chunks that are still there after a while: while rows come fast most are put together with
    /// others, and what was made for them would be for nothing.
    async fn list_growing(&self) -> Result<()> {
        let (segments, graphs) = (self.growing(), self.graphs());
        let waiting = |segments: &[Arc<GrowingSegment>]| -> Vec<(FieldId, MetricType, Arc<Chunk>)> {
            let chunks = graphs.iter().flat_map(|&(field, metric)| {
                let chunks = segments
                    .iter()
                    .flat_map(move |segment| segment.chunks_without_lists(field, metric));
                chunks.map(move |chunk| (field, metric, chunk))
            });
            chunks.collect()
        };
        // Not kept: their values are overwritten when the last one lets go of them.
        let seen: Vec<Weak<Chunk>> = waiting(&segments)
            .iter()
            .map(|(_, _, chunk)| Arc::downgrade(chunk))
            .collect();
        tokio::select! {
            () = self.stop.cancelled() => return Err(interrupted(self)),
            () = tokio::time::sleep(LISTS_AFTER) => {}
        }
        let mut left = waiting(&segments);
        left.retain(|(_, _, chunk)| seen.iter().any(|seen| std::ptr::eq(seen.as_ptr(), Arc::as_ptr(chunk))));
        if !left.is_empty() {
            let stop = Arc::clone(&self.stop_builds);
            Shared::blocking(move || {
                for (field, metric, chunk) in left {
                    chunk.build_lists(field, metric, &stop)?;
                }
                Ok(())
            })
            .await?;
        }
        self.drop_unwanted_lists();
        Ok(())
    }

    fn growing(&self) -> Vec<Arc<GrowingSegment>> {
        let memory = self.memory();
        memory.growing.values().chain(&memory.frozen).cloned().collect()
    }

    /// Makes lists for a sealed segment whose graph is not there yet, before anybody searches it.
    ///
    /// # Errors
    /// If builds were stopped.
    pub(crate) async fn list_sealed(&self, segment: &Arc<SealedSegment>) -> Result<()> {
        if segment.rows() < self.shared.config.index_rows_min {
            return Ok(());
        }
        let (mut graphs, stop, segment) = (self.graphs(), Arc::clone(&self.stop_builds), Arc::clone(segment));
        graphs
            .retain(|(field, metric)| segment.index(*field).is_none() && segment.chunk().wants_lists(*field, *metric));
        if graphs.is_empty() {
            return Ok(());
        }
        Shared::blocking(move || {
            for (field, metric) in graphs {
                segment.chunk().build_lists(field, metric, &stop)?;
                if segment.index(field).is_some() {
                    // Its graph came first.
                    segment.chunk().drop_lists(field);
                }
            }
            Ok(())
        })
        .await
    }

    /// As [`Self::list_sealed`], for all that are in memory.
    ///
    /// # Errors
    /// As of that.
    pub(crate) async fn list_all_sealed(&self) -> Result<()> {
        let segments: Vec<_> = {
            let memory = self.memory();
            let waiting = memory
                .sealed
                .iter()
                .filter(|(id, _)| !memory.standing_in.contains_key(id));
            waiting.map(|(_, segment)| Arc::clone(segment)).collect()
        };
        for segment in &segments {
            self.list_sealed(segment).await?;
        }
        Ok(())
    }

    /// Lets lists go that no index asks for any more: what takes its place may ask for exact answers.
    pub(crate) fn drop_unwanted_lists(&self) {
        let wanted = self.graphs();
        let unwanted = self.schema.vectors().map(|field| field.id);
        for field in unwanted.filter(|field| !wanted.iter().any(|(known, _)| known == field)) {
            self.growing().iter().for_each(|segment| segment.drop_lists(field));
            let sealed: Vec<_> = self.memory().sealed.values().cloned().collect();
            sealed.iter().for_each(|segment| segment.chunk().drop_lists(field));
        }
    }

    /// Lets the segments go that stand in for this one; for all if `None`.
    pub(crate) fn stand_down(&self, segment: Option<SegmentId>) {
        let gone = {
            let mut memory = self.memory_mut();
            match segment {
                Some(segment) => memory.standing_in.remove(&segment).into_iter().collect(),
                None => std::mem::take(&mut memory.standing_in)
                    .into_values()
                    .collect::<Vec<_>>(),
            }
        };
        if !gone.is_empty() {
            Shared::drop_aside(gone);
        }
    }
}
