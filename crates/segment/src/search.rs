//! Search over chunks, by their lists where they have some and else exactly, and which rows a search may return.

use std::{borrow::Cow, cmp::Ordering, sync::Arc};

use saker_index::{BinaryMetric, Hit, IndexError, RowMask, exact_search};
use saker_model::{Bitmap, CollectionSchema, DataType, FieldId, MetricType};

use crate::{
    Chunk, QueryVector, SearchParams, SegmentError, SegmentView, VectorRows, metric_of, sparse::search_sparse,
};

/// The rows that a search may return: those allowed, that are not deleted and whose vector is not null. `None` for all.
pub(crate) fn visible<'a>(
    view: &'a dyn SegmentView,
    field: FieldId,
    allowed: Option<&'a Bitmap>,
) -> Result<Option<Cow<'a, Bitmap>>, SegmentError> {
    let rows = view.rows();
    if let Some(allowed) = allowed
        && allowed.len() != rows
    {
        return Err(IndexError::MaskRows {
            mask: allowed.len(),
            index: rows,
        }
        .into());
    }
    let nulls = view.chunks().iter().any(|chunk| chunk.vector_validity(field).is_some());
    let deleted = view.deleted_rows() > 0;
    let mut mask = match allowed {
        None if !deleted && !nulls => return Ok(None),
        Some(allowed) if !deleted && !nulls => return Ok(Some(Cow::Borrowed(allowed))),
        // Worked out once for all searches that see these deletes.
        None if !nulls => return Ok(Some(Cow::Borrowed(view.live()))),
        None => view.live().clone(),
        Some(allowed) => {
            let mut mask = allowed.clone();
            mask.and_not(view.deletes());
            mask
        }
    };
    if nulls {
        let mut row = 0;
        for chunk in view.chunks() {
            if let Some(validity) = chunk.vector_validity(field) {
                (0..chunk.rows())
                    .filter(|&local| !validity.contains(local))
                    .for_each(|local| mask.set(row + local, false));
            }
            row += chunk.rows();
        }
    }
    Ok(Some(Cow::Owned(mask)))
}

/// The best rows of all chunks, best first, ties by lower row.
pub(crate) fn search_chunks(
    schema: &CollectionSchema,
    chunks: &[Arc<Chunk>],
    field: FieldId,
    query: QueryVector<'_>,
    params: &SearchParams,
    mask: Option<&Bitmap>,
) -> Result<Vec<Hit>, SegmentError> {
    if let QueryVector::Binary(query) = query {
        return search_bits(schema, chunks, field, query, params, mask);
    }
    if let QueryVector::Sparse(query) = query {
        return search_sparse(schema, chunks, field, &query, params, mask, None);
    }
    let query = dense_query(schema, field, query)?;
    let metric = metric_of(params.metric).ok_or(SegmentError::QueryKind {
        field,
        data_type: DataType::FloatVector,
    })?;
    let mut hits: Vec<Hit> = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let vectors = chunk.vectors(field).ok_or(SegmentError::NoSuchField(field))?;
        let words = mask.map(|mask| words_from(mask.words(), start, chunk.rows()));
        let mask = words.as_ref().map(|words| RowMask {
            words,
            rows: chunk.rows(),
        });
        let first = u32::try_from(start).map_err(|_| SegmentError::TooManyRows {
            rows: start,
            rows_max: Chunk::ROWS_MAX,
        })?;
        start += chunk.rows();
        let found = match chunk.lists.find(field, params.metric) {
            Some(lists) if params.ef != SearchParams::EXACT => lists.search(query, params.k, params.ef, mask)?,
            Some(_) | None => exact_search(metric, vectors, query, params.k, mask),
        };
        hits.extend(found.into_iter().map(|hit| Hit {
            row: first + hit.row,
            ..hit
        }));
    }
    if chunks.len() > 1 {
        hits.sort_unstable_by(|a, b| better_first(params, a, b));
        hits.truncate(params.k);
    }
    Ok(hits)
}

/// [`search_chunks`] of a field of binary vectors.
fn search_bits(
    schema: &CollectionSchema,
    chunks: &[Arc<Chunk>],
    field: FieldId,
    query: &[u8],
    params: &SearchParams,
    mask: Option<&Bitmap>,
) -> Result<Vec<Hit>, SegmentError> {
    let found = schema.field_by_id(field).ok_or(SegmentError::NoSuchField(field))?;
    let refused = SegmentError::QueryKind {
        field,
        data_type: found.data_type,
    };
    let metric = match params.metric {
        MetricType::Hamming => BinaryMetric::Hamming,
        MetricType::Jaccard => BinaryMetric::Jaccard,
        MetricType::L2 | MetricType::Ip | MetricType::Cosine | MetricType::Bm25 => return Err(refused),
    };
    let mut hits: Vec<Hit> = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let vectors = match chunk.vector_rows(field) {
            Some(VectorRows::Binary(vectors)) => vectors,
            Some(_) => return Err(refused),
            None => return Err(SegmentError::NoSuchField(field)),
        };
        let words = mask.map(|mask| words_from(mask.words(), start, chunk.rows()));
        let mask = words.as_ref().map(|words| RowMask {
            words,
            rows: chunk.rows(),
        });
        let first = u32::try_from(start).map_err(|_| SegmentError::TooManyRows {
            rows: start,
            rows_max: Chunk::ROWS_MAX,
        })?;
        start += chunk.rows();
        let found = vectors.search(metric, query, params.k, mask)?;
        hits.extend(found.into_iter().map(|hit| Hit {
            row: first + hit.row,
            ..hit
        }));
    }
    if chunks.len() > 1 {
        hits.sort_unstable_by(|a, b| better_first(params, a, b));
        hits.truncate(params.k);
    }
    Ok(hits)
}

/// The query of a field of dense vectors, checked against it.
pub(crate) fn dense_query<'q>(
    schema: &CollectionSchema,
    field: FieldId,
    query: QueryVector<'q>,
) -> Result<&'q [f32], SegmentError> {
    let found = schema.field_by_id(field).ok_or(SegmentError::NoSuchField(field))?;
    if !found.data_type.is_vector() {
        return Err(SegmentError::NotAVector {
            field,
            data_type: found.data_type,
        });
    }
    let (QueryVector::Dense(query), true) = (query, found.data_type.is_dense_vector()) else {
        return Err(SegmentError::QueryKind {
            field,
            data_type: found.data_type,
        });
    };
    if query.len() != found.dim {
        return Err(IndexError::QueryDimension {
            query: query.len(),
            index: found.dim,
        }
        .into());
    }
    Ok(query)
}

/// Scores that are no number come last.
pub(crate) fn better_first(params: &SearchParams, a: &Hit, b: &Hit) -> Ordering {
    match (a.score.is_nan(), b.score.is_nan()) {
        (false, false) => {
            let order = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
            if params.metric.larger_is_nearer() {
                order.reverse()
            } else {
                order
            }
        }
        (mine, theirs) => mine.cmp(&theirs),
    }
    .then(a.row.cmp(&b.row))
}

/// `rows` bits from bit `start` on, as words of their own.
pub(crate) fn words_from(words: &[u64], start: usize, rows: usize) -> Vec<u64> {
    let (word, shift) = (start / 64, start % 64);
    let at = |index: usize| words.get(index).copied().unwrap_or(0);
    (0..rows.div_ceil(64))
        .map(|index| match shift {
            0 => at(word + index),
            _ => at(word + index) >> shift | at(word + index + 1) << (64 - shift),
        })
        .collect()
}
