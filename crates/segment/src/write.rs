//! Making sealed segments: one sealed file per column, each under a data key of its own.

use std::{borrow::Borrow, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use saker_keyring::{FileKind, FrameSize, Lease};
use saker_model::{CollectionSchema, FieldId, PartitionId, RowBatch, SegmentId, Timestamp};
use saker_storage::{ObjectPath, ObjectStore};

use crate::{
    Chunk, DeletedRows, FileEntry, SegmentError, SegmentManifest, SegmentView,
    chunk::primary_field,
    encoding::{self, ColumnHeader},
    file,
};

/// Rows to be written: a chunk, or some of its rows.
#[derive(Clone, Debug)]
pub struct ChunkRows {
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// The rows to write, in this order; `None` for all.
    pub rows: Option<Vec<usize>>,
}

impl ChunkRows {
    /// All rows of a batch.
    ///
    /// # Errors
    /// [`SegmentError::Rows`] if they do not fit the schema.
    pub fn of_batch(schema: &CollectionSchema, rows: RowBatch, timestamps: &[Timestamp]) -> Result<Self, SegmentError> {
        Ok(Self {
            chunk: Arc::new(Chunk::new(schema, rows, timestamps)?),
            rows: None,
        })
    }
    /// The rows of a view that are not deleted: what a flush and a compaction keep.
    #[must_use]
    pub fn visible(view: &dyn SegmentView) -> Vec<Self> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(view.chunks().len());
        for chunk in view.chunks() {
            let rows = (view.deleted_rows() > 0).then(|| {
                (0..chunk.rows())
                    .filter(|&row| !view.deletes().contains(start + row))
                    .collect()
            });
            parts.push(Self {
                chunk: Arc::clone(chunk),
                rows,
            });
            start += chunk.rows();
        }
        parts
    }
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.chunk.rows(), Vec::len)
    }
    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// When the rows were written.
    pub(crate) fn timestamps(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).map(|index| self.chunk.timestamps()[self.row(index)])
    }
    /// The number in the chunk of the row at `index`.
    pub(crate) fn row(&self, index: usize) -> usize {
        self.rows.as_ref().map_or(index, |rows| rows[index])
    }
}

/// Columns that are sealed and stored at once.
const FILES_AT_ONCE: usize = 4;

/// Writes rows as a sealed segment: one file per column, timestamps included. The manifest that comes back is not stored
/// yet; until the engine stores it, no reader knows of the files.
///
/// On an error the files that were stored are removed again as far as possible. If the call is cancelled, files that no
/// manifest names may be left.
///
/// # Errors
/// [`SegmentError`] of locking, sealing and storing; [`SegmentError::TooManyRows`]; [`SegmentError::Rows`] for a chunk of
/// another schema.
pub async fn write_segment(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    partition: PartitionId,
    schema: &CollectionSchema,
    source: Vec<ChunkRows>,
) -> Result<SegmentManifest, SegmentError> {
    write_segment_to_stay(lease, store, prefix, segment, partition, schema, source, &[]).await
}

/// Like [`write_segment`]; the columns of the fields in `on_disk` get small frames, for they are to be read at random where
/// they lie. They are readable either way.
///
/// # Errors
/// As of [`write_segment`].
#[expect(clippy::too_many_arguments, reason = "where, what, and how it will be read")]
pub async fn write_segment_to_stay(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    partition: PartitionId,
    schema: &CollectionSchema,
    source: Vec<ChunkRows>,
    on_disk: &[FieldId],
) -> Result<SegmentManifest, SegmentError> {
    let rows: usize = source.iter().map(ChunkRows::len).sum();
    if rows > Chunk::ROWS_MAX {
        return Err(SegmentError::TooManyRows {
            rows,
            rows_max: Chunk::ROWS_MAX,
        });
    }
    primary_field(schema)?;
    check_source(schema, &source)?;
    let (min_timestamp, max_timestamp) = source
        .iter()
        .flat_map(ChunkRows::timestamps)
        .fold(None, |span: Option<(u64, u64)>, at| {
            Some(span.map_or((at, at), |(min, max)| (min.min(at), max.max(at))))
        })
        .unwrap_or_default();
    let source = Arc::new(source);
    let mut headers = vec![ColumnHeader::timestamps(segment, rows)];
    headers.extend(schema.fields.iter().map(|field| ColumnHeader::of(segment, rows, field)));
    let writes = headers.into_iter().map(|header| {
        let source = Arc::clone(&source);
        let field = Some(header.field);
        async move {
            let frame = if on_disk.contains(&header.field) {
                FrameSize::Random
            } else {
                FrameSize::Sequential
            };
            file::write(lease, store, prefix, FileKind::Column, frame, field, move |sealer| {
                encoding::encode_column(&header, &source, sealer)
            })
            .await
        }
    });
    let written: Vec<Result<FileEntry, SegmentError>> =
        futures::stream::iter(writes).buffered(FILES_AT_ONCE).collect().await;
    if written.iter().any(Result::is_err) {
        // Unknown to any manifest; if this fails too, they are found by listing.
        let _ = remove_files(store, prefix, written.iter().flatten()).await;
    }
    let columns = written.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(SegmentManifest {
        segment,
        partition,
        rows: rows as u64,
        min_timestamp: Timestamp(min_timestamp),
        max_timestamp: Timestamp(max_timestamp),
        columns,
        indexes: Vec::new(),
        deletes: None,
        deleted_rows: 0,
        clean_until: Timestamp(0),
    })
}

/// Seals the deletes of a segment of `rows` rows and stores them. Put the entry and their number into the manifest; the
/// file that the manifest named before can go then.
///
/// If the call is cancelled, a file that no manifest names may be left.
///
/// # Errors
/// [`SegmentError`] of locking, sealing and storing.
pub async fn write_deletes(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    rows: u64,
    deletes: &DeletedRows,
) -> Result<FileEntry, SegmentError> {
    let bytes = encoding::encode_deletes(segment, rows, deletes);
    let (kind, frame) = (FileKind::Deletes, FrameSize::Sequential);
    file::write(lease, store, prefix, kind, frame, None, move |sealer| {
        Ok(sealer.write(&bytes)?)
    })
    .await
}

/// Shreds files of a segment: their data keys first, then the files. Files that are gone already are fine.
///
/// # Errors
/// [`SegmentError::Store`] for the first that failed; the others were tried all the same.
pub async fn remove_files(
    store: &dyn ObjectStore,
    prefix: &str,
    files: impl IntoIterator<Item = impl Borrow<FileEntry>>,
) -> Result<(), SegmentError> {
    let removals = files.into_iter().map(|entry| {
        let path = ObjectPath::join(prefix, &entry.borrow().name);
        async move { store.shred(&path?).await.map_err(SegmentError::from) }
    });
    let removals: Vec<_> = removals.collect();
    let done: Vec<Result<(), SegmentError>> = futures::stream::iter(removals).buffered(FILES_AT_ONCE).collect().await;
    futures::stream::iter(done).try_collect().await
}

fn check_source(schema: &CollectionSchema, source: &[ChunkRows]) -> Result<(), SegmentError> {
    for part in source {
        for field in &schema.fields {
            let fail = |reason| {
                Err(SegmentError::Rows {
                    field: field.id,
                    reason,
                })
            };
            let fits = match (part.chunk.column(field.id), part.chunk.vector_rows(field.id)) {
                (Some(column), _) => crate::chunk::check(field, column, part.chunk.rows()).is_ok(),
                (None, Some(vectors)) => field.data_type == vectors.data_type() && vectors.dim() == field.dim,
                (None, None) => return fail("the field is missing"),
            };
            if !fits {
                return fail("the rows are of another schema");
            }
        }
        if part.rows.iter().flatten().any(|&row| row >= part.chunk.rows()) {
            return Err(SegmentError::Rows {
                field: FieldId::ROW_ID,
                reason: "a row number is past the end",
            });
        }
    }
    Ok(())
}
