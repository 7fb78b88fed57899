//! The comparison as one page that needs nothing else: for an auditor's file.

use std::fmt::Write as _;

use saker_audit::{ChainReport, OurCall, Reconciliation, TheirCall};

/// The page. Everything in it that comes from a record is escaped: a user agent is whatever its sender likes.
pub(super) fn page(result: &Reconciliation, chain: &ChainReport, good: bool) -> String {
    let mut page = String::from(HEAD);
    let verdict = if good {
        "<p class=good>Both records agree: nobody else used the keys.</p>"
    } else {
        "<p class=bad>The records do not agree.</p>"
    };
    page.push_str(verdict);
    let span = chain
        .span()
        .map_or(String::new(), |(from, to)| format!(" from {from} to {to}"));
    let chained = if chain.is_whole() { "whole" } else { "broken" };
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<p>Audit log: {} records{span}, head <code>{}</code>, chain {chained}.</p>",
        chain.records, chain.head
    );
    page.push_str(&bars(result));
    for fault in &chain.faults {
        let _ = write!(page, "<p class=bad>{}</p>", escaped(&fault.to_string()));
    }
    let strangers: Vec<&TheirCall> = result.only_theirs.iter().collect();
    theirs(&mut page, "Only in the key service's record", &strangers);
    let in_gaps: Vec<&TheirCall> = result.only_theirs_in_gaps.iter().collect();
    theirs(
        &mut page,
        "Only in the key service's record, while Saker's was not kept",
        &in_gaps,
    );
    ours(&mut page, "Only in Saker's record", &result.only_ours);
    ours(
        &mut page,
        "Need not be in the key service's record",
        &result.unconfirmed,
    );
    page.push_str("</body></html>\n");
    page
}

/// One bar per key: matched calls, and one each for what does not match.
fn bars(result: &Reconciliation) -> String {
    let mut rows: Vec<(String, u64, &str)> = result
        .matched_by_key
        .iter()
        .map(|(key, count)| (key.clone(), *count, "#2f7d4f"))
        .collect();
    rows.push((
        "only in the key service's record".to_owned(),
        result.only_theirs.len() as u64,
        "#b3261e",
    ));
    rows.push((
        "only in Saker's record".to_owned(),
        result.only_ours.len() as u64,
        "#b3261e",
    ));
    let most = rows.iter().map(|(_, count, _)| *count).max().unwrap_or(1).max(1);
    let height = rows.len() * 26 + 8;
    let mut svg = format!("<svg width=900 height={height} role=img aria-label='calls by key'>");
    for (index, (name, count, colour)) in rows.iter().enumerate() {
        let y = index * 26 + 4;
        let width = count.saturating_mul(360) / most + u64::from(*count > 0);
        let _ = write!(
            svg,
            "<text x=0 y={} font-size=12>{}</text><rect x=470 y={y} width={width} height=18 fill='{colour}'/>\
             <text x={} y={} font-size=12>{count}</text>",
            y + 14,
            escaped(name),
            476 + width,
            y + 14
        );
    }
    svg.push_str("</svg>");
    svg
}

fn theirs(page: &mut String, title: &str, calls: &[&TheirCall]) {
    if calls.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{title} ({})</h2><table><tr><th>time<th>operation<th>key<th>who<th>from<th>with<th>outcome<th>where</tr>",
        calls.len()
    );
    for call in calls {
        let who = call.identity["arn"]
            .as_str()
            .map_or_else(|| call.identity.to_string(), str::to_owned);
        row(
            page,
            &[
                &call.time,
                &call.operation,
                call.key.as_deref().unwrap_or_default(),
                &who,
                call.source.as_deref().unwrap_or_default(),
                call.user_agent.as_deref().unwrap_or_default(),
                call.error.as_deref().unwrap_or("ok"),
                &call.found,
            ],
        );
    }
    page.push_str("</table>");
}

fn ours(page: &mut String, title: &str, calls: &[OurCall]) {
    if calls.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{title} ({})</h2><table><tr><th>time<th>operation<th>key<th>reason<th>outcome<th>request<th>record</tr>",
        calls.len()
    );
    for call in calls {
        row(
            page,
            &[
                &call.time,
                &call.operation,
                &call.key,
                &call.reason,
                call.error.as_deref().unwrap_or("ok"),
                call.request_id.as_deref().unwrap_or_default(),
                &call.sequence.to_string(),
            ],
        );
    }
    page.push_str("</table>");
}

fn row(page: &mut String, cells: &[&str]) {
    page.push_str("<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{}", escaped(cell));
    }
    page.push_str("</tr>");
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\'' => safe.push_str("&#39;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8><title>Key use: both records</title>\
<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\"><style>\
body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:75em;color:#1b1b1b}table{border-collapse:collapse}\
td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
.good{background:#e3f4e8;padding:.6em}.bad{background:#fbe3e1;padding:.6em}</style></head><body>\
<h1>Key use: Saker's record and the key service's</h1>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_sent_cannot_become_markup() {
        let call = TheirCall {
            request_id: None,
            caller_id: None,
            key: Some("k".into()),
            operation: "Decrypt".into(),
            context: Default::default(),
            time_ms: 0,
            time: "t".into(),
            identity: serde_json::json!({ "arn": "<script>alert('x')</script>" }),
            source: None,
            user_agent: Some("\"><img src=x>".into()),
            error: None,
            found: "f".into(),
        };
        let result = Reconciliation {
            only_theirs: vec![call],
            ..Reconciliation::default()
        };
        let chain = saker_audit::check_export(b"", saker_audit::Head::NONE, Vec::new());
        let page = page(&result, &chain, false);
        assert!(!page.contains("<script>") && !page.contains("<img"));
        assert!(page.contains("&lt;script&gt;"));
    }
}
