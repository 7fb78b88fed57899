//! Search and query.
//!
//! Consistency: every acknowledged write is visible at once, which is at least what any consistency level and
//! guarantee timestamp asks for, so both are accepted and need no waiting.

use saker_engine::{Filter, PrimaryKeys, QueryRequest as EngineQuery, SearchRequest as EngineSearch, SearchResult};
use saker_model::{CollectionSchema, FieldSchema, MetricType};
use saker_proto::{
    milvus::{QueryRequest, QueryResults, SearchRequest, SearchResults, search_request::SearchInput},
    schema::{SearchIteratorV2Results, SearchResultData},
};
use uuid::Uuid;

use super::Call;
use crate::{
    node::Node,
    threads::{Computing, may_compute_here},
    wire::{
        Failure,
        rows_out::{COUNT_FIELD, column_out, count_out, ids_out},
        search::{IteratorStep, SearchSettings, filter_in, query_settings, search_settings},
        vectors_in::queries_in,
    },
};

pub(super) async fn search(node: &Node, call: &Call, request: SearchRequest) -> Result<SearchResults, Failure> {
    refuse_unsupported(&request)?;
    let database = call.database(&request.db_name);
    let mut settings = search_settings(request.search_params)?;
    let schema = node
        .engine
        .collection_schema(&database, &request.collection_name)
        .await?;
    let field = field_of(&schema, &settings.field)?;
    let Some(SearchInput::PlaceholderGroup(group)) = request.search_input else {
        return Err(Failure::unsupported("a search by primary keys"));
    };
    let (queries, queries_count) = queries_in(&group, field)?;
    if settings.iterator.is_some() && queries_count != 1 {
        return Err(Failure::invalid("a search iterator takes one vector"));
    }
    let mut wanted = EngineSearch {
        database,
        collection: request.collection_name.clone(),
        partitions: request.partition_names,
        field: field.name.clone(),
        queries,
        queries_count,
        metric: settings.metric.take(),
        limit: settings.limit,
        offset: settings.offset,
        params: std::mem::take(&mut settings.params),
        filter: filter_in(request.dsl, request.expr_template_values)?,
        output_fields: request.output_fields.clone(),
        round_decimal: settings.round_decimal,
    };
    let step = settings.iterator.as_ref();
    if step.is_none() && wanted.params.radius.is_none() {
        wanted.params.hits = Some(settings.offset + settings.limit);
    }
    if let Some(step) = step {
        iterator::narrow(&mut wanted, step)?;
    }
    let here = may_compute_here();
    let computing = Computing::begin();
    let mut found = if here {
        node.engine.search_here_if_short(wanted).await?
    } else {
        Box::pin(node.engine.search(wanted)).await?
    };
    drop(computing);
    let iterator = match step {
        Some(step) => Some(iterator::finish(&mut found, step, settings.limit)),
        None => None,
    };
    node.metrics.searches(u64::try_from(queries_count).unwrap_or(u64::MAX));
    Ok(results(
        found,
        &schema,
        &settings,
        request.output_fields,
        request.collection_name,
        iterator,
        node,
    ))
}

fn results(
    found: SearchResult,
    schema: &CollectionSchema,
    settings: &SearchSettings,
    output_fields: Vec<String>,
    collection_name: String,
    iterator: Option<SearchIteratorV2Results>,
    node: &Node,
) -> SearchResults {
    let output_fields = expand(schema, output_fields);
    let data = SearchResultData {
        num_queries: i64::try_from(found.hits_per_query.len()).unwrap_or(i64::MAX),
        top_k: i64::try_from(settings.limit).unwrap_or(i64::MAX),
        topks: found
            .hits_per_query
            .iter()
            .map(|hits| i64::try_from(*hits).unwrap_or(i64::MAX))
            .collect(),
        fields_data: found
            .columns
            .into_iter()
            .map(|column| column_out(column, schema))
            .collect(),
        scores: found.scores,
        ids: Some(ids_out(found.ids)),
        output_fields,
        search_iterator_v2_results: iterator,
        primary_field_name: found.primary_field,
        ..SearchResultData::default()
    };
    SearchResults {
        status: None,
        results: Some(data),
        collection_name,
        session_ts: node.timestamp().0,
    }
}

pub(super) async fn query(node: &Node, call: &Call, request: QueryRequest) -> Result<QueryResults, Failure> {
    if request.namespace.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err(Failure::unsupported("a namespace"));
    }
    let database = call.database(&request.db_name);
    let settings = query_settings(request.query_params)?;
    let counting = request
        .output_fields
        .iter()
        .any(|field| field.eq_ignore_ascii_case(COUNT_FIELD));
    let filter: Filter = filter_in(request.expr, request.expr_template_values)?;
    if filter.text.trim().is_empty() && settings.limit.is_none() && !counting {
        return Err(Failure::invalid("empty expression should be used with limit"));
    }
    if counting && settings.limit.is_some() {
        return Err(Failure::invalid("count entities with pagination is not allowed"));
    }
    let info = node
        .engine
        .describe_collection(&database, &request.collection_name)
        .await?;
    let wanted = EngineQuery {
        database,
        collection: request.collection_name.clone(),
        partitions: request.partition_names,
        filter,
        output_fields: request.output_fields.clone(),
        limit: settings.limit,
        offset: settings.offset,
    };
    let found = node.engine.query(wanted).await?;
    let fields_data = match found.count {
        Some(count) => vec![count_out(count)],
        None => found
            .columns
            .into_iter()
            .map(|column| column_out(column, &info.schema))
            .collect(),
    };
    Ok(QueryResults {
        status: None,
        fields_data,
        collection_name: request.collection_name,
        output_fields: expand(&info.schema, request.output_fields),
        session_ts: node.timestamp().0,
        primary_field_name: found.primary_field,
        ..QueryResults::default()
    })
}

/// What the caller asked for by name: `*` stands for all fields, the dynamic one too. Clients pick the dynamic keys to
/// show by the names that are no fields.
fn expand(schema: &CollectionSchema, asked: Vec<String>) -> Vec<String> {
    if !asked.iter().any(|name| name == "*") {
        return asked;
    }
    let shown = schema.fields.iter().filter(|field| !schema.is_function_output(field));
    let mut names: Vec<String> = shown.map(|field| field.name.clone()).collect();
    for name in asked {
        if name != "*" && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The vector field to search: the one named, or the only one.
fn field_of<'a>(schema: &'a CollectionSchema, named: &str) -> Result<&'a FieldSchema, Failure> {
    if named.is_empty() {
        let mut vectors = schema.vectors();
        return match (vectors.next(), vectors.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Failure::invalid(
                "multiple anns_fields exist, please specify a anns_field in search_params",
            )),
        };
    }
    let shown = crate::wire::pairs::shorten(named);
    match schema.field(named) {
        Some(field) if field.data_type.is_vector() => Ok(field),
        Some(_) => Err(Failure::invalid(format_args!(
            "field ({shown}) to search is not of vector data type"
        ))),
        None => Err(Failure::invalid(format_args!(
            "failed to get field schema by name: fieldName({shown}) not found"
        ))),
    }
}

fn refuse_unsupported(request: &SearchRequest) -> Result<(), Failure> {
    let unsupported = [
        (request.function_score.is_some(), "a ranker function"),
        (!request.function_chains.is_empty(), "a function chain"),
        (request.highlighter.is_some(), "a highlighter"),
        (request.search_aggregation.is_some(), "a search aggregation"),
        (!request.sub_reqs.is_empty(), "a search of several requests"),
        (
            request.namespace.as_deref().is_some_and(|name| !name.is_empty()),
            "a namespace",
        ),
    ];
    match unsupported.into_iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(Failure::unsupported(what)),
        None => Ok(()),
    }
}

/// The second protocol of search iterators: each step asks for the hits beyond the last score that the caller has. The
/// server keeps nothing between steps; the token says which metric the scores are of.
mod iterator {
    use super::*;

    /// Hits fetched beyond a batch, so that hits with the same score at its end come in the same step.
    const TIES_MAX: usize = 64;

    pub(super) fn narrow(wanted: &mut EngineSearch, step: &IteratorStep) -> Result<(), Failure> {
        wanted.limit = (wanted.limit + TIES_MAX).min(saker_model::Limits::TOP_K_MAX);
        wanted.round_decimal = None;
        if wanted.offset != 0 {
            return Err(Failure::invalid("offset is not supported by a search iterator"));
        }
        let (Some(bound), Some(token)) = (step.last_bound, &step.token) else {
            return Ok(());
        };
        let metric = token.split('-').next().and_then(MetricType::from_name);
        let Some(metric) = metric else {
            return Err(Failure::invalid("the search iterator's token is malformed"));
        };
        wanted.params.range_filter = Some(if metric.larger_is_nearer() {
            bound.next_down()
        } else {
            bound.next_up()
        });
        if wanted.params.radius.is_none() {
            wanted.params.radius = Some(if metric.larger_is_nearer() {
                f32::NEG_INFINITY
            } else {
                f32::INFINITY
            });
        }
        Ok(())
    }

    /// Cuts the hits to a batch (with the ties at its end) and says where the next step goes on.
    pub(super) fn finish(found: &mut SearchResult, step: &IteratorStep, batch: usize) -> SearchIteratorV2Results {
        let mut end = found.scores.len().min(batch);
        while end > 0 && end < found.scores.len() && found.scores[end] == found.scores[end - 1] {
            end += 1;
        }
        cut(found, end);
        let token = step
            .token
            .clone()
            .unwrap_or_else(|| format!("{}-{}", found.metric.name(), Uuid::new_v4().simple()));
        let last_bound = found.scores.last().copied().or(step.last_bound).unwrap_or_default();
        SearchIteratorV2Results { token, last_bound }
    }

    fn cut(found: &mut SearchResult, end: usize) {
        if end >= found.scores.len() {
            return;
        }
        found.scores.truncate(end);
        found.hits_per_query = vec![end];
        match &mut found.ids {
            PrimaryKeys::Int(ids) => ids.truncate(end),
            PrimaryKeys::Text(ids) => ids.truncate(end),
        }
        let kept: Vec<usize> = (0..end).collect();
        for output in &mut found.columns {
            output.column = output.column.take(&kept);
        }
    }
}
