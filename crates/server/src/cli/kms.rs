//! `saker kms serve`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use saker_kms::{LocalKeyServer, LocalKeyServerConfig};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::{Failed, Outcome, output, stop_on_signals};
use crate::listen;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Directory of everything it keeps; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// Port to answer on; 0 for any free one
    #[arg(long, default_value_t = 19_600)]
    port: u16,
    /// Address to answer on
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// AWS shared-credentials file that the first start writes, with the profiles customer and saker
    /// [default: DIR/aws-credentials]
    #[arg(long)]
    credentials: Option<PathBuf>,
    /// AWS region that it answers for
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// AWS account that owns its keys
    #[arg(long, default_value = "000000000000")]
    account: String,
    /// Stop when standard input ends, so that it never outlives the program that started it
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

/// How long a child waits for a predecessor that outlives its killed parent by a moment.
const PREDECESSOR_WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let stop = stop_on_signals()?;
    let credentials_file = options
        .credentials
        .clone()
        .unwrap_or_else(|| options.dir.join("aws-credentials"));
    let began = Instant::now();
    let (listener, server) = loop {
        match take_port_and_directory(&options, &credentials_file).await {
            Err(_) if options.until_input_ends && began.elapsed() < PREDECESSOR_WAIT_MAX => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            taken => break taken?,
        }
    };
    let address = listener.local_addr()?;
    if options.until_input_ends {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut input = tokio::io::stdin();
            let mut ignored = [0; 64];
            while matches!(input.read(&mut ignored).await, Ok(bytes) if bytes > 0) {}
            stop.cancel();
        });
    }
    output::line(format_args!(
        "ready {address} credentials={}",
        credentials_file.display()
    ));
    server.serve(listener, stop).await?;
    Ok(Outcome::Done)
}

async fn take_port_and_directory(
    options: &Options,
    credentials_file: &Path,
) -> Result<(TcpListener, LocalKeyServer), Failed> {
    let listener = listen::bind(SocketAddr::new(options.host, options.port)).await?;
    let server = LocalKeyServer::open(LocalKeyServerConfig {
        dir: options.dir.clone(),
        credentials_file: credentials_file.to_owned(),
        region: options.region.clone(),
        account: options.account.clone(),
    })
    .await?;
    Ok((listener, server))
}
