//! Which rows of a segment are deleted, since when.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use saker_model::Bitmap;

/// Deleted rows of a sealed segment with the timestamps of their deletes: what a file of deletes holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeletedRows {
    /// In order of row.
    entries: BTreeMap<u32, u64>,
}

impl DeletedRows {
    /// Number of deleted rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether no row is deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Row and timestamp of the delete, in order of row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + '_ {
        self.entries.iter().map(|(&row, &at)| (row, at))
    }
    /// Deletes a row. The first delete of a row stands.
    pub(crate) fn insert(&mut self, row: u32, at: u64) -> bool {
        match self.entries.entry(row) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(at);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }
}

/// The deletes of a segment that is in use. Readers take a bitmap that does not change.
#[derive(Debug)]
pub(crate) struct Deletes(RwLock<State>);

#[derive(Debug)]
struct State {
    bitmap: Arc<Bitmap>,
    rows: DeletedRows,
}

impl Deletes {
    pub(crate) fn new(segment_rows: usize, rows: DeletedRows) -> Self {
        let mut bitmap = Bitmap::zeros(segment_rows);
        rows.iter().for_each(|(row, _)| bitmap.set(row as usize, true));
        Self(RwLock::new(State {
            bitmap: Arc::new(bitmap),
            rows,
        }))
    }
    /// Deletes rows; how many were not deleted before.
    pub(crate) fn insert(&self, rows: impl Iterator<Item = u32>, at: u64) -> usize {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State { bitmap, rows: deleted } = &mut *state;
        let fresh: Vec<u32> = rows.filter(|&row| deleted.insert(row, at)).collect();
        if !fresh.is_empty() {
            // Copies the bitmap only if a reader holds the old one.
            let bitmap = Arc::make_mut(bitmap);
            fresh.iter().for_each(|&row| bitmap.set(row as usize, true));
        }
        fresh.len()
    }
    pub(crate) fn snapshot(&self) -> (Arc<Bitmap>, usize) {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&state.bitmap), state.rows.len())
    }
    pub(crate) fn rows(&self) -> DeletedRows {
        self.0.read().unwrap_or_else(PoisonError::into_inner).rows.clone()
    }
}
