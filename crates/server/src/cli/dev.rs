//! `saker dev`: a key server in its own process, the database and a status page, all under one directory.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use clap::Args;
use saker_engine::EngineConfig;
use saker_keyring::{LeasePolicy, RootKeyId};
use saker_kms::{AwsKmsConfig, KeyServicesConfig, LocalKeyServerConfig};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};
use tokio_util::sync::CancellationToken;

use super::{Failed, LogFormat, LogOptions, Outcome, output, stop_on_signals};
use crate::{
    console, listen,
    running::{ControlSettings, Running, Settings},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Directory of everything it writes: DIR/data, DIR/kms, DIR/platform.key, DIR/aws-credentials
    #[arg(long, default_value = "saker-dev")]
    dir: PathBuf,
    /// Port of the database (gRPC and HTTP); 0 for any free one
    #[arg(long, default_value_t = 19_530)]
    port: u16,
    /// Port of the local key server; 0 for any free one
    #[arg(long, default_value_t = 19_600, conflicts_with = "kms_endpoint")]
    kms_port: u16,
    /// Port of the status page; 0 for any free one
    #[arg(long, default_value_t = 19_540)]
    console_port: u16,
    /// Use this server with the AWS KMS protocol instead of the local key server; credentials come from the standard
    /// AWS environment
    #[arg(long)]
    kms_endpoint: Option<String>,
    /// Region of that server's keys
    #[arg(long, default_value = "us-east-1")]
    kms_region: String,
    /// Let clients in only with user and password (root/Milvus at first)
    #[arg(long)]
    auth: bool,
    /// Milliseconds between two probes of a root key, 1,000 to 600,000
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    probe_interval_ms: u64,
    /// Milliseconds that a key goes on serving while its key service gives no answer
    #[arg(long, default_value_t = 60_000)]
    grace_ms: u64,
    /// Record every request (names and counts, never rows): read it with `saker audit access`
    #[arg(long)]
    access_log: bool,
}

/// How long the key server may take to start.
const KEY_SERVER_START_MAX: Duration = Duration::from_secs(30);
/// How long the key server may take to stop before it is killed.
const KEY_SERVER_STOP_MAX: Duration = Duration::from_secs(8);

pub(super) async fn run(options: Options, log: &LogOptions) -> Result<Outcome, Failed> {
    let stop = stop_on_signals()?;
    let dir = std::path::absolute(&options.dir)?;
    std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    // Both ports first: a taken one is said before anything is started.
    let listener = listen::bind(loopback(options.port)).await?;
    let console_listener = listen::bind(loopback(options.console_port)).await?;
    let console_address = console_listener.local_addr()?;

    let credentials_file = dir.join("aws-credentials");
    let mut key_server = match &options.kms_endpoint {
        Some(_) => None,
        None => Some(KeyServer::start(&dir, options.kms_port, &credentials_file, log).await?),
    };
    let started = Box::pin(start_database(
        &options,
        &dir,
        key_server.as_ref(),
        &credentials_file,
        listener,
    ))
    .await;
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            if let Some(server) = key_server {
                server.stop().await;
            }
            return Err(error);
        }
    };

    let endpoint = match (&key_server, &options.kms_endpoint) {
        (Some(server), _) => format!("http://{}", server.address),
        (None, Some(endpoint)) => endpoint.clone(),
        (None, None) => String::new(),
    };
    let places = places(&dir, &running, &endpoint);
    let console_stop = CancellationToken::new();
    let console = console::router(std::sync::Arc::clone(&running.node), places);
    let console = tokio::spawn(listen::serve(console_listener, None, console, console_stop.clone()));

    say_what_next(&options, &dir, &running, &endpoint, console_address);
    output::line(format_args!(
        "ready database=http://{} kms={endpoint} console=http://{console_address}",
        running.address
    ));

    let died = tokio::select! {
        () = stop.cancelled() => false,
        () = ended(key_server.as_mut()) => true,
    };
    console_stop.cancel();
    running.stop().await;
    let _ = console.await;
    if let Some(server) = key_server {
        server.stop().await;
    }
    if died {
        Err("the local key server ended; its messages are above".into())
    } else {
        Ok(Outcome::Done)
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

async fn start_database(
    options: &Options,
    dir: &Path,
    key_server: Option<&KeyServer>,
    credentials_file: &Path,
    listener: tokio::net::TcpListener,
) -> Result<Running, Failed> {
    let aws = match key_server {
        Some(server) => {
            let endpoint = format!("http://{}", server.address);
            AwsKmsConfig {
                sts_endpoint_url: Some(endpoint.clone()),
                endpoint_url: Some(endpoint),
                region: Some(LocalKeyServerConfig::REGION.to_owned()),
                profile: Some("saker".to_owned()),
                credentials_file: Some(credentials_file.to_owned()),
                ..AwsKmsConfig::default()
            }
        }
        None => AwsKmsConfig {
            endpoint_url: options.kms_endpoint.clone(),
            region: Some(options.kms_region.clone()),
            ..AwsKmsConfig::default()
        },
    };
    let settings = Settings {
        data_dir: dir.join("data"),
        keys: KeyServicesConfig {
            platform_key_file: Some(dir.join("platform.key")),
            aws: Some(aws),
            ..KeyServicesConfig::default()
        },
        platform_root: RootKeyId::platform_file(),
        engine: EngineConfig {
            lease: LeasePolicy {
                probe_interval_ms: options.probe_interval_ms,
                grace_ms: options.grace_ms,
                ..LeasePolicy::default()
            },
            ..EngineConfig::default()
        },
        auth_required: options.auth,
        control: ControlSettings::default(),
        audit: crate::audit::AuditSection {
            access: options.access_log,
            ..Default::default()
        },
    };
    Ok(Box::pin(Running::start(settings, listener, None)).await?)
}

fn places(dir: &Path, running: &Running, endpoint: &str) -> console::Places {
    let lines = [
        ("Database (gRPC and HTTP)", format!("http://{}", running.address)),
        (
            "Health and metrics",
            format!("http://{0}/healthz, http://{0}/metrics", running.address),
        ),
        ("Key server (AWS KMS protocol)", endpoint.to_owned()),
        ("Data directory (sealed)", dir.join("data").display().to_string()),
        ("Cluster", running.node.engine.cluster_id()),
    ];
    console::Places {
        lines: lines
            .into_iter()
            .map(|(label, value)| (label.to_owned(), value))
            .collect(),
    }
}

fn say_what_next(options: &Options, dir: &Path, running: &Running, endpoint: &str, console: SocketAddr) {
    let uri = format!("http://{}", running.address);
    output::line(format_args!(
        "Saker {} for evaluation, everything under {}",
        env!("CARGO_PKG_VERSION"),
        dir.display()
    ));
    output::line("");
    output::line("1. Make a root key as the customer:");
    if options.kms_endpoint.is_none() {
        output::line(format_args!(
            "   AWS_SHARED_CREDENTIALS_FILE={} AWS_PROFILE=customer AWS_REGION=us-east-1 \\",
            dir.join("aws-credentials").display()
        ));
    }
    output::line(format_args!("     aws --endpoint-url {endpoint} kms create-key"));
    output::line("2. Make a database under it, in Python (pip install pymilvus):");
    output::line("     from pymilvus import MilvusClient");
    output::line(format_args!("     client = MilvusClient(\"{uri}\")"));
    output::line(
        "     client.create_database(\"mine\", properties={\"cipher.enabled\": \"true\", \"cipher.key\": \"<key ARN>\"})",
    );
    output::line(
        "3. Disable the key (aws kms disable-key --key-id ...): within seconds the data is dark. Enable it: it is back.",
    );
    output::line(format_args!("Status page: http://{console}   Stop: Ctrl-C"));
    output::line("");
}

/// The key server's process. It ends by itself when this process is gone, because its standard input ends then.
struct KeyServer {
    child: Child,
    /// Kept apart from `child`, which would close it as soon as its end is waited for.
    input: ChildStdin,
    address: SocketAddr,
}

impl KeyServer {
    async fn start(dir: &Path, port: u16, credentials: &Path, log: &LogOptions) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                "kms",
                "serve",
                "--until-input-ends",
                "--port",
                &port.to_string(),
                "--dir",
            ])
            .arg(dir.join("kms"))
            .arg("--credentials")
            .arg(credentials)
            .args(["--log-level", &log.log_level, "--log-format"])
            .arg(match log.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C in the terminal is for the parent; it stops the child when the database has stopped.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start the key server: {error}"))?;
        let (Some(stdout), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
            return Err("the key server has no input or output".into());
        };
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(KEY_SERVER_START_MAX, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix("ready ") {
                    return Ok(rest
                        .split(' ')
                        .next()
                        .and_then(|address| address.parse::<SocketAddr>().ok()));
                }
            }
            Ok::<_, std::io::Error>(None)
        })
        .await;
        let Ok(Ok(Some(address))) = first else {
            let _ = child.kill().await;
            return Err("the local key server did not start; its message is above".into());
        };
        // Whatever it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, input, address })
    }

    async fn stop(mut self) {
        drop(self.input);
        if tokio::time::timeout(KEY_SERVER_STOP_MAX, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!("the key server did not stop by itself and is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// Ends when the key server's process does; never, if there is none.
async fn ended(server: Option<&mut KeyServer>) {
    match server {
        Some(server) => {
            let _ = server.child.wait().await;
        }
        None => std::future::pending().await,
    }
}
