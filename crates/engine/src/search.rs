//! Vector search: pin, bind, search each segment, merge, fetch.

use std::sync::Arc;

use rayon::prelude::*;
use saker_model::{Bitmap, CollectionSchema, FieldId, FieldSchema, IndexKind, Limits, MetricType};
use saker_query::{Bound, MergeOptions, OutputFields, RankedHit, ScoreRange, SegmentHit, evaluate, merge};
use saker_segment::SearchParams as SegmentParams;

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    fetch,
    mutate::to_ids,
    opened::{Opened, Pinned},
    query::{Source, bind_filter},
    types::{SearchRequest, SearchResult},
};

impl Engine {
    /// Nearest neighbours. Sees every write that was acknowledged before.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotLoaded`], [`ErrorKind::InvalidParameter`] and others for a wrong request; a locked
    /// zone, also if it was locked while the search ran.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResult> {
        let collection = self.collection(&request.database, &request.collection)?;
        let opened = collection.reading()?;
        let partitions = opened.partitions(&request.partitions)?;
        let pinned = collection.pin(&opened, partitions.as_deref())?;
        let running = Arc::clone(&opened);
        let queries = request.queries_count;
        // Checking and parsing too: a filter may be megabytes of ids.
        let outcome = self
            .shared
            .compute(move || Plan::new(&running, &request)?.run(&running, &pinned, &request.queries))
            .await;
        // Nothing is answered from memory after the lock.
        opened.check()?;
        let result = outcome.map_err(|error| opened.access.explain(error))?;
        self.shared.emit(&Event::Searched {
            database: opened.access.database(),
            queries,
        });
        Ok(result)
    }
}

/// A checked request.
struct Plan {
    field: FieldId,
    dim: usize,
    bound: Option<Bound>,
    output: OutputFields,
    params: SegmentParams,
    merge: MergeOptions,
    round_decimal: Option<i32>,
}

impl Plan {
    fn new(opened: &Opened, request: &SearchRequest) -> Result<Self> {
        let schema = &opened.schema;
        let field = vector_field(schema, &request.field)?;
        let metric = metric_of(opened, field, request.metric.as_deref())?;
        check_queries(field, request)?;
        let (limit, offset) = (request.limit, request.offset);
        let max = Limits::TOP_K_MAX;
        if limit == 0 || limit > max {
            return Err(Error::invalid(format!(
                "topk [{limit}] is invalid, it should be in range [1, {max}]"
            )));
        }
        if offset.saturating_add(limit) > max {
            return Err(Error::invalid(format!(
                "offset+limit ({offset}+{limit}) should be in range [1, {max}]"
            )));
        }
        let range = ScoreRange::new(metric, request.params.radius, request.params.range_filter)
            .map_err(|error| Error::invalid(error.to_string()))?;
        // Rows nearer than a range's inner bound take places in the list, so it has to be longer.
        let wanted = if request.params.range_filter.is_some() {
            max
        } else {
            offset + limit
        };
        Ok(Self {
            field: field.id,
            dim: field.dim,
            bound: bind_filter(&request.filter, schema)?,
            output: fetch::resolve(&request.output_fields, schema)?,
            params: SegmentParams {
                metric,
                k: wanted,
                ef: request.params.ef.unwrap_or(0),
            },
            merge: MergeOptions {
                metric,
                limit,
                offset,
                range,
            },
            round_decimal: request.round_decimal.filter(|digits| (0..=6).contains(digits)),
        })
    }

    fn run(&self, opened: &Opened, pinned: &[Pinned], queries: &[f32]) -> Result<SearchResult> {
        let masks = self.masks(opened, pinned)?;
        let queries: Vec<&[f32]> = queries.chunks_exact(self.dim).collect();
        let one = |query: &[f32]| -> Result<Vec<RankedHit>> {
            opened.check()?;
            let search = |(pin, mask): (&Pinned, &Mask)| self.search_segment(pin, mask, query);
            // One segment needs no other thread.
            let hits = if pinned.len() > 1 && queries.len() < PARALLEL_QUERIES {
                pinned.par_iter().zip(&masks).map(search).collect::<Result<Vec<_>>>()?
            } else {
                pinned.iter().zip(&masks).map(search).collect::<Result<Vec<_>>>()?
            };
            Ok(merge(hits, self.merge))
        };
        let ranked = match queries.as_slice() {
            [query] => vec![one(query)?],
            queries => queries.par_iter().map(|query| one(query)).collect::<Result<Vec<_>>>()?,
        };
        self.answer(opened, pinned, ranked)
    }

    fn masks(&self, opened: &Opened, pinned: &[Pinned]) -> Result<Vec<Mask>> {
        let Some(bound) = self.bound.as_ref().filter(|bound| !bound.selects_everything()) else {
            return Ok(pinned.iter().map(|_| Mask::All).collect());
        };
        let mask = |pin: &Pinned| {
            opened.check()?;
            let selected = evaluate(bound, &Source(&*pin.view))?;
            Ok(if selected.count_ones() == 0 {
                Mask::None
            } else {
                Mask::Some(selected)
            })
        };
        if pinned.len() > 1 {
            pinned.par_iter().map(mask).collect()
        } else {
            pinned.iter().map(mask).collect()
        }
    }

    fn search_segment(&self, pin: &Pinned, mask: &Mask, query: &[f32]) -> Result<Vec<SegmentHit>> {
        let allowed = match mask {
            Mask::All => None,
            Mask::None => return Ok(Vec::new()),
            Mask::Some(selected) => Some(selected),
        };
        let hits = pin.view.search_vectors(self.field, query, &self.params, allowed)?;
        let hits = hits.into_iter().map(|hit| {
            let row = hit.row as usize;
            let key = pin
                .view
                .primary_key(row)
                .ok_or_else(|| Error::internal("a hit without primary key"))?;
            Ok(SegmentHit {
                row,
                score: hit.score,
                primary_key: key,
            })
        });
        hits.collect()
    }

    fn answer(&self, opened: &Opened, pinned: &[Pinned], ranked: Vec<Vec<RankedHit>>) -> Result<SearchResult> {
        let hits_per_query = ranked.iter().map(Vec::len).collect();
        let hits: Vec<RankedHit> = ranked.into_iter().flatten().collect();
        let places: Vec<_> = hits.iter().map(|hit| (hit.segment, hit.row)).collect();
        let columns = fetch::fetch(pinned, &places, &self.output, &opened.schema)?;
        let scores = hits.iter().map(|hit| rounded(hit.score, self.round_decimal)).collect();
        Ok(SearchResult {
            hits_per_query,
            ids: to_ids(opened, hits.into_iter().map(|hit| hit.primary_key))?,
            scores,
            columns,
            metric: self.merge.metric,
            primary_field: opened
                .schema
                .primary()
                .map(|field| field.name.clone())
                .unwrap_or_default(),
        })
    }
}

/// Which rows of a segment may be hits.
enum Mask {
    All,
    None,
    Some(Bitmap),
}

/// From this many queries on, the queries alone keep all processors busy.
const PARALLEL_QUERIES: usize = 16;

fn rounded(score: f32, digits: Option<i32>) -> f32 {
    let Some(digits) = digits else { return score };
    let factor = 10_f64.powi(digits);
    #[expect(clippy::cast_possible_truncation, reason = "back to the precision that it had")]
    let rounded = ((f64::from(score) * factor).round() / factor) as f32;
    rounded
}

fn vector_field<'a>(schema: &'a CollectionSchema, name: &str) -> Result<&'a FieldSchema> {
    if name.is_empty() {
        let mut vectors = schema.vectors();
        return match (vectors.next(), vectors.next()) {
            (Some(field), None) => Ok(field),
            _ => Err(Error::invalid(
                "multiple anns_fields exist, please specify a anns_field in search_params",
            )),
        };
    }
    let shown: String = name.chars().take(Limits::NAME_BYTES_MAX).collect();
    let field = schema.field(name).ok_or_else(|| {
        Error::new(
            ErrorKind::FieldNotFound,
            format!("failed to get field schema by name: fieldName({shown}) not found"),
        )
    })?;
    if !field.data_type.is_vector() {
        return Err(Error::invalid(format!(
            "field ({shown}) to search is not of vector data type"
        )));
    }
    Ok(field)
}

/// The index's metric, which the caller's must be.
fn metric_of(opened: &Opened, field: &FieldSchema, asked: Option<&str>) -> Result<MetricType> {
    let body = opened.body.load();
    let index = body
        .indexes
        .iter()
        .find(|index| index.field == field.id && index.kind != IndexKind::Scalar);
    let expected = index.and_then(|index| index.metric);
    let Some(asked) = asked.filter(|name| !name.is_empty()) else {
        return Ok(expected.unwrap_or(MetricType::Cosine));
    };
    let shown: String = asked.chars().take(32).collect();
    match (MetricType::from_name(asked), expected) {
        (Some(asked), Some(expected)) if asked == expected => Ok(asked),
        (Some(asked), None) => Ok(asked),
        (_, Some(expected)) => Err(Error::invalid(format!(
            "metric type not match: invalid parameter[expected={}][actual={shown}]",
            expected.name()
        ))),
        (None, None) => Err(Error::invalid(format!(
            "metric type {shown} is not supported; use L2, IP or COSINE"
        ))),
    }
}

fn check_queries(field: &FieldSchema, request: &SearchRequest) -> Result<()> {
    let (count, values) = (request.queries_count, request.queries.len());
    let max = Limits::QUERIES_MAX;
    if count == 0 || count > max {
        return Err(Error::invalid(format!(
            "nq [{count}] is invalid, it should be in range [1, {max}]"
        )));
    }
    if values != count * field.dim {
        let (expected, actual) = (field.dim * size_of::<f32>(), values / count * size_of::<f32>());
        return Err(Error::invalid(format!(
            "vector dimension mismatch, expected vector size(byte) {expected}, actual {actual}."
        )));
    }
    if request.queries.iter().any(|value| !value.is_finite()) {
        return Err(Error::invalid(
            "a query vector holds a value that is not a number or infinite",
        ));
    }
    Ok(())
}
