//! Refusals that the router and its extractors make on their own (a wrong method, a body too large, a field unknown) get
//! the same JSON as all others.

use axum::{
    body::to_bytes,
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{refusal, text_of};

/// Longest refusal in plain text that is looked at, in bytes.
const PLAIN_BYTES_MAX: usize = 4_096;

/// Turns plain refusals into JSON ones.
pub(super) async fn as_json(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = text_of(response.headers(), header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if !(status.is_client_error() || status.is_server_error()) || kind.starts_with("application/json") {
        return response;
    }
    let text = match to_bytes(response.into_body(), PLAIN_BYTES_MAX).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let message = match status {
        // Which it takes is in the header `allow`, which the router adds after this.
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method; the header `allow` says which it takes",
        _ if text.is_empty() => status.canonical_reason().unwrap_or("refused"),
        _ => text.as_str(),
    };
    refusal(status, i32::from(status.as_u16()), message)
}
