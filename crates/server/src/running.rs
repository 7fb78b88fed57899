//! A database that is running: stores, engine and port put together, and taken apart in order.
//!
//! Start reading at [`Running::start`]. The clusters that the control plane runs beside the server's own are put together
//! in the same way, by [`crate::control::Fleet`].

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use saker_control::{ClusterId, ControlError, Place, Registry, Standalone};
use saker_engine::{Clock, Engine, EngineConfig, SystemClock};
use saker_keyring::{KeyService as _, RootKeyId};
use saker_kms::{KeyServices, KeyServicesConfig};
use saker_storage::EmbeddedStores;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Audit, AuditSection},
    auth::Authenticator,
    carried,
    control::{EngineStore, Fleet},
    listen::ListenError,
    metrics::Metrics,
    node::{Membership, Node},
    rest,
};

/// What a database is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Data directory.
    pub data_dir: PathBuf,
    /// Key services to use.
    pub keys: KeyServicesConfig,
    /// Root key of the cluster's own zone.
    pub platform_root: RootKeyId,
    /// The engine's settings; its event sink is replaced by the audit log and the metrics.
    pub engine: EngineConfig,
    /// Whether clients have to say user and password.
    pub auth_required: bool,
    /// Projects, keys and clusters.
    pub control: ControlSettings,
    /// What is recorded beside the audit log.
    pub audit: AuditSection,
}

/// What the control plane is started with.
#[derive(Clone, Debug, Default)]
pub struct ControlSettings {
    /// Whether databases of the server's own cluster need keys that are registered with its project.
    pub registered_keys_only: bool,
    /// The AWS principal that customers' roles have to trust; `None`: whoever STS says that this server is.
    pub aws_principal: Option<String>,
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
    /// The audit log cannot be read.
    #[error("audit log: {0}")]
    Audit(#[from] saker_audit::JournalError),
    /// The control plane's state cannot be read.
    #[error("control plane: {0}")]
    Control(#[from] ControlError),
}

/// A server that answers: its own cluster, and those that the control plane made.
#[derive(Debug)]
pub struct Running {
    /// The node behind the port.
    pub node: Arc<Node>,
    /// Where it answers.
    pub address: SocketAddr,
    serving: Serving,
    fleet: Arc<Fleet>,
}

impl Running {
    /// Opens the data directory and answers on the listener; clusters that the control plane made start in the
    /// background, so that one that cannot start keeps nobody else from it.
    ///
    /// # Errors
    /// [`StartError`] that says what to change.
    pub async fn start(
        settings: Settings,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self, StartError> {
        let address = address_of(&listener)?;
        let opened = Opened::open(&settings).await?;
        let registry = registry(&settings, &opened).await?;
        let membership = Membership {
            cluster: registry.standalone().id.clone(),
            project: registry.standalone_project(),
            registry: Arc::new(registry),
        };
        let node = opened.into_node(membership);
        let fleet = Fleet::new(Arc::clone(&node), settings, address, tls.clone());
        fleet.take_on_roles(&node).await;
        let router = rest::router(Arc::clone(&node), Some(Arc::clone(&fleet)));
        let serving = Serving::begin(Arc::clone(&node), router, listener, tls);
        fleet.begin();
        Ok(Self {
            node,
            address,
            serving,
            fleet,
        })
    }
    /// Stops taking requests, lets running ones finish for a while, and closes the engines. What was acknowledged is
    /// durable already.
    pub async fn stop(self) {
        self.fleet.stop_all().await;
        self.serving.stop().await;
    }
}

/// Whatever the settings say of the server's own cluster, its registry of projects and keys.
async fn registry(settings: &Settings, opened: &Opened) -> Result<Registry, StartError> {
    let cluster = opened.engine.cluster_id();
    let id: ClusterId = cluster.parse().map_err(ControlError::from)?;
    let standalone = Standalone {
        id,
        place: Place {
            provider: None,
            region: settings.keys.aws.as_ref().and_then(|aws| aws.region.clone()),
        },
        default_key: settings.engine.default_key.clone(),
        registered_keys_only: settings.control.registered_keys_only,
    };
    let store = Arc::new(EngineStore::new(Arc::clone(&opened.engine)));
    Ok(Registry::load(store, standalone, opened.clock.wall_ms()).await?)
}

/// An engine over its stores, before anything answers for it.
pub(crate) struct Opened {
    engine: Arc<Engine>,
    keys: Arc<KeyServices>,
    auth: Authenticator,
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    clock: Arc<dyn Clock>,
}

impl Opened {
    pub(crate) async fn open(settings: &Settings) -> Result<Self, StartError> {
        let stores = EmbeddedStores::open(&settings.data_dir).await?;
        let keys = Arc::new(KeyServices::connect(settings.keys.clone()).await?);
        Self::open_with(settings, stores, keys).await
    }
    pub(crate) async fn open_with(
        settings: &Settings,
        stores: EmbeddedStores,
        keys: Arc<KeyServices>,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let audit = Audit::new(Arc::clone(&metrics), Arc::clone(&clock));
        keys.observe(Arc::clone(&audit) as Arc<dyn saker_keyring::CallObserver>);
        let config = EngineConfig {
            events: Arc::clone(&audit) as Arc<dyn saker_engine::EventSink>,
            clock: Arc::clone(&clock),
            ..settings.engine.clone()
        };
        let opening = Engine::open(config, stores, Arc::clone(&keys) as _, settings.platform_root.clone());
        // It is large, and stands in the futures of everything that starts a cluster.
        let engine = Box::pin(opening).await?;
        audit.attach(&engine, &settings.audit).await?;
        let auth = Authenticator::new(settings.auth_required)?;
        auth.prepare(&engine).await?;
        Ok(Self {
            engine,
            keys,
            auth,
            metrics,
            audit,
            clock,
        })
    }
    pub(crate) fn into_node(self, membership: Membership) -> Arc<Node> {
        let Self {
            engine,
            keys,
            auth,
            metrics,
            audit,
            clock,
        } = self;
        Arc::new(Node::new(engine, keys, auth, metrics, audit, membership, clock))
    }
}

/// A node that answers on a port.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) node: Arc<Node>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    pub(crate) fn begin(
        node: Arc<Node>,
        router: axum::Router,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(carried::serve(listener, tls, router, Arc::clone(&node), stop.clone()));
        Self { node, stop, task }
    }
    /// Stops taking requests, lets running ones finish for a while, and closes the engine.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::error!("the listener's task ended badly");
        }
        self.node.engine.shutdown().await;
        self.node.audit.close().await;
    }
}

pub(crate) fn address_of(listener: &TcpListener) -> Result<SocketAddr, ListenError> {
    listener.local_addr().map_err(|source| ListenError::Bind {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        source,
    })
}
