//! `/v2/clusters`: clusters of this server.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, State},
    routing::{get, post},
};
use saker_control::ControlError;
use saker_keyring::KeyProvider;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Body, Params, done, root_key};
use crate::{
    control::{ClusterView, Fleet, NewMember},
    rest::Caller,
};

pub(super) fn router() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/v2/clusters", get(list).post(create))
        .route("/v2/clusters/{cluster}", get(show).delete(remove))
        .route("/v2/clusters/{cluster}/start", post(start))
        .route("/v2/clusters/{cluster}/stop", post(stop))
}

type Shared = State<Arc<Fleet>>;
type By = Extension<Caller>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewCluster {
    /// Id or name.
    project: String,
    name: String,
    #[serde(default)]
    port: u16,
    provider: Option<KeyProvider>,
    region: Option<String>,
    default_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListParams {
    /// Id or name; absent: all.
    project: Option<String>,
}

async fn list(State(fleet): Shared, Extension(caller): By, Params(params): Params<ListParams>) -> Answer {
    let wanted = params.project.map(|name| fleet.registry().project(&name)).transpose()?;
    if let Some(project) = &wanted {
        caller.check(&project.id)?;
    }
    let views = fleet.views().await.into_iter();
    let views = views.filter(|view| caller.may(&view.project));
    let views = views.filter(|view| wanted.as_ref().is_none_or(|project| project.id == view.project));
    done(views.map(|view| view.json()).collect())
}

async fn create(State(fleet): Shared, Extension(caller): By, Body(new): Body<NewCluster>) -> Answer {
    // A cluster takes memory and a port of the whole server.
    caller.check_admin()?;
    let project = fleet.registry().project(&new.project)?;
    let id = project.id.clone();
    let member = NewMember {
        project,
        name: new.name,
        port: new.port,
        provider: new.provider,
        region: new.region,
        default_key: new.default_key.as_deref().map(root_key).transpose()?,
    };
    let view = to_the_end(&fleet, |fleet| async move { Box::pin(fleet.create(member)).await }).await?;
    fleet.note(&caller, "cluster-created", &id, Some(view.id.as_str()));
    done(view.json())
}

async fn show(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    done(found(&fleet, &caller, &name).await?.json())
}

async fn start(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let view = found(&fleet, &caller, &name).await?;
    let id = view.id.clone();
    let started = to_the_end(&fleet, |fleet| async move { Box::pin(fleet.start(id.as_str())).await }).await?;
    fleet.note(&caller, "cluster-started", &view.project, Some(view.id.as_str()));
    done(started.json())
}

async fn stop(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let view = found(&fleet, &caller, &name).await?;
    let id = view.id.clone();
    let stopped = to_the_end(&fleet, |fleet| async move { fleet.stop(id.as_str()).await }).await?;
    fleet.note(&caller, "cluster-stopped", &view.project, Some(view.id.as_str()));
    done(stopped.json())
}

async fn remove(State(fleet): Shared, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let view = found(&fleet, &caller, &name).await?;
    let id = view.id.clone();
    to_the_end(&fleet, |fleet| async move {
        Box::pin(fleet.drop_cluster(id.as_str())).await
    })
    .await?;
    fleet.note(&caller, "cluster-dropped", &view.project, Some(view.id.as_str()));
    done(json!({ "id": view.id, "name": view.name }))
}

async fn found(fleet: &Fleet, caller: &Caller, name: &str) -> Result<ClusterView, ControlError> {
    let view = fleet.view_of(name).await;
    if let (Err(_), false) = (&view, caller.is_admin()) {
        caller.check_admin()?;
    }
    let view = view?;
    caller.check(&view.project)?;
    Ok(view)
}

/// Runs a change of clusters to its end even if the caller goes away.
async fn to_the_end<T, F>(fleet: &Arc<Fleet>, change: impl FnOnce(Arc<Fleet>) -> F) -> Result<T, ControlError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ControlError>> + Send + 'static,
{
    match tokio::spawn(change(Arc::clone(fleet))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ControlError::invalid(
            "cluster",
            "the change ended badly; see the server's log",
        )),
    }
}
