//! Handshake, version, health, timestamps.

use saker_proto::{
    common,
    milvus::{
        AllocTimestampRequest, AllocTimestampResponse, CheckHealthRequest, CheckHealthResponse, ConnectRequest,
        ConnectResponse, GetVersionRequest, GetVersionResponse,
    },
};

use super::{Call, DEFAULT_DATABASE};
use crate::{node::Node, wire::Failure};

/// The version that clients see: the Milvus interface that is spoken, and what speaks it.
pub(super) const VERSION: &str = concat!("v3.0.0-saker-", env!("CARGO_PKG_VERSION"));

pub(super) async fn connect(node: &Node, call: &Call, request: ConnectRequest) -> Result<ConnectResponse, Failure> {
    let database = call.database("");
    if database != DEFAULT_DATABASE {
        node.engine.describe_database(&database).await?;
    }
    if let Some(client) = &request.client_info {
        tracing::debug!(sdk = client.sdk_type, version = client.sdk_version, "client connected");
    }
    Ok(ConnectResponse {
        status: None,
        server_info: Some(common::ServerInfo {
            build_tags: VERSION.to_owned(),
            build_time: option_env!("SAKER_BUILD_TIME").unwrap_or("unknown").to_owned(),
            git_commit: option_env!("SAKER_GIT_COMMIT").unwrap_or("unknown").to_owned(),
            go_version: "none".to_owned(),
            deploy_mode: "STANDALONE".to_owned(),
            ..common::ServerInfo::default()
        }),
        identifier: node.next_client_identifier(),
    })
}

pub(super) async fn version(_: &Node, _: &Call, _: GetVersionRequest) -> Result<GetVersionResponse, Failure> {
    Ok(GetVersionResponse {
        status: None,
        version: VERSION.to_owned(),
    })
}

/// Whether the server can serve. A locked database is its owner's will, not ill health; it is named as a reason only.
pub(super) async fn health(node: &Node, _: &Call, _: CheckHealthRequest) -> Result<CheckHealthResponse, Failure> {
    let reasons = node.health().await;
    Ok(CheckHealthResponse {
        is_healthy: reasons.is_empty(),
        reasons,
        ..CheckHealthResponse::default()
    })
}

pub(super) async fn timestamp(
    node: &Node,
    _: &Call,
    _: AllocTimestampRequest,
) -> Result<AllocTimestampResponse, Failure> {
    Ok(AllocTimestampResponse {
        status: None,
        timestamp: node.timestamp().0,
    })
}
