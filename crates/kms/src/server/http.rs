//! One port, three services: reads a request, proves who signed it, runs the operation, logs it, answers.
//!
//! The JSON protocol (an `X-Amz-Target` header) is KMS; a form is STS or IAM, told apart by the service in the
//! signature's scope.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, Response, StatusCode},
    routing::get,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::{
    core::{Call, Caller, Core, unknown_identity},
    fault::Fault,
    kms,
    names::printable,
    query::{self, Form},
    roles,
    sigv4::{AuthFault, Authorization, Incoming},
    trail::{self, Event},
};

/// Largest request body, in bytes; AWS's largest legal request is far smaller.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body whose parameters are logged in full, in bytes: a policy of 32 KiB, escaped, fits.
const LOGGED_BYTES_MAX: usize = 128 * 1024;
/// Calls that are worked on at once; more wait.
const CALLS_MAX: usize = 128;
/// How long a client may take to send its body.
const BODY_SECONDS_MAX: u64 = 30;

const JSON: &str = "application/x-amz-json-1.1";
const XML: &str = "text/xml";

#[derive(Clone)]
struct Shared {
    core: Arc<Core>,
    calls: Arc<Semaphore>,
}

/// The routes. `/healthz` answers without a signature and says nothing.
pub(super) fn router(core: Arc<Core>) -> Router {
    let shared = Shared {
        core,
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
    };
    Router::new()
        .route("/healthz", get(async || "ok"))
        .fallback(receive)
        .with_state(shared)
}

/// A request with its whole body.
struct Received {
    path: String,
    headers: HeaderMap,
    body: Bytes,
    source: SocketAddr,
}

/// What goes back.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    request_id: String,
    error_code: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Json,
    Query,
}

async fn receive(
    State(shared): State<Shared>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let protocol = protocol_of(&parts.headers);
    if parts.method != Method::POST || parts.uri.path() != "/" || parts.uri.query().is_some() {
        let fault = Fault::new("UnknownOperationException", "Requests are POST / without a query.").with_status(404);
        return refused(protocol, &fault).into_response();
    }
    let Ok(_turn) = shared.calls.acquire().await else {
        return refused(protocol, &Fault::internal()).into_response();
    };
    let read = tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), to_bytes(body, BODY_BYTES_MAX)).await;
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = format!("The body could not be read; at most {BODY_BYTES_MAX} bytes are allowed.");
            let fault = Fault::new("RequestEntityTooLargeException", message).with_status(413);
            return refused(protocol, &fault).into_response();
        }
        Err(_) => {
            let fault = Fault::new("RequestTimeoutException", "The body did not arrive in time.").with_status(408);
            return refused(protocol, &fault).into_response();
        }
    };
    let received = Received {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body,
        source,
    };
    let core = Arc::clone(&shared.core);
    // Calls wait for the disk, so they run beside the async threads.
    match tokio::task::spawn_blocking(move || handle(&core, &received)).await {
        Ok(reply) => reply.into_response(),
        Err(_) => refused(protocol, &Fault::internal()).into_response(),
    }
}

fn protocol_of(headers: &HeaderMap) -> Protocol {
    let json = |value: &axum::http::HeaderValue| value.as_bytes().starts_with(b"application/x-amz-json");
    if headers.contains_key("x-amz-target") || headers.get("content-type").is_some_and(json) {
        Protocol::Json
    } else {
        Protocol::Query
    }
}

/// What the call log needs of a call besides its outcome.
struct Seen<'a> {
    service: &'static str,
    operation: &'a str,
    read_only: bool,
    parameters: Option<Value>,
    response: Option<Value>,
    identity: Value,
    used: Vec<(String, &'static str)>,
}

fn handle(core: &Core, received: &Received) -> Reply {
    let now_ms = (core.clock)();
    let request_id = uuid::Uuid::new_v4().to_string();
    let protocol = protocol_of(&received.headers);
    let target = header(&received.headers, "x-amz-target").unwrap_or_default();
    let mut seen = Seen {
        service: "kms",
        operation: "Unknown",
        read_only: false,
        parameters: None,
        response: None,
        identity: unknown_identity(None),
        used: Vec::new(),
    };
    let form = if protocol == Protocol::Query {
        Form::parse(&received.body)
    } else {
        None
    };
    let outcome = match protocol {
        Protocol::Json => answer_json(core, received, now_ms, target, &mut seen),
        Protocol::Query => answer_query(core, received, now_ms, form.as_ref(), &request_id, &mut seen),
    };
    let event = Event {
        names: &core.names,
        at_ms: now_ms,
        service: seen.service,
        operation: seen.operation,
        identity: seen.identity,
        source: received.source.ip(),
        user_agent: header(&received.headers, "user-agent").unwrap_or_default(),
        request_id: &request_id,
        read_only: seen.read_only,
        parameters: seen.parameters,
        response: seen.response,
        resources: &seen.used,
        fault: outcome.as_ref().err(),
    };
    let outcome = match core.trail.record(&event) {
        Ok(()) => outcome,
        Err(error) => {
            // No use of a key without its line in the log.
            tracing::error!(%error, "cannot write the call log");
            Err(Fault::internal())
        }
    };
    match outcome {
        Ok(body) => {
            let content_type = if protocol == Protocol::Json { JSON } else { XML };
            Reply {
                status: 200,
                content_type,
                body,
                request_id,
                error_code: None,
            }
        }
        Err(fault) => error_reply(protocol, &fault, request_id, namespace(seen.service)),
    }
}

fn answer_json<'a>(
    core: &Core,
    received: &Received,
    now_ms: i64,
    target: &'a str,
    seen: &mut Seen<'a>,
) -> Result<String, Fault> {
    let name = target.strip_prefix("TrentService.").unwrap_or_default();
    let operation = kms::operation(name);
    if let Some(operation) = operation {
        (seen.operation, seen.read_only) = (operation.name, operation.read_only);
    }
    let (authorization, caller) = authenticated(core, received, now_ms, seen).map_err(|fault| in_json(&fault))?;
    if authorization.service != "kms" || authorization.region != core.names.region {
        let message = format!(
            "Credential should be scoped to service kms in region {}.",
            core.names.region
        );
        return Err(in_json(&AuthFault::Scope(message)));
    }
    let Some(operation) = operation else {
        return Err(if kms::is_known_elsewhere(name) {
            Fault::unsupported(format!("This key server does not offer {name}."))
        } else {
            Fault::new(
                "UnknownOperationException",
                format!("Unknown operation {}.", printable(target)),
            )
        });
    };
    let request: Map<String, Value> = serde_json::from_slice(&received.body)
        .map_err(|_| Fault::new("SerializationException", "The body is not a JSON object."))?;
    seen.parameters = if received.body.len() <= LOGGED_BYTES_MAX {
        trail::kms_parameters(&request)
    } else {
        None
    };
    core.destroy_due_keys(now_ms)?;
    let mut call = Call {
        core,
        caller: &caller,
        now_ms,
        used: Vec::new(),
    };
    let outcome = kms::run(operation, &mut call, request);
    seen.used = call.used;
    let answer = outcome?;
    if !operation.read_only {
        seen.response = trail::kms_response(&answer);
        if answer.as_object().is_some_and(Map::is_empty) {
            // Operations without an answer have an empty body.
            return Ok(String::new());
        }
    }
    Ok(answer.to_string())
}

fn answer_query<'a>(
    core: &Core,
    received: &Received,
    now_ms: i64,
    form: Option<&'a Form>,
    request_id: &str,
    seen: &mut Seen<'a>,
) -> Result<String, Fault> {
    // The scope is only believed once the signature is; until then it just picks the error's namespace.
    let claimed = Authorization::parse(&received.headers).map(|authorization| authorization.service);
    seen.service = if claimed.as_deref() == Ok("iam") { "iam" } else { "sts" };
    let name = form.and_then(|form| form.text("Action")).unwrap_or_default();
    let operation = roles::operation(seen.service, name);
    if let Some(operation) = operation {
        (seen.operation, seen.read_only) = (operation.name, operation.read_only);
    }
    let (authorization, caller) = authenticated(core, received, now_ms, seen).map_err(|fault| in_query(&fault))?;
    if !matches!(authorization.service.as_str(), "sts" | "iam") {
        let message = "Credential should be scoped to service sts or iam, or X-Amz-Target be set.".to_owned();
        return Err(in_query(&AuthFault::Scope(message)));
    }
    let Some(form) = form else {
        return Err(Fault::new("MalformedInput", "The body is not a form."));
    };
    let Some(operation) = operation else {
        return Err(Fault::new(
            "InvalidAction",
            format!("This key server does not offer {}.", printable(name)),
        ));
    };
    if received.body.len() <= LOGGED_BYTES_MAX {
        let shown = roles::LOGGED.iter().filter_map(|(field, shown)| {
            form.text(field)
                .map(|text| ((*shown).to_owned(), Value::String(text.to_owned())))
        });
        let shown: Map<String, Value> = shown.collect();
        seen.parameters = (!shown.is_empty()).then_some(Value::Object(shown));
    }
    let mut call = Call {
        core,
        caller: &caller,
        now_ms,
        used: Vec::new(),
    };
    let outcome = roles::run(operation, &mut call, form);
    seen.used = call.used;
    Ok(query::answer(
        namespace(operation.service),
        operation.name,
        &outcome?,
        request_id,
    ))
}

fn authenticated(
    core: &Core,
    received: &Received,
    now_ms: i64,
    seen: &mut Seen<'_>,
) -> Result<(Authorization, Caller), AuthFault> {
    let authorization = Authorization::parse(&received.headers)?;
    seen.identity = unknown_identity(Some(&authorization.access_key_id));
    let incoming = Incoming {
        method: "POST",
        path: &received.path,
        headers: &received.headers,
        body: &received.body,
    };
    let caller = core.authenticate(&authorization, incoming, now_ms)?;
    seen.identity = caller.identity.clone();
    Ok((authorization, caller))
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS \
                        Secret Access Key and signing method.";

fn in_json(fault: &AuthFault) -> Fault {
    match fault {
        AuthFault::Missing => Fault::new("MissingAuthenticationTokenException", "Missing Authentication Token"),
        AuthFault::Incomplete(what) => Fault::new("IncompleteSignatureException", what.clone()),
        AuthFault::UnknownClient => Fault::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        AuthFault::ExpiredToken => Fault::new(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        AuthFault::Mismatch => Fault::new("InvalidSignatureException", MISMATCH),
        AuthFault::Skewed(how) | AuthFault::Scope(how) => Fault::new("InvalidSignatureException", how.clone()),
    }
}

fn in_query(fault: &AuthFault) -> Fault {
    let fault = match fault {
        AuthFault::Missing => Fault::new("MissingAuthenticationToken", "Request is missing Authentication Token"),
        AuthFault::Incomplete(what) => return Fault::new("IncompleteSignature", what.clone()),
        AuthFault::UnknownClient => Fault::new(
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        ),
        AuthFault::ExpiredToken => Fault::new("ExpiredToken", "The security token included in the request is expired"),
        AuthFault::Mismatch => Fault::new("SignatureDoesNotMatch", MISMATCH),
        AuthFault::Skewed(how) | AuthFault::Scope(how) => Fault::new("SignatureDoesNotMatch", how.clone()),
    };
    fault.with_status(403)
}

fn namespace(service: &str) -> &'static str {
    match service {
        "iam" => "https://iam.amazonaws.com/doc/2010-05-08/",
        _ => "https://sts.amazonaws.com/doc/2011-06-15/",
    }
}

/// An answer to what did not even become a call.
fn refused(protocol: Protocol, fault: &Fault) -> Reply {
    error_reply(protocol, fault, uuid::Uuid::new_v4().to_string(), namespace("sts"))
}

fn error_reply(protocol: Protocol, fault: &Fault, request_id: String, namespace: &str) -> Reply {
    let (content_type, body) = match protocol {
        Protocol::Json => (JSON, fault.json().to_string()),
        Protocol::Query => (XML, query::error(namespace, fault, &request_id)),
    };
    Reply {
        status: fault.status,
        content_type,
        body,
        request_id,
        error_code: Some(fault.code),
    }
}

impl Reply {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("content-type", axum::http::HeaderValue::from_static(self.content_type));
        headers.insert("cache-control", axum::http::HeaderValue::from_static("no-store"));
        if let Ok(value) = self.request_id.parse() {
            headers.insert("x-amzn-requestid", value);
        }
        if let Some(code) = self.error_code {
            headers.insert("x-amzn-errortype", axum::http::HeaderValue::from_static(code));
        }
        response
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
