//! A database that is running: stores, engine and port put together, and taken apart in order.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use saker_engine::{Clock, Engine, EngineConfig, SystemClock};
use saker_keyring::RootKeyId;
use saker_kms::{KeyServices, KeyServicesConfig};
use saker_storage::EmbeddedStores;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Authenticator,
    listen::{self, ListenError},
    metrics::Metrics,
    node::Node,
    rest,
};

/// What a database is started with.
#[derive(Debug)]
pub struct Settings {
    /// Data directory.
    pub data_dir: PathBuf,
    /// Key services to use.
    pub keys: KeyServicesConfig,
    /// Root key of the cluster's own zone.
    pub platform_root: RootKeyId,
    /// The engine's settings; its event sink is replaced by the metrics.
    pub engine: EngineConfig,
    /// Whether clients have to say user and password.
    pub auth_required: bool,
}

/// Why a database does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] saker_storage::DirectoryError),
    /// The key services cannot be set up.
    #[error(transparent)]
    Keys(#[from] saker_kms::KmsConfigError),
    /// The engine does not open.
    #[error("{0}")]
    Engine(#[from] saker_engine::Error),
    /// The port cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The metrics cannot be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A database that answers.
#[derive(Debug)]
pub struct Running {
    /// The node behind the port.
    pub node: Arc<Node>,
    /// Where it answers.
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Opens the data directory and answers on the listener.
    ///
    /// # Errors
    /// [`StartError`] that says what to change.
    pub async fn start(
        settings: Settings,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(|source| ListenError::Bind {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
        })?;
        let stores = EmbeddedStores::open(&settings.data_dir).await?;
        let keys = Arc::new(KeyServices::connect(settings.keys).await?);
        let metrics = Metrics::new()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let config = EngineConfig {
            events: Arc::clone(&metrics) as Arc<dyn saker_engine::EventSink>,
            clock: Arc::clone(&clock),
            ..settings.engine
        };
        let engine = Engine::open(config, stores, keys, settings.platform_root).await?;
        let auth = Authenticator::new(settings.auth_required)?;
        auth.prepare(&engine).await?;
        let node = Arc::new(Node::new(engine, auth, metrics, &*clock));
        let stop = CancellationToken::new();
        let router = rest::router(Arc::clone(&node));
        let serving = tokio::spawn(listen::serve(listener, tls, router, stop.clone()));
        Ok(Self {
            node,
            address,
            stop,
            serving,
        })
    }
    /// Stops taking requests, lets running ones finish for a while, and closes the engine. What was acknowledged is
    /// durable already.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.serving.await.is_err() {
            tracing::error!("the listener's task ended badly");
        }
        self.node.engine.shutdown().await;
    }
}
