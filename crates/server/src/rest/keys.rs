//! `/v2/cmek/keys`: the states of root keys.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use saker_engine::{KeyStatus, KeyZone, LockStatus};
use serde_json::{Value, json};

use super::answer;
use crate::node::Node;

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2/cmek/keys", get(keys))
        .route("/v2/cmek/keys/check", post(check_keys))
}

async fn keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.key_states().await.map(|keys| keys_json(&node, &keys)))
}

/// Asks the key services now, so that a revocation takes effect at once.
async fn check_keys(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.check_keys_now().await.map(|keys| keys_json(&node, &keys)))
}

fn keys_json(node: &Node, keys: &[KeyStatus]) -> Value {
    keys.iter().map(|key| key_json(node, key)).collect()
}

/// One key's state, as the CLI reads it.
pub(crate) fn key_json(node: &Node, key: &KeyStatus) -> Value {
    let (state, reason) = match &key.lock {
        LockStatus::Active => ("active", None),
        LockStatus::Suspect => ("suspect", None),
        LockStatus::Locked { reason } => ("locked", Some(reason)),
    };
    let zones: Vec<Value> = key.zones.iter().map(zone_json).collect();
    json!({
        "key": key.root.as_str(),
        "platform": key.platform,
        "state": state,
        "reason": reason,
        "databases": key.databases,
        "probedAtMs": key.probed_at_ms,
        "nextProbeAtMs": key.next_probe_ms,
        "calls": node.audit.calls_of(&key.root),
        "zones": zones,
    })
}

/// A zone under a key: the newest version of its own key, and of the root key's material where the key service tells it.
fn zone_json(zone: &KeyZone) -> Value {
    let newest = zone.keys.last();
    json!({
        "zone": zone.zone,
        "database": zone.database,
        "collection": zone.collection,
        "versions": zone.keys.len(),
        "version": newest.map(|key| key.version),
        "rootVersion": newest.and_then(|key| key.root_version),
        "wrappedSha256": newest.map(|key| key.wrapped_sha256.as_str()),
    })
}
