//! Exact search over chunks, and which rows a search may return.

use std::{cmp::Ordering, sync::Arc};

use saker_index::{Hit, IndexError, RowMask, flat_search};
use saker_model::{Bitmap, CollectionSchema, FieldId};

use crate::{Chunk, SearchParams, SegmentError, SegmentView, metric_of};

/// The rows that a search may return: those allowed, that are not deleted and whose vector is not null. `None` for all.
pub(crate) fn visible(
    view: &dyn SegmentView,
    field: FieldId,
    allowed: Option<&Bitmap>,
) -> Result<Option<Bitmap>, SegmentError> {
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
    if allowed.is_none() && view.deleted_rows() == 0 && !nulls {
        return Ok(None);
    }
    let mut mask = allowed.cloned().unwrap_or_else(|| Bitmap::ones(rows));
    mask.and_not(view.deletes());
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
    Ok(Some(mask))
}

/// The best rows of all chunks, best first, ties by lower row.
pub(crate) fn search_chunks(
    schema: &CollectionSchema,
    chunks: &[Arc<Chunk>],
    field: FieldId,
    query: &[f32],
    params: &SearchParams,
    mask: Option<&Bitmap>,
) -> Result<Vec<Hit>, SegmentError> {
    check_query(schema, field, query)?;
    let metric = metric_of(params.metric);
    let mut hits: Vec<Hit> = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let vectors = chunk.vectors(field).ok_or(SegmentError::NoSuchField(field))?;
        let words = mask.map(|mask| words_from(mask.words(), start, chunk.rows()));
        let mask = words.as_ref().map(|words| RowMask {
            words,
            rows: chunk.rows(),
        });
        let found = flat_search(metric, vectors.as_slice(), vectors.dim(), query, params.k, mask);
        let first = u32::try_from(start).map_err(|_| SegmentError::TooManyRows {
            rows: start,
            rows_max: Chunk::ROWS_MAX,
        })?;
        hits.extend(found.into_iter().map(|hit| Hit {
            row: first + hit.row,
            ..hit
        }));
        start += chunk.rows();
    }
    if chunks.len() > 1 {
        hits.sort_unstable_by(|a, b| better_first(params, a, b));
        hits.truncate(params.k);
    }
    Ok(hits)
}

/// Whether the field is one of vectors and the query one of them.
pub(crate) fn check_query(schema: &CollectionSchema, field: FieldId, query: &[f32]) -> Result<(), SegmentError> {
    let found = schema.field_by_id(field).ok_or(SegmentError::NoSuchField(field))?;
    if !found.data_type.is_vector() {
        return Err(SegmentError::NotAVector {
            field,
            data_type: found.data_type,
        });
    }
    if query.len() != found.dim {
        return Err(IndexError::QueryDimension {
            query: query.len(),
            index: found.dim,
        }
        .into());
    }
    Ok(())
}

/// Scores that are no number come last.
fn better_first(params: &SearchParams, a: &Hit, b: &Hit) -> Ordering {
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
fn words_from(words: &[u64], start: usize, rows: usize) -> Vec<u64> {
    let (word, shift) = (start / 64, start % 64);
    let at = |index: usize| words.get(index).copied().unwrap_or(0);
    (0..rows.div_ceil(64))
        .map(|index| match shift {
            0 => at(word + index),
            _ => at(word + index) >> shift | at(word + index + 1) << (64 - shift),
        })
        .collect()
}
