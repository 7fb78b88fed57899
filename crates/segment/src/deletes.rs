//! Which rows of a segment are deleted, since when.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
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

/// The deleted rows of one instant, and the others, which the first search that wants them works out for all.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    deleted: Bitmap,
    live: OnceLock<Bitmap>,
}

impl Hidden {
    pub(crate) fn none_of(rows: usize) -> Self {
        Self {
            deleted: Bitmap::zeros(rows),
            live: OnceLock::new(),
        }
    }
    pub(crate) fn deleted(&self) -> &Bitmap {
        &self.deleted
    }
    /// The rows that are not deleted.
    pub(crate) fn live(&self) -> &Bitmap {
        self.live.get_or_init(|| {
            let mut live = self.deleted.clone();
            live.negate();
            live
        })
    }
    pub(crate) fn hide(&mut self, row: u32) {
        self.live = OnceLock::new();
        self.deleted.set(row as usize, true);
    }
    /// Appends rows that are not deleted.
    pub(crate) fn extend(&mut self, rows: usize) {
        self.live = OnceLock::new();
        self.deleted.extend(rows, false);
    }
}

/// For a change: what was worked out would not hold any more.
impl Clone for Hidden {
    fn clone(&self) -> Self {
        Self {
            deleted: self.deleted.clone(),
            live: OnceLock::new(),
        }
    }
}

/// The deletes of a segment that is in use. Readers take a set that does not change.
#[derive(Debug)]
pub(crate) struct Deletes(RwLock<State>);

#[derive(Debug)]
struct State {
    hidden: Arc<Hidden>,
    /// Each deleted row once and when, in order of deleting: to be sorted by whoever wants that, for readers wait while
    /// rows are deleted.
    rows: Vec<(u32, u64)>,
}

impl Deletes {
    pub(crate) fn new(segment_rows: usize, rows: &DeletedRows) -> Self {
        let mut hidden = Hidden::none_of(segment_rows);
        rows.iter().for_each(|(row, _)| hidden.hide(row));
        Self(RwLock::new(State {
            hidden: Arc::new(hidden),
            rows: rows.iter().collect(),
        }))
    }

    /// Deletes rows; how many were not deleted before.
    pub(crate) fn insert(&self, rows: impl Iterator<Item = u32>, at: u64) -> usize {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State { hidden, rows: deleted } = &mut *state;
        let before = deleted.len();
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return 0;
        }
        // Copies the bitmap only if a reader holds the old one.
        let hidden = Arc::make_mut(hidden);
        for row in rows {
            if !hidden.deleted().contains(row as usize) {
                hidden.hide(row);
                deleted.push((row, at));
            }
        }
        deleted.len() - before
    }
    pub(crate) fn snapshot(&self) -> (Arc<Hidden>, usize) {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&state.hidden), state.rows.len())
    }
    pub(crate) fn rows(&self) -> DeletedRows {
        let deleted = self.0.read().unwrap_or_else(PoisonError::into_inner).rows.clone();
        let mut rows = DeletedRows::default();
        for (row, at) in deleted {
            rows.insert(row, at);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_are_those_of_their_instant() {
        let deletes = Deletes::new(70, &DeletedRows::default());
        let (before, _) = deletes.snapshot();
        assert_eq!(before.live().count_ones(), 70);
        assert_eq!(deletes.insert([3, 69, 3].into_iter(), 9), 2);
        let (after, count) = deletes.snapshot();
        assert_eq!(
            (count, after.live().count_ones(), after.live().contains(69)),
            (2, 68, false)
        );
        assert_eq!((before.live().count_ones(), before.deleted().count_ones()), (70, 0));
        let mut grown = Hidden::clone(&after);
        grown.extend(10);
        grown.hide(75);
        assert_eq!((grown.live().len(), grown.live().count_ones()), (80, 77));
        assert_eq!(after.live().count_ones(), 68);
    }
}
