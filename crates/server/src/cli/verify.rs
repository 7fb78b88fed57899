//! `saker verify`: an offline walk of a data directory.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use saker_engine::{Finding, Stores, Verification};
use saker_kms::{AwsKmsConfig, KeyServices, KeyServicesConfig, LocalKeyServerConfig};
use saker_storage::EmbeddedStores;
use serde_json::{Value, json};

use super::{Failed, Outcome, output};
use crate::config::Config;

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
}

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let (dir, keys) = places(&options)?;
    let keys = KeyServices::connect(keys).await?;
    let stores = EmbeddedStores::open(&dir).await?;
    let bar = if options.json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} {binary_bytes_per_sec}") {
        bar.set_style(style);
    }
    let stores = Stores::from(stores);
    let outcome = saker_engine::verify(&stores, &keys, &|seen, total| {
        bar.set_length(total);
        bar.set_position(seen);
    })
    .await;
    bar.finish_and_clear();
    let mut report = outcome?;
    drop(stores);
    report.findings.extend(strange_files(&dir)?);
    if options.json {
        output::line(as_json(&report));
    } else {
        say(&report);
    }
    Ok(if report.findings.is_empty() {
        Outcome::Done
    } else {
        Outcome::Bad
    })
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

/// Opening the stores would begin a data directory where there is none.
fn check_is_ours(dir: &Path) -> Result<(), Failed> {
    if dir.join("SAKER").is_file() {
        return Ok(());
    }
    Err(format!("{} is no data directory: there is no file SAKER in it", dir.display()).into())
}

/// Files that are neither ours nor begin as a sealed file or log segment does.
fn strange_files(dir: &Path) -> Result<Vec<Finding>, Failed> {
    let mut findings = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let inside = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            if let Some(problem) = problem_of(&path, &inside)? {
                findings.push(Finding {
                    what: inside.display().to_string(),
                    problem: problem.to_owned(),
                });
            }
        }
    }
    findings.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(findings)
}

fn problem_of(path: &Path, inside: &Path) -> Result<Option<&'static str>, Failed> {
    const SEALED: &[u8] = b"\x93SAKER\r\n";
    const LOG: &[u8] = b"SAKERLOG";
    let begins_with = |magic: &[u8]| -> Result<bool, Failed> {
        let mut first = Vec::new();
        std::fs::File::open(path)?
            .take(magic.len() as u64)
            .read_to_end(&mut first)?;
        Ok(first == magic)
    };
    let top = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
    let alone = inside.iter().count() == 1;
    Ok(match top {
        "SAKER" | "LOCK" | "meta.redb" if alone => None,
        "objects" if begins_with(SEALED)? => None,
        "objects" => Some("it does not begin as a sealed file does"),
        "log" if path.extension().is_some_and(|kind| kind == "floor") => {
            (path.metadata()?.len() != 0).then_some("a floor of the log should be empty")
        }
        "log" if begins_with(LOG)? => None,
        "log" => Some("it does not begin as a log segment does"),
        _ => Some("a file that is not Saker's"),
    })
}

fn say(report: &Verification) {
    output::line(format_args!(
        "{} values, {} log segments with {} records, {} objects: {} sealed bytes opened",
        report.values, report.log_segments, report.log_records, report.objects, report.bytes
    ));
    for (database, key, reason) in &report.locked {
        output::line(format_args!(
            "locked, header checked only: database {database}, key {key}: {reason}"
        ));
    }
    if !report.locked.is_empty() {
        output::line(format_args!(
            "{} values, log segments and objects of locked databases by header",
            report.header_only
        ));
    }
    for finding in &report.findings {
        output::line(format_args!("BAD {}: {}", finding.what, finding.problem));
    }
    output::line(match report.findings.len() {
        0 => "all as it should be".to_owned(),
        count => format!("{count} findings"),
    });
}

fn as_json(report: &Verification) -> Value {
    let locked: Vec<Value> = report
        .locked
        .iter()
        .map(|(database, key, reason)| json!({ "database": database, "key": key.as_str(), "reason": reason }))
        .collect();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| json!({ "what": finding.what, "problem": finding.problem }))
        .collect();
    json!({
        "ok": report.findings.is_empty(),
        "values": report.values,
        "logSegments": report.log_segments,
        "logRecords": report.log_records,
        "objects": report.objects,
        "bytes": report.bytes,
        "headerOnly": report.header_only,
        "locked": locked,
        "findings": findings,
    })
}
