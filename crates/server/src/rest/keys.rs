//! `/v2/cmek/keys`: the states of root keys.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use saker_engine::{KeyStatus, LockStatus};
use serde_json::{Value, json};

use super::answer;
use crate::node::Node;

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2/cmek/keys", get(keys))
        .route("/v2/cmek/keys/check", post(check_keys))
}

async fn keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.key_states().await.map(|keys| keys_json(&keys)))
}

/// Asks the key services now, so that a revocation takes effect at once.
async fn check_keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.check_keys_now().await.map(|keys| keys_json(&keys)))
}

fn keys_json(keys: &[KeyStatus]) -> Value {
    keys.iter().map(key_json).collect()
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
