//! `saker kms serve`

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use saker_kms::{LocalKeyServer, LocalKeyServerConfig};
use tokio::io::AsyncReadExt as _;

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

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let stop = stop_on_signals()?;
    let listener = listen::bind(SocketAddr::new(options.host, options.port)).await?;
    let address = listener.local_addr()?;
    let credentials_file = options
        .credentials
        .unwrap_or_else(|| options.dir.join("aws-credentials"));
    let server = LocalKeyServer::open(LocalKeyServerConfig {
        dir: options.dir,
        credentials_file: credentials_file.clone(),
        region: options.region,
        account: options.account,
    })
    .await?;
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
