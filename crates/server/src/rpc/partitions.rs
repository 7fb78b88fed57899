//! Partitions.

use saker_model::CollectionSchema;
use saker_proto::{
    common,
    milvus::{
        BoolResponse, CreatePartitionRequest, DropPartitionRequest, GetPartitionStatisticsRequest,
        GetPartitionStatisticsResponse, HasPartitionRequest, LoadPartitionsRequest, ShowPartitionsRequest,
        ShowPartitionsResponse,
    },
};

use super::{Call, collections};
use crate::{
    node::Node,
    wire::{Failure, failure},
};

pub(super) async fn create(
    node: &Node,
    call: &Call,
    request: CreatePartitionRequest,
) -> Result<common::Status, Failure> {
    CollectionSchema::check_name("partition", &request.partition_name).map_err(Failure::invalid)?;
    let database = call.database(&request.db_name);
    node.engine
        .create_partition(&database, &request.collection_name, &request.partition_name)
        .await?;
    Ok(failure::success())
}

pub(super) async fn drop(node: &Node, call: &Call, request: DropPartitionRequest) -> Result<common::Status, Failure> {
    let database = call.database(&request.db_name);
    node.engine
        .drop_partition(&database, &request.collection_name, &request.partition_name)
        .await?;
    Ok(failure::success())
}

/// Loads the whole collection: partitions of a loaded collection are always loaded here.
pub(super) async fn load(node: &Node, call: &Call, request: LoadPartitionsRequest) -> Result<common::Status, Failure> {
    let database = call.database(&request.db_name);
    for partition in &request.partition_names {
        if !node
            .engine
            .has_partition(&database, &request.collection_name, partition)
            .await?
        {
            return Err(not_found(partition));
        }
    }
    node.engine.load_collection(&database, &request.collection_name).await?;
    Ok(failure::success())
}

pub(super) async fn has(node: &Node, call: &Call, request: HasPartitionRequest) -> Result<BoolResponse, Failure> {
    let database = call.database(&request.db_name);
    let value = node
        .engine
        .has_partition(&database, &request.collection_name, &request.partition_name)
        .await?;
    Ok(BoolResponse { status: None, value })
}

pub(super) async fn show(
    node: &Node,
    call: &Call,
    request: ShowPartitionsRequest,
) -> Result<ShowPartitionsResponse, Failure> {
    let database = call.database(&request.db_name);
    let mut listed = node.engine.list_partitions(&database, &request.collection_name).await?;
    if !request.partition_names.is_empty() {
        for name in &request.partition_names {
            if !listed.iter().any(|partition| partition.name == *name) {
                return Err(not_found(name));
            }
        }
        listed.retain(|partition| request.partition_names.contains(&partition.name));
    }
    Ok(ShowPartitionsResponse {
        partition_i_ds: listed.iter().map(|partition| partition.id.0).collect(),
        created_timestamps: listed.iter().map(|partition| partition.created.0).collect(),
        created_utc_timestamps: listed.iter().map(|partition| partition.created.millis()).collect(),
        partition_names: listed.into_iter().map(|partition| partition.name).collect(),
        ..ShowPartitionsResponse::default()
    })
}

pub(super) async fn statistics(
    node: &Node,
    call: &Call,
    request: GetPartitionStatisticsRequest,
) -> Result<GetPartitionStatisticsResponse, Failure> {
    let database = call.database(&request.db_name);
    let partition = Some(request.partition_name.as_str());
    let rows = node
        .engine
        .row_count(&database, &request.collection_name, partition)
        .await?;
    Ok(GetPartitionStatisticsResponse {
        status: None,
        stats: collections::row_count(rows),
    })
}

fn not_found(partition: &str) -> Failure {
    Failure::new(
        failure::Code::PARTITION_NOT_FOUND,
        common::ErrorCode::MetaFailed,
        format!("partition not found[partition={partition}]"),
    )
}
