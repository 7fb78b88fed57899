//! `saker serve`

use std::path::PathBuf;

use clap::Args;

use super::{Failed, Outcome, output, stop_on_signals};
use crate::{
    config::Config,
    listen,
    running::{Running, Settings},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Configuration file (TOML)
    #[arg(long, env = "SAKER_CONFIG")]
    config: PathBuf,
}

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    let stop = stop_on_signals()?;
    let config = Config::read(&options.config)?;
    let tls = match config.tls_files() {
        Some(files) => Some(listen::tls(&files)?),
        None => None,
    };
    let listener = listen::bind(config.server.listen).await?;
    let settings = Settings {
        data_dir: config.data.dir.clone(),
        keys: config.key_services_config(),
        platform_root: config.platform_root(),
        engine: config.engine_config(),
        auth_required: config.auth.enabled,
        control: config.control_settings(),
        audit: config.audit.clone(),
    };
    let running = Box::pin(Running::start(settings, listener, tls)).await?;
    output::line(format_args!("ready {}", running.address));
    stop.cancelled().await;
    running.stop().await;
    Ok(Outcome::Done)
}
