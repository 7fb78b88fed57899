//! A segment that takes rows, in memory. Its rows are durable in the log only.
//!
//! Rows are kept in immutable chunks, so readers share them and never wait for a copy. Small batches become small
//! chunks; neighbours are put together until they hold about [`CHUNK_ROWS`] rows, in the manner of a binary counter, so
//! each row is copied a few times at most and a search meets few chunks. Larger chunks are given lists
//! ([`saker_index::ListIndex`]) in the background, if the engine asks for them: then a search compares with a part of
//! their rows.
//!
//! Adding rows and deleting have two steps each, one that takes time and changes nothing that readers see, and one that
//! takes none: so whoever writes to several segments at once keeps readers waiting for the second steps only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic::AtomicBool},
};

use saker_index::Hit;
use saker_model::{
    Bitmap, CollectionSchema, Column, ColumnData, FieldId, MetricType, PartitionId, PrimaryKey, RowBatch, SegmentId,
    Timestamp,
};

use crate::{
    Chunk, QueryVector, SearchParams, SegmentError, SegmentView, TermStatistics,
    deletes::Hidden,
    lookup::{HashedRows, holds},
    search::{search_chunks, visible},
    sparse::chunk_statistics,
    view::exact_bytes,
};

/// Rows beyond which chunks are left as they are.
pub const CHUNK_ROWS: usize = 32_768;

/// A growing segment. All methods may be called from any thread; appends wait for one another, readers for nobody long.
pub struct GrowingSegment {
    segment: SegmentId,
    partition: PartitionId,
    schema: Arc<CollectionSchema>,
    /// Held by an append while it puts chunks together, so that readers need not wait for that.
    appending: Mutex<()>,
    state: RwLock<State>,
    /// Rows by key; may know rows that are not there yet. Beside the rest, for it may take its time to grow.
    lookup: RwLock<HashedRows>,
}

#[derive(Default)]
struct State {
    chunks: Chunks,
    deletes: Arc<Hidden>,
    /// Deleted rows and when, in order of deleting.
    deleted: Vec<(u32, u64)>,
}

/// Rows that [`Self::publish`] adds to their segment. Until then nobody sees them, and no others can be added.
#[must_use = "the rows are not there yet"]
pub struct Appended<'a> {
    segment: &'a GrowingSegment,
    _appending: MutexGuard<'a, ()>,
    /// Chunks at the end that `chunk` replaces, for it holds their rows.
    replaced: Vec<Arc<Chunk>>,
    chunk: Arc<Chunk>,
    /// Rows that are new.
    added: usize,
    /// Rows that there will be.
    total: usize,
}

/// Chunks and where each starts.
#[derive(Clone, Default)]
struct Chunks {
    chunks: Vec<Arc<Chunk>>,
    starts: Vec<usize>,
    rows: usize,
}

/// A growing segment's rows and deletes as of one instant.
#[derive(Clone)]
pub struct GrowingSnapshot {
    segment: Arc<GrowingSegment>,
    chunks: Chunks,
    deletes: Arc<Hidden>,
    /// Length of the list of deletes.
    deleted: usize,
}

impl GrowingSegment {
    /// Most rows, as in a chunk.
    pub const ROWS_MAX: usize = Chunk::ROWS_MAX;

    /// A segment without rows.
    #[must_use]
    pub fn new(segment: SegmentId, partition: PartitionId, schema: Arc<CollectionSchema>) -> Arc<Self> {
        Arc::new(Self {
            segment,
            partition,
            schema,
            appending: Mutex::default(),
            state: RwLock::default(),
            lookup: RwLock::default(),
        })
    }
    /// Its id.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.segment
    }
    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
    /// The schema of its rows.
    #[must_use]
    pub fn schema(&self) -> &Arc<CollectionSchema> {
        &self.schema
    }
    /// Number of rows, deleted ones included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.state().chunks.rows
    }
    /// Bytes that its values take in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state().chunks.chunks.iter().map(|chunk| chunk.bytes()).sum()
    }

    /// Adds rows with one timestamp each. Either all of them are there afterwards, or none.
    ///
    /// # Errors
    /// [`SegmentError::Rows`] if they do not fit the schema, [`SegmentError::TooManyRows`].
    pub fn append(&self, rows: RowBatch, timestamps: &[Timestamp]) -> Result<(), SegmentError> {
        if rows.rows() > 0 {
            self.prepare(rows, timestamps)?.publish();
        }
        Ok(())
    }

    /// The part of [`Self::append`] that takes time: checks rows and puts chunks together. Dropped, it adds nothing.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn prepare(&self, rows: RowBatch, timestamps: &[Timestamp]) -> Result<Appended<'_>, SegmentError> {
        let added = Arc::new(Chunk::new(&self.schema, rows, timestamps)?);
        let appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, replaced) = {
            let state = self.state();
            (state.chunks.rows, state.chunks.tail_to_merge(added.rows()))
        };
        let total = first + added.rows();
        let first = u32::try_from(first).ok().filter(|_| total <= Self::ROWS_MAX);
        let first = first.ok_or(SegmentError::TooManyRows {
            rows: total,
            rows_max: Self::ROWS_MAX,
        })?;
        let chunk = if replaced.is_empty() {
            Arc::clone(&added)
        } else {
            let mut parts = replaced.clone();
            parts.push(Arc::clone(&added));
            Arc::new(Chunk::concat(&parts)?)
        };
        if let Some(keys) = added.primary_column() {
            // Should the rows not come, others will have their numbers: candidates are compared by key.
            let mut lookup = self.lookup.write().unwrap_or_else(PoisonError::into_inner);
            lookup.extend(keys, first);
        }
        Ok(Appended {
            segment: self,
            _appending: appending,
            replaced,
            chunk,
            added: added.rows(),
            total,
        })
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
        let lookup = self.lookup.read().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let goes = |key: &PrimaryKey, row: u32| {
            !state.deletes.deleted().contains(row as usize)
                && state.chunks.locate(row as usize).is_some_and(|(chunk, local)| {
                    chunk.timestamps().get(local).is_some_and(|written| *written < at.0)
                        && chunk.primary_column().is_some_and(|column| holds(column, local, key))
                })
        };
        keys.iter()
            .flat_map(|key| {
                lookup
                    .candidates(key)
                    .iter()
                    .copied()
                    .filter(move |&row| goes(key, row))
            })
            .collect()
    }
    /// Deletes rows by number, as [`Self::rows_to_delete`] found them; how many were not deleted before.
    pub fn delete_rows(&self, rows: &[u32], at: Timestamp) -> usize {
        if rows.is_empty() {
            return 0;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { deletes, deleted, .. } = &mut *state;
        let before = deleted.len();
        // Copied only if a reader holds the old one.
        let deletes = Arc::make_mut(deletes);
        for &row in rows {
            // A key may have been named twice.
            if !deletes.deleted().contains(row as usize) {
                deletes.hide(row);
                deleted.push((row, at.0));
            }
        }
        deleted.len() - before
    }

    /// Gives lists to the chunks that are large enough and have none for this metric, on the caller's thread. Searches
    /// that run do not wait.
    ///
    /// # Errors
    /// [`SegmentError::Index`] once `stop` is set.
    pub fn build_lists(&self, field: FieldId, metric: MetricType, stop: &AtomicBool) -> Result<(), SegmentError> {
        // Those that are put together with others meanwhile go, with their lists.
        let chunks = self.state().chunks.chunks.clone();
        chunks
            .iter()
            .try_for_each(|chunk| chunk.build_lists(field, metric, stop))
    }
    /// The chunks that [`Self::build_lists`] has something to do for. Those that are put together with others before it is
    /// done go, and the work with them: so whoever has time waits and sees which are left.
    #[must_use]
    pub fn chunks_without_lists(&self, field: FieldId, metric: MetricType) -> Vec<Arc<Chunk>> {
        let state = self.state();
        let chunks = state.chunks.chunks.iter();
        chunks
            .filter(|chunk| chunk.wants_lists(field, metric))
            .cloned()
            .collect()
    }
    /// Whether [`Self::build_lists`] has something to do.
    #[must_use]
    pub fn wants_lists(&self, field: FieldId, metric: MetricType) -> bool {
        let state = self.state();
        state.chunks.chunks.iter().any(|chunk| chunk.wants_lists(field, metric))
    }
    /// Lets the lists of a field go: it is searched exactly from now on.
    pub fn drop_lists(&self, field: FieldId) {
        let chunks = self.state().chunks.chunks.clone();
        chunks.iter().for_each(|chunk| chunk.drop_lists(field));
    }

    /// Rows and deletes as of now.
    #[must_use]
    pub fn snapshot(self: &Arc<Self>) -> GrowingSnapshot {
        let state = self.state();
        GrowingSnapshot {
            segment: Arc::clone(self),
            chunks: state.chunks.clone(),
            deletes: Arc::clone(&state.deletes),
            deleted: state.deleted.len(),
        }
    }

    /// Deletes of rows of `snapshot` that came after it, in order: to be repeated on the sealed segment that was made
    /// of the snapshot.
    #[must_use]
    pub fn deletes_after(&self, snapshot: &GrowingSnapshot) -> Vec<(PrimaryKey, Timestamp)> {
        let state = self.state();
        let later = state.deleted.iter().skip(snapshot.deleted);
        let keys = later.filter_map(|&(row, at)| {
            let (chunk, local) = snapshot.chunks.locate(row as usize)?;
            Some((chunk.primary_key(local)?, Timestamp(at)))
        });
        keys.collect()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Appended<'_> {
    /// Readers see the rows from now on.
    pub fn publish(self) {
        {
            let mut state = self.segment.state.write().unwrap_or_else(PoisonError::into_inner);
            state.chunks.replace_tail(self.replaced.len(), self.chunk, self.total);
            Arc::make_mut(&mut state.deletes).extend(self.added);
        }
        // Only now, without the lock: their values are overwritten.
        drop(self.replaced);
    }
}

impl std::fmt::Debug for Appended<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appended")
            .field("segment", &self.segment.segment)
            .field("rows", &self.added)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GrowingSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingSegment")
            .field("segment", &self.segment)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl Chunks {
    /// The last chunks that a new one of `rows` rows joins.
    fn tail_to_merge(&self, rows: usize) -> Vec<Arc<Chunk>> {
        let mut total = rows;
        let joins = self.chunks.iter().rev().take_while(|chunk| {
            let small = chunk.rows() <= 2 * total && chunk.rows() + total <= CHUNK_ROWS;
            total += chunk.rows();
            small
        });
        let mut tail: Vec<_> = joins.cloned().collect();
        tail.reverse();
        tail
    }
    fn replace_tail(&mut self, replaced: usize, chunk: Arc<Chunk>, rows: usize) {
        let kept = self.chunks.len().saturating_sub(replaced);
        self.chunks.truncate(kept);
        self.starts.truncate(kept);
        self.starts.push(rows - chunk.rows());
        self.chunks.push(chunk);
        self.rows = rows;
    }
    /// The chunk of a row, and the row's number in it.
    fn locate(&self, row: usize) -> Option<(&Chunk, usize)> {
        if row >= self.rows {
            return None;
        }
        let index = self.starts.partition_point(|&start| start <= row).checked_sub(1)?;
        Some((self.chunks.get(index)?, row - self.starts.get(index)?))
    }
}

impl GrowingSnapshot {
    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<GrowingSegment> {
        &self.segment
    }
}

impl SegmentView for GrowingSnapshot {
    fn rows(&self) -> usize {
        self.chunks.rows
    }
    fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks.chunks
    }
    fn deletes(&self) -> &Bitmap {
        self.deletes.deleted()
    }
    fn live(&self) -> &Bitmap {
        self.deletes.live()
    }
    fn deleted_rows(&self) -> usize {
        self.deleted
    }
    fn search_vectors(
        &self,
        field: FieldId,
        query: QueryVector<'_>,
        params: &SearchParams,
        allowed: Option<&Bitmap>,
    ) -> Result<Vec<Hit>, SegmentError> {
        let mask = visible(self, field, allowed)?;
        search_chunks(
            &self.segment.schema,
            &self.chunks.chunks,
            field,
            query,
            params,
            mask.as_deref(),
        )
    }
    fn search_bytes(&self, field: FieldId, params: &SearchParams) -> usize {
        let of = |chunk: &Arc<Chunk>| match chunk.lists.find(field, params.metric) {
            Some(lists) if params.ef != SearchParams::EXACT => lists.search_bytes(params.ef),
            Some(_) | None => exact_bytes(chunk, field),
        };
        self.chunks.chunks.iter().map(of).fold(0, usize::saturating_add)
    }
    fn term_statistics(&self, field: FieldId, terms: &[u32]) -> Result<TermStatistics, SegmentError> {
        chunk_statistics(&self.segment.schema, &self.chunks.chunks, field, terms, None)
    }
    fn take(&self, fields: &[FieldId], rows: &[usize]) -> Result<Vec<Column>, SegmentError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.chunks.rows) {
            return Err(SegmentError::NoSuchRow {
                row,
                rows: self.chunks.rows,
            });
        }
        // Grouped by chunk, so that each is asked once; `order` brings the answers back into the order of `rows`.
        let mut groups: BTreeMap<usize, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (position, &row) in rows.iter().enumerate() {
            let index = self
                .chunks
                .starts
                .partition_point(|&start| start <= row)
                .saturating_sub(1);
            let (local, positions) = groups.entry(index).or_default();
            local.push(row - self.chunks.starts[index]);
            positions.push(position);
        }
        let mut order = vec![0; rows.len()];
        groups
            .values()
            .flat_map(|(_, positions)| positions)
            .enumerate()
            .for_each(|(at, &position)| order[position] = at);
        let take = |&field: &FieldId| {
            let parts = groups
                .iter()
                .map(|(&index, (local, _))| self.chunks.chunks[index].take(field, local));
            let parts: Vec<Column> = parts.collect::<Result<_, _>>()?;
            match parts.as_slice() {
                [] => empty_column(&self.segment.schema, field),
                [_] if order.is_sorted() => parts.into_iter().next().ok_or(SegmentError::NoSuchField(field)),
                _ => {
                    let joined = crate::WipedColumn::new(concat_columns(&parts.iter().collect::<Vec<_>>())?);
                    parts.into_iter().for_each(|part| drop(crate::WipedColumn::new(part)));
                    Ok(joined.take(&order))
                }
            }
        };
        fields.iter().map(take).collect()
    }
    fn primary_key(&self, row: usize) -> Option<PrimaryKey> {
        let (chunk, local) = self.chunks.locate(row)?;
        chunk.primary_key(local)
    }
    fn timestamp(&self, row: usize) -> Option<Timestamp> {
        let (chunk, local) = self.chunks.locate(row)?;
        chunk.timestamps().get(local).copied().map(Timestamp)
    }
    fn find(&self, key: &PrimaryKey) -> Vec<usize> {
        let lookup = self.segment.lookup.read().unwrap_or_else(PoisonError::into_inner);
        let candidates = lookup.candidates(key).iter().map(|&row| row as usize);
        let holds = |&row: &usize| {
            !self.deletes.deleted().contains(row)
                && self.chunks.locate(row).is_some_and(|(chunk, local)| {
                    chunk.primary_column().is_some_and(|column| holds(column, local, key))
                })
        };
        let mut rows: Vec<usize> = candidates.filter(holds).collect();
        // Rows that were prepared and did not come may stand twice.
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// A column of a field without rows.
fn empty_column(schema: &CollectionSchema, field: FieldId) -> Result<Column, SegmentError> {
    if field == FieldId::TIMESTAMP {
        return Ok(Column::full(field, ColumnData::Int64(Vec::new())));
    }
    let found = schema.field_by_id(field).ok_or(SegmentError::NoSuchField(field))?;
    Ok(Column::full(field, ColumnData::empty(found.data_type, found.dim)))
}

/// The rows of several columns of one field, one after another, in a buffer of exactly their size: a buffer that grows
/// would leave copies of the values behind.
pub(crate) fn concat_columns(parts: &[&Column]) -> Result<Column, SegmentError> {
    macro_rules! concat {
        ($variant:ident, $first:expr) => {{
            let mut all = Vec::with_capacity(parts.iter().map(|part| part.rows()).sum());
            for part in parts {
                match &part.data {
                    ColumnData::$variant(values) => all.extend(values.iter().cloned()),
                    _ => return Err(saker_model::ColumnError::Type($first.field).into()),
                }
            }
            ColumnData::$variant(all)
        }};
    }
    macro_rules! concat_rows {
        ($variant:ident, $first:expr, $dim:expr, $width:expr) => {{
            let mut all = Vec::with_capacity(parts.iter().map(|part| part.rows() * $width).sum());
            for part in parts {
                match &part.data {
                    ColumnData::$variant { dim, data } if *dim == $dim => all.extend_from_slice(data),
                    _ => return Err(saker_model::ColumnError::Type($first.field).into()),
                }
            }
            ColumnData::$variant { dim: $dim, data: all }
        }};
    }
    let Some(&first) = parts.first() else {
        return Err(SegmentError::Stopped);
    };
    let data = match &first.data {
        ColumnData::Bool(_) => concat!(Bool, first),
        ColumnData::Int8(_) => concat!(Int8, first),
        ColumnData::Int16(_) => concat!(Int16, first),
        ColumnData::Int32(_) => concat!(Int32, first),
        ColumnData::Int64(_) => concat!(Int64, first),
        ColumnData::Float(_) => concat!(Float, first),
        ColumnData::Double(_) => concat!(Double, first),
        ColumnData::VarChar(_) => concat!(VarChar, first),
        ColumnData::Json(_) => concat!(Json, first),
        ColumnData::Array(_) => concat!(Array, first),
        ColumnData::FloatVector { dim, .. } => concat_rows!(FloatVector, first, *dim, *dim),
        ColumnData::Float16Vector { dim, .. } => concat_rows!(Float16Vector, first, *dim, *dim),
        ColumnData::BFloat16Vector { dim, .. } => concat_rows!(BFloat16Vector, first, *dim, *dim),
        ColumnData::Int8Vector { dim, .. } => concat_rows!(Int8Vector, first, *dim, *dim),
        ColumnData::BinaryVector { dim, .. } => concat_rows!(BinaryVector, first, *dim, *dim / 8),
        ColumnData::SparseFloatVector { .. } => {
            let mut all = Vec::with_capacity(parts.iter().map(|part| part.rows()).sum());
            for part in parts {
                let ColumnData::SparseFloatVector { data } = &part.data else {
                    return Err(saker_model::ColumnError::Type(first.field).into());
                };
                all.extend(data.iter().cloned());
            }
            ColumnData::SparseFloatVector { data: all }
        }
    };
    let validity = parts.iter().any(|part| part.validity.is_some()).then(|| {
        Bitmap::from_bools(
            parts
                .iter()
                .flat_map(|part| (0..part.rows()).map(|row| part.is_valid(row))),
        )
    });
    Ok(Column {
        field: first.field,
        data,
        validity,
    })
}
