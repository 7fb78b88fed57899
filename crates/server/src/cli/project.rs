//! `saker project` and `saker api-key`, against a running server.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failed, Outcome,
    client::{Client, path_part},
    output,
};

#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// Make a project: an owner of clusters and of at most 20 root keys
    Create(NamedOptions),
    /// Show all projects
    List(ListOptions),
    /// Show one project
    Show(NamedOptions),
}

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeyCommand {
    /// Make an API key; it is shown once and never again
    Create(NewApiKeyOptions),
    /// Show all API keys, without their secrets
    List(ListOptions),
    /// Make an API key worthless, at once and for good
    Revoke(RevokeOptions),
}

#[derive(Debug, Args)]
pub(super) struct NamedOptions {
    /// The project: its name, or (to show it) its id
    name: String,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NewApiKeyOptions {
    /// What to call it
    name: String,
    /// The only project that it is for; left out, it is for everything
    #[arg(long)]
    project: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeOptions {
    /// Its id, as `api-key list` shows it
    id: String,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn project(command: ProjectCommand) -> Result<Outcome, Failed> {
    match command {
        ProjectCommand::Create(options) => {
            let project = options
                .client
                .post("/v2/projects", &json!({ "name": options.name }))
                .await?;
            print_one(&project, options.json, project_line)
        }
        ProjectCommand::List(options) => {
            let projects = options.client.get("/v2/projects").await?;
            print_all(&projects, options.json, project_line)
        }
        ProjectCommand::Show(options) => {
            let path = format!("/v2/projects/{}", path_part(&options.name));
            let project = options.client.get(&path).await?;
            print_one(&project, options.json, project_line)
        }
    }
}

pub(super) async fn api_key(command: ApiKeyCommand) -> Result<Outcome, Failed> {
    match command {
        ApiKeyCommand::Create(options) => {
            let request = json!({ "name": options.name, "project": options.project });
            let key = options.client.post("/v2/api-keys", &request).await?;
            print_one(&key, options.json, |key| {
                // The secret alone, so that a script can take it as it is.
                text(key, "apiKey").to_owned()
            })
        }
        ApiKeyCommand::List(options) => {
            let keys = options.client.get("/v2/api-keys").await?;
            print_all(&keys, options.json, api_key_line)
        }
        ApiKeyCommand::Revoke(options) => {
            let key = options
                .client
                .delete(&format!("/v2/api-keys/{}", path_part(&options.id)))
                .await?;
            print_one(&key, options.json, |key| format!("revoked {}", api_key_line(key)))
        }
    }
}

fn project_line(project: &Value) -> String {
    let clusters: Vec<&str> = project["clusters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    format!(
        "{}  {}  keys: {} of {}  external id: {}  clusters: {}",
        text(project, "id"),
        text(project, "name"),
        project["keys"],
        project["keysMax"],
        text(project, "externalId"),
        if clusters.is_empty() {
            "-".to_owned()
        } else {
            clusters.join(", ")
        }
    )
}

fn api_key_line(key: &Value) -> String {
    let scope = key["projectId"].as_str().unwrap_or_else(|| text(key, "scope"));
    format!("{}  {}  for: {scope}", text(key, "id"), text(key, "name"))
}

pub(super) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// One answer as a line, or as it came.
pub(super) fn print_one(answer: &Value, json: bool, line: impl Fn(&Value) -> String) -> Result<Outcome, Failed> {
    if json {
        output::line(answer);
    } else {
        output::line(line(answer));
    }
    Ok(Outcome::Done)
}

/// Several answers, a line each, or as they came.
pub(super) fn print_all(answer: &Value, json: bool, line: impl Fn(&Value) -> String) -> Result<Outcome, Failed> {
    if json {
        output::line(answer);
        return Ok(Outcome::Done);
    }
    for one in answer.as_array().ok_or("the answer was not understood")? {
        output::line(line(one));
    }
    Ok(Outcome::Done)
}
