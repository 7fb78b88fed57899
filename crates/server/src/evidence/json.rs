//! `evidence.json`. The schema is in `docs/evidence.md`; a change of meaning raises its number.

use std::collections::BTreeMap;

use saker_audit::to_text;
use saker_engine::{Finding, Item, Verification, ZoneOwnerReport};
use serde::{Serialize, Serializer};

use super::{
    Facts, RequestMade,
    summary::{Conclusion, RootSummary, Summary, Tally, ZoneSummary},
};

/// Name and number of the schema.
pub(super) const SCHEMA: &str = "saker-evidence/1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    schema: &'static str,
    verdict: Conclusion,
    program: Program,
    started: String,
    finished: String,
    directory: Directory<'a>,
    names: bool,
    totals: Totals,
    findings: Vec<FindingEntry<'a>>,
    findings_by_class: BTreeMap<&'static str, u64>,
    roots: Vec<RootEntry<'a>>,
    zones: Vec<ZoneEntry<'a>>,
    databases: Vec<DatabaseEntry<'a>>,
    collections: Vec<CollectionEntry<'a>>,
    key_calls: KeyCalls<'a>,
    audit_chain: Option<ChainEntry>,
    files: Files<'a>,
}

#[derive(Serialize)]
struct Program {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Directory<'a> {
    path: String,
    store: Option<&'a str>,
    cluster: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    items: u64,
    bytes: u64,
    frames: u64,
    by_verdict: BTreeMap<&'static str, Tally>,
    by_kind: BTreeMap<&'static str, Tally>,
    without_zone: Tally,
    zones: u64,
    dark_zones: u64,
    roots: u64,
    databases: u64,
    collections: u64,
    findings: u64,
    key_calls: u64,
}

#[derive(Serialize)]
struct FindingEntry<'a> {
    what: &'a str,
    class: &'static str,
    problem: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RootEntry<'a> {
    key: &'a str,
    state: &'static str,
    zones: u64,
    dark_zones: u64,
    items: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZoneEntry<'a> {
    zone: String,
    root: &'a str,
    owner: OwnerEntry<'a>,
    role: &'a str,
    state: &'static str,
    reason: Option<&'a str>,
    items: u64,
    bytes: u64,
    frames: u64,
    by_verdict: &'a BTreeMap<&'static str, Tally>,
    versions: Vec<VersionEntry<'a>>,
}

#[derive(Serialize)]
struct OwnerEntry<'a> {
    kind: &'static str,
    id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionEntry<'a> {
    version: u32,
    wrapped_sha256: &'a str,
    items: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseEntry<'a> {
    id: i64,
    customer_key: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct CollectionEntry<'a> {
    id: i64,
    database: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyCalls<'a> {
    total: u64,
    by_operation: BTreeMap<&'static str, u64>,
    refused: u64,
    calls: Vec<CallEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallEntry<'a> {
    time: String,
    operation: &'static str,
    root: &'a str,
    context: BTreeMap<String, String>,
    outcome: String,
    request_id: Option<&'a str>,
    took_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainEntry {
    records: u64,
    first: u64,
    head: String,
    from: Option<String>,
    to: Option<String>,
    whole: bool,
    faults: Vec<String>,
}

/// Written one by one, so that 100,000 of them are never in memory a second time.
struct Files<'a>(&'a [Item]);

#[derive(Serialize)]
struct FileEntry<'a> {
    path: &'a str,
    kind: &'static str,
    collection: Option<i64>,
    zone: Option<String>,
    version: Option<u32>,
    bytes: u64,
    frames: u64,
    verdict: &'static str,
}

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| FileEntry {
            path: &item.path,
            kind: item.kind.as_str(),
            collection: item.collection.map(|id| id.0),
            zone: item.zone.map(|zone| zone.to_string()),
            version: item.version,
            bytes: item.bytes,
            frames: item.frames,
            verdict: item.verdict.as_str(),
        }))
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(facts: &Facts<'a>, summary: &'a Summary<'a>) -> Self {
        let verification = facts.verification;
        Self {
            schema: SCHEMA,
            verdict: summary.conclusion,
            program: Program {
                name: "saker",
                version: env!("CARGO_PKG_VERSION"),
            },
            started: to_text(facts.started_ms),
            finished: to_text(facts.finished_ms),
            directory: Directory {
                path: facts.directory.display().to_string(),
                store: verification.store.as_deref(),
                cluster: verification.cluster.as_deref(),
            },
            names: facts.names,
            totals: totals(facts, summary),
            findings: verification.findings.iter().map(finding).collect(),
            findings_by_class: summary
                .by_class
                .iter()
                .map(|(class, count)| (class.as_str(), *count))
                .collect(),
            roots: summary.roots.iter().map(root).collect(),
            zones: summary.zones.iter().map(|entry| zone(facts, entry)).collect(),
            databases: databases(verification, facts.names),
            collections: collections(verification, facts.names),
            key_calls: key_calls(facts.requests),
            audit_chain: facts.chain.map(|chain| ChainEntry {
                records: chain.report.records,
                first: chain.first,
                head: chain.report.head.to_string(),
                from: chain.report.span().map(|(from, _)| from),
                to: chain.report.span().map(|(_, to)| to),
                whole: chain.report.is_whole(),
                faults: chain.report.faults.iter().map(ToString::to_string).collect(),
            }),
            files: Files(&verification.items),
        }
    }
}

fn totals(facts: &Facts<'_>, summary: &Summary<'_>) -> Totals {
    let verification = facts.verification;
    let dark = summary.zones.iter().filter(|zone| zone.report.dark.is_some()).count();
    Totals {
        items: summary.all.items,
        bytes: summary.all.bytes,
        frames: summary.frames,
        by_verdict: summary
            .by_verdict
            .iter()
            .map(|(verdict, tally)| (verdict.as_str(), *tally))
            .collect(),
        by_kind: summary.by_kind.clone(),
        without_zone: summary.without_zone,
        zones: summary.zones.len() as u64,
        dark_zones: dark as u64,
        roots: summary.roots.len() as u64,
        databases: verification.databases.len() as u64,
        collections: verification.collections.len() as u64,
        findings: verification.findings.len() as u64,
        key_calls: facts.requests.len() as u64,
    }
}

fn finding(finding: &Finding) -> FindingEntry<'_> {
    FindingEntry {
        what: &finding.what,
        class: finding.class.as_str(),
        problem: &finding.problem,
    }
}

fn root<'a>(summary: &'a RootSummary<'a>) -> RootEntry<'a> {
    RootEntry {
        key: summary.root.as_str(),
        state: summary.state(),
        zones: summary.zones.len() as u64,
        dark_zones: summary.dark_zones,
        items: summary.all.items,
        bytes: summary.all.bytes,
    }
}

fn zone<'a>(facts: &Facts<'a>, summary: &'a ZoneSummary<'a>) -> ZoneEntry<'a> {
    let report = summary.report;
    let verification = facts.verification;
    let (kind, id, name) = match report.owner {
        ZoneOwnerReport::Platform => ("platform", None, None),
        ZoneOwnerReport::Database(id) => ("database", Some(id.0), verification.database_name(id)),
        ZoneOwnerReport::Collection(id) => {
            let found = verification.collections.iter().find(|collection| collection.id == id);
            (
                "collection",
                Some(id.0),
                found.map(|collection| collection.name.as_str()),
            )
        }
        ZoneOwnerReport::Other => ("other", None, None),
    };
    let versions = report.versions.iter().zip(&summary.by_version);
    ZoneEntry {
        zone: report.zone.to_string(),
        root: report.root.as_str(),
        owner: OwnerEntry {
            kind,
            id,
            name: name.filter(|_| facts.names),
        },
        role: &report.role,
        state: if report.dark.is_some() { "dark" } else { "usable" },
        reason: report.dark.as_deref(),
        items: summary.all.items,
        bytes: summary.all.bytes,
        frames: summary.frames,
        by_verdict: &summary.by_verdict,
        versions: versions
            .map(|(version, tally)| VersionEntry {
                version: version.version,
                wrapped_sha256: &version.wrapped_sha256,
                items: tally.items,
                bytes: tally.bytes,
            })
            .collect(),
    }
}

fn databases(verification: &Verification, names: bool) -> Vec<DatabaseEntry<'_>> {
    let entry = |database: &saker_engine::DatabaseReport| (database.id.0, database.customer_key);
    verification
        .databases
        .iter()
        .map(|database| {
            let (id, customer_key) = entry(database);
            DatabaseEntry {
                id,
                customer_key,
                name: Some(database.name.as_str()).filter(|_| names),
            }
        })
        .collect()
}

fn collections(verification: &Verification, names: bool) -> Vec<CollectionEntry<'_>> {
    verification
        .collections
        .iter()
        .map(|collection| CollectionEntry {
            id: collection.id.0,
            database: collection.database.0,
            name: Some(collection.name.as_str()).filter(|_| names),
        })
        .collect()
}

fn key_calls(requests: &[RequestMade]) -> KeyCalls<'_> {
    let mut by_operation = BTreeMap::from([("Decrypt", 0), ("GenerateDataKey", 0)]);
    for request in requests {
        *by_operation.entry(request.call.operation.as_str()).or_default() += 1;
    }
    let refused = requests.iter().filter(|request| request.call.outcome.is_err()).count();
    KeyCalls {
        total: requests.len() as u64,
        by_operation,
        refused: refused as u64,
        calls: requests.iter().map(call).collect(),
    }
}

fn call(request: &RequestMade) -> CallEntry<'_> {
    let call = &request.call;
    CallEntry {
        time: to_text(request.sent_ms),
        operation: call.operation.as_str(),
        root: call.root.as_str(),
        context: call.context.pairs(),
        outcome: outcome_of(request),
        request_id: call.request_id.as_deref(),
        took_ms: call.took_ms,
    }
}

/// `ok`, or what the key service said.
pub(super) fn outcome_of(request: &RequestMade) -> String {
    match &request.call.outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}
