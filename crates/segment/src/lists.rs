//! Lists that stand in for a graph, kept beside a chunk's vectors: made in the background, dropped when a graph is there.

use std::sync::{Arc, PoisonError, RwLock, atomic::AtomicBool};

use saker_index::{IndexError, ListIndex, Vectors};
use saker_model::{FieldId, MetricType};

use crate::{Chunk, SegmentError, metric_of};

/// The lists of one chunk, by field.
#[derive(Debug, Default)]
pub(crate) struct ChunkLists(RwLock<Vec<(FieldId, Arc<ListIndex>)>>);

impl ChunkLists {
    /// Those of a field, if they are for this metric.
    pub(crate) fn find(&self, field: FieldId, metric: MetricType) -> Option<Arc<ListIndex>> {
        let metric = metric_of(metric)?;
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (_, found) = lists.iter().find(|(of, _)| *of == field)?;
        (found.metric() == metric).then(|| Arc::clone(found))
    }
    /// Whether these vectors are enough for lists and have none for this metric.
    pub(crate) fn wanted(&self, field: FieldId, vectors: &Vectors, metric: MetricType) -> bool {
        vectors.rows() >= ListIndex::ROWS_MIN && metric_of(metric).is_some() && self.find(field, metric).is_none()
    }
    /// Makes lists in place of those that are there, on the caller's thread.
    pub(crate) fn build(
        &self,
        field: FieldId,
        vectors: &Vectors,
        metric: MetricType,
        stop: &AtomicBool,
    ) -> Result<(), IndexError> {
        let Some(metric) = metric_of(metric) else {
            return Ok(());
        };
        let made = Arc::new(ListIndex::build(vectors.clone(), metric, stop)?);
        let before = self.remove(field);
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push((field, made));
        drop(before);
        Ok(())
    }
    /// Takes those of a field away. Searches that run keep what they have.
    pub(crate) fn remove(&self, field: FieldId) -> Option<Arc<ListIndex>> {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let place = lists.iter().position(|(of, _)| *of == field)?;
        Some(lists.swap_remove(place).1)
    }
    /// Bytes that they take in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lists.iter().map(|(_, lists)| lists.memory_bytes()).sum()
    }
}

impl Chunk {
    /// Makes lists of a field's vectors for searches by this metric, on the caller's thread, if they are enough and have
    /// none. From then on searches by that metric compare with a part of the rows, and may miss some.
    ///
    /// # Errors
    /// [`SegmentError::Index`] once `stop` is set.
    pub fn build_lists(&self, field: FieldId, metric: MetricType, stop: &AtomicBool) -> Result<(), SegmentError> {
        match self.vectors(field) {
            Some(vectors) if self.lists.wanted(field, vectors, metric) => {
                Ok(self.lists.build(field, vectors, metric, stop)?)
            }
            Some(_) | None => Ok(()),
        }
    }
    /// Whether [`Self::build_lists`] has something to do.
    #[must_use]
    pub fn wants_lists(&self, field: FieldId, metric: MetricType) -> bool {
        self.vectors(field)
            .is_some_and(|vectors| self.lists.wanted(field, vectors, metric))
    }
    /// Lets the lists of a field go: it is searched exactly from now on.
    pub fn drop_lists(&self, field: FieldId) {
        drop(self.lists.remove(field));
    }
}
