//! Vectors and graphs that stay on disk and are read a frame at a time.
//!
//! What it is for: a collection that is larger than memory. Its scalar columns and the codes of its vectors are in memory;
//! the vectors themselves and the neighbour lists of its graph are opened frame by frame ([`file::DiskFile`]) as searches
//! ask for them, through a cache with a budget of bytes ([`FrameCache`]).
//!
//! What it deliberately does not do: it trusts no byte longer than it was verified. A frame is verified each time it comes
//! from the disk, as that frame of that file; one that does not verify fails the search that asked for it, and no part of
//! its answer is given. Once the zone is locked nothing is read, neither from disk nor from the cache.
//!
//! Start at [`vectors::DiskVectors`], then [`index::DiskIndex`].

mod cache;
mod file;
mod index;
mod vectors;

pub use cache::{FrameCache, FrameCacheStatus};
pub(crate) use file::DiskFile;
pub use index::DiskIndex;
pub(crate) use index::open_index;
pub use vectors::DiskVectors;

use std::sync::Arc;

use saker_model::FieldId;

/// Where the vectors of a segment are kept while it is in use.
#[derive(Clone, Debug)]
pub struct Residency {
    /// Fields whose vectors and graph stay on disk; those of all others are in memory. Binary and sparse vectors are in
    /// memory in any case.
    pub on_disk: Vec<FieldId>,
    /// Fields of 32-bit floats whose vectors are packed in memory, for there is a graph that seldom reads one.
    pub packed: Vec<FieldId>,
    /// What is read through.
    pub cache: Arc<FrameCache>,
}

impl Residency {
    /// Everything in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            on_disk: Vec::new(),
            packed: Vec::new(),
            cache: FrameCache::new(0),
        }
    }
}
