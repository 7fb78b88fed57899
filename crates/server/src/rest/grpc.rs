//! Milvus's gRPC service on the same router: who asks, what is refused before it is a Milvus answer, and messages that
//! are too large.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::header,
    middleware::{self, Next},
    response::Response,
};
use saker_model::Limits;
use saker_proto::{MILVUS_RPCS, milvus::milvus_service_server::MilvusServiceServer};
use serde_json::Map;
use tonic::service::Routes;

use super::text_of;
use crate::{
    audit::{Accessed, Interface},
    auth::User,
    node::Node,
    rpc::Service,
};

pub(super) fn router(node: &Arc<Node>) -> Router {
    let grpc = MilvusServiceServer::new(Service::new(Arc::clone(node)))
        .max_decoding_message_size(Limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(Limits::MESSAGE_BYTES_MAX);
    Routes::new(grpc)
        .into_axum_router()
        .reset_fallback()
        .layer(middleware::from_fn_with_state(Arc::clone(node), user))
        .layer(middleware::from_fn_with_state(Arc::clone(node), edge))
}

/// Lets requests through that say who asks, if that is required.
async fn user(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    let authorization = text_of(request.headers(), header::AUTHORIZATION.as_str());
    match identified(&node, authorization).await {
        Ok(user) => {
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            next.run(request).await
        }
        Err(status) => status.into_http::<axum::body::Body>(),
    }
}

/// Who asks; `None` if nobody has to say.
///
/// # Errors
/// UNAUTHENTICATED.
pub(super) async fn identified(node: &Node, authorization: Option<&str>) -> Result<Option<User>, tonic::Status> {
    let user = node.auth.authenticate(&node.engine, authorization).await;
    user.map_err(|refused| tonic::Status::unauthenticated(refused.to_string()))
}

/// Counts what is refused before it is a Milvus answer, and makes a too large message final: clients try OUT_OF_RANGE,
/// with which it is refused below, many times again. RESOURCE_EXHAUSTED, as every other gRPC server answers, they do not.
async fn edge(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    // Only names that are known: whoever calls must not make labels.
    let rpc = MILVUS_RPCS
        .iter()
        .find(|known| **known == name)
        .copied()
        .unwrap_or("other");
    let started = Instant::now();
    let mut response = next.run(request).await;
    if text_of(response.headers(), "grpc-status") == Some(OUT_OF_RANGE) {
        response = too_large().into_http::<axum::body::Body>();
    }
    if let Some(status) = text_of(response.headers(), "grpc-status").filter(|status| *status != "0") {
        refused(&node, rpc, status, started);
    }
    response
}

/// Counts and records a request that ended with this gRPC status instead of a Milvus answer.
pub(super) fn refused(node: &Node, rpc: &'static str, status: &str, started: Instant) {
    node.metrics.rpc_refused(rpc, status);
    // Who asked is not known, or was refused.
    node.audit.accessed(Accessed {
        action: rpc.into(),
        interface: Interface::Grpc,
        database: String::new(),
        user: None,
        params: Map::new(),
        code: status.parse().unwrap_or(-1),
        started,
    });
}

/// The gRPC status code with which a too large message is refused while it is read.
const OUT_OF_RANGE: &str = "11";

/// The refusal of a message that is too large, in either direction.
pub(crate) fn too_large() -> tonic::Status {
    let limit = Limits::MESSAGE_BYTES_MAX;
    tonic::Status::resource_exhausted(format!(
        "message larger than the limit of {limit} bytes: send fewer rows in one request or ask for fewer in one answer"
    ))
}
