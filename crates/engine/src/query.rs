//! Rows by filter, in ascending order of their primary keys; and counting.

use std::{cmp::Ordering, sync::Arc};

use rayon::prelude::*;
use saker_model::{Bitmap, CollectionSchema, Column, ColumnData, FieldId, Limits, PrimaryKey};
use saker_query::{Bound, ColumnSource, OutputFields, bind, evaluate, parse};
use saker_segment::{ScalarIndex, SegmentView};

use crate::{
    engine::Engine,
    error::{Error, Result},
    events::Event,
    fetch::{self, Place},
    opened::{Opened, Pinned},
    types::{Filter, QueryRequest, QueryResult},
};

/// Most rows that one query returns; more would not fit into one answer of reasonable size.
const ROWS_MAX: usize = 1 << 20;

impl Engine {
    /// Rows by filter. Sees every write that was acknowledged before.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotLoaded`](crate::ErrorKind), [`ErrorKind::InvalidParameter`](crate::ErrorKind) and
    /// others for a wrong request; a locked zone, also if it was locked while the query ran.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryResult> {
        let collection = self.collection(&request.database, &request.collection)?;
        let opened = collection.reading()?;
        let partitions = opened.partitions(&request.partitions)?;
        let pinned = collection.pin(&opened, partitions.as_deref())?;
        let running = Arc::clone(&opened);
        let outcome = self
            .shared
            .compute(move || {
                let schema = &running.schema;
                let output = fetch::resolve(&request.output_fields, schema)?.with_primary(schema);
                let window = window(&request, &output)?;
                let bound = bind_filter(&request.filter, schema)?;
                run(&running, &pinned, bound.as_ref(), &output, window)
            })
            .await;
        // Nothing is answered from memory after the lock.
        opened.check()?;
        let result = outcome.map_err(|error| opened.access.explain(error))?;
        self.shared.emit(&Event::Queried {
            database: opened.access.database(),
            rows: result.rows,
        });
        Ok(result)
    }
}

/// Rows to leave out and to return.
#[derive(Clone, Copy)]
struct Window {
    offset: usize,
    limit: Option<usize>,
}

fn window(request: &QueryRequest, output: &OutputFields) -> Result<Window> {
    let (offset, limit) = (request.offset, request.limit);
    let max = Limits::TOP_K_MAX;
    if output.is_count() {
        if limit.is_some() {
            return Err(Error::invalid("count entities with pagination is not allowed"));
        }
        return Ok(Window { offset: 0, limit: None });
    }
    match limit {
        Some(limit) if limit == 0 || offset.saturating_add(limit) > max => Err(Error::invalid(format!(
            "invalid max query result window, (offset+limit) should be in range [1, {max}], but got {}",
            offset.saturating_add(limit)
        ))),
        None if request.filter.text.trim().is_empty() => {
            Err(Error::invalid("empty expression should be used with limit"))
        }
        None => Ok(Window { offset: 0, limit }),
        Some(_) => Ok(Window { offset, limit }),
    }
}

fn run(
    opened: &Opened,
    pinned: &[Pinned],
    bound: Option<&Bound>,
    output: &OutputFields,
    window: Window,
) -> Result<QueryResult> {
    let primary_field = opened
        .schema
        .primary()
        .map(|field| field.name.clone())
        .unwrap_or_default();
    opened.check()?;
    let selected = select(pinned, bound)?;
    if output.is_count() {
        let count = selected.iter().map(Selected::count).sum::<usize>() as u64;
        return Ok(QueryResult {
            columns: Vec::new(),
            rows: 1,
            count: Some(count),
            primary_field,
        });
    }
    opened.check()?;
    let places = ordered(pinned, &selected, window)?;
    opened.check()?;
    let columns = fetch::fetch(pinned, &places, output, &opened.schema)?;
    Ok(QueryResult {
        columns,
        rows: places.len(),
        count: None,
        primary_field,
    })
}

/// The rows of one segment that match.
enum Selected {
    Rows(Vec<usize>),
    Bits(Bitmap),
}

impl Selected {
    fn count(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Bits(bits) => bits.count_ones(),
        }
    }
    fn for_each(&self, visit: impl FnMut(usize)) {
        match self {
            Self::Rows(rows) => rows.iter().copied().for_each(visit),
            Self::Bits(bits) => bits.iter_ones().for_each(visit),
        }
    }
}

fn select(pinned: &[Pinned], bound: Option<&Bound>) -> Result<Vec<Selected>> {
    if let Some(keys) = bound.and_then(Bound::primary_keys) {
        let find = |pin: &Pinned| keys.iter().flat_map(|key| pin.view.find(key)).collect();
        return Ok(pinned.iter().map(|pin| Selected::Rows(find(pin))).collect());
    }
    let one = |pin: &Pinned| {
        let mut bits = match bound {
            Some(bound) => evaluate(bound, &Source(&*pin.view))?,
            None => Bitmap::ones(pin.view.rows()),
        };
        bits.and_not(pin.view.deletes());
        Ok(Selected::Bits(bits))
    };
    if pinned.len() > 1 {
        pinned.par_iter().map(one).collect()
    } else {
        pinned.iter().map(one).collect()
    }
}

/// A row with its key, borrowed from the segment.
#[derive(Clone, Copy)]
struct Keyed<'a> {
    key: Key<'a>,
    written: u64,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Int(i64),
    Text(&'a str),
}

/// The wanted rows in order of key; of rows with one key the newest counts.
fn ordered(pinned: &[Pinned], selected: &[Selected], window: Window) -> Result<Vec<Place>> {
    let total: usize = selected.iter().map(Selected::count).sum();
    if window.limit.is_none() && total > ROWS_MAX {
        return Err(Error::invalid(format!(
            "the query matches {total} rows, at most {ROWS_MAX} are returned; give a limit"
        )));
    }
    let mut rows = Vec::with_capacity(total);
    for (index, (pin, selected)) in pinned.iter().zip(selected).enumerate() {
        let keys = Keys::of(&*pin.view);
        let mut cursor = 0;
        selected.for_each(|row| {
            if let Some((key, written)) = keys.at(row, &mut cursor) {
                rows.push(Keyed {
                    key,
                    written,
                    place: (index, row),
                });
            }
        });
    }
    let order = |a: &Keyed<'_>, b: &Keyed<'_>| -> Ordering {
        a.key
            .cmp(&b.key)
            .then(b.written.cmp(&a.written))
            .then(a.place.cmp(&b.place))
    };
    let mut wanted = window.limit.map(|limit| window.offset + limit);
    loop {
        // Only the front needs an order; rows with the same key may make it shorter than hoped.
        let front = wanted.unwrap_or(rows.len()).min(rows.len());
        if front < rows.len() {
            rows.select_nth_unstable_by(front, order);
        }
        let mut places: Vec<Keyed<'_>> = rows[..front].to_vec();
        places.sort_unstable_by(order);
        places.dedup_by(|later, first| later.key == first.key);
        let needed = window.limit.map_or(usize::MAX, |limit| window.offset + limit);
        if places.len() >= needed || front == rows.len() {
            let places = places.into_iter().map(|row| row.place).skip(window.offset);
            return Ok(places.take(window.limit.unwrap_or(usize::MAX)).collect());
        }
        wanted = wanted.map(|wanted| wanted.saturating_mul(2));
    }
}

/// The keys of a view's chunks.
struct Keys<'a>(Vec<(usize, &'a saker_segment::Chunk)>);

impl<'a> Keys<'a> {
    fn of(view: &'a dyn SegmentView) -> Self {
        let mut start = 0;
        let chunks = view.chunks().iter().map(|chunk| {
            let entry = (start, &**chunk);
            start += chunk.rows();
            entry
        });
        Self(chunks.collect())
    }
    /// Key and timestamp of a row. `cursor` remembers the chunk: rows mostly come in order.
    fn at(&self, row: usize, cursor: &mut usize) -> Option<(Key<'a>, u64)> {
        let holds = |index: usize| {
            self.0
                .get(index)
                .is_some_and(|(start, c)| row >= *start && row < start + c.rows())
        };
        if !holds(*cursor) {
            *cursor = self.0.partition_point(|(start, _)| *start <= row).checked_sub(1)?;
        }
        let (start, chunk) = self.0.get(*cursor)?;
        let row = row - start;
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other type is a primary key")]
        let key = match &chunk.primary_column()?.data {
            ColumnData::Int64(keys) => Key::Int(*keys.get(row)?),
            ColumnData::VarChar(keys) => Key::Text(keys.get(row)?),
            _ => return None,
        };
        Some((key, *chunk.timestamps().get(row)?))
    }
}

/// The primary keys of all rows that match, each once, in order.
///
/// # Errors
/// If the filter does not fit the rows: a bug.
pub(crate) fn matching_keys(pinned: &[Pinned], bound: Option<&Bound>) -> Result<Vec<PrimaryKey>> {
    let selected = select(pinned, bound)?;
    let mut keys = Vec::with_capacity(selected.iter().map(Selected::count).sum());
    for (pin, selected) in pinned.iter().zip(&selected) {
        selected.for_each(|row| keys.extend(pin.view.primary_key(row)));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Parses and binds a filter; `None` for an empty one.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind) with where and why; never with the filter's text.
pub(crate) fn bind_filter(filter: &Filter, schema: &CollectionSchema) -> Result<Option<Bound>> {
    if filter.text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(bind(&parse(&filter.text)?, schema, &filter.templates)?))
}

/// A segment as the filter language sees it.
pub(crate) struct Source<'a>(pub(crate) &'a dyn SegmentView);

impl ColumnSource for Source<'_> {
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn chunks(&self) -> usize {
        self.0.chunks().len()
    }
    fn chunk_rows(&self, chunk: usize) -> usize {
        self.0.chunks().get(chunk).map_or(0, |chunk| chunk.rows())
    }
    fn column(&self, chunk: usize, field: FieldId) -> Option<&Column> {
        self.0.chunks().get(chunk)?.column(field)
    }
    fn indexes(&self, chunk: usize) -> &[Arc<ScalarIndex>] {
        self.0.scalar_indexes(chunk)
    }
}
