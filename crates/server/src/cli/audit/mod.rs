//! `saker audit`: the audit log for its customer, from a running server or from a data directory that no server uses.
//!
//! Start reading at [`run`]; `source` has where the log comes from, `compare` the comparison with a key service's record.

mod compare;
mod html;
mod source;

use std::{
    io::{BufRead as _, Read, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use saker_audit::{ChainCheck, ChainReport, Head, Record, check_export};
use serde_json::{Value, json};

use self::source::{Source, Style};
use super::{Failed, Outcome, client::Client, output};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the newest records
    Tail(TailOptions),
    /// Write all records: JSON lines as they are kept, or in the shape of CloudTrail
    Export(ExportOptions),
    /// Write the log of requests, if [audit] access is on
    Access(AccessOptions),
    /// Print SEQUENCE:HASH of the newest record. Keep it elsewhere: with it, a cut of the log and a rewritten history show
    Head(HeadOptions),
    /// Check the chain of an export or of a data directory: any edit, gap, reordering or cut. Exit code 1 if there is one
    Verify(VerifyOptions),
    /// Compare with the key service's own record, call by call. Exit code 1 if one side has a call that the other lacks
    Reconcile(compare::Options),
}

#[derive(Debug, Args)]
pub(super) struct TailOptions {
    #[command(flatten)]
    client: Client,
    /// How many records
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    #[command(flatten)]
    source: Source,
    /// How records are written
    #[arg(long, value_enum, default_value_t = Format::Native)]
    format: Format,
    /// Only what comes after this record; the export can then be checked with the head that was kept of it
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
    /// Where to write; standard output if not given
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As they are kept, with a closing line: what `saker audit verify` and `reconcile` read
    Native,
    /// In the shape of CloudTrail's files
    Cloudtrail,
}

#[derive(Debug, Args)]
pub(super) struct AccessOptions {
    #[command(flatten)]
    source: Source,
    /// Where to write; standard output if not given
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct HeadOptions {
    #[command(flatten)]
    client: Client,
}

#[derive(Debug, Args)]
pub(super) struct VerifyOptions {
    /// An export as `saker audit export` writes it; - for standard input
    #[arg(required_unless_present_any = ["dir", "config"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: source::DataDirectory,
    /// A head that was kept; several may be given
    #[arg(long, value_name = "SEQUENCE:HASH")]
    head: Vec<Head>,
    /// The export begins after the record of this head
    #[arg(long, value_name = "SEQUENCE:HASH")]
    after: Option<Head>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: AuditCommand) -> Result<Outcome, Failed> {
    match command {
        AuditCommand::Tail(options) => tail(options).await,
        AuditCommand::Export(options) => {
            let style = match options.format {
                Format::Native => Style::Native,
                Format::Cloudtrail => Style::CloudTrail,
            };
            write_out(&options.source, style, options.after, options.output.as_deref()).await
        }
        AuditCommand::Access(options) => write_out(&options.source, Style::Access, 0, options.output.as_deref()).await,
        AuditCommand::Head(options) => {
            let answer = options.client.get("/v2/audit/head").await?;
            output::line(answer["head"].as_str().ok_or("the answer was not understood")?);
            Ok(Outcome::Done)
        }
        AuditCommand::Verify(options) => verify(options).await,
        AuditCommand::Reconcile(options) => compare::run(options).await,
    }
}

async fn tail(options: TailOptions) -> Result<Outcome, Failed> {
    let answer = options
        .client
        .get(&format!("/v2/audit/tail?count={}", options.count))
        .await?;
    for record in answer["records"].as_array().ok_or("the answer was not understood")? {
        if options.json {
            output::line(record);
        } else {
            output::line(format_args!(
                "{:>8}  {}  {:<20} {}",
                record["seq"],
                record["time"].as_str().unwrap_or_default(),
                record["event"].as_str().unwrap_or_default(),
                summary(&record["details"])
            ));
        }
    }
    Ok(Outcome::Done)
}

/// Details in a line for people: calls are counted.
fn summary(details: &Value) -> String {
    let fields = details.as_object().into_iter().flatten();
    let texts = fields.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        Value::Array(list) if name == "calls" => format!("calls={}", list.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("{name}={value}")
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

async fn write_out(source: &Source, style: Style, after: u64, path: Option<&Path>) -> Result<Outcome, Failed> {
    match path {
        Some(path) => {
            let mut file = create(path)?;
            source
                .each_chunk(style, after, &mut |chunk| file.write_all(chunk))
                .await?;
            file.sync_all()?;
        }
        None => {
            let mut out = std::io::stdout();
            source
                .each_chunk(style, after, &mut |chunk| out.write_all(chunk))
                .await?;
            // A reader that went away is no error.
            let _closed = out.flush();
        }
    }
    Ok(Outcome::Done)
}

/// A new file for its owner alone: it holds names.
fn create(path: &Path) -> Result<std::fs::File, Failed> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    opened.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

async fn verify(options: VerifyOptions) -> Result<Outcome, Failed> {
    let after = options.after.unwrap_or(Head::NONE);
    let report = match &options.file {
        Some(path) => check_file(path, after, options.head)?,
        None => {
            let (_, report) = options.place.records(after, options.head).await?;
            report
        }
    };
    if options.json {
        output::line(report_json(&report));
    } else {
        say(&report);
    }
    Ok(if report.is_whole() { Outcome::Done } else { Outcome::Bad })
}

fn check_file(path: &Path, after: Head, kept: Vec<Head>) -> Result<ChainReport, Failed> {
    Ok(check_export(&read(path)?, after, kept))
}

/// The bytes of a file, unpacked if it is packed with gzip.
fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let mut file = std::io::BufReader::new(std::fs::File::open(path).map_err(failed)?);
        if file.fill_buf().map_err(failed)?.starts_with(GZIP) {
            let unpacked = flate2::bufread::MultiGzDecoder::new(file);
            unpacked
                .take(UNPACKED_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            if bytes.len() as u64 > UNPACKED_BYTES_MAX {
                return Err(format!(
                    "{} unpacks to more than {UNPACKED_BYTES_MAX} bytes; unpack and split it first",
                    path.display()
                )
                .into());
            }
        } else {
            file.read_to_end(&mut bytes).map_err(failed)?;
        }
    }
    Ok(bytes)
}

const GZIP: &[u8] = &[0x1f, 0x8b];
/// CloudTrail's files have a few megabytes; a packed file must not fill the memory.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// The records of an export, and whether its chain is whole.
fn records_of(bytes: &[u8], kept: Vec<Head>) -> (Vec<Record>, ChainReport) {
    let report = check_export(bytes, Head::NONE, kept);
    let lines = bytes.split(|&byte| byte == b'\n');
    (lines.filter_map(|line| Record::parse(line).ok()).collect(), report)
}

fn say(report: &ChainReport) {
    let span = report
        .span()
        .map_or(String::new(), |(from, to)| format!(", from {from} to {to}"));
    output::line(format_args!("{} records{span}, head {}", report.records, report.head));
    for fault in &report.faults {
        output::line(format_args!("BAD {fault}"));
    }
    output::line(match report.faults.len() {
        0 => "the chain is whole".to_owned(),
        saker_audit::FAULTS_MAX => format!("{} faults or more", saker_audit::FAULTS_MAX),
        count => format!("{count} faults"),
    });
}

fn report_json(report: &ChainReport) -> Value {
    let faults: Vec<Value> = report
        .faults
        .iter()
        .map(|fault| json!({ "line": fault.line, "problem": fault.to_string() }))
        .collect();
    json!({
        "ok": report.is_whole(),
        "records": report.records,
        "span": report.span(),
        "head": report.head.to_string(),
        "faults": faults,
    })
}

/// Checks lines that are not in an export.
fn check_lines(check: &mut ChainCheck, lines: &[impl AsRef<[u8]>], records: &mut Vec<Record>) {
    for line in lines {
        records.extend(check.feed(line.as_ref()));
    }
}
