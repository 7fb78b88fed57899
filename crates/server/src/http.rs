//! The HTTP face beside gRPC on the same port: health, metrics and the states of root keys.
//!
//! Answers are JSON (`{"code": 0, "data": ...}` or `{"code": ..., "message": ...}`) except health and metrics. What it
//! deliberately does not do yet: Milvus's REST v2 for collections and rows.
//!
//! Start reading at [`router`].

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use saker_engine::{KeyStatus, LockStatus};
use saker_model::Limits;
use saker_proto::{MILVUS_RPCS, milvus::milvus_service_server::MilvusServiceServer};
use serde_json::{Value, json};
use tonic::service::Routes;

use crate::{
    auth::ROOT_USER,
    node::Node,
    rpc::Service,
    wire::{Failure, failure::Code},
};

/// Everything that the database's port answers, gRPC included.
pub fn router(node: Arc<Node>) -> Router {
    let grpc = MilvusServiceServer::new(Service::new(Arc::clone(&node)))
        .max_decoding_message_size(Limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(Limits::MESSAGE_BYTES_MAX);
    let grpc = Routes::new(grpc)
        .into_axum_router()
        .reset_fallback()
        .layer(middleware::from_fn_with_state(Arc::clone(&node), grpc_user))
        .layer(middleware::from_fn_with_state(Arc::clone(&node), grpc_edge));
    let keys = Router::new()
        .route("/v2/cmek/keys", get(keys))
        .route("/v2/cmek/keys/check", post(check_keys))
        .layer(middleware::from_fn_with_state(Arc::clone(&node), only_root));
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .merge(keys)
        .with_state(node)
        .merge(grpc)
        .fallback(no_such_path)
}

/// Lets gRPC requests through that say who asks, if that is required.
async fn grpc_user(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    let authorization = text_of(request.headers(), header::AUTHORIZATION.as_str());
    match node.auth.authenticate(&node.engine, authorization).await {
        Ok(user) => {
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            next.run(request).await
        }
        Err(refused) => tonic::Status::unauthenticated(refused.to_string()).into_http::<axum::body::Body>(),
    }
}

/// Counts what is refused before it is a Milvus answer, and makes a too large message final: clients try OUT_OF_RANGE,
/// with which it is refused below, many times again. RESOURCE_EXHAUSTED, as every other gRPC server answers, they do not.
async fn grpc_edge(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    // Only names that are known: whoever calls must not make labels.
    let rpc = MILVUS_RPCS
        .iter()
        .find(|known| **known == name)
        .copied()
        .unwrap_or("other");
    let mut response = next.run(request).await;
    if text_of(response.headers(), "grpc-status") == Some(OUT_OF_RANGE) {
        response = too_large().into_http::<axum::body::Body>();
    }
    if let Some(status) = text_of(response.headers(), "grpc-status").filter(|status| *status != "0") {
        node.metrics.rpc_refused(rpc, status);
    }
    response
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

async fn only_root(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let authorization = text_of(request.headers(), header::AUTHORIZATION.as_str());
    match node.auth.authenticate(&node.engine, authorization).await {
        Ok(None) => next.run(request).await,
        Ok(Some(user)) if user.name() == ROOT_USER => next.run(request).await,
        Ok(Some(_)) => refusal(StatusCode::FORBIDDEN, 403, "only root may do this"),
        Err(refused) => refusal(StatusCode::UNAUTHORIZED, 1800, &refused.to_string()),
    }
}

async fn health(State(node): State<Arc<Node>>) -> Response {
    let reasons = node.health().await;
    if reasons.is_empty() {
        return "OK".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n")).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    match node.metrics.render(&node.engine).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::INTERNAL.0,
            "metrics could not be written",
        ),
    }
}

async fn keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.key_states().await)
}

/// Asks the key services now, so that a revocation takes effect at once.
async fn check_keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.check_keys_now().await)
}

fn answer(outcome: saker_engine::Result<Vec<KeyStatus>>) -> Response {
    match outcome {
        Ok(keys) => {
            let keys: Vec<Value> = keys.iter().map(key_json).collect();
            Json(json!({ "code": 0, "data": keys })).into_response()
        }
        Err(error) => {
            let failure = Failure::from(error);
            // As in Milvus's REST face, a refusal by the database comes with HTTP 200.
            refusal(StatusCode::OK, failure.code.0, &failure.reason)
        }
    }
}

/// One key's state, as the CLI and the console read it.
#[must_use]
pub fn key_json(key: &KeyStatus) -> Value {
    let (state, reason) = match &key.lock {
        LockStatus::Active => ("active", None),
        LockStatus::Suspect => ("suspect", None),
        LockStatus::Locked { reason } => ("locked", Some(reason)),
    };
    json!({
        "key": key.root.as_str(),
        "platform": key.platform,
        "state": state,
        "reason": reason,
        "databases": key.databases,
        "probedAtMs": key.probed_at_ms,
    })
}

async fn no_such_path(request: Request) -> Response {
    let is_grpc = text_of(request.headers(), "content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
    if is_grpc {
        let path: String = request.uri().path().chars().take(128).collect();
        return tonic::Status::unimplemented(format!("{path} is not implemented by this server"))
            .into_http::<axum::body::Body>();
    }
    refusal(StatusCode::NOT_FOUND, 404, "no such path")
}

fn refusal(status: StatusCode, code: i32, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
