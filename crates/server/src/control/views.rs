//! Clusters and keys as people see them, and as JSON.

use std::{net::SocketAddr, sync::Arc};

use saker_control::{ClusterId, KeyUser, Place, ProjectId, RegisteredKey};
use saker_engine::{KeyStatus, LockStatus};
use saker_keyring::{KeyProvider, RootKeyId};
use serde_json::{Value, json};

use crate::{node::Node, rest::key_json};

/// A cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterView {
    pub(crate) id: ClusterId,
    pub(crate) name: String,
    pub(crate) project: ProjectId,
    /// Whether it is the server's own.
    pub(crate) standalone: bool,
    pub(crate) state: ClusterState,
    pub(crate) listen: SocketAddr,
    /// Whether it is reached over TLS.
    pub(crate) secure: bool,
    pub(crate) place: Place,
    pub(crate) default_key: Option<RootKeyId>,
    /// `None` while it does not run.
    pub(crate) databases: Option<usize>,
    /// `None`: as old as the server's data.
    pub(crate) created_ms: Option<u64>,
}

/// What a cluster does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClusterState {
    Running,
    /// It should run and will be started.
    Starting,
    /// It should run and cannot.
    Failed(String),
    Stopped,
    Dropping,
}

impl ClusterView {
    pub(crate) fn json(&self) -> Value {
        let (state, reason) = match &self.state {
            ClusterState::Running => ("running", None),
            ClusterState::Starting => ("starting", None),
            ClusterState::Failed(reason) => ("failed", Some(reason)),
            ClusterState::Stopped => ("stopped", None),
            ClusterState::Dropping => ("dropping", None),
        };
        json!({
            "id": self.id,
            "name": self.name,
            "projectId": self.project,
            "standalone": self.standalone,
            "state": state,
            "reason": reason,
            "uri": format!("{}://{}", if self.secure { "https" } else { "http" }, self.listen),
            "port": self.listen.port(),
            "provider": self.place.provider.map(KeyProvider::as_str),
            "region": self.place.region,
            "defaultKey": self.default_key,
            "databases": self.databases,
            "createdAtMs": self.created_ms,
        })
    }
}

/// A registered key: what is known of it, and what the clusters that use it say.
#[derive(Clone, Debug)]
pub(crate) struct KeyView {
    pub(crate) key: RegisteredKey,
    pub(crate) users: Vec<KeyUser>,
    /// What each cluster that has something under it last heard.
    pub(crate) states: Vec<(Arc<Node>, KeyStatus)>,
}

impl KeyView {
    pub(crate) fn json(&self) -> Value {
        // The worst that any cluster heard: one that is locked somewhere needs a look.
        let worst = self
            .states
            .iter()
            .map(|(_, status)| status)
            .max_by_key(|status| rank(&status.lock));
        let (state, reason) = worst.map_or(("idle", None), |status| word(&status.lock));
        let clusters: Vec<Value> = self
            .states
            .iter()
            .map(|(node, status)| {
                let mut shown = key_json(node, status);
                shown["clusterId"] = json!(node.membership.cluster);
                shown
            })
            .collect();
        let users: Vec<Value> = self
            .users
            .iter()
            .map(|user| {
                json!({
                    "clusterId": user.cluster,
                    "clusterName": user.cluster_name,
                    "database": user.database,
                    "collection": user.collection,
                    "asDefaultKey": user.database.is_none(),
                })
            })
            .collect();
        json!({
            "key": self.key.root,
            "provider": self.key.root.provider().as_str(),
            "region": self.key.root.region(),
            "roleArn": self.key.role_arn,
            "registeredAtMs": self.key.registered_ms,
            "state": state,
            "reason": reason,
            "lastProbeAtMs": self.states.iter().filter_map(|(_, status)| status.probed_at_ms).max(),
            "nextProbeAtMs": self.states.iter().filter_map(|(_, status)| status.next_probe_ms).min(),
            "calls": self.states.iter().map(|(node, status)| node.audit.calls_of(&status.root)).sum::<u64>(),
            "usedBy": users,
            "clusters": clusters,
        })
    }
}

const fn rank(lock: &LockStatus) -> u8 {
    match lock {
        LockStatus::Active => 0,
        LockStatus::Suspect => 1,
        LockStatus::Locked { .. } => 2,
    }
}

fn word(lock: &LockStatus) -> (&'static str, Option<&str>) {
    match lock {
        LockStatus::Active => ("active", None),
        LockStatus::Suspect => ("suspect", None),
        LockStatus::Locked { reason } => ("locked", Some(reason)),
    }
}
