//! One running node: the engine and what stands around it. Everything that serves requests shares it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use saker_control::{ClusterId, KeyPermit, ProjectId, Registry};
use saker_engine::{Clock, Engine};
use saker_keyring::RootKeyId;
use saker_kms::KeyServices;
use saker_model::Timestamp;

use crate::{audit::Audit, auth::Authenticator, metrics::Metrics, wire::Failure};

/// What serves requests.
#[derive(Debug)]
pub struct Node {
    /// The database engine.
    pub engine: Arc<Engine>,
    /// Where its root keys are.
    pub keys: Arc<KeyServices>,
    /// Who may use it.
    pub auth: Authenticator,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is recorded.
    pub audit: Arc<Audit>,
    /// Whose cluster this is.
    pub membership: Membership,
    /// The time.
    pub clock: Arc<dyn Clock>,
    clients: AtomicI64,
}

/// Which cluster of which project a node serves.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its project.
    pub project: ProjectId,
    /// What is known of all projects.
    pub registry: Arc<Registry>,
}

impl Node {
    /// A node over an open engine.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        keys: Arc<KeyServices>,
        auth: Authenticator,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
        membership: Membership,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Identifiers of clients differ between runs, so that a client sees that the server is a new one.
        let first = i64::try_from(clock.wall_ms()).unwrap_or(1).max(1);
        Self {
            engine,
            keys,
            auth,
            metrics,
            audit,
            membership,
            clock,
            clients: AtomicI64::new(first),
        }
    }
    /// A fresh timestamp, greater than that of every write before.
    pub fn timestamp(&self) -> Timestamp {
        self.engine.allocate_timestamp()
    }
    /// A number for a client that connects; never 0.
    pub fn next_client_identifier(&self) -> i64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }
    /// Which parts cannot serve and why; empty if all can.
    pub async fn health(&self) -> Vec<String> {
        match self.engine.list_databases().await {
            Ok(_) => Vec::new(),
            Err(error) => vec![format!("catalog: {error}")],
        }
    }
    /// The right to put something under a root key; keep it until that is done.
    ///
    /// # Errors
    /// A refusal that says what to do, if the key is not registered with the cluster's project.
    pub fn permit_key(&self, root: &RootKeyId) -> Result<KeyPermit, Failure> {
        let Membership { cluster, registry, .. } = &self.membership;
        registry.permit(cluster, root).map_err(Failure::invalid)
    }
    /// The same for the key that a new collection's properties name; `None` if they name none that could be one (the engine
    /// says what is wrong then).
    ///
    /// # Errors
    /// As [`Self::permit_key`].
    pub fn permit_collection_key(&self, properties: &BTreeMap<String, String>) -> Result<Option<KeyPermit>, Failure> {
        let named = properties.get(CIPHER_KEY).and_then(|text| text.trim().parse().ok());
        named
            .filter(|root| *root != RootKeyId::platform_file())
            .map(|root| self.permit_key(&root))
            .transpose()
    }
    /// The same for a new database, which goes under the cluster's default key if its properties name none.
    ///
    /// # Errors
    /// As [`Self::permit_key`].
    pub fn permit_database_key(&self, properties: &BTreeMap<String, String>) -> Result<Option<KeyPermit>, Failure> {
        let declined = properties
            .get(CIPHER_ENABLED)
            .is_some_and(|text| text.eq_ignore_ascii_case("false"));
        if properties.contains_key(CIPHER_KEY) || declined {
            return self.permit_collection_key(properties);
        }
        let Membership { cluster, registry, .. } = &self.membership;
        let default = registry.default_key(cluster);
        default.map(|root| self.permit_key(&root)).transpose()
    }
}

/// The property by which a new database or collection names its root key.
const CIPHER_KEY: &str = "cipher.key";
/// The property by which a database declines the default key.
const CIPHER_ENABLED: &str = "cipher.enabled";
