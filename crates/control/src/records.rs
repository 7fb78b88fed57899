//! What is stored, each as JSON inside a seal: one value a project (with its keys), a cluster, an API key.

use std::net::SocketAddr;

use saker_keyring::RootKeyId;
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ClusterId, Place, ProjectId};

/// A project: who owns clusters and keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// Its name, unique among projects.
    pub name: String,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// What the customer's roles ask Saker for, so that nobody else can make Saker use them; constant.
    pub external_id: String,
    /// Root keys that its databases may go under, in order of registration.
    pub keys: Vec<RegisteredKey>,
}

/// A root key registered with a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredKey {
    /// The key.
    pub root: RootKeyId,
    /// AWS role that Saker takes on to use it; `None`: Saker's own identity.
    pub role_arn: Option<String>,
    /// When it was registered, after it had been tried; Unix time in milliseconds.
    pub registered_ms: u64,
}

/// A cluster of its own port and storage, run by this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its id.
    pub id: ClusterId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its name, unique in its project.
    pub name: String,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// Where it answers.
    pub listen: SocketAddr,
    /// Where its keys may be.
    pub place: Place,
    /// Root key of new databases that name none.
    pub default_key: Option<RootKeyId>,
    /// What it is to do.
    pub wanted: Wanted,
    /// Who used which key when it was stopped: what is known without opening it. `None`: it is to run, or was stopped
    /// while nobody could look.
    #[serde(default)]
    pub uses: Option<Vec<KeyUse>>,
}

/// What a cluster is to do, over restarts of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// Answer.
    Running,
    /// Keep its data and not answer.
    Stopped,
    /// Be gone, with its data; what a crash left of that is finished at the next start.
    Dropped,
}

/// A database or collection under a root key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyUse {
    /// The key.
    pub root: RootKeyId,
    /// The database.
    pub database: String,
    /// The collection, if it has a key of its own.
    pub collection: Option<String>,
}

/// What an API key may be used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// One project: its keys and clusters.
    Project(ProjectId),
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiKeyRecord {
    pub(crate) id: ApiKeyId,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) created_ms: u64,
    /// SHA-256 of the secret, in hex. The secret has 256 random bits, so no slow hash is needed.
    pub(crate) secret_sha256: String,
}
