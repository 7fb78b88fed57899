//! `/v2/projects`, `/v2/clusters`, `/v2/api-keys`: the control plane. `docs/control-plane.md` has every path.
//!
//! Unlike refusals by a database, those of the control plane come with an HTTP status of their own, which is also the
//! code.

mod api_keys;
mod clusters;
mod projects;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use saker_control::{ControlError, ControlErrorKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::refusal;
use crate::control::Fleet;

pub(super) fn router(fleet: Arc<Fleet>) -> Router {
    Router::new()
        .merge(projects::router())
        .merge(clusters::router())
        .merge(api_keys::router())
        .with_state(fleet)
}

/// A JSON body. What kind of content the client calls it does not matter.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;
    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await.map_err(|refused| {
            let status = refused.status();
            let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
                format!("the body is larger than {} bytes", super::BODY_BYTES_MAX)
            } else {
                "the body could not be read".to_owned()
            };
            refusal(status, i32::from(status.as_u16()), &message)
        })?;
        if bytes.is_empty() {
            return Err(invalid("the body is empty; send a JSON object"));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| invalid(&format!("the body is not as expected: {error}")))
    }
}

/// Parameters after the question mark.
struct Params<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(invalid(&error.body_text())),
        }
    }
}

/// Refuses a request that is wrong.
pub(super) fn invalid(message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, 400, message)
}

/// What a handler answers.
type Answer = Result<Response, Refused>;

/// A refusal by the control plane.
struct Refused(ControlError);

impl<E: Into<ControlError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ControlErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ControlErrorKind::NotFound => StatusCode::NOT_FOUND,
            ControlErrorKind::Conflict => StatusCode::CONFLICT,
            ControlErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ControlErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ControlErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refusal(status, i32::from(status.as_u16()), &self.0.to_string())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "ends handlers that may refuse before")]
#[expect(clippy::needless_pass_by_value, reason = "takes what the handlers have just made")]
fn done(data: Value) -> Answer {
    Ok(Json(json!({ "code": 0, "data": data })).into_response())
}

/// A root key's name in a request.
fn root_key(text: &str) -> Result<saker_keyring::RootKeyId, ControlError> {
    text.parse()
        .map_err(|error: saker_keyring::RootKeyIdError| ControlError::invalid("key", error.to_string()))
}
