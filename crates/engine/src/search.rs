//! Vector search: bind, search each segment, merge, fetch. What comes before and after is in `searching`.

use rayon::prelude::*;
use saker_model::{
    Bitmap, CollectionSchema, DataType, FieldId, FieldSchema, IndexKind, Limits, MetricType, SparseVector,
};
use saker_query::{Bound, MergeOptions, OutputFields, RankedHit, ScoreRange, SegmentHit, evaluate, merge};
use saker_segment::{Bm25, QueryVector, SearchParams as SegmentParams, SparseQuery, SparseScoring, TermStatistics};

use crate::{
    error::{Error, ErrorKind, Result},
    fetch, index_types,
    mutate::to_ids,
    opened::{Opened, Pinned},
    query::{Source, bind_filter},
    sparse_types::{self, SparseSettings},
    text::WeighedTexts,
    types::{Properties, Queries, SearchRequest, SearchResult},
};

/// What a filter reads of a row, if it has no index to ask.
const FILTER_BYTES_PER_ROW: usize = 8;
/// A walk that may return some rows only is longer.
const FILTERED_DETOUR: usize = 2;

/// A checked request.
pub(crate) struct Plan {
    /// Whether parts of it may run on other threads of the compute pool; if not, it runs where it is.
    spread: bool,
    field: FieldId,
    dim: usize,
    /// Whether it looks into all partitions.
    everywhere: bool,
    sparse: SparseSettings,
    bound: Option<Bound>,
    output: OutputFields,
    params: SegmentParams,
    merge: MergeOptions,
    round_decimal: Option<i32>,
}

impl Plan {
    pub(crate) fn new(opened: &Opened, request: &SearchRequest, spread: bool) -> Result<Self> {
        let schema = &opened.schema;
        let field = vector_field(schema, &request.field)?;
        let metric = metric_of(opened, field, request.metric.as_deref())?;
        let ef = list_of(opened, field, request)?;
        check_queries(schema, field, request)?;
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
            spread,
            field: field.id,
            dim: field.dim,
            everywhere: request.partitions.is_empty(),
            sparse: sparse_settings(opened, field, request)?,
            bound: bind_filter(&request.filter, schema)?,
            output: fetch::resolve(&request.output_fields, schema)?,
            params: SegmentParams { metric, k: wanted, ef },
            merge: MergeOptions {
                metric,
                limit,
                offset,
                range,
            },
            round_decimal: request.round_decimal.filter(|digits| (0..=6).contains(digits)),
        })
    }

    /// The same, whose parts may run on other threads of the compute pool.
    pub(crate) fn spread(self) -> Self {
        Self { spread: true, ..self }
    }

    /// About how many bytes of vectors and columns a search of one query reads: for telling short ones.
    pub(crate) fn expected_bytes(&self, pinned: &[Pinned]) -> usize {
        let of = |pin: &Pinned| {
            let bytes = pin.view.search_bytes(self.field, &self.params);
            if self.bound.is_some() {
                let of_filter = pin.view.rows() * FILTER_BYTES_PER_ROW;
                bytes.saturating_mul(FILTERED_DETOUR).saturating_add(of_filter)
            } else {
                bytes
            }
        };
        pinned.iter().map(of).fold(0, usize::saturating_add)
    }

    pub(crate) fn run(&self, opened: &Opened, pinned: &[Pinned], queries: &Queries) -> Result<SearchResult> {
        let masks = self.masks(opened, pinned)?;
        let texts = self.weigh(opened, pinned, queries)?;
        let queries = self.query_vectors(queries, texts.as_ref());
        let one = |query: QueryVector<'_>| -> Result<Vec<RankedHit>> {
            opened.check()?;
            let search = |(pin, mask): (&Pinned, &Mask)| self.search_segment(pin, mask, query);
            // One segment needs no other thread.
            let hits = if self.spread && pinned.len() > 1 && queries.len() < PARALLEL_QUERIES {
                pinned.par_iter().zip(&masks).map(search).collect::<Result<Vec<_>>>()?
            } else {
                pinned.iter().zip(&masks).map(search).collect::<Result<Vec<_>>>()?
            };
            Ok(merge(hits, self.merge))
        };
        let ranked = match queries.as_slice() {
            [query] => vec![one(*query)?],
            queries => queries
                .par_iter()
                .map(|query| one(*query))
                .collect::<Result<Vec<_>>>()?,
        };
        self.answer(opened, pinned, ranked)
    }

    /// Queries by text as vectors; `None` if they are vectors already.
    fn weigh(&self, opened: &Opened, pinned: &[Pinned], queries: &Queries) -> Result<Option<WeighedTexts>> {
        let Queries::Text(texts) = queries else {
            return Ok(None);
        };
        // How rare a term is does not depend on where it is looked for.
        let all = if self.everywhere { None } else { opened.pin(None) };
        let all = all.as_deref().unwrap_or(pinned);
        let statistics = |terms: &[u32]| {
            let mut known = TermStatistics::default();
            for pin in all {
                opened.check()?;
                known.add(&pin.view.term_statistics(self.field, terms)?);
            }
            Ok(known)
        };
        opened.text.weigh(self.field, texts, statistics).map(Some)
    }

    /// Each query by itself.
    fn query_vectors<'q>(&self, queries: &'q Queries, texts: Option<&'q WeighedTexts>) -> Vec<QueryVector<'q>> {
        let sparse = |vectors: &'q [SparseVector], scoring: SparseScoring| {
            let query = |vector| {
                QueryVector::Sparse(SparseQuery {
                    vector,
                    scoring,
                    drop_ratio: self.sparse.drop_ratio,
                    prune: self.sparse.prune,
                })
            };
            vectors.iter().map(query).collect()
        };
        match queries {
            Queries::Dense(values) => values.chunks_exact(self.dim).map(QueryVector::Dense).collect(),
            Queries::Binary(bytes) => bytes
                .chunks_exact((self.dim / 8).max(1))
                .map(QueryVector::Binary)
                .collect(),
            Queries::Sparse(vectors) => sparse(vectors, SparseScoring::Ip),
            Queries::Text(_) => texts.map_or_else(Vec::new, |texts| {
                let numbers = Bm25 {
                    k1: self.sparse.k1,
                    b: self.sparse.b,
                    average_length: texts.average_length,
                };
                sparse(&texts.vectors, SparseScoring::Bm25(numbers))
            }),
        }
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
        if self.spread && pinned.len() > 1 {
            pinned.par_iter().map(mask).collect()
        } else {
            pinned.iter().map(mask).collect()
        }
    }

    fn search_segment(&self, pin: &Pinned, mask: &Mask, query: QueryVector<'_>) -> Result<Vec<SegmentHit>> {
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
        return Ok(expected.unwrap_or_else(|| {
            if field.data_type == DataType::SparseFloatVector {
                sparse_types::default_metric(&opened.schema, field)
            } else {
                index_types::default_metric(field.data_type)
            }
        }));
    };
    let shown: String = asked.chars().take(32).collect();
    match (MetricType::from_name(asked), expected) {
        (Some(asked), Some(expected)) if asked == expected => Ok(asked),
        (Some(asked), None) if index_types::takes(field.data_type, asked) => Ok(asked),
        (_, Some(expected)) => Err(Error::invalid(format!(
            "metric type not match: invalid parameter[expected={}][actual={shown}]",
            expected.name()
        ))),
        (_, None) => Err(Error::invalid(format!(
            "metric type {shown} is not supported on vectors of type {}",
            field.data_type.name()
        ))),
    }
}

/// How long candidate lists have to be for these settings, by the type of the field's index.
fn list_of(opened: &Opened, field: &FieldSchema, request: &SearchRequest) -> Result<usize> {
    let body = opened.body.load();
    let index = body.indexes.iter().find(|index| index.field == field.id);
    index_types::list_length(index, &request.params, request.params.hits)
}

fn sparse_settings(opened: &Opened, field: &FieldSchema, request: &SearchRequest) -> Result<SparseSettings> {
    if field.data_type != DataType::SparseFloatVector {
        return sparse_types::settings(None, &Properties::new());
    }
    let body = opened.body.load();
    let index = body.indexes.iter().find(|index| index.field == field.id);
    sparse_types::settings(index, &request.params.named)
}

fn check_queries(schema: &CollectionSchema, field: &FieldSchema, request: &SearchRequest) -> Result<()> {
    let count = request.queries_count;
    let max = Limits::QUERIES_MAX;
    if count == 0 || count > max {
        return Err(Error::invalid(format!(
            "nq [{count}] is invalid, it should be in range [1, {max}]"
        )));
    }
    let bytes = |expected: usize, actual: usize| {
        if expected * count == actual {
            return Ok(());
        }
        let actual = actual / count;
        Err(Error::invalid(format!(
            "vector dimension mismatch, expected vector size(byte) {expected}, actual {actual}."
        )))
    };
    match (&request.queries, field.data_type) {
        (Queries::Dense(values), data_type) if data_type.is_dense_vector() => {
            bytes(field.dim * size_of::<f32>(), size_of_val(values.as_slice()))?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::invalid(
                    "a query vector holds a value that is not a number or infinite",
                ));
            }
        }
        (Queries::Binary(values), DataType::BinaryVector) => bytes(field.dim / 8, values.len())?,
        (Queries::Text(texts), DataType::SparseFloatVector)
            if texts.len() == count && schema.is_function_output(field) => {}
        (_, DataType::SparseFloatVector) if schema.is_function_output(field) => {
            return Err(Error::invalid(
                "please provide varchar/text for BM25 Function based search",
            ));
        }
        (Queries::Sparse(vectors), DataType::SparseFloatVector) if vectors.len() == count => {}
        (_, data_type) => {
            return Err(Error::invalid(format!(
                "vector type must be the same, field {} - type {}",
                field.name,
                data_type.name()
            )));
        }
    }
    Ok(())
}
