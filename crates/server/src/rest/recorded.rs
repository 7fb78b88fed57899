//! Requests to `/v2/...` in the log of requests: method and pattern of the path, never what stands in them.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use serde_json::{Map, json};

use super::Caller;
use crate::{
    audit::{Accessed, Interface},
    node::Node,
};

/// With which code a request was refused; stands beside the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedWith(pub(super) i32);

/// Records a request, if that is on.
pub(super) async fn record(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    if !node.audit.records_access() {
        return next.run(request).await;
    }
    let started = Instant::now();
    let pattern = request.extensions().get::<MatchedPath>();
    let action = format!("{} {}", request.method(), pattern.map_or("other", MatchedPath::as_str));
    let response = next.run(request).await;
    let refused = response.extensions().get::<RefusedWith>().map(|refused| refused.0);
    let status = response.status();
    let code = match refused {
        Some(code) => code,
        None if status.is_success() => 0,
        None => i32::from(status.as_u16()),
    };
    let mut params = Map::new();
    params.insert("http_status".to_owned(), json!(status.as_u16()));
    node.audit.accessed(Accessed {
        action: action.into(),
        interface: Interface::Restful,
        database: String::new(),
        user: response.extensions().get::<Caller>().map(Caller::name),
        params,
        code,
        started,
    });
    response
}
