//! Indexes. Which type names are known, and which metrics they allow, is the engine's knowledge.

use std::collections::BTreeMap;

use saker_engine::{IndexInfo, IndexRequest};
use saker_proto::{
    common::{self, IndexState},
    milvus::{
        AlterIndexRequest, CreateIndexRequest, DescribeIndexRequest, DescribeIndexResponse, DropIndexRequest,
        GetIndexBuildProgressRequest, GetIndexBuildProgressResponse, GetIndexStateRequest, GetIndexStateResponse,
        GetIndexStatisticsRequest, GetIndexStatisticsResponse, IndexDescription,
    },
};

use serde_json::Value;

use super::Call;
use crate::{
    node::Node,
    wire::{Failure, failure, pairs},
};

pub(super) async fn create(node: &Node, call: &Call, request: CreateIndexRequest) -> Result<common::Status, Failure> {
    let wanted = IndexRequest {
        field: request.field_name,
        name: Some(request.index_name).filter(|name| !name.is_empty()),
        params: pairs::to_map(request.extra_params)?,
    };
    node.engine
        .create_index(&call.database(&request.db_name), &request.collection_name, wanted)
        .await?;
    Ok(failure::success())
}

pub(super) async fn alter(node: &Node, call: &Call, request: AlterIndexRequest) -> Result<common::Status, Failure> {
    let set = pairs::to_map(request.extra_params)?;
    let (database, collection) = (call.database(&request.db_name), &request.collection_name);
    node.engine
        .alter_index(&database, collection, &request.index_name, set, request.delete_keys)
        .await?;
    Ok(failure::success())
}

pub(super) async fn drop(node: &Node, call: &Call, request: DropIndexRequest) -> Result<common::Status, Failure> {
    let name = if request.index_name.is_empty() {
        request.field_name
    } else {
        request.index_name
    };
    node.engine
        .drop_index(&call.database(&request.db_name), &request.collection_name, &name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn describe(
    node: &Node,
    call: &Call,
    request: DescribeIndexRequest,
) -> Result<DescribeIndexResponse, Failure> {
    let name = if request.index_name.is_empty() {
        request.field_name
    } else {
        request.index_name
    };
    let found = find(node, call, &request.db_name, &request.collection_name, &name).await?;
    Ok(DescribeIndexResponse {
        status: None,
        index_descriptions: found.into_iter().map(description).collect(),
    })
}

pub(super) async fn statistics(
    node: &Node,
    call: &Call,
    request: GetIndexStatisticsRequest,
) -> Result<GetIndexStatisticsResponse, Failure> {
    let found = find(
        node,
        call,
        &request.db_name,
        &request.collection_name,
        &request.index_name,
    )
    .await?;
    Ok(GetIndexStatisticsResponse {
        status: None,
        index_descriptions: found.into_iter().map(description).collect(),
    })
}

pub(super) async fn state(
    node: &Node,
    call: &Call,
    request: GetIndexStateRequest,
) -> Result<GetIndexStateResponse, Failure> {
    let name = if request.index_name.is_empty() {
        request.field_name
    } else {
        request.index_name
    };
    let found = find(node, call, &request.db_name, &request.collection_name, &name).await?;
    let unfinished = found.iter().find(|index| state_of(index) != IndexState::Finished);
    Ok(GetIndexStateResponse {
        status: None,
        state: unfinished.map_or(IndexState::Finished, state_of) as i32,
        fail_reason: unfinished.and_then(|index| index.failure.clone()).unwrap_or_default(),
    })
}

pub(super) async fn progress(
    node: &Node,
    call: &Call,
    request: GetIndexBuildProgressRequest,
) -> Result<GetIndexBuildProgressResponse, Failure> {
    let name = if request.index_name.is_empty() {
        request.field_name
    } else {
        request.index_name
    };
    let found = find(node, call, &request.db_name, &request.collection_name, &name).await?;
    Ok(GetIndexBuildProgressResponse {
        status: None,
        indexed_rows: rows(found.iter().map(|index| index.indexed_rows).sum()),
        total_rows: rows(found.iter().map(|index| index.total_rows).sum()),
    })
}

async fn find(
    node: &Node,
    call: &Call,
    database: &str,
    collection: &str,
    name: &str,
) -> Result<Vec<IndexInfo>, Failure> {
    let found = node
        .engine
        .describe_index(&call.database(database), collection, name)
        .await?;
    if found.is_empty() {
        Err(Failure::index_not_found(name, collection))
    } else {
        Ok(found)
    }
}

fn state_of(index: &IndexInfo) -> IndexState {
    if index.failure.is_some() {
        IndexState::Failed
    } else if index.indexed_rows < index.total_rows {
        IndexState::InProgress
    } else {
        IndexState::Finished
    }
}

fn description(index: IndexInfo) -> IndexDescription {
    let state = state_of(&index) as i32;
    let mut params = flat(index.spec.params);
    params.entry("index_type".to_owned()).or_insert(index.spec.type_name);
    if let Some(metric) = index.spec.metric {
        params
            .entry("metric_type".to_owned())
            .or_insert_with(|| metric.name().to_owned());
    }
    IndexDescription {
        index_name: index.spec.name,
        index_id: index.spec.field.0,
        params: pairs::from_map(&params),
        field_name: index.field,
        indexed_rows: rows(index.indexed_rows),
        total_rows: rows(index.total_rows),
        state,
        index_state_fail_reason: index.failure.unwrap_or_default(),
        pending_index_rows: rows(index.total_rows.saturating_sub(index.indexed_rows)),
        ..IndexDescription::default()
    }
}

/// Parameters that came as JSON text under `params`, beside the others: as Milvus shows them.
fn flat(mut params: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(Ok(nested)) = params.get("params").map(|text| pairs::object("params", text)) else {
        return params;
    };
    params.remove("params");
    for (name, value) in nested {
        let text = match value {
            Value::String(text) => text,
            value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                value.to_string()
            }
        };
        params.entry(name).or_insert(text);
    }
    params
}

fn rows(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
