//! The clusters that this process runs beside its own: each with an engine, a listener, key services and a directory of
//! its own. They are put together as the server's own cluster is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use saker_control::{
    ClusterId, ClusterRecord, ControlError, KeyUse, NewCluster, Place, ProjectRecord, Registry, Wanted,
};
use saker_engine::EngineConfig;
use saker_keyring::{KeyProvider, RootKeyId};
use saker_storage::erase_data_directory;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::views::{ClusterState, ClusterView};
use crate::{
    listen,
    node::{Membership, Node},
    rest,
    running::{Opened, Serving, Settings, StartError, address_of},
};

/// Folder of the clusters in the server's data directory.
const FOLDER: &str = "clusters";
/// How often clusters that should run and could not start are tried again.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// How many ports after the server's own are tried for a new cluster.
const PORTS_TRIED: u16 = 1_000;
/// How long a stopped cluster's last requests may hold its directory.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

/// All clusters of this process. One per server.
pub struct Fleet {
    /// The server's own cluster.
    pub(super) main: Arc<Node>,
    pub(super) settings: Settings,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    members: Mutex<BTreeMap<ClusterId, Member>>,
    /// Held while a cluster comes or goes.
    changes: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Member {
    Running(Serving),
    /// It should run, and could not start.
    Failed(String),
}

/// A cluster to be made, as it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct NewMember {
    pub(crate) project: ProjectRecord,
    pub(crate) name: String,
    /// 0: any free one.
    pub(crate) port: u16,
    pub(crate) provider: Option<KeyProvider>,
    pub(crate) region: Option<String>,
    pub(crate) default_key: Option<RootKeyId>,
}

impl Fleet {
    pub(crate) fn new(main: Arc<Node>, settings: Settings, address: SocketAddr, tls: Option<TlsAcceptor>) -> Arc<Self> {
        Arc::new(Self {
            main,
            settings,
            address,
            tls,
            members: Mutex::default(),
            changes: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        })
    }
    /// Projects, keys and clusters as they are known.
    pub(crate) fn registry(&self) -> &Registry {
        &self.main.membership.registry
    }
    pub(crate) fn now_ms(&self) -> u64 {
        self.main.clock.wall_ms()
    }
    /// Starts what should run, now and whenever it could not; finishes drops that a crash cut short.
    pub(crate) fn begin(self: &Arc<Self>) {
        let fleet = Arc::downgrade(self);
        let stop = self.stop.clone();
        // It ends with `stop`, or by itself once the fleet is gone.
        tokio::spawn(async move {
            loop {
                let Some(fleet) = Weak::upgrade(&fleet) else { return };
                Box::pin(fleet.catch_up()).await;
                drop(fleet);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_EVERY) => {}
                }
            }
        });
    }
    /// Stops every cluster but the server's own.
    pub(crate) async fn stop_all(&self) {
        self.stop.cancel();
        let _changes = self.changes.lock().await;
        let members = std::mem::take(&mut *self.members());
        let stops = members.into_values().filter_map(|member| match member {
            Member::Running(serving) => Some(serving.stop()),
            Member::Failed(_) => None,
        });
        futures::future::join_all(stops).await;
    }
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// [`ControlError`] that says what does not fit, or why it does not start; nothing of it is left then.
    pub(crate) async fn create(&self, new: NewMember) -> Result<ClusterView, ControlError> {
        let _changes = self.changes.lock().await;
        let place = self.place_of(&new)?;
        let registry = self.registry();
        registry.check_new_cluster(&new.project.id, &new.name, &place, new.default_key.as_ref())?;
        let listener = self.bind_new(new.port).await?;
        let listen = address_of(&listener).map_err(|error| ControlError::invalid("port", error.to_string()))?;
        let cluster = NewCluster {
            project: new.project.id,
            name: new.name,
            listen,
            place,
            default_key: new.default_key,
        };
        let record = registry.create_cluster(cluster, self.now_ms()).await?;
        match self.open(&record, listener).await {
            Ok(serving) => {
                self.members().insert(record.id.clone(), Member::Running(serving));
                Ok(self.view(&record).await)
            }
            Err(error) => {
                let failure = failed_to_start(&record.id, &error);
                // From here on it is only erased, now or when it can be.
                self.registry().want_cluster(&record.id, Wanted::Dropped, None).await?;
                self.erase(&record.id).await?;
                Err(failure)
            }
        }
    }
    /// Starts a cluster that was stopped, or tries again.
    ///
    /// # Errors
    /// [`ControlError`] that says why it does not start; it is tried again until it is stopped.
    pub(crate) async fn start(&self, id_or_name: &str) -> Result<ClusterView, ControlError> {
        let _changes = self.changes.lock().await;
        let record = self.not_dropped(id_or_name)?;
        let record = self.registry().want_cluster(&record.id, Wanted::Running, None).await?;
        self.start_member(&record)
            .await
            .map_err(|error| failed_to_start(&record.id, &error))?;
        Ok(self.view(&record).await)
    }
    /// Stops a cluster; its data stays.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn stop(&self, id_or_name: &str) -> Result<ClusterView, ControlError> {
        let _changes = self.changes.lock().await;
        let record = self.not_dropped(id_or_name)?;
        let member = self.members().remove(&record.id);
        let record = match member {
            Some(Member::Running(serving)) => {
                let node = stopped(serving).await;
                // Asked after it stopped: nothing can be made in it any more.
                let uses = uses_of(&node).await.ok();
                released(node).await;
                self.registry().want_cluster(&record.id, Wanted::Stopped, uses).await?
            }
            // It ran at most before this server started, and may have got what nobody wrote down.
            Some(Member::Failed(_)) | None => {
                let uses = record.uses.filter(|_| record.wanted == Wanted::Stopped);
                self.registry().want_cluster(&record.id, Wanted::Stopped, uses).await?
            }
        };
        Ok(self.view(&record).await)
    }
    /// Drops a cluster that keeps nothing any more: its wrapped keys are destroyed, then its files.
    ///
    /// # Errors
    /// [`ControlError::ClusterState`] if it does not run, or has databases or collections.
    pub(crate) async fn drop_cluster(&self, id_or_name: &str) -> Result<ClusterRecord, ControlError> {
        let _changes = self.changes.lock().await;
        let record = self.registry().cluster(id_or_name)?;
        if record.wanted != Wanted::Dropped {
            let node = self.node(&record.id).ok_or_else(|| ControlError::ClusterState {
                cluster: record.id.clone(),
                state: "does not run, so nobody knows what it keeps".to_owned(),
                remedy: "start it first",
            })?;
            // Asked before it is stopped, so that one in use goes on, and after, when nothing can be made in it any more.
            empty(&node).await?;
            drop(node);
            let member = self.members().remove(&record.id);
            if let Some(Member::Running(serving)) = member {
                let node = stopped(serving).await;
                let still_empty = empty(&node).await;
                released(node).await;
                if let Err(refused) = still_empty {
                    if let Err(error) = self.start_member(&record).await {
                        tracing::warn!(cluster = %record.id, %error, "cluster does not start; it is tried again");
                    }
                    return Err(refused);
                }
            }
            self.registry().want_cluster(&record.id, Wanted::Dropped, None).await?;
        }
        self.erase(&record.id).await?;
        Ok(record)
    }
    /// Clusters as people see them, the server's own first.
    pub(crate) async fn views(&self) -> Vec<ClusterView> {
        let mut views = vec![self.own_view().await];
        for record in self.registry().clusters() {
            views.push(self.view(&record).await);
        }
        views
    }
    /// One of them.
    ///
    /// # Errors
    /// [`ControlError::ClusterNotFound`], [`ControlError::ClusterAmbiguous`].
    pub(crate) async fn view_of(&self, id_or_name: &str) -> Result<ClusterView, ControlError> {
        if self.registry().is_standalone(id_or_name) {
            return Ok(self.own_view().await);
        }
        let record = self.registry().cluster(id_or_name)?;
        Ok(self.view(&record).await)
    }
    /// All nodes that run: cluster, its name, node.
    pub(crate) fn nodes(&self) -> Vec<(String, Arc<Node>)> {
        let mut nodes = vec![(Registry::STANDALONE_NAME.to_owned(), Arc::clone(&self.main))];
        for record in self.registry().clusters() {
            nodes.extend(self.node(&record.id).map(|node| (record.name, node)));
        }
        nodes
    }
    /// A cluster of the project of which nobody knows what it keeps: it should run and does not, or could not when it was
    /// stopped.
    pub(super) fn unknown_member(&self, project: &saker_control::ProjectId) -> Option<ClusterId> {
        let clusters = self.registry().clusters();
        let mut own = clusters.into_iter().filter(|record| record.project == *project);
        let unknown = own.find(|record| match record.wanted {
            Wanted::Running => self.node(&record.id).is_none(),
            Wanted::Stopped => record.uses.is_none(),
            Wanted::Dropped => false,
        });
        unknown.map(|record| record.id)
    }

    fn node(&self, id: &ClusterId) -> Option<Arc<Node>> {
        match self.members().get(id) {
            Some(Member::Running(serving)) => Some(Arc::clone(&serving.node)),
            Some(Member::Failed(_)) | None => None,
        }
    }
    fn members(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn directory(&self, id: &ClusterId) -> PathBuf {
        self.settings.data_dir.join(FOLDER).join(id.as_str())
    }
    fn not_dropped(&self, id_or_name: &str) -> Result<ClusterRecord, ControlError> {
        let record = self.registry().cluster(id_or_name)?;
        if record.wanted == Wanted::Dropped {
            return Err(ControlError::ClusterState {
                cluster: record.id,
                state: "is being dropped".to_owned(),
                remedy: "drop it again to finish that",
            });
        }
        Ok(record)
    }
    /// Where the new cluster's keys may be: as asked, as its default key, or as the server's configuration.
    fn place_of(&self, new: &NewMember) -> Result<Place, ControlError> {
        let default = new.default_key.as_ref().map(Place::of).unwrap_or_default();
        let configured = self.settings.keys.aws.as_ref();
        let provider = new
            .provider
            .or(default.provider)
            .or_else(|| configured.map(|_| KeyProvider::Aws));
        let is_aws = provider.is_none_or(|provider| provider == KeyProvider::Aws);
        if provider == Some(KeyProvider::PlatformFile) {
            return Err(ControlError::invalid(
                "provider",
                "give that of customers' keys: aws, vault or pkcs11",
            ));
        }
        let region = match &new.region {
            Some(_) if !is_aws => {
                return Err(ControlError::invalid(
                    "region",
                    "only AWS keys have a region; leave it out",
                ));
            }
            Some(region) => Some(region.clone()),
            None if is_aws => default.region.or_else(|| configured.and_then(|aws| aws.region.clone())),
            None => None,
        };
        if let Some(region) = &region {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if region.is_empty() || region.len() > 64 || !region.bytes().all(plain) {
                return Err(ControlError::invalid(
                    "region",
                    "it must be an AWS region such as us-east-1",
                ));
            }
        }
        Ok(Place { provider, region })
    }
    /// Takes the port of a new cluster; for 0 the next free one after the server's own, which nothing that connects from
    /// here is given by the system before the cluster comes back.
    async fn bind_new(&self, port: u16) -> Result<tokio::net::TcpListener, ControlError> {
        let own = self.address.port();
        let candidates = if port == 0 {
            own.saturating_add(1)..own.saturating_add(PORTS_TRIED)
        } else {
            port..port.saturating_add(1)
        };
        let mut refused = ControlError::invalid("port", "no free port near the server's own; name one");
        for port in candidates {
            let address = SocketAddr::new(self.address.ip(), port);
            if let Some(cluster) = self.registry().cluster_at(address) {
                refused = ControlError::PortTaken {
                    listen: address,
                    cluster,
                };
                continue;
            }
            match listen::bind(address).await {
                Ok(listener) => return Ok(listener),
                Err(error) => refused = ControlError::invalid("port", error.to_string()),
            }
        }
        Err(refused)
    }
    /// Starts what should run and does not, and finishes drops.
    async fn catch_up(&self) {
        for record in self.registry().clusters() {
            let _changes = self.changes.lock().await;
            // It may have been stopped or dropped in between.
            let Ok(record) = self.registry().cluster(record.id.as_str()) else {
                continue;
            };
            if self.stop.is_cancelled() {
                return;
            }
            match record.wanted {
                Wanted::Running => {
                    if let Err(error) = self.start_member(&record).await {
                        tracing::warn!(cluster = %record.id, %error, "cluster does not start; it is tried again");
                    }
                }
                Wanted::Dropped => {
                    if let Err(error) = self.erase(&record.id).await {
                        tracing::warn!(cluster = %record.id, %error, "cluster is not erased yet; it is tried again");
                    }
                }
                Wanted::Stopped => {}
            }
        }
    }
    async fn start_member(&self, record: &ClusterRecord) -> Result<(), StartError> {
        if self.node(&record.id).is_some() {
            return Ok(());
        }
        let started = match listen::bind(record.listen).await {
            Ok(listener) => self.open(record, listener).await,
            Err(error) => Err(error.into()),
        };
        let (member, outcome) = match started {
            Ok(serving) => (Member::Running(serving), Ok(())),
            Err(error) => (Member::Failed(error.to_string()), Err(error)),
        };
        self.members().insert(record.id.clone(), member);
        outcome
    }
    /// Opens a cluster's engine and answers on its port.
    async fn open(&self, record: &ClusterRecord, listener: tokio::net::TcpListener) -> Result<Serving, StartError> {
        let settings = Settings {
            data_dir: self.directory(&record.id),
            engine: EngineConfig {
                cluster: Some(record.id.to_string()),
                default_key: record.default_key.clone(),
                ..self.settings.engine.clone()
            },
            ..self.settings.clone()
        };
        let membership = Membership {
            cluster: record.id.clone(),
            project: record.project.clone(),
            registry: Arc::clone(&self.main.membership.registry),
        };
        let stores = saker_storage::EmbeddedStores::open(&settings.data_dir).await?;
        let keys = saker_kms::KeyServices::connect(settings.keys.clone()).await?;
        self.give_roles(&keys, &record.project).await;
        let opened = Opened::open_with(&settings, stores, Arc::new(keys)).await?;
        let node = opened.into_node(membership);
        let router = rest::router(Arc::clone(&node), None);
        tracing::info!(cluster = %record.id, address = %record.listen, "cluster answers");
        Ok(Serving::begin(node, router, listener, self.tls.clone()))
    }
    /// Erases a cluster's data, then what is known of it.
    async fn erase(&self, id: &ClusterId) -> Result<(), ControlError> {
        let erased = erase_data_directory(self.directory(id)).await;
        erased.map_err(|error| ControlError::ClusterState {
            cluster: id.clone(),
            state: format!("could not be erased: {error}"),
            remedy: "it is tried again until it succeeds",
        })?;
        self.registry().forget_cluster(id).await
    }
    async fn own_view(&self) -> ClusterView {
        let standalone = self.registry().standalone();
        let databases = self.main.engine.list_databases().await;
        ClusterView {
            id: standalone.id.clone(),
            name: Registry::STANDALONE_NAME.to_owned(),
            project: self.registry().standalone_project(),
            standalone: true,
            state: ClusterState::Running,
            listen: self.address,
            secure: self.tls.is_some(),
            place: standalone.place.clone(),
            default_key: standalone.default_key.clone(),
            databases: databases.ok().map(|databases| databases.len()),
            created_ms: None,
        }
    }
    async fn view(&self, record: &ClusterRecord) -> ClusterView {
        let (state, node) = match (record.wanted, self.members().get(&record.id)) {
            (Wanted::Dropped, _) => (ClusterState::Dropping, None),
            (Wanted::Stopped, _) => (ClusterState::Stopped, None),
            (Wanted::Running, Some(Member::Running(serving))) => {
                (ClusterState::Running, Some(Arc::clone(&serving.node)))
            }
            (Wanted::Running, Some(Member::Failed(reason))) => (ClusterState::Failed(reason.clone()), None),
            (Wanted::Running, None) => (ClusterState::Starting, None),
        };
        let databases = match node {
            Some(node) => node.engine.list_databases().await.ok().map(|databases| databases.len()),
            None => None,
        };
        ClusterView {
            id: record.id.clone(),
            name: record.name.clone(),
            project: record.project.clone(),
            standalone: false,
            state,
            listen: record.listen,
            secure: self.tls.is_some(),
            place: record.place.clone(),
            default_key: record.default_key.clone(),
            databases,
            created_ms: Some(record.created_ms),
        }
    }
}

async fn stopped(serving: Serving) -> Arc<Node> {
    let node = Arc::clone(&serving.node);
    serving.stop().await;
    node
}

/// Waits until nobody holds a stopped node any more, so that its directory is free again. Connections that did not end
/// in time hold it for a moment longer.
async fn released(node: Arc<Node>) {
    let until = tokio::time::Instant::now() + RELEASED_WITHIN;
    while Arc::strong_count(&node) > 1 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Who is under which key in a cluster.
///
/// # Errors
/// [`ControlError::ClusterState`] if it does not tell.
pub(super) async fn uses_of(node: &Node) -> Result<Vec<KeyUse>, ControlError> {
    let keys = node.engine.key_states().await.map_err(|error| untold(node, &error))?;
    let mut uses = Vec::new();
    for key in keys {
        for name in &key.databases {
            let (database, collection) = match name.split_once('/') {
                Some((database, collection)) => (database, Some(collection.to_owned())),
                None => (name.as_str(), None),
            };
            uses.push(KeyUse {
                root: key.root.clone(),
                database: database.to_owned(),
                collection,
            });
        }
    }
    Ok(uses)
}

/// Refuses if a cluster keeps more than it began with.
async fn empty(node: &Node) -> Result<(), ControlError> {
    let kept = |kept: String| ControlError::ClusterState {
        cluster: node.membership.cluster.clone(),
        state: format!("keeps {kept}"),
        remedy: "drop those first; each drop destroys its keys and gives a receipt",
    };
    let databases = node.engine.list_databases().await;
    let databases = databases.map_err(|error| untold(node, &error))?;
    if databases.len() > 1 {
        let names: Vec<_> = databases
            .iter()
            .map(|database| database.name.as_str())
            .take(10)
            .collect();
        return Err(kept(format!("{} databases ({})", databases.len(), names.join(", "))));
    }
    for database in databases {
        let collections = node.engine.list_collections(&database.name).await;
        let collections = collections.map_err(|error| untold(node, &error))?;
        if !collections.is_empty() {
            return Err(kept(format!(
                "{} collections in database {}",
                collections.len(),
                database.name
            )));
        }
    }
    Ok(())
}

fn untold(node: &Node, error: &saker_engine::Error) -> ControlError {
    ControlError::ClusterState {
        cluster: node.membership.cluster.clone(),
        state: format!("does not tell what it keeps: {}", error.message),
        remedy: "try again",
    }
}

fn failed_to_start(id: &ClusterId, error: &StartError) -> ControlError {
    ControlError::ClusterState {
        cluster: id.clone(),
        state: format!("does not start: {error}"),
        remedy: "see the reason",
    }
}
