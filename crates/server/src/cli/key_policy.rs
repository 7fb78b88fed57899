//! `saker key add|show|remove|policy`: root keys of a project, against a running server.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Failed, Outcome,
    client::{Client, path_part},
    output,
    project::{print_all, print_one, text},
};

#[derive(Debug, Args)]
pub(super) struct AddOptions {
    #[command(flatten)]
    key: OneOptions,
    /// AWS role in the key's account that Saker takes on to use it, with the project's external id: see `saker key policy`
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct OneOptions {
    /// The project: its name or id
    #[arg(long, default_value = "default")]
    project: String,
    /// The root key: an ARN, vault://MOUNT/KEY, or pkcs11:token=LABEL;object=LABEL
    #[arg(long)]
    key: String,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyOptions {
    /// The project: its name or id
    #[arg(long, default_value = "default")]
    project: String,
    /// A key that is to be registered, by ARN; left out: all that are
    #[arg(long, value_name = "ARN")]
    key: Option<String>,
    /// Commands to run in bash, or the policies as JSON
    #[arg(long, value_enum, default_value_t = PolicyFormat::Text)]
    format: PolicyFormat,
    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyFormat {
    /// Commands for bash and the AWS CLI, with what each is for
    Text,
    /// The policies and the commands
    Json,
}

pub(super) async fn add(options: AddOptions) -> Result<Outcome, Failed> {
    let AddOptions { key, role_arn } = options;
    let request = json!({ "key": key.key, "roleArn": role_arn });
    let added = key.client.post(&keys_path(&key.project), &request).await?;
    print_one(&added, key.json, key_line)
}

pub(super) async fn show(options: OneOptions) -> Result<Outcome, Failed> {
    let key = options.client.get(&key_path(&options)).await?;
    print_one(&key, options.json, key_line)?;
    let locked = key["state"] == "locked";
    Ok(if locked { Outcome::Bad } else { Outcome::Done })
}

pub(super) async fn remove(options: OneOptions) -> Result<Outcome, Failed> {
    let removed = options.client.delete(&key_path(&options)).await?;
    print_one(&removed, options.json, |removed| {
        format!("removed {}", text(removed, "key"))
    })
}

pub(super) async fn policy(options: PolicyOptions) -> Result<Outcome, Failed> {
    let mut path = format!("/v2/projects/{}/policy", path_part(&options.project));
    if let Some(key) = &options.key {
        path.push_str(&format!("?key={}", path_part(key)));
    }
    let policy = options.client.get(&path).await?;
    match options.format {
        PolicyFormat::Text => output::line(text(&policy, "commands").trim_end()),
        PolicyFormat::Json => output::line(&policy),
    }
    Ok(Outcome::Done)
}

/// `saker key list --project`.
pub(super) async fn list(client: &Client, project: &str, json: bool) -> Result<Outcome, Failed> {
    let keys = client.get(&keys_path(project)).await?;
    print_all(&keys, json, key_line)?;
    let locked = keys
        .as_array()
        .into_iter()
        .flatten()
        .any(|key| key["state"] == "locked");
    Ok(if locked { Outcome::Bad } else { Outcome::Done })
}

fn keys_path(project: &str) -> String {
    format!("/v2/projects/{}/keys", path_part(project))
}

fn key_path(options: &OneOptions) -> String {
    format!("{}/{}", keys_path(&options.project), path_part(&options.key))
}

fn key_line(key: &Value) -> String {
    let users: Vec<String> = key["usedBy"].as_array().into_iter().flatten().map(user).collect();
    let optional =
        |label: &str, value: Option<String>| value.map(|value| format!("  {label}: {value}")).unwrap_or_default();
    let at = |name: &str| key[name].as_u64().map(|ms| ms.to_string());
    format!(
        "{:<8} {}  used by: {}{}{}{}{}{}",
        text(key, "state"),
        text(key, "key"),
        if users.is_empty() {
            "-".to_owned()
        } else {
            users.join(", ")
        },
        optional("role", key["roleArn"].as_str().map(str::to_owned)),
        optional("calls", at("calls")),
        optional("last probe (Unix ms)", at("lastProbeAtMs")),
        optional("next probe (Unix ms)", at("nextProbeAtMs")),
        optional("reason", key["reason"].as_str().map(str::to_owned)),
    )
}

fn user(user: &Value) -> String {
    let cluster = text(user, "clusterName");
    match (user["database"].as_str(), user["collection"].as_str()) {
        (None, _) => format!("{cluster} (default key)"),
        (Some(database), None) => format!("{cluster}/{database}"),
        (Some(database), Some(collection)) => format!("{cluster}/{database}/{collection}"),
    }
}
