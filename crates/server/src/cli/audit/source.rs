//! Where an audit log is read from: a running server, or a data directory that no server uses.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use saker_audit::{ChainCheck, ChainReport, Head, Place, Record, Walk};
use saker_engine::{Engine, Stores};
use saker_kms::{AwsKmsConfig, KeyServices, KeyServicesConfig, LocalKeyServerConfig};
use saker_storage::EmbeddedStores;

use super::check_lines;
use crate::{
    audit::{ACCESS_STREAM, AUDIT_STREAM, place},
    cli::{Failed, client::Client},
    config::Config,
    rest::audit::Export,
};

/// What is read, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Native,
    CloudTrail,
    Access,
}

#[derive(Debug, Args)]
pub(super) struct Source {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    place: DataDirectory,
}

/// A data directory and the key to its cluster's own zone.
#[derive(Debug, Args)]
pub(super) struct DataDirectory {
    /// Data directory that no server uses, instead of a running server; for one of `saker dev`, DIR/data
    #[arg(long, visible_alias = "data")]
    dir: Option<PathBuf>,
    /// Configuration file of the server, for its key services and its data directory
    #[arg(long)]
    config: Option<PathBuf>,
    /// File of the platform root key [default: platform.key beside the data directory]
    #[arg(long, conflicts_with = "config")]
    platform_key_file: Option<PathBuf>,
    /// A running server with the AWS KMS protocol, if the platform root key is there
    #[arg(long, conflicts_with = "config")]
    kms_endpoint: Option<String>,
}

impl Source {
    /// The bytes of an export, a chunk at a time.
    pub(super) async fn each_chunk(
        &self,
        style: Style,
        after: u64,
        take: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<(), Failed> {
        if self.place.is_named() {
            let opened = self.place.open().await?;
            let stream = if style == Style::Access {
                ACCESS_STREAM
            } else {
                AUDIT_STREAM
            };
            let walk = Walk::begin(opened.place(stream)?).await?;
            let mut export = match style {
                Style::Native => Export::native(walk, after),
                Style::CloudTrail => Export::cloudtrail(walk, after),
                Style::Access => Export::plain(walk),
            };
            while let Some(chunk) = export.next_chunk().await {
                take(&chunk)?;
            }
            return Ok(());
        }
        let path = match style {
            Style::Native => format!("/v2/audit/export?after={after}"),
            Style::CloudTrail => format!("/v2/audit/export?format=cloudtrail&after={after}"),
            Style::Access => "/v2/audit/access".to_owned(),
        };
        self.client.download(&path, take).await
    }

    /// All records, and whether their chain is whole.
    pub(super) async fn records(&self, kept: Vec<Head>) -> Result<(Vec<Record>, ChainReport), Failed> {
        if self.place.is_named() {
            return self.place.records(Head::NONE, kept).await;
        }
        let mut bytes = Vec::new();
        self.each_chunk(Style::Native, 0, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        Ok(super::records_of(&bytes, kept))
    }
}

/// Stores that are kept open as long as their log is read.
struct Opened {
    stores: saker_engine::AuditStores,
    _kept: Stores,
}

impl Opened {
    fn place(&self, stream: &str) -> Result<Place, Failed> {
        Ok(place(&self.stores, stream)?)
    }
}

impl DataDirectory {
    fn is_named(&self) -> bool {
        self.dir.is_some() || self.config.is_some()
    }

    async fn open(&self) -> Result<Opened, Failed> {
        let (dir, keys) = self.places()?;
        let keys = KeyServices::connect(keys).await?;
        let stores = Stores::from(EmbeddedStores::open(&dir).await?);
        let (offline, _) = Engine::audit_stores_offline(&stores, &keys).await?;
        Ok(Opened {
            stores: offline,
            _kept: stores,
        })
    }

    /// All records, and whether their chain is whole.
    pub(super) async fn records(&self, after: Head, kept: Vec<Head>) -> Result<(Vec<Record>, ChainReport), Failed> {
        let opened = self.open().await?;
        let mut walk = Walk::begin(opened.place(AUDIT_STREAM)?).await?;
        let mut check = ChainCheck::new(after, kept);
        let mut records = Vec::new();
        while let Some(lines) = walk.next_lines().await {
            check_lines(&mut check, &lines?, &mut records);
        }
        Ok((records, check.finish()))
    }

    fn places(&self) -> Result<(PathBuf, KeyServicesConfig), Failed> {
        if let Some(path) = &self.config {
            let config = Config::read(path)?;
            let dir = self.dir.clone().unwrap_or_else(|| config.data.dir.clone());
            check_is_ours(&dir)?;
            return Ok((dir, config.key_services_config()));
        }
        let dir = std::path::absolute(self.dir.clone().unwrap_or_default())?;
        check_is_ours(&dir)?;
        let beside = dir.parent().unwrap_or(Path::new("/"));
        let key_file = self
            .platform_key_file
            .clone()
            .unwrap_or_else(|| beside.join("platform.key"));
        let credentials = Some(beside.join("aws-credentials")).filter(|path| path.is_file());
        let aws = self.kms_endpoint.clone().map(|endpoint| AwsKmsConfig {
            sts_endpoint_url: Some(endpoint.clone()),
            endpoint_url: Some(endpoint),
            region: Some(LocalKeyServerConfig::REGION.to_owned()),
            profile: credentials.is_some().then(|| "saker".to_owned()),
            credentials_file: credentials,
            ..AwsKmsConfig::default()
        });
        // Opening would make a new key file, which opens nothing.
        if !key_file.is_file() && aws.is_none() {
            return Err(format!(
                "{} is not there: name the platform key file, or give --config",
                key_file.display()
            )
            .into());
        }
        let keys = KeyServicesConfig {
            platform_key_file: Some(key_file).filter(|path| path.is_file()),
            aws,
            ..KeyServicesConfig::default()
        };
        Ok((dir, keys))
    }
}

/// Opening the stores would begin a data directory where there is none.
fn check_is_ours(dir: &Path) -> Result<(), Failed> {
    if dir.join("SAKER").is_file() {
        return Ok(());
    }
    Err(format!("{} is no data directory: there is no file SAKER in it", dir.display()).into())
}
