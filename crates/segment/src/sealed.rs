//! A sealed segment, decoded and in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, TryStreamExt};
use saker_index::{GraphIndex, Hit, RowMask, Vectors};
use saker_keyring::{Lease, STACK_BYTES, leaving_no_trace};
use saker_model::{
    Bitmap, CollectionSchema, Column, DataType, FieldId, FieldSchema, IndexKind, IndexSpec, MetricType, PrimaryKey,
    SegmentId, Timestamp,
};
use saker_scalar::ScalarIndex;
use saker_storage::ObjectStore;

use crate::{
    Chunk, DeletedRows, DiskVectors, FrameCache, QueryVector, Residency, SearchParams, SegmentError, SegmentIndex,
    SegmentIndexKind, SegmentManifest, SegmentView, TermStatistics, WipedColumn,
    chunk::{DenseColumn, VectorRows, primary_field},
    deletes::{Deletes, Hidden},
    encoding::{self, Expected},
    file,
    index::load_index_over,
    lookup::SortedRows,
    metric_of,
    scalar::{ScalarIndexes, load_scalar_index},
    search::{dense_query, search_chunks, visible},
    sparse::{chunk_statistics, search_sparse},
    view::exact_bytes,
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
    scalars: ScalarIndexes,
    /// What its files on disk are read through.
    cache: Arc<FrameCache>,
}

/// A sealed segment with the deletes of one instant.
#[derive(Clone)]
pub struct SealedSnapshot {
    segment: Arc<SealedSegment>,
    deletes: Arc<Hidden>,
    deleted_rows: usize,
    scalars: Arc<Vec<Arc<ScalarIndex>>>,
}

/// Files of a segment that are read and decoded at once: enough to keep a disk and two cores busy, few enough that a
/// load holds little more than the segment itself.
const FILES_AT_ONCE: usize = 4;

/// Rows that a walk over a graph compares for each place in its list, a byte of each value and the cache line around them.
const WALKED_ROWS: usize = 21;
const LINE_BYTES: usize = 64;

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
        Self::open(lease, store, prefix, schema, manifest, &Residency::memory()).await
    }

    /// Like [`Self::load`], but what `residency` says stays on disk is only opened, and verified as it is read.
    ///
    /// # Errors
    /// As of [`Self::load`].
    pub async fn open(
        lease: &Lease,
        store: &dyn ObjectStore,
        prefix: &str,
        schema: Arc<CollectionSchema>,
        manifest: &SegmentManifest,
        residency: &Residency,
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
        let missing = |field| SegmentError::Manifest {
            segment,
            field,
            reason: "it has no file for the field",
        };
        let is_dense = |field: &&FieldSchema| DiskVectors::element_of(field.data_type).is_some();
        let mut dense = Vec::new();
        for field in schema.fields.iter().filter(is_dense) {
            let expected = Expected::of(segment, rows, field);
            let entry = manifest.column(field.id).ok_or(missing(field.id))?;
            let opened = DiskVectors::open(lease, store, prefix, entry, &expected, &residency.cache).await?;
            let vectors = Arc::new(opened.0);
            let vectors = if residency.on_disk.contains(&field.id) {
                VectorRows::Disk(vectors)
            } else {
                let is_packed = residency.packed.contains(&field.id);
                let read = move || {
                    let read = vectors.read(0..vectors.rows())?;
                    let packed = if is_packed { read.packed() } else { None };
                    Ok::<_, SegmentError>(packed.unwrap_or(read))
                };
                let read = tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(read));
                VectorRows::Dense(read.await.map_err(|_| SegmentError::Stopped)??)
            };
            dense.push(DenseColumn {
                field: field.id,
                vectors,
                validity: opened.1,
            });
        }
        let mut wanted = vec![Expected::timestamps(segment, rows)];
        let others = schema.fields.iter().filter(|field| !is_dense(field));
        wanted.extend(others.map(|field| Expected::of(segment, rows, field)));
        let reads = wanted.into_iter().map(|expected| async move {
            let entry = manifest.column(expected.field).ok_or(missing(expected.field))?;
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
        let (manifest, owned_schema, cache) = (manifest.clone(), Arc::clone(&schema), Arc::clone(&residency.cache));
        let build = move || {
            let chunk = Chunk::from_parts(&owned_schema, columns, dense, timestamps)?;
            Ok(Self::build(manifest, owned_schema, chunk, &deletes, cache))
        };
        let built = tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(build));
        let built: Result<Self, SegmentError> = built.await.map_err(|_| SegmentError::Stopped)?;
        let sealed = Arc::new(built?);
        for entry in &sealed.manifest.indexes {
            if entry.spec.kind == IndexKind::Scalar {
                let index = load_scalar_index(lease, store, prefix, &sealed, entry).await?;
                sealed.set_scalar_index(&entry.spec, Some(index));
                continue;
            }
            if entry.on_disk != sealed.disk_vectors(entry.spec.field).is_some() {
                continue; // For vectors that were kept otherwise: it is built anew.
            }
            let index = load_index_over(lease, store, prefix, &sealed, entry).await?;
            sealed.set_index(entry.spec.field, Some(index));
        }
        Ok(sealed)
    }

    fn build(
        manifest: SegmentManifest,
        schema: Arc<CollectionSchema>,
        chunk: Chunk,
        deletes: &DeletedRows,
        cache: Arc<FrameCache>,
    ) -> Self {
        let (rows, chunk) = (chunk.rows(), Arc::new(chunk));
        let lookup = chunk.primary_column().map(SortedRows::new).unwrap_or_default();
        let (deletes, indexes) = (Deletes::new(rows, deletes), RwLock::default());
        Self {
            manifest,
            schema,
            chunks: [chunk],
            lookup,
            deletes,
            indexes,
            scalars: ScalarIndexes::default(),
            cache,
        }
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
    /// The vectors of a field that stay on disk.
    #[must_use]
    pub fn disk_vectors(&self, field: FieldId) -> Option<&Arc<DiskVectors>> {
        match self.chunk().vector_rows(field)? {
            VectorRows::Disk(vectors) => Some(vectors),
            VectorRows::Dense(_) | VectorRows::Binary(_) | VectorRows::Sparse(_) => None,
        }
    }
    pub(crate) fn cache(&self) -> &Arc<FrameCache> {
        &self.cache
    }
    /// Puts what it reads from disk under another lease: that of the zone that its files have been moved to.
    pub fn rebind(&self, lease: &Lease) {
        for field in &self.schema.fields {
            if let Some(vectors) = self.disk_vectors(field.id) {
                vectors.rebind(lease);
            }
        }
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        for index in indexes.values() {
            if let SegmentIndexKind::Disk(graph) = &index.kind {
                graph.rebind(lease);
            }
        }
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
        let indexes: usize = indexes.values().map(|index| index.memory_bytes()).sum();
        self.chunk().bytes() + 4 * self.rows() + indexes + self.scalars.memory_bytes()
    }

    /// The rows with this key that are not deleted now, in order.
    #[must_use]
    pub fn find(&self, key: &PrimaryKey) -> Vec<usize> {
        let (deletes, _) = self.deletes.snapshot();
        self.rows_of(key)
            .iter()
            .map(|&row| row as usize)
            .filter(|&row| !deletes.deleted().contains(row))
            .collect()
    }
    /// Deletes the rows with this key that were written before `at`; how many there were.
    pub fn delete(&self, key: &PrimaryKey, at: Timestamp) -> usize {
        self.delete_all(std::slice::from_ref(key), at)
    }
    /// Like [`Self::delete`], for many keys at once.
    pub fn delete_all(&self, keys: &[PrimaryKey], at: Timestamp) -> usize {
        self.delete_rows(&self.rows_to_delete(keys, at), at)
    }
    /// The part of [`Self::delete_all`] that takes time: the rows with these keys that were written before `at` and are
    /// not deleted.
    #[must_use]
    pub fn rows_to_delete(&self, keys: &[PrimaryKey], at: Timestamp) -> Vec<u32> {
        let written = self.timestamps();
        let (hidden, _) = self.deletes.snapshot();
        let rows = keys.iter().flat_map(|key| self.rows_of(key)).copied();
        rows.filter(|&row| written[row as usize] < at.0 && !hidden.deleted().contains(row as usize))
            .collect()
    }
    /// Deletes rows by number, as [`Self::rows_to_delete`] found them; how many were not deleted before.
    pub fn delete_rows(&self, rows: &[u32], at: Timestamp) -> usize {
        self.deletes.insert(rows.iter().copied(), at.0)
    }
    /// Number of rows that are deleted now.
    #[must_use]
    pub fn deleted(&self) -> usize {
        self.deletes.snapshot().1
    }
    /// The rows deleted as of now: what [`crate::write_deletes`] takes.
    #[must_use]
    pub fn deleted_rows(&self) -> DeletedRows {
        self.deletes.rows()
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
    /// Puts an index in place, or takes it away, with the lists that stood in for it. Searches that run keep what they
    /// have.
    pub fn set_index(&self, field: FieldId, index: Option<Arc<SegmentIndex>>) {
        let before = {
            let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
            match index {
                Some(index) => indexes.insert(field, index),
                None => indexes.remove(&field),
            }
        };
        // Not under the lock: it may be long, for it is overwritten.
        drop(before);
        self.chunk().drop_lists(field);
    }

    /// Whether it has the index of a scalar field that was asked for so.
    #[must_use]
    pub fn has_scalar_index(&self, spec: &IndexSpec) -> bool {
        self.scalars.has(spec)
    }
    /// Puts an index of a scalar field in place, or takes it away. Readers keep what they have.
    pub fn set_scalar_index(&self, spec: &IndexSpec, index: Option<Arc<ScalarIndex>>) {
        self.scalars.set(spec, index);
    }

    /// Rows and deletes as of now.
    #[must_use]
    pub fn snapshot(self: &Arc<Self>) -> SealedSnapshot {
        let (deletes, deleted_rows) = self.deletes.snapshot();
        SealedSnapshot {
            segment: Arc::clone(self),
            deletes,
            deleted_rows,
            scalars: self.scalars.all(),
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

impl SealedSnapshot {
    /// The nearest rows of a field whose vectors are on disk.
    fn search_disk(
        &self,
        vectors: &DiskVectors,
        field: FieldId,
        query: &[f32],
        params: &SearchParams,
        mask: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError> {
        let mask = mask.map(|mask| RowMask {
            words: mask.words(),
            rows: mask.len(),
        });
        if let Some(index) = self.segment.index(field)
            && let Some(graph) = index.disk_for(params.metric)
        {
            return graph.search(query, params.k, params.ef, mask);
        }
        let metric = metric_of(params.metric).ok_or(SegmentError::QueryKind {
            field,
            data_type: DataType::FloatVector,
        })?;
        vectors.check()?;
        vectors.search(metric, query, params.k, mask)
    }
}

impl SegmentView for SealedSnapshot {
    fn rows(&self) -> usize {
        self.segment.rows()
    }
    fn chunks(&self) -> &[Arc<Chunk>] {
        &self.segment.chunks
    }
    fn scalar_indexes(&self, chunk: usize) -> &[Arc<ScalarIndex>] {
        if chunk == 0 { &self.scalars } else { &[] }
    }
    fn deletes(&self) -> &Bitmap {
        self.deletes.deleted()
    }
    fn live(&self) -> &Bitmap {
        self.deletes.live()
    }
    fn deleted_rows(&self) -> usize {
        self.deleted_rows
    }
    fn search_vectors(
        &self,
        field: FieldId,
        query: QueryVector<'_>,
        params: &SearchParams,
        allowed: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError> {
        let mask = visible(self, field, allowed)?;
        if let QueryVector::Sparse(query) = query {
            let index = self.segment.index(field);
            let built = index.as_deref().and_then(|index| index.sparse_for(params.metric));
            let (schema, chunks) = (&self.segment.schema, &self.segment.chunks);
            return search_sparse(schema, chunks, field, &query, params, mask.as_deref(), built);
        }
        if let QueryVector::Dense(_) = query
            && let Some(index) = self.segment.index(field)
            && let Some(graph) = index.graph_for(params.metric)
        {
            let mask = mask.as_ref().map(|mask| RowMask {
                words: mask.words(),
                rows: mask.len(),
            });
            let dense = dense_query(&self.segment.schema, field, query)?;
            return Ok(graph.search(dense, params.k, params.ef, mask)?);
        }
        if let Some(vectors) = self.segment.disk_vectors(field) {
            let dense = dense_query(&self.segment.schema, field, query)?;
            return self.search_disk(vectors, field, dense, params, mask.as_deref());
        }
        search_chunks(
            &self.segment.schema,
            &self.segment.chunks,
            field,
            query,
            params,
            mask.as_deref(),
        )
    }
    fn search_bytes(&self, field: FieldId, params: &SearchParams) -> usize {
        let all = self.segment.chunk().vector_rows(field);
        let exact = exact_bytes(self.segment.chunk(), field);
        let index = self.segment.index(field);
        if exact == usize::MAX || index.is_none_or(|index| index.graph_for(params.metric).is_none()) {
            return exact;
        }
        let list = if params.ef == 0 {
            GraphIndex::EF_DEFAULT
        } else {
            params.ef
        };
        let dim = all.map_or(0, VectorRows::dim);
        let walked = list.max(params.k).saturating_mul(WALKED_ROWS * (dim + LINE_BYTES));
        walked.min(exact)
    }
    fn term_statistics(&self, field: FieldId, terms: &[u32]) -> Result<TermStatistics, SegmentError> {
        let index = self.segment.index(field);
        let built = index.as_deref().and_then(|index| index.sparse_for(MetricType::Bm25));
        chunk_statistics(&self.segment.schema, &self.segment.chunks, field, terms, built)
    }
    fn take(&self, fields: &[FieldId], rows: &[usize]) -> Result<Vec<Column>, SegmentError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.segment.rows()) {
            return Err(SegmentError::NoSuchRow {
                row,
                rows: self.segment.rows(),
            });
        }
        let chunk = self.segment.chunk();
        fields.iter().map(|&field| chunk.take(field, rows)).collect()
    }
    fn primary_key(&self, row: usize) -> Option<PrimaryKey> {
        self.segment.chunk().primary_key(row)
    }
    fn timestamp(&self, row: usize) -> Option<Timestamp> {
        self.segment.timestamps().get(row).copied().map(Timestamp)
    }
    fn find(&self, key: &PrimaryKey) -> Vec<usize> {
        let rows = self.segment.rows_of(key).iter().map(|&row| row as usize);
        rows.filter(|&row| !self.deletes.deleted().contains(row)).collect()
    }
}
