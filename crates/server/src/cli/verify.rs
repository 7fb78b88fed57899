//! `saker verify` (being written).

use std::path::PathBuf;

use clap::Args;

use super::{Failed, Outcome};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Data directory
    #[arg(long)]
    dir: PathBuf,
}

pub(super) async fn run(options: Options) -> Result<Outcome, Failed> {
    Err(format!("verification of {} is not written yet", options.dir.display()).into())
}
