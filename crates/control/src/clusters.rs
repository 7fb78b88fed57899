//! Clusters: what is known of them. `server` runs them.

use std::net::SocketAddr;

use saker_keyring::RootKeyId;

use crate::{
    ClusterId, ClusterRecord, ControlError, KeyUse, Place, ProjectId, Registry, Wanted,
    api_keys::shown,
    check_name,
    registry::{CLUSTER, read},
};

/// Most clusters that one server runs: each has an engine, a port and a lock of its own.
const CLUSTERS_MAX: usize = 64;

/// A cluster to be made.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The project that it will belong to.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// Where it will answer; already taken for it.
    pub listen: SocketAddr,
    /// Where its keys may be.
    pub place: Place,
    /// Root key of new databases that name none.
    pub default_key: Option<RootKeyId>,
}

impl Registry {
    /// Checks what a cluster is to be, before a port is taken for it.
    ///
    /// # Errors
    /// [`ControlError`] that says what does not fit.
    pub fn check_new_cluster(
        &self,
        project: &ProjectId,
        name: &str,
        place: &Place,
        default_key: Option<&RootKeyId>,
    ) -> Result<(), ControlError> {
        check_name("cluster name", name)?;
        let owner = self.project(project.as_str())?;
        let state = read(&self.state);
        if state.clusters.len() >= CLUSTERS_MAX {
            return Err(ControlError::Limit {
                what: "clusters",
                limit: CLUSTERS_MAX,
                remedy: "drop one, or run another server",
            });
        }
        let own = owner.id == state.standalone_project && name == Self::STANDALONE_NAME;
        let taken = |other: &&ClusterRecord| other.project == owner.id && other.name == name;
        if own || state.clusters.values().any(|other| taken(&other)) {
            return Err(ControlError::ClusterExists {
                project: owner.id,
                name: name.to_owned(),
            });
        }
        let Some(root) = default_key else { return Ok(()) };
        if !owner.keys.iter().any(|key| key.root == *root) {
            return Err(ControlError::KeyNotRegistered {
                root: root.clone(),
                project: owner.id,
            });
        }
        if !place.accepts(root) {
            return Err(ControlError::invalid(
                "defaultKey",
                format!(
                    "key {root} is with {} and the cluster is to take keys of {place}; use a key there, or change the \
                     cluster's provider and region",
                    Place::of(root)
                ),
            ));
        }
        Ok(())
    }
    /// Makes a cluster; it is to run.
    ///
    /// # Errors
    /// As [`Self::check_new_cluster`], and [`ControlError::PortTaken`], [`ControlError::Store`].
    pub async fn create_cluster(&self, new: NewCluster, now_ms: u64) -> Result<ClusterRecord, ControlError> {
        let _changes = self.changes.lock().await;
        self.check_new_cluster(&new.project, &new.name, &new.place, new.default_key.as_ref())?;
        if let Some(other) = read(&self.state)
            .clusters
            .values()
            .find(|other| other.listen == new.listen)
        {
            return Err(ControlError::PortTaken {
                listen: new.listen,
                cluster: other.id.clone(),
            });
        }
        let record = ClusterRecord {
            id: ClusterId::random(&new.project)?,
            project: new.project,
            name: new.name,
            created_ms: now_ms,
            listen: new.listen,
            place: new.place,
            default_key: new.default_key,
            wanted: Wanted::Running,
            uses: None,
        };
        self.put_cluster(record).await
    }
    /// Whose address this is.
    #[must_use]
    pub fn cluster_at(&self, listen: SocketAddr) -> Option<ClusterId> {
        let state = read(&self.state);
        state
            .clusters
            .values()
            .find(|cluster| cluster.listen == listen)
            .map(|cluster| cluster.id.clone())
    }
    /// Clusters that the control plane made, by id.
    #[must_use]
    pub fn clusters(&self) -> Vec<ClusterRecord> {
        read(&self.state).clusters.values().cloned().collect()
    }
    /// A cluster that the control plane made, by id or by a name that only one has.
    ///
    /// # Errors
    /// [`ControlError::ClusterNotFound`], [`ControlError::ClusterAmbiguous`], [`ControlError::StandaloneCluster`].
    pub fn cluster(&self, id_or_name: &str) -> Result<ClusterRecord, ControlError> {
        let state = read(&self.state);
        if self.is_standalone(id_or_name) {
            return Err(ControlError::StandaloneCluster(self.standalone.id.clone()));
        }
        if let Some(found) = state
            .clusters
            .values()
            .find(|cluster| cluster.id.as_str() == id_or_name)
        {
            return Ok(found.clone());
        }
        let named: Vec<_> = state
            .clusters
            .values()
            .filter(|cluster| cluster.name == id_or_name)
            .collect();
        match named[..] {
            [] => Err(ControlError::ClusterNotFound(shown(id_or_name))),
            [found] => Ok(found.clone()),
            _ => Err(ControlError::ClusterAmbiguous {
                name: shown(id_or_name),
                ids: named.iter().map(|cluster| cluster.id.clone()).collect(),
            }),
        }
    }
    /// Root key of a cluster's new databases that name none.
    #[must_use]
    pub fn default_key(&self, cluster: &ClusterId) -> Option<RootKeyId> {
        if *cluster == self.standalone.id {
            return self.standalone.default_key.clone();
        }
        read(&self.state)
            .clusters
            .get(cluster)
            .and_then(|record| record.default_key.clone())
    }
    /// Whether this means the server's own cluster.
    #[must_use]
    pub fn is_standalone(&self, id_or_name: &str) -> bool {
        id_or_name == self.standalone.id.as_str() || id_or_name == Self::STANDALONE_NAME
    }
    /// Notes what a cluster is to do, and who used which key if it was stopped.
    ///
    /// # Errors
    /// [`ControlError::ClusterNotFound`], [`ControlError::Store`].
    pub async fn want_cluster(
        &self,
        id: &ClusterId,
        wanted: Wanted,
        uses: Option<Vec<KeyUse>>,
    ) -> Result<ClusterRecord, ControlError> {
        let _changes = self.changes.lock().await;
        let record = self.cluster(id.as_str())?;
        self.put_cluster(ClusterRecord { wanted, uses, ..record }).await
    }
    /// Forgets a cluster whose data is gone.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub async fn forget_cluster(&self, id: &ClusterId) -> Result<(), ControlError> {
        let _changes = self.changes.lock().await;
        self.save::<ClusterRecord>(CLUSTER, id.as_str(), None).await?;
        self.write().clusters.remove(id);
        Ok(())
    }

    async fn put_cluster(&self, record: ClusterRecord) -> Result<ClusterRecord, ControlError> {
        self.save(CLUSTER, record.id.as_str(), Some(&record)).await?;
        self.write().clusters.insert(record.id.clone(), record.clone());
        Ok(record)
    }
}
