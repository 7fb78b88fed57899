//! Indexes of fields that are no vectors: which rows hold a value. Kept beside the columns, each in a sealed file of its
//! own, so that a load reads and opens them instead of sorting all values again.

use std::sync::{Arc, PoisonError, RwLock};

use saker_keyring::{FileKind, FrameSize, Lease};
use saker_model::IndexSpec;
use saker_scalar::ScalarIndex;
use saker_storage::ObjectStore;

use crate::{IndexEntry, SealedSegment, SegmentError, encoding, file};

/// The indexes of one segment. Readers take a list that does not change.
#[derive(Default)]
pub(crate) struct ScalarIndexes(RwLock<State>);

#[derive(Default)]
struct State {
    /// What was asked for; in the order of `indexes`.
    specs: Vec<IndexSpec>,
    indexes: Arc<Vec<Arc<ScalarIndex>>>,
}

impl ScalarIndexes {
    pub(crate) fn all(&self) -> Arc<Vec<Arc<ScalarIndex>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).indexes)
    }
    pub(crate) fn has(&self, spec: &IndexSpec) -> bool {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.specs.contains(spec)
    }
    /// Puts an index in place of one that was asked for alike, or takes it away.
    pub(crate) fn set(&self, spec: &IndexSpec, index: Option<Arc<ScalarIndex>>) {
        let before = {
            let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let mut indexes = (*state.indexes).clone();
            let place = state.specs.iter().position(|known| known == spec);
            match (place, index) {
                (Some(place), Some(index)) => indexes[place] = index,
                (Some(place), None) => {
                    state.specs.remove(place);
                    indexes.remove(place);
                }
                (None, Some(index)) => {
                    state.specs.push(spec.clone());
                    indexes.push(index);
                }
                (None, None) => return,
            }
            std::mem::replace(&mut state.indexes, Arc::new(indexes))
        };
        // Not under the lock: values are overwritten when the last reader lets them go.
        drop(before);
    }
    pub(crate) fn memory_bytes(&self) -> usize {
        self.all().iter().map(|index| index.memory_bytes()).sum()
    }
}

/// Seals an index of `segment` and stores it. Put the entry into the manifest.
///
/// If the call is cancelled, a file that no manifest names may be left.
///
/// # Errors
/// [`SegmentError`] of locking, sealing and storing.
pub async fn write_scalar_index(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: &SealedSegment,
    spec: IndexSpec,
    index: Arc<ScalarIndex>,
) -> Result<IndexEntry, SegmentError> {
    let (id, field) = (segment.segment(), spec.field);
    let (kind, frame) = (FileKind::Index, FrameSize::Sequential);
    let file = file::write(lease, store, prefix, kind, frame, Some(field), move |sealer| {
        sealer.write(&encoding::scalar_index_header(id, field, index.rows()))?;
        sealer.write(&index.to_bytes())?;
        Ok(())
    })
    .await?;
    let on_disk = false;
    Ok(IndexEntry { spec, file, on_disk })
}

/// Reads, verifies and opens an index of `segment`.
///
/// # Errors
/// [`SegmentError`] of locking, verifying, decoding and storing.
pub async fn load_scalar_index(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: &SealedSegment,
    entry: &IndexEntry,
) -> Result<Arc<ScalarIndex>, SegmentError> {
    let (id, rows, field) = (segment.segment(), segment.rows(), entry.spec.field);
    file::read(lease, store, prefix, id, &entry.file, move |opened| {
        let bytes = opened.whole()?;
        let saved = encoding::decode_scalar_index(&bytes, id, field, rows)?;
        let index = ScalarIndex::from_bytes(saved, field, rows);
        Ok(Arc::new(index.map_err(|_| "the index does not fit the rows")?))
    })
    .await
}
