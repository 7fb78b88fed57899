//! The HTTP face beside gRPC on the same port: health, metrics, and the control plane as JSON.
//!
//! Answers are JSON (`{"code": 0, "data": ...}` or `{"code": ..., "message": ...}`) except health and metrics. Each file
//! here has one family of paths and its `router()`. What it deliberately does not do yet: Milvus's REST v2 for collections
//! and rows.
//!
//! Start reading at [`router`], then `caller` for who may do what.

pub(crate) mod audit;
mod caller;
mod collections;
mod control;
mod grpc;
mod keys;
mod plain;
mod recorded;
mod rekey;
mod searches;
mod webhook;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;

pub(crate) use caller::Caller;
pub(crate) use grpc::too_large;
pub(crate) use keys::key_json;
pub(crate) use searches::Searches;

use crate::{
    control::Fleet,
    node::Node,
    wire::{Failure, failure::Code},
};

/// Largest body of a request to `/v2/...`, in bytes: EventBridge delivers events of at most 256 KiB.
const BODY_BYTES_MAX: usize = 256 << 10;

/// Everything that a cluster's port answers, gRPC included; with the fleet, the control plane as well.
pub fn router(node: Arc<Node>, fleet: Option<Arc<Fleet>>) -> Router {
    // What concerns this cluster's own keys.
    let own = Router::new()
        .merge(keys::router())
        .merge(collections::router())
        .merge(rekey::router())
        .merge(audit::router())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&node),
            caller::of_this_cluster,
        ))
        .with_state(Arc::clone(&node))
        .merge(webhook::router(&node, fleet.as_ref()));
    let json = fleet
        .map(control::router)
        .unwrap_or_default()
        .merge(own)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&node), caller::identify))
        .layer(middleware::from_fn(plain::as_json))
        .layer(middleware::from_fn_with_state(Arc::clone(&node), recorded::record));
    let grpc = grpc::router(&node);
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(node)
        .merge(json)
        .merge(grpc)
        .fallback(no_such_path)
}

async fn health(State(node): State<Arc<Node>>) -> Response {
    let reasons = node.health().await;
    if reasons.is_empty() {
        return "OK".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n")).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    node.audit.fill(&node.metrics);
    match node.metrics.render(&node.engine).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::INTERNAL.0,
            "metrics could not be written",
        ),
    }
}

/// The JSON of an outcome: `{"code": 0, "data": ...}` or the error's code and message.
pub(crate) fn answer<T: Serialize>(outcome: saker_engine::Result<T>) -> Response {
    match outcome {
        Ok(data) => Json(json!({ "code": 0, "data": data })).into_response(),
        Err(error) => {
            let failure = Failure::from(error);
            // As in Milvus's REST face, a refusal by the database comes with HTTP 200.
            refusal(StatusCode::OK, failure.code.0, &failure.reason)
        }
    }
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

/// A refusal as JSON.
pub(crate) fn refusal(status: StatusCode, code: i32, message: &str) -> Response {
    let mut response = (status, Json(json!({ "code": code, "message": message }))).into_response();
    response.extensions_mut().insert(recorded::RefusedWith(code));
    response
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
