//! What of a graph is written when it is to be read from disk in pieces.

use super::{GraphIndex, links::Neighbours as _};
use crate::{Metric, Vectors};

impl GraphIndex {
    /// The vectors that it is over.
    #[must_use]
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// How they compare.
    pub(crate) fn metric(&self) -> Metric {
        self.encoder.metric
    }

    /// Most neighbours of a row.
    pub(crate) fn degree(&self) -> usize {
        self.links.width()
    }

    /// The row that walks start at.
    pub(crate) fn start(&self) -> u32 {
        self.start
    }

    /// The neighbours of a row.
    pub(crate) fn neighbours(&self, row: u32) -> impl Iterator<Item = u32> {
        let mut neighbours = Vec::with_capacity(self.links.width());
        self.links.each(row, |neighbour| neighbours.push(neighbour));
        neighbours.into_iter()
    }
}
