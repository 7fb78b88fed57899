//! Trying out analyzers.

use saker_engine::{AnalyzeRequest, FieldName};
use saker_proto::milvus::{AnalyzerResult, AnalyzerToken, RunAnalyzerRequest, RunAnalyzerResponse};

use super::Call;
use crate::{node::Node, wire::Failure};

/// What an analyzer makes of texts: one given by its parameters, or that of a field.
pub(super) async fn run_analyzer(
    node: &Node,
    call: &Call,
    request: RunAnalyzerRequest,
) -> Result<RunAnalyzerResponse, Failure> {
    if request.analyzer_names.iter().any(|name| !name.is_empty()) {
        return Err(Failure::unsupported("an analyzer name"));
    }
    let text = |bytes: &bytes::Bytes| {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| Failure::invalid("a text to analyze is not UTF-8"))
    };
    let texts = request.placeholder.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let field = (!request.collection_name.is_empty()).then(|| FieldName {
        database: call.database(&request.db_name),
        collection: request.collection_name,
        field: request.field_name,
    });
    let found = node
        .engine
        .analyze(AnalyzeRequest {
            params: Some(request.analyzer_params),
            field,
            texts,
        })
        .await?;
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let token = |token: saker_engine::TextToken| {
        let plain = AnalyzerToken {
            token: token.text,
            hash: if request.with_hash { token.hash } else { 0 },
            ..AnalyzerToken::default()
        };
        if !request.with_detail {
            return plain;
        }
        AnalyzerToken {
            start_offset: number(token.start),
            end_offset: number(token.end),
            position: number(token.position),
            position_length: 1,
            ..plain
        }
    };
    let results = found.into_iter().map(|tokens| AnalyzerResult {
        tokens: tokens.into_iter().map(token).collect(),
    });
    Ok(RunAnalyzerResponse {
        status: None,
        results: results.collect(),
    })
}
