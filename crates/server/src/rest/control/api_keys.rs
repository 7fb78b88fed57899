//! `/v2/api-keys`: who may use the control plane.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, State},
    routing::{delete, get},
};
use saker_control::{ApiKeyInfo, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Body, done};
use crate::{control::Fleet, rest::Caller};

pub(super) fn router() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/v2/api-keys", get(list).post(create))
        .route("/v2/api-keys/{id}", delete(revoke))
}

type Shared = State<Arc<Fleet>>;
type By = Extension<Caller>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewApiKey {
    name: String,
    /// Id or name of the only project that it is for; absent: everything.
    project: Option<String>,
}

async fn list(State(fleet): Shared, Extension(caller): By) -> Answer {
    caller.check_admin()?;
    done(fleet.registry().api_keys().iter().map(shown).collect())
}

async fn create(State(fleet): Shared, Extension(caller): By, Body(new): Body<NewApiKey>) -> Answer {
    caller.check_admin()?;
    let registry = fleet.registry();
    let project = new.project.map(|name| registry.project(&name)).transpose()?;
    let scope = project.map_or(Scope::Admin, |project| Scope::Project(project.id));
    let issued = registry.create_api_key(&new.name, scope, fleet.now_ms()).await?;
    fleet.note(
        &caller,
        "api-key-created",
        &registry.standalone_project(),
        Some(issued.info.id.as_str()),
    );
    let mut data = shown(&issued.info);
    // Here and never again.
    data["apiKey"] = json!(issued.secret.as_str());
    done(data)
}

async fn revoke(State(fleet): Shared, Extension(caller): By, Path(id): Path<String>) -> Answer {
    caller.check_admin()?;
    let registry = fleet.registry();
    let revoked = registry.revoke_api_key(&id).await?;
    fleet.note(
        &caller,
        "api-key-revoked",
        &registry.standalone_project(),
        Some(revoked.id.as_str()),
    );
    done(shown(&revoked))
}

fn shown(key: &ApiKeyInfo) -> Value {
    let (scope, project) = match &key.scope {
        Scope::Admin => ("admin", None),
        Scope::Project(project) => ("project", Some(project)),
    };
    json!({
        "id": key.id,
        "name": key.name,
        "scope": scope,
        "projectId": project,
        "createdAtMs": key.created_ms,
        "lastUsedAtMs": key.used_ms,
    })
}
