//! `/v2/cmek/databases/rotate|change-key|reencrypt`, `/v2/cmek/keys/rewrap`, `/v2/cmek/jobs`: changing keys while
//! everything is in use, and how far that is. They answer at once; the jobs tell the rest.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use saker_engine::{Error, ErrorKind, JobInfo, JobState, Result};
use saker_keyring::RootKeyId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer;
use crate::node::Node;

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2/cmek/databases/rotate", post(rotate))
        .route("/v2/cmek/databases/change-key", post(change_key))
        .route("/v2/cmek/databases/reencrypt", post(reencrypt))
        .route("/v2/cmek/keys/rewrap", post(rewrap))
        .route("/v2/cmek/jobs", get(jobs))
        .route("/v2/cmek/jobs/{id}/retry", post(retry))
}

/// Whose keys, as clients write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Zone {
    /// `default` if left out.
    #[serde(default)]
    db_name: String,
    /// A collection with a key of its own.
    #[serde(default)]
    collection_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    #[serde(default)]
    db_name: String,
    #[serde(default)]
    collection_name: Option<String>,
    /// The root key that it goes under.
    to: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rewrap {
    /// The root key; left out, all of them.
    #[serde(default)]
    key: Option<String>,
}

async fn rotate(State(node): State<Arc<Node>>, Json(zone): Json<Zone>) -> Response {
    let job = node
        .engine
        .rotate_key(&zone.db_name, zone.collection_name.as_deref())
        .await;
    answer(job.as_ref().map(job_json).map_err(Clone::clone))
}

async fn change_key(State(node): State<Arc<Node>>, Json(change): Json<Change>) -> Response {
    let begun = async {
        let to = root_key(&change.to)?;
        let _permit = node.permit_key(&to).map_err(|refused| Error::invalid(refused.reason))?;
        let collection = change.collection_name.as_deref();
        node.engine.change_key(&change.db_name, collection, &to).await
    };
    answer(begun.await.as_ref().map(job_json).map_err(Clone::clone))
}

async fn reencrypt(State(node): State<Arc<Node>>, Json(zone): Json<Zone>) -> Response {
    let job = node
        .engine
        .reencrypt(&zone.db_name, zone.collection_name.as_deref())
        .await;
    answer(job.as_ref().map(job_json).map_err(Clone::clone))
}

async fn rewrap(State(node): State<Arc<Node>>, Json(rewrap): Json<Rewrap>) -> Response {
    let begun = async {
        let key = rewrap.key.as_deref().map(root_key).transpose()?;
        node.engine.rewrap_keys(key.as_ref()).await
    };
    answer(begun.await.map(|jobs| jobs.iter().map(job_json).collect::<Vec<_>>()))
}

async fn jobs(State(node): State<Arc<Node>>) -> Response {
    answer(Ok(node.engine.jobs().iter().map(job_json).collect::<Vec<_>>()))
}

/// Goes on with a job that failed.
async fn retry(State(node): State<Arc<Node>>, Path(id): Path<i64>) -> Response {
    answer(
        node.engine
            .retry_job(id)
            .await
            .as_ref()
            .map(job_json)
            .map_err(Clone::clone),
    )
}

fn root_key(text: &str) -> Result<RootKeyId> {
    text.trim().parse().map_err(|error| {
        let shown: String = text.chars().take(256).collect();
        Error::new(
            ErrorKind::InvalidParameter,
            format!("key {shown:?} cannot be used: {error}"),
        )
    })
}

/// Ids are texts: a number of this size does not survive every JSON reader.
fn job_json(job: &JobInfo) -> Value {
    let (state, reason) = match &job.state {
        JobState::Running => ("running", None),
        JobState::Waiting { reason } => ("waiting", Some(reason)),
        JobState::Failed { reason } => ("failed", Some(reason)),
        JobState::Done => ("done", None),
    };
    let destroyed: Vec<Value> = job
        .destroyed
        .iter()
        .map(|key| {
            json!({
                "zone": key.zone,
                "version": key.version,
                "key": key.root.as_str(),
                "wrappedSha256": key.wrapped_sha256,
            })
        })
        .collect();
    json!({
        "id": job.id.to_string(),
        "kind": job.kind.as_str(),
        "dbName": job.database,
        "collectionName": job.collection,
        "zone": job.zone,
        "key": job.root.as_str(),
        "fromKey": job.from.as_ref().map(RootKeyId::as_str),
        "keyVersion": job.key_version,
        "state": state,
        "reason": reason,
        "percent": job.percent(),
        "done": job.done,
        "total": job.total,
        "begunMs": job.begun_ms,
        "finishedMs": job.finished_ms,
        "destroyed": destroyed,
    })
}
