//! A segment that takes rows, in memory. Its rows are durable in the log only.
//!
//! Rows are kept in immutable chunks, so readers share them and never wait for a copy. Small batches become small
//! chunks; neighbours are put together until they hold about [`CHUNK_ROWS`] rows, in the manner of a binary counter, so
//! each row is copied a few times at most and a search meets few chunks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use saker_index::Hit;
use saker_model::{
    Bitmap, CollectionSchema, Column, ColumnData, FieldId, PartitionId, PrimaryKey, RowBatch, SegmentId, Timestamp,
};

use crate::{
    Chunk, SearchParams, SegmentError, SegmentView,
    lookup::{HashedRows, holds},
    search::{search_chunks, visible},
};

/// Rows beyond which chunks are left as they are.
pub const CHUNK_ROWS: usize = 8_192;

/// A growing segment. All methods may be called from any thread; appends wait for one another, readers for nobody long.
pub struct GrowingSegment {
    segment: SegmentId,
    partition: PartitionId,
    schema: Arc<CollectionSchema>,
    /// Held by an append while it puts chunks together, so that readers need not wait for that.
    appending: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    chunks: Chunks,
    deletes: Arc<Bitmap>,
    /// Deleted rows and when, in order of deleting.
    deleted: Vec<(u32, u64)>,
    lookup: HashedRows,
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
    deletes: Arc<Bitmap>,
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
        if rows.rows() == 0 {
            return Ok(());
        }
        let added = Arc::new(Chunk::new(&self.schema, rows, timestamps)?);
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mut tail) = {
            let state = self.state();
            (state.chunks.rows, state.chunks.tail_to_merge(added.rows()))
        };
        let total = first + added.rows();
        if total > Self::ROWS_MAX {
            return Err(SegmentError::TooManyRows {
                rows: total,
                rows_max: Self::ROWS_MAX,
            });
        }
        let merged = tail.len();
        tail.push(Arc::clone(&added));
        let chunk = if merged == 0 {
            Arc::clone(&added)
        } else {
            Arc::new(Chunk::concat(&tail)?)
        };

        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.chunks.replace_tail(merged, chunk, total);
        Arc::make_mut(&mut state.deletes).extend(added.rows(), false);
        if let (Some(keys), Ok(first)) = (added.primary_column(), u32::try_from(first)) {
            state.lookup.extend(keys, first);
        }
        Ok(())
    }

    /// Deletes the rows with this key that were written before `at`; how many there were.
    pub fn delete(&self, key: &PrimaryKey, at: Timestamp) -> usize {
        self.delete_all(std::slice::from_ref(key), at)
    }
    /// Like [`Self::delete`], for many keys at once.
    pub fn delete_all(&self, keys: &[PrimaryKey], at: Timestamp) -> usize {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State {
            chunks,
            deletes,
            deleted,
            lookup,
        } = &mut *state;
        let before = deleted.len();
        for key in keys {
            for &row in lookup.candidates(key) {
                if !deletes.contains(row as usize)
                    && let Some((chunk, local)) = chunks.locate(row as usize)
                    && chunk.timestamps().get(local).is_some_and(|written| *written < at.0)
                    && chunk.primary_column().is_some_and(|column| holds(column, local, key))
                {
                    // Copied at most once per call, and only if a reader holds the old one.
                    Arc::make_mut(deletes).set(row as usize, true);
                    deleted.push((row, at.0));
                }
            }
        }
        deleted.len() - before
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
        &self.deletes
    }
    fn deleted_rows(&self) -> usize {
        self.deleted
    }
    fn search_vectors(
        &self,
        field: FieldId,
        query: &[f32],
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
            mask.as_ref(),
        )
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
            let parts: Vec<Column> = parts.collect::<Option<_>>().ok_or(SegmentError::NoSuchField(field))?;
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
        let state = self.segment.state();
        let candidates = state.lookup.candidates(key).iter().map(|&row| row as usize);
        let holds = |&row: &usize| {
            !self.deletes.contains(row)
                && self.chunks.locate(row).is_some_and(|(chunk, local)| {
                    chunk.primary_column().is_some_and(|column| holds(column, local, key))
                })
        };
        candidates.filter(holds).collect()
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
        ColumnData::FloatVector { dim, .. } => {
            let mut all = Vec::with_capacity(parts.iter().map(|part| part.rows() * dim).sum());
            for part in parts {
                let ColumnData::FloatVector { dim: other, data } = &part.data else {
                    return Err(saker_model::ColumnError::Type(first.field).into());
                };
                if other != dim {
                    return Err(saker_model::ColumnError::Type(first.field).into());
                }
                all.extend_from_slice(data);
            }
            ColumnData::FloatVector { dim: *dim, data: all }
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
