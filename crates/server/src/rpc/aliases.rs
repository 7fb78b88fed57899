//! Aliases: other names of collections.

use saker_model::CollectionSchema;
use saker_proto::{
    common,
    milvus::{
        AlterAliasRequest, CreateAliasRequest, DescribeAliasRequest, DescribeAliasResponse, DropAliasRequest,
        ListAliasesRequest, ListAliasesResponse,
    },
};

use super::Call;
use crate::{
    node::Node,
    wire::{Failure, failure},
};

pub(super) async fn create(node: &Node, call: &Call, request: CreateAliasRequest) -> Result<common::Status, Failure> {
    CollectionSchema::check_name("alias", &request.alias).map_err(Failure::invalid)?;
    node.engine
        .create_alias(
            &call.database(&request.db_name),
            &request.collection_name,
            &request.alias,
        )
        .await?;
    Ok(failure::success())
}

pub(super) async fn drop(node: &Node, call: &Call, request: DropAliasRequest) -> Result<common::Status, Failure> {
    node.engine
        .drop_alias(&call.database(&request.db_name), &request.alias)
        .await?;
    Ok(failure::success())
}

pub(super) async fn alter(node: &Node, call: &Call, request: AlterAliasRequest) -> Result<common::Status, Failure> {
    node.engine
        .alter_alias(
            &call.database(&request.db_name),
            &request.collection_name,
            &request.alias,
        )
        .await?;
    Ok(failure::success())
}

pub(super) async fn describe(
    node: &Node,
    call: &Call,
    request: DescribeAliasRequest,
) -> Result<DescribeAliasResponse, Failure> {
    let database = call.database(&request.db_name);
    let collection = node.engine.describe_alias(&database, &request.alias).await?;
    Ok(DescribeAliasResponse {
        status: None,
        db_name: database,
        alias: request.alias,
        collection,
    })
}

pub(super) async fn list(
    node: &Node,
    call: &Call,
    request: ListAliasesRequest,
) -> Result<ListAliasesResponse, Failure> {
    let database = call.database(&request.db_name);
    let collection = Some(request.collection_name.as_str()).filter(|name| !name.is_empty());
    let aliases = node.engine.list_aliases(&database, collection).await?;
    Ok(ListAliasesResponse {
        status: None,
        db_name: database,
        aliases: aliases.into_iter().map(|(alias, _)| alias).collect(),
        collection_name: request.collection_name,
    })
}
