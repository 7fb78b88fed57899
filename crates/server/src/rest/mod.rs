//! The HTTP face beside gRPC on the same port: health, metrics, and the control of keys as JSON.
//!
//! Answers are JSON (`{"code": 0, "data": ...}` or `{"code": ..., "message": ...}`) except health and metrics. Each file
//! here has one family of paths and its `router()`. What it deliberately does not do yet: Milvus's REST v2 for collections
//! and rows.
//!
//! Start reading at [`router`].

mod grpc;
mod keys;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;

pub(crate) use grpc::too_large;
pub use keys::key_json;

use crate::{
    auth::ROOT_USER,
    node::Node,
    wire::{Failure, failure::Code},
};

/// Everything that the database's port answers, gRPC included.
pub fn router(node: Arc<Node>) -> Router {
    let control = Router::new()
        .merge(keys::router())
        .layer(middleware::from_fn_with_state(Arc::clone(&node), only_root));
    let grpc = grpc::router(&node);
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .merge(control)
        .with_state(node)
        .merge(grpc)
        .fallback(no_such_path)
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
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
