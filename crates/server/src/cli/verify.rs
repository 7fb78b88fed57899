//! `saker verify`: an offline walk of a data directory, which changes nothing in it, and the evidence of it.
//!
//! Exit codes: 0 everything was opened and is as it should be, 1 findings, 3 no finding but something is under a key that may
//! not be used now.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use saker_engine::{Finding, FindingClass, ItemKind, Verdict, Verification, WalkObserver, ZoneOwnerReport, ZoneReport};
use saker_keyring::{CallObserver, KeyService as _};
use saker_kms::{AwsKmsConfig, KeyServices, KeyServicesConfig, LocalKeyServerConfig};
use saker_storage::ReadOnlyStores;
use serde_json::{Value, json};

use super::{Failed, Outcome, output};
use crate::{
    config::Config,
    evidence::{self, AuditChain, Facts, Recorder, RequestMade, Written},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Data directory; for one of `saker dev`, DIR/data
    #[arg(long, required_unless_present = "config")]
    dir: Option<PathBuf>,
    /// Configuration file of the server, for its key services and its data directory
    #[arg(long)]
    config: Option<PathBuf>,
    /// File of the platform root key [default: platform.key beside the data directory]
    #[arg(long, conflicts_with = "config")]
    platform_key_file: Option<PathBuf>,
    /// A running server with the AWS KMS protocol, for customers' keys; without it and --config their databases count
    /// as locked. Credentials: profile saker of aws-credentials beside the data directory, else the AWS environment
    #[arg(long, conflicts_with = "config")]
    kms_endpoint: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write an evidence report (evidence.json and evidence.html) into this directory, which must not be in the data
    /// directory
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// Tell names of databases and collections in the evidence report; without it they appear by id
    #[arg(long, requires = "evidence")]
    names: bool,
}

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let (dir, keys) = places(&options)?;
    if let Some(evidence) = &options.evidence {
        evidence::prepare(evidence, &dir)?;
    }
    // The server's other clusters keep their data in it, each for itself and with evidence of its own.
    let stores = ReadOnlyStores::open(&dir)?;
    let clusters = stores.clusters();
    drop(stores);
    let (outcome, mut said) = look(&options, &keys, &dir, options.evidence.as_deref()).await?;
    let (mut worst, mut others) = (outcome, serde_json::Map::new());
    for cluster in clusters {
        let name = cluster
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let evidence = options
            .evidence
            .as_ref()
            .map(|evidence| evidence.join("clusters").join(&name));
        if let Some(evidence) = &evidence {
            evidence::prepare(evidence, &dir)?;
        }
        if !options.json {
            output::line(format_args!("cluster {}", evidence::visible(&name)));
        }
        let (outcome, said) = look(&options, &keys, &cluster, evidence.as_deref()).await?;
        worst = worse(worst, outcome);
        others.insert(name, said);
    }
    if options.json {
        if let (Some(members), false) = (said.as_object_mut(), others.is_empty()) {
            members.insert("clusters".to_owned(), Value::Object(others));
        }
        output::line(said);
    }
    Ok(worst)
}

fn worse(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Bad, _) | (_, Outcome::Bad) => Outcome::Bad,
        (Outcome::Incomplete, _) | (_, Outcome::Incomplete) => Outcome::Incomplete,
        (Outcome::Done, Outcome::Done) => Outcome::Done,
    }
}

/// Walks one data directory, says what came of it (or gives it as JSON), and writes the evidence.
async fn look(
    options: &Options,
    keys: &KeyServicesConfig,
    dir: &Path,
    evidence: Option<&Path>,
) -> Result<(Outcome, Value), Failed> {
    let keys = KeyServices::connect(keys.clone()).await?;
    let stores = Arc::new(ReadOnlyStores::open(dir)?);
    let bar = if options.json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} {binary_bytes_per_sec} {eta} left")
    {
        bar.set_style(style);
    }
    let recorder = Recorder::new(bar.clone());
    keys.observe(Arc::clone(&recorder) as Arc<dyn CallObserver>);
    let started_ms = recorder.now_ms();
    let mut report = saker_engine::verify(stores, &keys, Arc::clone(&recorder) as Arc<dyn WalkObserver>).await;
    bar.finish_and_clear();
    let (requests, chain) = (recorder.requests(), recorder.chain());
    add_chain(&mut report, chain.as_ref());
    let facts = Facts {
        verification: &report,
        requests: &requests,
        chain: chain.as_ref(),
        started_ms,
        finished_ms: recorder.now_ms(),
        directory: dir,
        names: options.names,
    };
    let written = match evidence {
        Some(evidence) => {
            let failed = |error| format!("the evidence cannot be written to {}: {error}", evidence.display());
            Some(evidence::write(&facts, evidence).map_err(failed)?)
        }
        None => None,
    };
    if !options.json {
        say(&report, written.as_ref());
    }
    let outcome = match (report.is_sound(), is_complete(&report)) {
        (false, _) => Outcome::Bad,
        (true, false) => Outcome::Incomplete,
        (true, true) => Outcome::Done,
    };
    Ok((outcome, as_json(&report, &requests, written.as_ref())))
}

/// Whether everything could be opened.
fn is_complete(report: &Verification) -> bool {
    report.dark().next().is_none() && report.count(Verdict::Dark).0 == 0
}

/// A broken chain of the audit log is a finding like any other.
fn add_chain(report: &mut Verification, chain: Option<&AuditChain>) {
    for fault in chain.iter().flat_map(|chain| &chain.report.faults) {
        report.findings.push(Finding {
            what: "log/audit".to_owned(),
            class: FindingClass::Damage,
            problem: format!("the chain of the audit log is broken: {fault}"),
        });
    }
}

fn places(options: &Options) -> Result<(PathBuf, KeyServicesConfig), Failed> {
    if let Some(path) = &options.config {
        let config = Config::read(path)?;
        let dir = options.dir.clone().unwrap_or_else(|| config.data.dir.clone());
        check_is_ours(&dir)?;
        return Ok((dir, config.key_services_config()));
    }
    let dir = std::path::absolute(options.dir.clone().unwrap_or_default())?;
    check_is_ours(&dir)?;
    let beside = dir.parent().unwrap_or(Path::new("/"));
    let key_file = options
        .platform_key_file
        .clone()
        .unwrap_or_else(|| beside.join("platform.key"));
    // Opening would make a new one, which opens nothing.
    if !key_file.is_file() {
        return Err(format!(
            "{} is not there: name the platform key file, or give --config",
            key_file.display()
        )
        .into());
    }
    let credentials = Some(beside.join("aws-credentials")).filter(|path| path.is_file());
    let aws = options.kms_endpoint.clone().map(|endpoint| AwsKmsConfig {
        sts_endpoint_url: Some(endpoint.clone()),
        endpoint_url: Some(endpoint),
        region: Some(LocalKeyServerConfig::REGION.to_owned()),
        profile: credentials.is_some().then(|| "saker".to_owned()),
        credentials_file: credentials,
        ..AwsKmsConfig::default()
    });
    Ok((
        dir,
        KeyServicesConfig {
            platform_key_file: Some(key_file),
            aws,
            ..KeyServicesConfig::default()
        },
    ))
}

fn check_is_ours(dir: &Path) -> Result<(), Failed> {
    if dir.join("SAKER").is_file() {
        return Ok(());
    }
    Err(format!("{} is no data directory: there is no file SAKER in it", dir.display()).into())
}

/// Sums over the items that a script asks for.
struct Sums {
    values: u64,
    log_segments: u64,
    log_records: u64,
    objects: u64,
    bytes: u64,
    header_only: u64,
}

impl Sums {
    fn of(report: &Verification) -> Self {
        let verified = || report.items.iter().filter(|item| item.verdict == Verdict::Verified);
        let of = |kinds: &[ItemKind]| verified().filter(|item| kinds.contains(&item.kind)).count() as u64;
        Self {
            values: of(&[ItemKind::MetadataValue]),
            log_segments: of(&[ItemKind::LogSegment]),
            log_records: verified()
                .filter(|item| item.kind == ItemKind::LogSegment)
                .map(|item| item.frames)
                .sum(),
            objects: of(&[
                ItemKind::Column,
                ItemKind::Index,
                ItemKind::Deletes,
                ItemKind::OtherObject,
            ]),
            bytes: verified().map(|item| item.bytes).sum(),
            header_only: report.count(Verdict::Dark).0,
        }
    }
}

/// What a dark zone is called: the name of its database or collection, which whoever runs this knows.
fn owner_of(report: &Verification, zone: &ZoneReport) -> String {
    match zone.owner {
        ZoneOwnerReport::Platform => "(platform)".to_owned(),
        ZoneOwnerReport::Database(id) => report
            .database_name(id)
            .map_or_else(|| id.to_string(), ToOwned::to_owned),
        ZoneOwnerReport::Collection(id) => {
            let found = report.collections.iter().find(|collection| collection.id == id);
            found.map_or_else(|| id.to_string(), |collection| collection.name.clone())
        }
        ZoneOwnerReport::Other => "(another record)".to_owned(),
    }
}

fn say(report: &Verification, written: Option<&Written>) {
    let sums = Sums::of(report);
    output::line(format_args!(
        "{} values, {} log segments with {} records, {} objects: {} sealed bytes opened",
        sums.values, sums.log_segments, sums.log_records, sums.objects, sums.bytes
    ));
    for zone in report.dark() {
        output::line(format_args!(
            "dark, header checked only: {} {}, key {}: {}",
            kind_of(zone.owner),
            owner_of(report, zone),
            zone.root,
            zone.dark.as_deref().unwrap_or_default()
        ));
    }
    if sums.header_only > 0 {
        output::line(format_args!(
            "{} values, log segments and objects by header only",
            sums.header_only
        ));
    }
    for finding in &report.findings {
        output::line(format_args!(
            "BAD {}: {}",
            evidence::visible(&finding.what),
            finding.problem
        ));
    }
    if let Some(written) = written {
        output::line(format_args!("evidence {}", written.html.display()));
        output::line(format_args!("sha256 {}  {}", written.sha256, written.json.display()));
    }
    output::line(match report.findings.len() {
        0 if is_complete(report) => "all as it should be".to_owned(),
        0 => "all as it should be, as far as it could be opened".to_owned(),
        count => format!("{count} findings"),
    });
}

fn kind_of(owner: ZoneOwnerReport) -> &'static str {
    match owner {
        ZoneOwnerReport::Platform => "platform",
        ZoneOwnerReport::Database(_) => "database",
        ZoneOwnerReport::Collection(_) => "collection",
        ZoneOwnerReport::Other => "other",
    }
}

fn as_json(report: &Verification, requests: &[RequestMade], written: Option<&Written>) -> Value {
    let sums = Sums::of(report);
    let locked: Vec<Value> = report
        .dark()
        .map(|zone| {
            json!({
                kind_of(zone.owner): owner_of(report, zone),
                "zone": zone.zone.to_string(),
                "key": zone.root.as_str(),
                "reason": zone.dark,
            })
        })
        .collect();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| json!({ "what": finding.what, "class": finding.class.as_str(), "problem": finding.problem }))
        .collect();
    json!({
        "ok": report.findings.is_empty(),
        "complete": is_complete(report),
        "values": sums.values,
        "logSegments": sums.log_segments,
        "logRecords": sums.log_records,
        "objects": sums.objects,
        "bytes": sums.bytes,
        "headerOnly": sums.header_only,
        "keyCalls": requests.len(),
        "locked": locked,
        "findings": findings,
        "evidence": written.map(|written| json!({
            "json": written.json.display().to_string(),
            "html": written.html.display().to_string(),
            "sha256": written.sha256,
        })),
    })
}
