//! Collections: define, describe, load, count.

use saker_engine::{CollectionInfo, CollectionSpec, LoadState};
use saker_model::CollectionSchema;
use saker_proto::{
    common,
    milvus::{
        AlterCollectionFieldRequest, AlterCollectionRequest, BatchDescribeCollectionRequest,
        BatchDescribeCollectionResponse, BoolResponse, CreateCollectionRequest, DescribeCollectionRequest,
        DescribeCollectionResponse, DropCollectionRequest, GetCollectionStatisticsRequest,
        GetCollectionStatisticsResponse, GetLoadStateRequest, GetLoadStateResponse, GetLoadingProgressRequest,
        GetLoadingProgressResponse, GetPersistentSegmentInfoRequest, GetPersistentSegmentInfoResponse,
        HasCollectionRequest, LoadCollectionRequest, PersistentSegmentInfo, ReleaseCollectionRequest,
        RenameCollectionRequest, ShowCollectionsRequest, ShowCollectionsResponse, ShowType, TruncateCollectionRequest,
        TruncateCollectionResponse,
    },
};

use super::Call;
use crate::{
    node::Node,
    wire::{
        Failure,
        failure::{self, Code},
        pairs, schema,
    },
};

pub(super) async fn create(
    node: &Node,
    call: &Call,
    request: CreateCollectionRequest,
) -> Result<common::Status, Failure> {
    let spec = CollectionSpec {
        schema: schema::schema_in(&request.schema, &request.collection_name)?,
        shards: request.shards_num.max(1),
        consistency: schema::consistency_in(request.consistency_level),
        properties: pairs::to_map(request.properties)?,
        partitions: usize::try_from(request.num_partitions).ok().filter(|count| *count > 0),
    };
    let _permit = node.permit_collection_key(&spec.properties)?;
    node.engine
        .create_collection(&call.database(&request.db_name), spec)
        .await?;
    Ok(failure::success())
}

pub(super) async fn drop(node: &Node, call: &Call, request: DropCollectionRequest) -> Result<common::Status, Failure> {
    check_name(&request.collection_name)?;
    node.engine
        .drop_collection(&call.database(&request.db_name), &request.collection_name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn has(node: &Node, call: &Call, request: HasCollectionRequest) -> Result<BoolResponse, Failure> {
    check_name(&request.collection_name)?;
    let value = node
        .engine
        .has_collection(&call.database(&request.db_name), &request.collection_name)
        .await?;
    Ok(BoolResponse { status: None, value })
}

pub(super) async fn describe(
    node: &Node,
    call: &Call,
    request: DescribeCollectionRequest,
) -> Result<DescribeCollectionResponse, Failure> {
    let database = call.database(&request.db_name);
    let name = if request.collection_name.is_empty() && request.collection_id != 0 {
        name_of(node, &database, request.collection_id).await?
    } else {
        check_name(&request.collection_name)?;
        request.collection_name
    };
    let info = node.engine.describe_collection(&database, &name).await?;
    Ok(description(info, node.timestamp().0))
}

pub(super) async fn describe_batch(
    node: &Node,
    call: &Call,
    request: BatchDescribeCollectionRequest,
) -> Result<BatchDescribeCollectionResponse, Failure> {
    let database = call.database(&request.db_name);
    let mut names = request.collection_name;
    for id in request.collection_id {
        names.push(name_of(node, &database, id).await?);
    }
    if names.len() > DESCRIBE_BATCH_MAX {
        return Err(Failure::mismatch(
            format_args!("at most {DESCRIBE_BATCH_MAX}"),
            names.len(),
            "number of collections to describe",
        ));
    }
    let mut responses = Vec::with_capacity(names.len());
    for name in names {
        let info = node.engine.describe_collection(&database, &name).await?;
        let mut one = description(info, node.timestamp().0);
        one.status = Some(failure::success());
        responses.push(one);
    }
    Ok(BatchDescribeCollectionResponse {
        status: None,
        responses,
    })
}

/// Most collections that one request may describe; each costs a schema in the answer.
const DESCRIBE_BATCH_MAX: usize = 1_024;

pub(super) async fn show(
    node: &Node,
    call: &Call,
    request: ShowCollectionsRequest,
) -> Result<ShowCollectionsResponse, Failure> {
    let mut listed = node.engine.list_collections(&call.database(&request.db_name)).await?;
    let loaded_only = wants_loaded_only(&request);
    if loaded_only {
        listed.retain(|collection| collection.loaded);
    }
    let mut response = ShowCollectionsResponse {
        collection_ids: listed.iter().map(|collection| collection.id.0).collect(),
        created_timestamps: listed.iter().map(|collection| collection.created.0).collect(),
        created_utc_timestamps: listed.iter().map(|collection| collection.created.millis()).collect(),
        query_service_available: listed.iter().map(|collection| collection.loaded).collect(),
        shards_num: vec![1; listed.len()],
        ..ShowCollectionsResponse::default()
    };
    if loaded_only {
        set_memory_percentages(&mut response, listed.len());
    }
    response.collection_names = listed.into_iter().map(|collection| collection.name).collect();
    Ok(response)
}

fn wants_loaded_only(request: &ShowCollectionsRequest) -> bool {
    request.r#type == ShowType::InMemory as i32
}

#[expect(deprecated, reason = "older clients read how far each collection is loaded here")]
fn set_memory_percentages(response: &mut ShowCollectionsResponse, count: usize) {
    response.in_memory_percentages = vec![100; count];
}

pub(super) async fn rename(
    node: &Node,
    call: &Call,
    request: RenameCollectionRequest,
) -> Result<common::Status, Failure> {
    CollectionSchema::check_name("collection", &request.new_name).map_err(Failure::invalid)?;
    let database = call.database(&request.db_name);
    let new_database = if request.new_db_name.is_empty() {
        database.clone()
    } else {
        request.new_db_name
    };
    node.engine
        .rename_collection(&database, &request.old_name, &new_database, &request.new_name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn alter(
    node: &Node,
    call: &Call,
    request: AlterCollectionRequest,
) -> Result<common::Status, Failure> {
    let set = pairs::to_map(request.properties)?;
    let database = call.database(&request.db_name);
    node.engine
        .alter_collection(&database, &request.collection_name, set, request.delete_keys)
        .await?;
    Ok(failure::success())
}

pub(super) async fn alter_field(
    node: &Node,
    call: &Call,
    request: AlterCollectionFieldRequest,
) -> Result<common::Status, Failure> {
    let set = pairs::to_map(request.properties)?;
    let (database, collection) = (call.database(&request.db_name), &request.collection_name);
    node.engine
        .alter_collection_field(&database, collection, &request.field_name, set, request.delete_keys)
        .await?;
    Ok(failure::success())
}

pub(super) async fn truncate(
    node: &Node,
    call: &Call,
    request: TruncateCollectionRequest,
) -> Result<TruncateCollectionResponse, Failure> {
    node.engine
        .truncate_collection(&call.database(&request.db_name), &request.collection_name)
        .await?;
    Ok(TruncateCollectionResponse::default())
}

pub(super) async fn load(node: &Node, call: &Call, request: LoadCollectionRequest) -> Result<common::Status, Failure> {
    node.engine
        .load_collection(&call.database(&request.db_name), &request.collection_name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn release(
    node: &Node,
    call: &Call,
    request: ReleaseCollectionRequest,
) -> Result<common::Status, Failure> {
    node.engine
        .release_collection(&call.database(&request.db_name), &request.collection_name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn load_state(
    node: &Node,
    call: &Call,
    request: GetLoadStateRequest,
) -> Result<GetLoadStateResponse, Failure> {
    let database = call.database(&request.db_name);
    // A collection that is not there is an answer here, not a failure, as in Milvus.
    let mut status = None;
    let state = if node.engine.has_collection(&database, &request.collection_name).await? {
        match node.engine.load_state(&database, &request.collection_name).await? {
            LoadState::NotLoaded => common::LoadState::NotLoad,
            LoadState::Loading { .. } => common::LoadState::Loading,
            LoadState::Loaded => common::LoadState::Loaded,
            LoadState::Locked { refusal } => {
                // Nothing of it is in memory, which is what the state says; why is said beside it.
                status = Some(common::Status {
                    reason: refusal.message,
                    ..failure::success()
                });
                common::LoadState::NotLoad
            }
        }
    } else {
        common::LoadState::NotExist
    };
    Ok(GetLoadStateResponse {
        status,
        state: state as i32,
    })
}

pub(super) async fn loading_progress(
    node: &Node,
    call: &Call,
    request: GetLoadingProgressRequest,
) -> Result<GetLoadingProgressResponse, Failure> {
    let database = call.database(&request.db_name);
    let progress = match node.engine.load_state(&database, &request.collection_name).await? {
        LoadState::NotLoaded => {
            return Err(Failure::new(
                Code::COLLECTION_NOT_LOADED,
                common::ErrorCode::UnexpectedError,
                format!(
                    "collection not loaded[database={database}][collection={}]",
                    request.collection_name
                ),
            ));
        }
        LoadState::Locked { refusal } => return Err(refusal.into()),
        LoadState::Loading { percent } => i64::from(percent),
        LoadState::Loaded => 100,
    };
    Ok(GetLoadingProgressResponse {
        status: None,
        progress,
        refresh_progress: progress,
    })
}

pub(super) async fn statistics(
    node: &Node,
    call: &Call,
    request: GetCollectionStatisticsRequest,
) -> Result<GetCollectionStatisticsResponse, Failure> {
    let rows = node
        .engine
        .row_count(&call.database(&request.db_name), &request.collection_name, None)
        .await?;
    Ok(GetCollectionStatisticsResponse {
        status: None,
        stats: row_count(rows),
    })
}

pub(super) async fn segments(
    node: &Node,
    call: &Call,
    request: GetPersistentSegmentInfoRequest,
) -> Result<GetPersistentSegmentInfoResponse, Failure> {
    let segments = node
        .engine
        .segments(&call.database(&request.db_name), &request.collection_name)
        .await?;
    let infos = segments.into_iter().map(|segment| {
        let state = if segment.sealed {
            common::SegmentState::Flushed
        } else {
            common::SegmentState::Growing
        };
        PersistentSegmentInfo {
            segment_id: segment.id.0,
            collection_id: segment.collection.0,
            partition_id: segment.partition.0,
            num_rows: i64::try_from(segment.rows).unwrap_or(i64::MAX),
            state: state as i32,
            level: common::SegmentLevel::L1 as i32,
            ..PersistentSegmentInfo::default()
        }
    });
    let infos = infos
        .filter(|info| request.states.is_empty() || request.states.contains(&info.state))
        .collect();
    Ok(GetPersistentSegmentInfoResponse { status: None, infos })
}

/// The pair in which statistics carry a number of rows.
pub(super) fn row_count(rows: u64) -> Vec<common::KeyValuePair> {
    vec![common::KeyValuePair {
        key: "row_count".to_owned(),
        value: rows.to_string(),
    }]
}

fn check_name(name: &str) -> Result<(), Failure> {
    CollectionSchema::check_name("collection", name).map_err(Failure::invalid)
}

async fn name_of(node: &Node, database: &str, id: i64) -> Result<String, Failure> {
    let listed = node.engine.list_collections(database).await?;
    let found = listed.into_iter().find(|collection| collection.id.0 == id);
    found
        .map(|collection| collection.name)
        .ok_or_else(|| Failure::collection_not_found(database, &id.to_string()))
}

fn description(info: CollectionInfo, now: u64) -> DescribeCollectionResponse {
    DescribeCollectionResponse {
        status: None,
        schema: Some(schema::schema_out(&info.schema, &info.name)),
        collection_id: info.id.0,
        created_timestamp: info.created.0,
        created_utc_timestamp: info.created.millis(),
        shards_num: info.shards,
        aliases: info.aliases,
        consistency_level: schema::consistency_out(info.consistency) as i32,
        properties: pairs::from_map(&info.properties),
        db_name: info.database,
        num_partitions: i64::try_from(info.partitions).unwrap_or(i64::MAX),
        db_id: info.database_id.0,
        request_time: now,
        update_timestamp: info.updated.0,
        update_timestamp_str: info.updated.0.to_string(),
        collection_name: info.name,
        ..DescribeCollectionResponse::default()
    }
}
