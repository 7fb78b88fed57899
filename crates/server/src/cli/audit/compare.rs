//! `saker audit reconcile`: Saker's record beside the key service's.

use std::path::PathBuf;

use clap::Args;
use saker_audit::{ChainReport, Head, OurCall, Reconciliation, TheirCall, TheirRecords, reconcile};
use serde_json::{Value, json};

use super::{html, read, records_of, source::Source};
use crate::cli::{Failed, Outcome, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// Records of the key service: CloudTrail's files (.json or .json.gz), cloudtrail.jsonl of the local key server, or
    /// OpenBao's audit file. Copy them before the audit log is exported, so that the log has every call that they have
    #[arg(required = true, value_name = "CLOUDTRAIL")]
    trails: Vec<PathBuf>,
    /// An export as `saker audit export` writes it, instead of a running server or a data directory
    #[arg(long, conflicts_with_all = ["dir", "config"])]
    audit: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// A head of the audit log that was kept; several may be given
    #[arg(long, value_name = "SEQUENCE:HASH")]
    head: Vec<Head>,
    /// Calls in a time for which the audit log says that it is not complete (the server was killed) and that look like
    /// Saker's own are listed, and do not make the exit code 1
    #[arg(long)]
    accept_gaps: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write a self-contained HTML page too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let mut theirs = TheirRecords::default();
    for path in &options.trails {
        theirs.read(&path.display().to_string(), &read(path)?)?;
    }
    let (records, chain) = match &options.audit {
        Some(path) => records_of(&read(path)?, options.head),
        None => options.source.records(options.head).await?,
    };
    let result = reconcile(&records, theirs);
    let gaps_matter = !options.accept_gaps && !result.only_theirs_in_gaps.is_empty();
    let good = chain.is_whole()
        && result.only_theirs.is_empty()
        && result.only_ours.is_empty()
        && result.different.is_empty()
        && !gaps_matter;
    if let Some(path) = &options.html {
        use std::io::Write as _;
        super::create(path)?.write_all(html::page(&result, &chain, good).as_bytes())?;
    }
    if options.json {
        output::line(as_json(&result, &chain, good));
    } else {
        say(&result, &chain, good);
    }
    Ok(if good { Outcome::Done } else { Outcome::Bad })
}

fn say(result: &Reconciliation, chain: &ChainReport, good: bool) {
    if !chain.is_whole() {
        super::say(chain);
    }
    output::line(format_args!(
        "{} calls matched by request id, {} by key, context and time",
        result.matched_by_request_id, result.matched_by_time
    ));
    for (key, count) in &result.matched_by_key {
        output::line(format_args!("  {count:>8}  {key}"));
    }
    for call in &result.only_theirs {
        output::line(format_args!("ONLY IN THE KEY SERVICE'S RECORD: {}", theirs_text(call)));
    }
    for call in &result.only_theirs_in_gaps {
        output::line(format_args!(
            "only in the key service's record, while Saker's was not kept: {}",
            theirs_text(call)
        ));
    }
    for call in &result.only_ours {
        output::line(format_args!("ONLY IN SAKER'S RECORD: {}", ours_text(call)));
    }
    for pair in &result.different {
        output::line(format_args!(
            "DIFFERENT {}: {} / {}",
            pair.what,
            ours_text(&pair.ours),
            theirs_text(&pair.theirs)
        ));
    }
    for (count, what) in [
        (
            result.unconfirmed.len() as u64,
            "calls without an answer, refused, or newer than the key service's record: it need not have them",
        ),
        (result.without_record, "calls to key services that keep no record"),
        (result.of_other_keys, "uses of keys that Saker never used"),
        (
            result.before_our_record,
            "uses of the keys from before Saker's record begins",
        ),
        (
            result.gaps.len() as u64,
            "times in which Saker's own record is not complete",
        ),
    ] {
        if count > 0 {
            output::line(format_args!("{count} {what}"));
        }
    }
    output::line(if good {
        "both records agree: nobody else used the keys"
    } else {
        "the records do not agree"
    });
}

/// Who, from where, when: what the customer has to know about a stranger.
fn theirs_text(call: &TheirCall) -> String {
    let who = call.identity["arn"]
        .as_str()
        .or_else(|| call.identity["display_name"].as_str())
        .map_or_else(|| call.identity.to_string(), str::to_owned);
    format!(
        "{} {} {} by {who} from {} with {}{} ({})",
        call.time,
        call.operation,
        call.key.as_deref().unwrap_or("(key not recorded)"),
        call.source.as_deref().unwrap_or("(address not recorded)"),
        call.user_agent.as_deref().unwrap_or("(program not recorded)"),
        call.error
            .as_ref()
            .map_or(String::new(), |error| format!(", refused: {error}")),
        call.found
    )
}

fn ours_text(call: &OurCall) -> String {
    format!(
        "{} {} {} for {}, record {}, request {}",
        call.time,
        call.operation,
        call.key,
        call.reason,
        call.sequence,
        call.request_id.as_deref().unwrap_or("(unnamed)")
    )
}

fn as_json(result: &Reconciliation, chain: &ChainReport, good: bool) -> Value {
    let mut report = serde_json::to_value(result).unwrap_or_default();
    report["ok"] = json!(good);
    report["matched"] = json!(result.matched());
    report["chain"] = super::report_json(chain);
    report
}
