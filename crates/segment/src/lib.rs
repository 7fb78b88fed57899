//! Segments: the unit in which a collection's rows are kept, searched and made durable.
//!
//! What it is for: a [`GrowingSegment`] takes new rows in memory; [`write_segment`] makes a sealed segment of rows, one
//! sealed file per column, each under a data key of its own; a [`SealedSegment`] is such a segment decoded into memory,
//! with its indexes and deletes. Readers see both through [`SegmentView`].
//!
//! What it deliberately does not do: no filter language (that is `query`), no catalog, no decision when to flush or
//! load (that is `engine`), no cipher (that is `keyring`). Every file is verified by `keyring` before a byte of it is
//! parsed here, and what is parsed is checked against manifest and schema all the same.
//!
//! **Deletes.** A delete of a key at timestamp T hides the rows of that key whose own timestamp is below T. An upsert is
//! a delete and an insert at the same T, so its own row survives. Applying the same operations again, in order, changes
//! nothing.
//!
//! **Memory.** Everything decoded is customer plaintext and is overwritten with zeros when its last user drops it.
//!
//! Start reading at [`SegmentView`], then [`SealedSegment`] and [`GrowingSegment`]. The encodings are in `encoding` and
//! in `docs/formats.md`.
#![forbid(unsafe_code)]

mod chunk;
mod deletes;
mod disk;
mod encoding;
mod error;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod growing;
mod index;
mod lists;
mod lookup;
mod manifest;
mod scalar;
mod sealed;
mod search;
mod sparse;
mod view;
mod wiped;
mod write;

pub use chunk::{Chunk, VectorRows};
pub use deletes::DeletedRows;
pub use disk::{DiskIndex, DiskVectors, FrameCache, FrameCacheStatus, Residency};
pub use error::SegmentError;
pub use growing::{Appended, CHUNK_ROWS, GrowingSegment, GrowingSnapshot};
pub use index::{SegmentIndex, SegmentIndexKind, load_index, write_index};
pub use manifest::{FileEntry, IndexEntry, SegmentManifest};
pub use scalar::{load_scalar_index, write_scalar_index};
pub use sealed::{SealedSegment, SealedSnapshot};
pub use sparse::{SparseQuery, SparseRows, TermStatistics};
pub use view::{QueryVector, SearchParams, SegmentView, metric_of};
pub use wiped::WipedColumn;
pub use write::{ChunkRows, remove_files, write_deletes, write_segment, write_segment_to_stay};

pub use saker_index::{
    BinaryVectors, Bm25, Element, Elements, GraphIndex, GraphParams, Hit, Metric, SparseIndex, SparseScoring, Vectors,
};
pub use saker_model::PrimaryKey;
pub use saker_scalar::ScalarIndex;
