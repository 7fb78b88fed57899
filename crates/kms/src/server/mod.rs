//! The local key server (being built).
use std::path::PathBuf;

use thiserror::Error;

/// Where the local key server keeps its things and who it says it is.
#[derive(Clone, Debug)]
pub struct LocalKeyServerConfig {
    /// Directory of everything it keeps: sealed key records, root secret, `cloudtrail.jsonl`.
    pub dir: PathBuf,
    /// AWS shared-credentials file that the first start writes, with the profiles `customer` and `saker`.
    pub credentials_file: PathBuf,
    /// AWS region that it answers for.
    pub region: String,
    /// AWS account (12 digits) that owns its keys.
    pub account: String,
}

/// Why the local key server cannot start or go on.
#[derive(Debug, Error)]
pub enum KeyServerError {
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Serve(std::io::Error),
}

/// A key server that speaks the AWS KMS protocol, for development and air-gapped use.
#[derive(Debug)]
pub struct LocalKeyServer;

impl LocalKeyServer {
    /// Opens or makes the server's directory.
    ///
    /// # Errors
    /// [`KeyServerError`]
    pub async fn open(_config: LocalKeyServerConfig) -> Result<Self, KeyServerError> {
        Ok(Self)
    }
    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`KeyServerError::Serve`]
    pub async fn serve(
        self,
        _listener: tokio::net::TcpListener,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<(), KeyServerError> {
        shutdown.cancelled().await;
        Ok(())
    }
}
