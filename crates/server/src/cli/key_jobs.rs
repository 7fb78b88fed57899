//! `saker key rotate|rewrap|change|reencrypt|jobs|retry`, against a running server.
//!
//! They return when the server has noted the job; with `--wait`, when it is done. Exit code 1 if it failed, 3 with
//! `--wait --timeout` if it is not done by then (it goes on all the same).

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Failed, Outcome, client::Client, output};

#[derive(Debug, Args)]
pub(super) struct ZoneOptions {
    /// The database
    #[arg(long)]
    database: String,
    /// A collection in it that has a key of its own
    #[arg(long)]
    collection: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ChangeOptions {
    /// The root key that it goes under, which stays up together with the one that it has until the job is done
    #[arg(long, value_name = "KEY")]
    to: String,
    #[command(flatten)]
    zone: ZoneOptions,
}

#[derive(Debug, Args)]
pub(super) struct RewrapOptions {
    /// The root key; left out, all of them
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct JobsOptions {
    /// Only those that are not done
    #[arg(long)]
    active: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RetryOptions {
    /// The job's id
    id: i64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Wait until the jobs are done, with a progress bar on a terminal
    #[arg(long)]
    wait: bool,
    /// Longest to wait, in seconds
    #[arg(long, requires = "wait", value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// How often the server is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most bars on the screen; further jobs are counted in the first.
const BARS_MAX: usize = 8;

pub(super) async fn rotate(options: ZoneOptions) -> Result<Outcome, Failed> {
    begin(&options.common, "/v2/cmek/databases/rotate", &zone(&options)).await
}

pub(super) async fn reencrypt(options: ZoneOptions) -> Result<Outcome, Failed> {
    begin(&options.common, "/v2/cmek/databases/reencrypt", &zone(&options)).await
}

pub(super) async fn change(options: ChangeOptions) -> Result<Outcome, Failed> {
    let mut request = zone(&options.zone);
    request["to"] = json!(options.to);
    begin(&options.zone.common, "/v2/cmek/databases/change-key", &request).await
}

pub(super) async fn rewrap(options: RewrapOptions) -> Result<Outcome, Failed> {
    begin(&options.common, "/v2/cmek/keys/rewrap", &json!({ "key": options.key })).await
}

pub(super) async fn retry(options: RetryOptions) -> Result<Outcome, Failed> {
    begin(
        &options.common,
        &format!("/v2/cmek/jobs/{}/retry", options.id),
        &Value::Null,
    )
    .await
}

pub(super) async fn jobs(options: JobsOptions) -> Result<Outcome, Failed> {
    let mut jobs = all(&options.common.client).await?;
    if options.active {
        jobs.retain(|job| job["state"] != "done");
    }
    finish(&options.common, jobs).await
}

fn zone(options: &ZoneOptions) -> Value {
    json!({ "dbName": options.database, "collectionName": options.collection })
}

async fn all(client: &Client) -> Result<Vec<Value>, Failed> {
    let jobs = client.get("/v2/cmek/jobs").await?;
    Ok(jobs.as_array().cloned().ok_or("the answer was not understood")?)
}

async fn begin(common: &Common, path: &str, request: &Value) -> Result<Outcome, Failed> {
    let answer = common.client.post(path, request).await?;
    let jobs = if let Value::Array(jobs) = answer {
        jobs
    } else {
        vec![answer]
    };
    finish(common, jobs).await
}

/// Waits for the jobs if that is wanted, and shows them.
async fn finish(common: &Common, jobs: Vec<Value>) -> Result<Outcome, Failed> {
    let mut jobs = jobs;
    let mut late = false;
    if common.wait {
        let waited = wait(common, &mut jobs);
        match common.timeout {
            None => waited.await?,
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), waited).await {
                Ok(waited) => waited?,
                Err(_) => late = true,
            },
        }
    }
    if common.json {
        output::line(Value::Array(jobs.clone()));
    } else {
        jobs.iter().for_each(|job| output::line(described(job)));
    }
    let failed = jobs.iter().any(|job| job["state"] == "failed");
    Ok(match (failed, late) {
        (true, _) => Outcome::Bad,
        (false, true) => Outcome::Incomplete,
        (false, false) => Outcome::Done,
    })
}

/// Asks until every job is done or failed.
async fn wait(common: &Common, jobs: &mut [Value]) -> Result<(), Failed> {
    let bars = Bars::new(jobs, !common.json && std::io::stderr().is_terminal());
    loop {
        for now in all(&common.client).await? {
            if let Some(job) = jobs.iter_mut().find(|job| job["id"] == now["id"]) {
                *job = now;
            }
        }
        bars.show(jobs);
        if jobs
            .iter()
            .all(|job| job["state"] == "done" || job["state"] == "failed")
        {
            bars.clear();
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Progress on standard error: one bar for each job, or one for all of many.
struct Bars(Vec<ProgressBar>);

impl Bars {
    fn new(jobs: &[Value], shown: bool) -> Self {
        if !shown || jobs.is_empty() {
            return Self(Vec::new());
        }
        let all = MultiProgress::new();
        let count = if jobs.len() > BARS_MAX { 1 } else { jobs.len() };
        let style = ProgressStyle::with_template("{prefix:<24} {wide_bar} {percent:>3}% {msg}");
        let bars = (0..count).map(|number| {
            let bar = all.add(ProgressBar::new(100));
            if let Ok(style) = &style {
                bar.set_style(style.clone());
            }
            bar.set_prefix(if count < jobs.len() {
                format!("{} jobs", jobs.len())
            } else {
                named(jobs.get(number).unwrap_or(&Value::Null))
            });
            bar
        });
        Self(bars.collect())
    }

    fn show(&self, jobs: &[Value]) {
        if let ([bar], true) = (&self.0[..], jobs.len() > 1) {
            let percent: u64 = jobs.iter().filter_map(|job| job["percent"].as_u64()).sum();
            let done = jobs.iter().filter(|job| job["state"] == "done").count();
            bar.set_position(percent / jobs.len() as u64);
            bar.set_message(format!("{done} done"));
            return;
        }
        for (bar, job) in self.0.iter().zip(jobs) {
            bar.set_position(job["percent"].as_u64().unwrap_or(0));
            bar.set_message(text(job, "state").to_owned());
        }
    }

    fn clear(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn described(job: &Value) -> String {
    let version = job["keyVersion"]
        .as_u64()
        .map(|version| format!("  zone key {version}"));
    let reason = job["reason"].as_str().map(|reason| format!("  {reason}"));
    format!(
        "{}  {:<10} {:<24} {:<8} {:>3}%  {}{}{}",
        text(job, "id"),
        text(job, "kind"),
        named(job),
        text(job, "state"),
        job["percent"],
        text(job, "key"),
        version.unwrap_or_default(),
        reason.unwrap_or_default(),
    )
}

fn named(job: &Value) -> String {
    let collection = job["collectionName"].as_str().map(|name| format!(".{name}"));
    format!("{}{}", text(job, "dbName"), collection.unwrap_or_default())
}

fn text<'a>(job: &'a Value, name: &str) -> &'a str {
    job[name].as_str().unwrap_or_default()
}
