//! A sealed segment, decoded and in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, TryStreamExt};
use saker_index::{Hit, RowMask, Vectors};
use saker_keyring::{Lease, STACK_BYTES, leaving_no_trace};
use saker_model::{Bitmap, CollectionSchema, Column, FieldId, PrimaryKey, SegmentId, Timestamp};
use saker_storage::ObjectStore;

use crate::{
    Chunk, DeletedRows, SearchParams, SegmentError, SegmentIndex, SegmentManifest, SegmentView, WipedColumn,
    chunk::primary_field,
    deletes::Deletes,
    encoding::{self, Expected},
    file,
    index::load_index_over,
    lookup::SortedRows,
    search::{check_query, search_chunks, visible},
};

/// A sealed segment in memory; shared as `Arc<SealedSegment>`. Its rows never change; deletes and indexes are added.
pub struct SealedSegment {
    manifest: SegmentManifest,
    schema: Arc<CollectionSchema>,
    /// Exactly one.
    chunks: [Arc<Chunk>; 1],
    lookup: SortedRows,
    deletes: Deletes,
    indexes: RwLock<BTreeMap<FieldId, Arc<SegmentIndex>>>,
}

/// A sealed segment with the deletes of one instant.
#[derive(Clone)]
pub struct SealedSnapshot {
    segment: Arc<SealedSegment>,
    deletes: Arc<Bitmap>,
    deleted_rows: usize,
}

/// Files of a segment that are read and decoded at once: enough to keep a disk and two cores busy, few enough that a
/// load holds little more than the segment itself.
const FILES_AT_ONCE: usize = 4;

impl SealedSegment {
    /// Reads, verifies and decodes all files of a segment.
    ///
    /// # Errors
    /// [`SegmentError::Locked`], [`SegmentError::Refused`], [`SegmentError::Malformed`], [`SegmentError::Manifest`],
    /// [`SegmentError::Store`].
    pub async fn load(
        lease: &Lease,
        store: &dyn ObjectStore,
        prefix: &str,
        schema: Arc<CollectionSchema>,
        manifest: &SegmentManifest,
    ) -> Result<Arc<Self>, SegmentError> {
        let rows = usize::try_from(manifest.rows)
            .ok()
            .filter(|rows| *rows <= Chunk::ROWS_MAX);
        let rows = rows.ok_or(SegmentError::TooManyRows {
            rows: usize::MAX,
            rows_max: Chunk::ROWS_MAX,
        })?;
        primary_field(&schema)?;
        let segment = manifest.segment;
        let mut wanted = vec![Expected::timestamps(segment, rows)];
        wanted.extend(schema.fields.iter().map(|field| Expected::of(segment, rows, field)));
        let reads = wanted.into_iter().map(|expected| async move {
            let missing = SegmentError::Manifest {
                segment,
                field: expected.field,
                reason: "it has no file for the field",
            };
            let entry = manifest.column(expected.field).ok_or(missing)?;
            file::read(lease, store, prefix, segment, entry, move |opened| {
                encoding::decode_column(opened, &expected)
            })
            .await
        });
        let reads = futures::stream::iter(reads)
            .buffered(FILES_AT_ONCE)
            .map_ok(WipedColumn::new);
        let mut columns: Vec<WipedColumn> = reads.try_collect().await?;
        let timestamps = encoding::into_timestamps(columns.remove(0).into_inner());
        let deletes = match &manifest.deletes {
            None => DeletedRows::default(),
            Some(entry) => {
                let decode = move |opened: &file::Opened<'_>| encoding::decode_deletes(opened, segment, rows);
                file::read(lease, store, prefix, segment, entry, decode).await?
            }
        };
        let (manifest, owned_schema) = (manifest.clone(), Arc::clone(&schema));
        let build = move || Self::build(manifest, owned_schema, columns, timestamps, deletes);
        let built = tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(build));
        let sealed = Arc::new(built.await.map_err(|_| SegmentError::Stopped)??);
        for entry in &sealed.manifest.indexes {
            let index = load_index_over(lease, store, prefix, &sealed, entry).await?;
            sealed.set_index(entry.spec.field, Some(index));
        }
        Ok(sealed)
    }

    fn build(
        manifest: SegmentManifest,
        schema: Arc<CollectionSchema>,
        columns: Vec<WipedColumn>,
        timestamps: Vec<u64>,
        deletes: DeletedRows,
    ) -> Result<Self, SegmentError> {
        let rows = timestamps.len();
        let chunk = Arc::new(Chunk::from_columns(&schema, columns, timestamps)?);
        let lookup = chunk.primary_column().map(SortedRows::new).unwrap_or_default();
        let (deletes, indexes) = (Deletes::new(rows, deletes), RwLock::default());
        Ok(Self {
            manifest,
            schema,
            chunks: [chunk],
            lookup,
            deletes,
            indexes,
        })
    }

    /// Its id.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.manifest.segment
    }
    /// The manifest that it was loaded by. Indexes and deletes may have been added since.
    #[must_use]
    pub fn manifest(&self) -> &SegmentManifest {
        &self.manifest
    }
    /// The schema of its rows.
    #[must_use]
    pub fn schema(&self) -> &Arc<CollectionSchema> {
        &self.schema
    }
    /// Number of rows, deleted ones included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.chunk().rows()
    }
    /// Its rows.
    #[must_use]
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunks[0]
    }
    /// The column of a field that is no vector.
    #[must_use]
    pub fn column(&self, field: FieldId) -> Option<&Column> {
        self.chunk().column(field)
    }
    /// The vectors of a field.
    #[must_use]
    pub fn vectors(&self, field: FieldId) -> Option<&Vectors> {
        self.chunk().vectors(field)
    }
    /// When each row was written.
    #[must_use]
    pub fn timestamps(&self) -> &[u64] {
        self.chunk().timestamps()
    }
    /// Bytes that values and indexes take in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        self.chunk().bytes() + 4 * self.rows() + indexes.values().map(|index| index.memory_bytes()).sum::<usize>()
    }

    /// The rows with this key that are not deleted now, in order.
    #[must_use]
    pub fn find(&self, key: &PrimaryKey) -> Vec<usize> {
        let (deletes, _) = self.deletes.snapshot();
        self.rows_of(key)
            .iter()
            .map(|&row| row as usize)
            .filter(|&row| !deletes.contains(row))
            .collect()
    }
    /// Deletes the rows with this key that were written before `at`; how many there were.
    pub fn delete(&self, key: &PrimaryKey, at: Timestamp) -> usize {
        self.delete_all(std::slice::from_ref(key), at)
    }
    /// Like [`Self::delete`], for many keys at once.
    pub fn delete_all(&self, keys: &[PrimaryKey], at: Timestamp) -> usize {
        let written = self.timestamps();
        let rows = keys.iter().flat_map(|key| self.rows_of(key)).copied();
        self.deletes
            .insert(rows.filter(|&row| written[row as usize] < at.0), at.0)
    }
    /// The rows deleted as of now: what [`crate::write_deletes`] takes.
    #[must_use]
    pub fn deleted_rows(&self) -> DeletedRows {
        self.deletes.rows()
    }
    /// The bitmap of deleted rows as of now.
    #[must_use]
    pub fn deletes_snapshot(&self) -> Arc<Bitmap> {
        self.deletes.snapshot().0
    }

    /// The index of a vector field.
    #[must_use]
    pub fn index(&self, field: FieldId) -> Option<Arc<SegmentIndex>> {
        self.indexes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&field)
            .cloned()
    }
    /// Puts an index in place, or takes it away. Searches that run keep what they have.
    pub fn set_index(&self, field: FieldId, index: Option<Arc<SegmentIndex>>) {
        let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
        match index {
            Some(index) => drop(indexes.insert(field, index)),
            None => drop(indexes.remove(&field)),
        }
    }

    /// Rows and deletes as of now.
    #[must_use]
    pub fn snapshot(self: &Arc<Self>) -> SealedSnapshot {
        let (deletes, deleted_rows) = self.deletes.snapshot();
        SealedSnapshot {
            segment: Arc::clone(self),
            deletes,
            deleted_rows,
        }
    }

    fn rows_of(&self, key: &PrimaryKey) -> &[u32] {
        self.chunk()
            .primary_column()
            .map_or(&[], |column| self.lookup.find(column, key))
    }
}

impl std::fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSegment")
            .field("segment", &self.segment())
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl SealedSnapshot {
    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<SealedSegment> {
        &self.segment
    }
}

impl SegmentView for SealedSnapshot {
    fn rows(&self) -> usize {
        self.segment.rows()
    }
    fn chunks(&self) -> &[Arc<Chunk>] {
        &self.segment.chunks
    }
    fn deletes(&self) -> &Bitmap {
        &self.deletes
    }
    fn deleted_rows(&self) -> usize {
        self.deleted_rows
    }
    fn search_vectors(
        &self,
        field: FieldId,
        query: &[f32],
        params: &SearchParams,
        allowed: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError> {
        check_query(&self.segment.schema, field, query)?;
        let mask = visible(self, field, allowed)?;
        if let Some(index) = self.segment.index(field)
            && let Some(graph) = index.graph_for(params.metric)
        {
            let mask = mask.as_ref().map(|mask| RowMask {
                words: mask.words(),
                rows: mask.len(),
            });
            return Ok(graph.search(query, params.k, params.ef, mask)?);
        }
        search_chunks(
            &self.segment.schema,
            &self.segment.chunks,
            field,
            query,
            params,
            mask.as_ref(),
        )
    }
    fn take(&self, fields: &[FieldId], rows: &[usize]) -> Result<Vec<Column>, SegmentError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.segment.rows()) {
            return Err(SegmentError::NoSuchRow {
                row,
                rows: self.segment.rows(),
            });
        }
        let chunk = self.segment.chunk();
        fields
            .iter()
            .map(|&field| chunk.take(field, rows).ok_or(SegmentError::NoSuchField(field)))
            .collect()
    }
    fn primary_key(&self, row: usize) -> Option<PrimaryKey> {
        self.segment.chunk().primary_key(row)
    }
    fn timestamp(&self, row: usize) -> Option<Timestamp> {
        self.segment.timestamps().get(row).copied().map(Timestamp)
    }
    fn find(&self, key: &PrimaryKey) -> Vec<usize> {
        let rows = self.segment.rows_of(key).iter().map(|&row| row as usize);
        rows.filter(|&row| !self.deletes.contains(row)).collect()
    }
}
