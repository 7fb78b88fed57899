//! Databases: each is an encryption zone.

use saker_model::CollectionSchema;
use saker_proto::{
    common,
    milvus::{
        AlterDatabaseRequest, CreateDatabaseRequest, DescribeDatabaseRequest, DescribeDatabaseResponse,
        DropDatabaseRequest, ListDatabasesRequest, ListDatabasesResponse,
    },
};

use super::Call;
use crate::{
    node::Node,
    wire::{Failure, failure, pairs},
};

pub(super) async fn create(node: &Node, _: &Call, request: CreateDatabaseRequest) -> Result<common::Status, Failure> {
    CollectionSchema::check_name("database", &request.db_name).map_err(Failure::invalid)?;
    let properties = pairs::to_map(request.properties)?;
    let _permit = node.permit_database_key(&properties)?;
    node.engine.create_database(&request.db_name, properties).await?;
    Ok(failure::success())
}

pub(super) async fn drop(node: &Node, _: &Call, request: DropDatabaseRequest) -> Result<common::Status, Failure> {
    node.engine.drop_database(&request.db_name).await?;
    Ok(failure::success())
}

pub(super) async fn alter(node: &Node, _: &Call, request: AlterDatabaseRequest) -> Result<common::Status, Failure> {
    let set = pairs::to_map(request.properties)?;
    if !set.is_empty() && !request.delete_keys.is_empty() {
        return Err(Failure::invalid(
            "properties to set and keys to delete cannot stand in one request",
        ));
    }
    node.engine
        .alter_database(&request.db_name, set, request.delete_keys)
        .await?;
    Ok(failure::success())
}

pub(super) async fn list(node: &Node, _: &Call, _: ListDatabasesRequest) -> Result<ListDatabasesResponse, Failure> {
    let databases = node.engine.list_databases().await?;
    Ok(ListDatabasesResponse {
        created_timestamp: databases.iter().map(|database| database.created.0).collect(),
        db_ids: databases.iter().map(|database| database.id.0).collect(),
        db_names: databases.into_iter().map(|database| database.name).collect(),
        status: None,
    })
}

pub(super) async fn describe(
    node: &Node,
    call: &Call,
    request: DescribeDatabaseRequest,
) -> Result<DescribeDatabaseResponse, Failure> {
    let database = node.engine.describe_database(&call.database(&request.db_name)).await?;
    Ok(DescribeDatabaseResponse {
        status: None,
        db_id: database.id.0,
        created_timestamp: database.created.0,
        properties: pairs::from_map(&database.properties),
        db_name: database.name,
    })
}
