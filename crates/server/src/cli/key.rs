//! `saker key list|check`, against a running database over HTTP.

use clap::Args;
use serde_json::Value;

use super::{Failed, Outcome, client::Client, output};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Those that are registered with this project, in use or not
    #[arg(long)]
    project: Option<String>,
    #[command(flatten)]
    all: Options,
}

pub(super) async fn list(options: ListOptions) -> Result<Outcome, Failed> {
    let ListOptions { project, all } = options;
    if let Some(project) = project {
        return super::key_policy::list(&all.client, &project, all.json).await;
    }
    let keys = all.client.get("/v2/cmek/keys").await?;
    show(&keys, all.json)
}

pub(super) async fn check(options: Options) -> Result<Outcome, Failed> {
    let keys = options.client.post("/v2/cmek/keys/check", &Value::Null).await?;
    show(&keys, options.json)
}

fn show(keys: &Value, json: bool) -> Result<Outcome, Failed> {
    let list = keys.as_array().ok_or("the answer was not understood")?;
    if json {
        output::line(keys);
    } else {
        for key in list {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            let databases: Vec<&str> = key["databases"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            output::line(format_args!(
                "{:<8} {}  databases: {}{}{}",
                text("state"),
                text("key"),
                if databases.is_empty() {
                    "-".to_owned()
                } else {
                    databases.join(", ")
                },
                if text("reason").is_empty() { "" } else { "  reason: " },
                text("reason")
            ));
        }
    }
    let locked = list.iter().any(|key| key["state"] == "locked");
    Ok(if locked { Outcome::Bad } else { Outcome::Done })
}
