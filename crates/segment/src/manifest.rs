//! What the catalog keeps of a sealed segment: which files it has and what must be in them. The manifest is sealed by
//! the engine; it is what readers believe, not the files.

use saker_keyring::{FileId, FileKind};
use saker_model::{FieldId, IndexSpec, PartitionId, SegmentId, Timestamp};
use serde::{Deserialize, Serialize};

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentManifest {
    /// Its id.
    pub segment: SegmentId,
    /// Its partition.
    pub partition: PartitionId,
    /// Number of rows, deleted ones included.
    pub rows: u64,
    /// Earliest timestamp of a row; 0 without rows.
    pub min_timestamp: Timestamp,
    /// Latest timestamp of a row; 0 without rows.
    pub max_timestamp: Timestamp,
    /// One file per column, timestamps included ([`FieldId::TIMESTAMP`]).
    pub columns: Vec<FileEntry>,
    /// Indexes, at most one per field.
    pub indexes: Vec<IndexEntry>,
    /// The file of deletes, if there is one.
    pub deletes: Option<FileEntry>,
    /// Rows that the file of deletes hides.
    pub deleted_rows: u64,
    /// Rows that deletes up to here hide are not in it. Older manifests do not say.
    #[serde(default)]
    pub clean_until: Timestamp,
}

/// One sealed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The column's field; `None` for a file that belongs to all.
    pub field: Option<FieldId>,
    /// What it holds; bound into its seal.
    pub kind: FileKind,
    /// Its id; bound into its seal.
    pub file: FileId,
    /// Its sealed length, in bytes.
    pub bytes: u64,
    /// Its name under the segment's prefix.
    pub name: String,
}

/// One index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// What was asked for.
    pub spec: IndexSpec,
    /// The file.
    pub file: FileEntry,
    /// Whether it is one that is read from disk in pieces. Older manifests do not say: theirs are not.
    #[serde(default)]
    pub on_disk: bool,
}

impl SegmentManifest {
    /// The file of a field's column.
    #[must_use]
    pub fn column(&self, field: FieldId) -> Option<&FileEntry> {
        self.columns.iter().find(|entry| entry.field == Some(field))
    }
    /// Every file of the segment.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.columns
            .iter()
            .chain(self.indexes.iter().map(|index| &index.file))
            .chain(&self.deletes)
    }
    /// Sealed bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|entry| entry.bytes).sum()
    }
}
