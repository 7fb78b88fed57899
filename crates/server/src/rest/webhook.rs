//! `/v2/cmek/keys/check/webhook`: an event of the key's owner makes this server ask about that key now.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use saker_control::KeyEvent;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    control::{Body, invalid},
    key_json,
};
use crate::{control::Fleet, node::Node};

#[derive(Clone)]
struct Hook {
    node: Arc<Node>,
    /// All clusters, on the server's own port.
    fleet: Option<Arc<Fleet>>,
}

pub(super) fn router(node: &Arc<Node>, fleet: Option<&Arc<Fleet>>) -> Router {
    Router::new()
        .route("/v2/cmek/keys/check/webhook", post(check))
        .with_state(Hook {
            node: Arc::clone(node),
            fleet: fleet.cloned(),
        })
}

/// Only probes: whatever the event says, the key service's answer decides.
async fn check(State(hook): State<Hook>, Extension(caller): Extension<Caller>, Body(event): Body<Value>) -> Response {
    let event = match KeyEvent::parse(&event) {
        Ok(event) => event,
        Err(error) => return invalid(&error.to_string()),
    };
    tracing::info!(
        event = event.name,
        keys = event.roots.len(),
        "told of an event at a key service"
    );
    let checked: Vec<Value> = match &hook.fleet {
        Some(fleet) => {
            let checked = fleet.check_keys(&event.roots, |project| caller.may(project)).await;
            checked.iter().map(|(node, status)| shown(node, status)).collect()
        }
        None => {
            let mut checked = Vec::new();
            for root in event.roots.iter().filter(|_| caller.may(&hook.node.membership.project)) {
                let status = hook.node.engine.check_key_now(root).await.ok().flatten();
                checked.extend(status.map(|status| shown(&hook.node, &status)));
            }
            checked
        }
    };
    Json(json!({ "code": 0, "data": { "event": event.name, "checked": checked } })).into_response()
}

fn shown(node: &Node, status: &saker_engine::KeyStatus) -> Value {
    let mut shown = key_json(node, status);
    shown["clusterId"] = json!(node.membership.cluster);
    shown
}
