//! `saker cluster`, against a running server.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failed, Outcome,
    client::{Client, path_part},
    project::{print_all, print_one, text},
};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a cluster with a port and a directory of its own, and start it
    Create(NewOptions),
    /// Show all clusters
    List(ListOptions),
    /// Show one cluster
    Show(OneOptions),
    /// Start a cluster that was stopped
    Start(OneOptions),
    /// Stop a cluster; its data stays
    Stop(OneOptions),
    /// Destroy an empty cluster: its wrapped keys first, then its files
    Drop(OneOptions),
}

#[derive(Debug, Args)]
pub(super) struct NewOptions {
    /// What to call it
    name: String,
    /// The project that it will belong to
    #[arg(long, default_value = "default")]
    project: String,
    /// Its port; 0 for any free one, which it keeps
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Root key of new databases that name none; registered with the project
    #[arg(long, value_name = "KEY")]
    default_key: Option<String>,
    /// Whose keys it takes: aws, vault or pkcs11; left out: as its default key, else as the server is set up
    #[arg(long)]
    provider: Option<String>,
    /// AWS region of its keys; left out: as its default key, else as the server is set up
    #[arg(long)]
    region: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Only those of this project
    #[arg(long)]
    project: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneOptions {
    /// The cluster: its id, or its name if only one project has a cluster of this name
    cluster: String,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: ClusterCommand) -> Result<Outcome, Failed> {
    match command {
        ClusterCommand::Create(options) => create(options).await,
        ClusterCommand::List(options) => {
            let path = match &options.project {
                Some(project) => format!("/v2/clusters?project={}", path_part(project)),
                None => "/v2/clusters".to_owned(),
            };
            let clusters = options.client.get(&path).await?;
            print_all(&clusters, options.json, cluster_line)
        }
        ClusterCommand::Show(options) => {
            let cluster = options.client.get(&path_of(&options, "")).await?;
            print_one(&cluster, options.json, cluster_line)
        }
        ClusterCommand::Start(options) => change(options, "/start").await,
        ClusterCommand::Stop(options) => change(options, "/stop").await,
        ClusterCommand::Drop(options) => {
            let cluster = options.client.delete(&path_of(&options, "")).await?;
            print_one(&cluster, options.json, |cluster| {
                format!("dropped {}", text(cluster, "id"))
            })
        }
    }
}

async fn create(options: NewOptions) -> Result<Outcome, Failed> {
    let request = json!({
        "project": options.project,
        "name": options.name,
        "port": options.port,
        "provider": options.provider,
        "region": options.region,
        "defaultKey": options.default_key,
    });
    let cluster = options.client.post("/v2/clusters", &request).await?;
    print_one(&cluster, options.json, cluster_line)
}

async fn change(options: OneOptions, what: &str) -> Result<Outcome, Failed> {
    let cluster = options.client.post(&path_of(&options, what), &Value::Null).await?;
    print_one(&cluster, options.json, cluster_line)
}

fn path_of(options: &OneOptions, what: &str) -> String {
    format!("/v2/clusters/{}{what}", path_part(&options.cluster))
}

fn cluster_line(cluster: &Value) -> String {
    let or_dash = |name: &str| cluster[name].as_str().unwrap_or("-").to_owned();
    let reason = cluster["reason"].as_str();
    format!(
        "{:<8} {}  {}  {}  project: {}  default key: {}  databases: {}{}",
        text(cluster, "state"),
        text(cluster, "name"),
        text(cluster, "id"),
        text(cluster, "uri"),
        text(cluster, "projectId"),
        or_dash("defaultKey"),
        cluster["databases"]
            .as_u64()
            .map_or_else(|| "-".to_owned(), |count| count.to_string()),
        reason.map(|reason| format!("  reason: {reason}")).unwrap_or_default()
    )
}
