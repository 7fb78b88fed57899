//! `/v2/audit`: the audit log and the log of requests, for their customer.
//!
//! Exports are lines, not the JSON answer of the other paths: they are as long as the log, and sent a segment at a time.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures::stream;
use saker_audit::{Exported, JournalError, Place, Walk, closing_line, cloudtrail_records};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, refusal};
use crate::{
    audit::{ACCESS_STREAM, place},
    node::Node,
    wire::failure::Code,
};

pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2/audit/head", get(head))
        .route("/v2/audit/tail", get(tail))
        .route("/v2/audit/export", get(export))
        .route("/v2/audit/access", get(access))
}

/// Most records of one tail.
const TAIL_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TailQuery {
    count: usize,
}

impl Default for TailQuery {
    fn default() -> Self {
        Self { count: 20 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExportQuery {
    format: Format,
    after: u64,
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// As they are: JSON lines, and the closing line.
    #[default]
    Native,
    /// One object with the records in the shape of CloudTrail.
    CloudTrail,
}

/// Writes what happened so far and says what the newest record is.
async fn head(State(node): State<Arc<Node>>) -> Response {
    match node.audit.log().flush().await {
        Ok(head) => answer(Ok(json!({
            "head": head.to_string(),
            "sequence": head.sequence,
            "sha256": head.hash.to_string(),
        }))),
        Err(error) => refused(&error),
    }
}

async fn tail(State(node): State<Arc<Node>>, Query(query): Query<TailQuery>) -> Response {
    let place = match flushed(&node).await {
        Ok(place) => place,
        Err(error) => return refused(&error),
    };
    match place.newest_lines(query.count.min(TAIL_MAX)).await {
        Ok(lines) => {
            let records: Vec<Value> = lines
                .iter()
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect();
            answer(Ok(
                json!({ "head": node.audit.log().head().to_string(), "records": records }),
            ))
        }
        Err(error) => refused(&error),
    }
}

async fn export(State(node): State<Arc<Node>>, Query(query): Query<ExportQuery>) -> Response {
    let place = match flushed(&node).await {
        Ok(place) => place,
        Err(error) => return refused(&error),
    };
    match Walk::begin(place).await {
        Ok(walk) => lines(match query.format {
            Format::Native => Export::native(walk, query.after),
            Format::CloudTrail => Export::cloudtrail(walk, query.after),
        }),
        Err(error) => refused(&error),
    }
}

async fn access(State(node): State<Arc<Node>>) -> Response {
    if let Some(access) = node.audit.access() {
        access.flush().await;
    }
    let walk = match place(&node.engine.audit_stores(), ACCESS_STREAM) {
        Ok(place) => Walk::begin(place).await,
        Err(error) => Err(error),
    };
    match walk {
        Ok(walk) => lines(Export::plain(walk)),
        Err(error) => refused(&error),
    }
}

async fn flushed(node: &Node) -> Result<Place, JournalError> {
    node.audit.log().flush().await?;
    node.audit.log().place().cloned().ok_or(JournalError::NotInTime)
}

fn refused(error: &JournalError) -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, Code::INTERNAL.0, &error.to_string())
}

/// Nothing keeps a copy of an export.
const HEADERS: [(HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "application/x-ndjson"),
    (header::CACHE_CONTROL, "no-store"),
];

fn lines(export: Export) -> Response {
    let chunks = stream::unfold(export, |mut export| async move {
        let chunk = export.next_chunk().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), export))
    });
    (HEADERS, Body::from_stream(chunks)).into_response()
}

/// An export on its way: a chunk for each segment.
pub(crate) struct Export {
    walk: Walk,
    exported: Exported,
    style: Style,
    begun: bool,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Native,
    CloudTrail,
    /// Lines of another log: all of them, without a closing line.
    Plain,
}

impl Export {
    /// The audit log as it is.
    pub(crate) fn native(walk: Walk, after: u64) -> Self {
        Self::of(walk, Style::Native, after)
    }
    /// The audit log in the shape of CloudTrail.
    pub(crate) fn cloudtrail(walk: Walk, after: u64) -> Self {
        Self::of(walk, Style::CloudTrail, after)
    }
    /// Another log's lines.
    pub(crate) fn plain(walk: Walk) -> Self {
        Self::of(walk, Style::Plain, 0)
    }
    fn of(walk: Walk, style: Style, after: u64) -> Self {
        Self {
            walk,
            exported: Exported::after(after),
            style,
            begun: false,
            ended: false,
        }
    }

    /// The next bytes; `None` at the end. A segment that cannot be read becomes a line that says so, which no check takes
    /// for a record.
    pub(crate) async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut chunk = Vec::new();
        match self.walk.next_lines().await {
            Some(Ok(lines)) => {
                for line in lines {
                    if self.style == Style::Plain || self.exported.takes(&line) {
                        self.write(&line, &mut chunk);
                    }
                }
            }
            Some(Err(error)) => {
                tracing::error!("audit export: {error}");
                let problem = json!({ "error": error.to_string() }).to_string();
                self.write(problem.as_bytes(), &mut chunk);
            }
            None => {
                self.ended = true;
                match self.style {
                    Style::Plain => {}
                    Style::Native => {
                        chunk.extend_from_slice(closing_line(self.exported.head()).as_bytes());
                        chunk.push(b'\n');
                    }
                    Style::CloudTrail => {
                        chunk.extend_from_slice(if self.begun { b"\n]}\n" } else { b"{\"Records\":[\n]}\n" });
                    }
                }
            }
        }
        Some(chunk)
    }

    fn write(&mut self, line: &[u8], chunk: &mut Vec<u8>) {
        if self.style != Style::CloudTrail {
            chunk.extend_from_slice(line);
            chunk.push(b'\n');
            return;
        }
        let Ok(record) = saker_audit::Record::parse(line) else {
            return;
        };
        for event in cloudtrail_records(&record) {
            chunk.extend_from_slice(if self.begun { b",\n" } else { b"{\"Records\":[\n" });
            self.begun = true;
            chunk.extend_from_slice(event.to_string().as_bytes());
        }
    }
}
