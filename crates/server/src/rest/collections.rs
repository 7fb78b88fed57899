//! `/v2/cmek/collections` and `/v2/cmek/receipts`: moving a collection to another database, and the receipts of drops.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use saker_engine::MoveRequest;
use serde::Deserialize;
use serde_json::json;

use super::answer;
use crate::node::Node;

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2/cmek/collections/move", post(move_collection))
        .route("/v2/cmek/receipts", get(receipts))
        .route("/v2/cmek/receipts/{id}", get(receipt))
}

/// What to move, as clients write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Move {
    /// The database that the collection is in; `default` if left out.
    #[serde(default)]
    db_name: String,
    collection_name: String,
    /// The database that it goes to.
    to_db_name: String,
    /// Its name there; left out, it keeps its name.
    new_name: Option<String>,
}

async fn move_collection(State(node): State<Arc<Node>>, Json(request): Json<Move>) -> Response {
    let request = MoveRequest {
        database: request.db_name,
        collection: request.collection_name,
        to: request.to_db_name,
        name: request.new_name.filter(|name| !name.is_empty()),
    };
    answer(node.engine.move_collection(request).await.map(|moved| {
        json!({
            "dbName": moved.database,
            "collectionName": moved.collection,
            "headers": moved.headers,
            "ownKey": moved.own_key,
        })
    }))
}

async fn receipts(State(node): State<Arc<Node>>) -> Response {
    answer(node.engine.receipts().await)
}

async fn receipt(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Response {
    answer(node.engine.receipt(&id).await)
}
