//! Who asks for `/v2/...`, and what that lets them do.
//!
//! An API key counts wherever one is sent, also where nobody has to say who they are. Without one: root's user and
//! password where the server asks for them, everybody where it does not.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};
use saker_control::{ApiKeyInfo, ControlError, ProjectId, Registry, Scope};

use super::{refusal, text_of};
use crate::{auth::ROOT_USER, node::Node};

/// Paths of the audit log.
const AUDIT: &str = "/v2/audit/";

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody has to say.
    Anybody,
    /// The user root.
    Root,
    /// The holder of an API key.
    ApiKey(ApiKeyInfo),
}

impl Caller {
    /// Whether the caller may do everything.
    pub(crate) fn is_admin(&self) -> bool {
        match self {
            Self::Anybody | Self::Root => true,
            Self::ApiKey(key) => key.scope == Scope::Admin,
        }
    }
    /// Whether the caller may deal with this project.
    pub(crate) fn may(&self, project: &ProjectId) -> bool {
        match self {
            Self::Anybody | Self::Root => true,
            Self::ApiKey(key) => match &key.scope {
                Scope::Admin => true,
                Scope::Project(own) => own == project,
            },
        }
    }
    /// As [`Self::may`].
    ///
    /// # Errors
    /// [`ControlError::OutOfScope`].
    pub(crate) fn check(&self, project: &ProjectId) -> Result<(), ControlError> {
        match self {
            Self::ApiKey(ApiKeyInfo {
                scope: Scope::Project(own),
                ..
            }) if own != project => Err(ControlError::OutOfScope(own.clone())),
            Self::ApiKey(_) | Self::Anybody | Self::Root => Ok(()),
        }
    }
    /// As [`Self::is_admin`].
    ///
    /// # Errors
    /// [`ControlError::OutOfScope`].
    pub(crate) fn check_admin(&self) -> Result<(), ControlError> {
        match self {
            Self::ApiKey(ApiKeyInfo {
                scope: Scope::Project(own),
                ..
            }) => Err(ControlError::OutOfScope(own.clone())),
            Self::ApiKey(_) | Self::Anybody | Self::Root => Ok(()),
        }
    }
    /// Who asks, as audit records have it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Anybody => "anybody".to_owned(),
            Self::Root => ROOT_USER.to_owned(),
            Self::ApiKey(key) => format!("{} ({})", key.name, key.id),
        }
    }
}

/// Finds out who asks, or refuses; handlers have the [`Caller`] as an extension.
pub(super) async fn identify(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    let authorization = text_of(request.headers(), header::AUTHORIZATION.as_str());
    let secret = authorization
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim);
    let caller = match secret.filter(|secret| Registry::is_api_key(secret)) {
        Some(secret) => match node.membership.registry.authenticate(secret, node.clock.wall_ms()) {
            Some(key) => Caller::ApiKey(key),
            None => return refusal(StatusCode::UNAUTHORIZED, 1800, "this API key is unknown or was revoked"),
        },
        None => match node.auth.authenticate(&node.engine, authorization).await {
            Ok(None) => Caller::Anybody,
            Ok(Some(user)) if user.name() == ROOT_USER => Caller::Root,
            Ok(Some(_)) => {
                return refusal(
                    StatusCode::FORBIDDEN,
                    403,
                    "only root, or the holder of an API key, may do this",
                );
            }
            Err(refused) => {
                let message = format!("{refused}; or send an API key: `Authorization: Bearer sk-...`");
                return refusal(StatusCode::UNAUTHORIZED, 1800, &message);
            }
        },
    };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    // For who records requests, further out.
    response.extensions_mut().insert(caller);
    response
}

/// Lets those through who may deal with the project of this cluster. The server's own audit log tells of all projects, so
/// it is for those who may deal with all of them.
pub(super) async fn of_this_cluster(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let membership = &node.membership;
    let of_all = membership.cluster == membership.registry.standalone().id && request.uri().path().starts_with(AUDIT);
    let allowed = request.extensions().get::<Caller>().map(|caller| {
        if of_all {
            caller.check_admin()
        } else {
            caller.check(&membership.project)
        }
    });
    match allowed {
        Some(Ok(())) => next.run(request).await,
        Some(Err(error)) => refusal(StatusCode::FORBIDDEN, 403, &error.to_string()),
        None => refusal(StatusCode::UNAUTHORIZED, 1800, "nobody said who asks"),
    }
}
