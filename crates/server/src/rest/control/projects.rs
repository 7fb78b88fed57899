//! `/v2/projects`: projects, their keys, and the policies that the keys' owners have to grant.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use saker_control::{ProjectRecord, Registry, policy::ProjectPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Body, Params, done, root_key};
use crate::{control::Fleet, rest::Caller};

pub(super) fn router() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/v2/projects", get(list).post(create))
        .route("/v2/projects/{project}", get(show))
        .route("/v2/projects/{project}/keys", get(list_keys).post(add_key))
        .route("/v2/projects/{project}/keys/{key}", get(show_key).delete(remove_key))
        .route("/v2/projects/{project}/policy", get(policy))
}

type Shared = State<Arc<Fleet>>;
type By = Extension<Caller>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewProject {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewKey {
    key: String,
    role_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyParams {
    key: Option<String>,
    #[serde(default)]
    format: PolicyFormat,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PolicyFormat {
    #[default]
    Json,
    /// Commands alone, as plain text.
    Script,
}

async fn list(State(fleet): Shared, Extension(caller): By) -> Answer {
    let projects = fleet
        .registry()
        .projects()
        .into_iter()
        .filter(|project| caller.may(&project.id));
    done(projects.map(|project| project_json(&fleet, &project)).collect())
}

async fn create(State(fleet): Shared, Extension(caller): By, Body(new): Body<NewProject>) -> Answer {
    caller.check_admin()?;
    let project = fleet.registry().create_project(&new.name, fleet.now_ms()).await?;
    fleet.note(&caller, "project-created", &project.id, None);
    done(project_json(&fleet, &project))
}

async fn show(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    done(project_json(&fleet, &project))
}

async fn list_keys(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    let views = fleet.key_views(project.id.as_str()).await?;
    done(views.iter().map(crate::control::KeyView::json).collect())
}

async fn add_key(
    State(fleet): Shared,
    Extension(caller): By,
    Path(name): Path<String>,
    Body(new): Body<NewKey>,
) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    let root = root_key(&new.key)?;
    let view = fleet.register_key(&project, root.clone(), new.role_arn).await?;
    fleet.note(&caller, "key-registered", &project.id, Some(root.as_str()));
    done(view.json())
}

async fn show_key(State(fleet): Shared, Extension(caller): By, Path((name, key)): Path<(String, String)>) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    let key = fleet.registry().key(project.id.as_str(), &root_key(&key)?)?;
    done(fleet.key_view(&project.id, key).await.json())
}

async fn remove_key(State(fleet): Shared, Extension(caller): By, Path((name, key)): Path<(String, String)>) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    let root = root_key(&key)?;
    fleet.remove_key(&project.id, &root).await?;
    fleet.note(&caller, "key-removed", &project.id, Some(root.as_str()));
    done(json!({ "key": root, "projectId": project.id }))
}

async fn policy(
    State(fleet): Shared,
    Extension(caller): By,
    Path(name): Path<String>,
    Params(params): Params<PolicyParams>,
) -> Answer {
    let project = found(&fleet, &caller, &name)?;
    let extra = params.key.as_deref().map(root_key).transpose()?;
    let policy = fleet.policy(project.id.as_str(), extra.as_ref()).await?;
    match params.format {
        PolicyFormat::Json => done(policy_json(&policy)),
        PolicyFormat::Script => Ok(script(&policy)),
    }
}

fn found(fleet: &Fleet, caller: &Caller, name: &str) -> Result<ProjectRecord, saker_control::ControlError> {
    let project = fleet.registry().project(name);
    // Whoever may not see a project does not learn which there are.
    if let (Err(_), false) = (&project, caller.is_admin()) {
        caller.check_admin()?;
    }
    let project = project?;
    caller.check(&project.id)?;
    Ok(project)
}

fn project_json(fleet: &Fleet, project: &ProjectRecord) -> Value {
    let registry = fleet.registry();
    let standalone = (registry.standalone_project() == project.id).then(|| registry.standalone().id.clone());
    let clusters = registry
        .clusters()
        .into_iter()
        .filter(|cluster| cluster.project == project.id);
    let clusters: Vec<_> = standalone
        .into_iter()
        .chain(clusters.map(|cluster| cluster.id))
        .collect();
    json!({
        "id": project.id,
        "name": project.name,
        "externalId": project.external_id,
        "keys": project.keys.len(),
        "keysMax": Registry::KEYS_MAX,
        "clusters": clusters,
        "createdAtMs": project.created_ms,
    })
}

fn policy_json(policy: &ProjectPolicy) -> Value {
    let accounts: Vec<Value> = policy
        .accounts
        .iter()
        .map(|account| {
            let keys: Vec<Value> = account
                .key_statements
                .iter()
                .map(|(root, statement)| json!({ "key": root, "statement": statement }))
                .collect();
            json!({
                "account": account.account,
                "roleName": account.role_name,
                "roleArn": account.role_arn,
                "trustPolicy": account.trust_policy,
                "rolePolicy": account.role_policy,
                "keyPolicyStatements": keys,
            })
        })
        .collect();
    json!({
        "project": policy.project,
        "principal": policy.principal,
        "externalId": policy.external_id,
        "accounts": accounts,
        "commands": policy.script(),
    })
}

fn script(policy: &ProjectPolicy) -> Response {
    policy.script().into_response()
}
